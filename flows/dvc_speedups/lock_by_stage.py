"""Read and write dvc.lock stage by stage, in DVC's format: DVC itself parses and writes the whole file for every cell.

That takes up to seconds of pure Python per cell. A file in any other format is left to DVC.
"""

import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml

from flows.dvc_patches.whole_lock import replace

HEAD = "schema: '2.0'\nstages:\n"
# A YAML anchor (&id001) or alias (*id001) of a mapping or list; DVC numbers anchors in the order of their first alias.
ANCHOR = re.compile(r"(?m)^(.*(?:: |- ))([&*])(id\d+)(?= \[\]$| \{\}$|$)")

_lockfile: Any = Lockfile  # whose functions are replaced
_load_whole, _dump_whole = Lockfile._load_yaml, Lockfile.dump_stages


@contextmanager
def lock_by_stage() -> Iterator[None]:
    """Make DVC, inside the `with` block, read and write the lock stage by stage."""
    _lockfile._load_yaml, _lockfile.dump_stages = _load, _dump
    try:
        yield
    finally:
        _lockfile._load_yaml, _lockfile.dump_stages = _load_whole, _dump_whole


def cut(text: str) -> list[str] | None:
    """Cut the text of a lock into its stages; None if it is not in DVC's format."""
    head, *blocks = re.split(r"(?m)^(?=  \S)", text)
    whole = head == HEAD and not any(re.search(r"(?m)^\S|\n\n", block) for block in blocks)
    return blocks if whole and text.endswith("\n") else None


def formatted(stages: dict[str, Any]) -> str:
    """Format stages as they are written in a lock."""
    return dumps_yaml({"stages": stages}).removeprefix("stages:\n")


def put(blocks: list[str], block: str) -> str | None:
    """Replace the stage of the same name, or append the stage; None if the lock is not in DVC's format."""
    name = block[: block.index("\n") + 1]
    places = [i for i, one in enumerate(blocks) if one.startswith(name)]
    changed = [*blocks[: places[0]], block, *blocks[places[0] + 1 :]] if places else [*blocks, block]
    try:
        return HEAD + "".join(_numbered(changed))
    except KeyError:  # an alias whose anchor is in another stage
        return None


def _numbered(blocks: list[str]) -> list[str]:
    count = 0
    numbered = []
    for block in blocks:
        names: dict[str, str] = {}
        for _, mark, name in ANCHOR.findall(block):
            if mark == "*" and name not in names:
                count += 1
                names[name] = f"id{count:03}"
        numbered.append(ANCHOR.sub(partial(_renumbered, names), block))
    return numbered


def _renumbered(names: dict[str, str], found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}{names[found[3]]}"


@lru_cache(1024)
def _parsed(block: str) -> bytes:
    found = parse_yaml(HEAD + block, "dvc.lock")
    Lockfile.SCHEMA(found)
    return pickle.dumps(found["stages"])


def _load(self: Lockfile, **options: Any) -> tuple[Any, str]:
    with self.repo.fs.open(self.path, encoding="utf-8") as file:
        text = file.read()
    blocks = cut(text)
    if options or blocks is None:
        return _load_whole(self, **options)
    try:
        stages = [pickle.loads(_parsed(block)) for block in blocks]
    except Exception:  # DVC's own message is better
        return _load_whole(self)
    return {"schema": "2.0", "stages": {name: content for stage in stages for name, content in stage.items()}}, text


def _dump(self: Lockfile, stages: list, **options: Any) -> None:
    text = HEAD
    if self.repo.fs.exists(self.path):
        with self.repo.fs.open(self.path, encoding="utf-8") as file:
            text = file.read()
    changed: str | None = text
    for stage in stages:
        blocks = None if changed is None else cut(changed)
        changed = None if blocks is None else put(blocks, formatted(to_lockfile(stage, **options)))
    if changed is None:
        _dump_whole(self, stages, **options)
    elif changed != text:
        replace(Path(self.path), changed)
        self.repo.scm_context.track_file(self.relpath)
