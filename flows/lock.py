"""Read and write dvc.lock stage by stage, in DVC's format: DVC itself parses and writes the whole file for every cell.

That takes seconds of pure Python per cell. A file in any other format is left to DVC.
"""

import os
import pickle
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml

HEAD = "schema: '2.0'\nstages:\n"
# A YAML anchor (&id001) or alias (*id001) of a mapping or list; DVC numbers anchors in the order of their first alias.
ANCHOR = re.compile(r"(?m)^(.*(?:: |- ))([&*])(id\d+)(?= \[\]$| \{\}$|$)")


def patch() -> None:
    """Make DVC, in this process, read and write the lock stage by stage."""
    Lockfile._load_yaml = _load
    Lockfile.dump_stages = _dump


def cut(text: str) -> list[str] | None:
    """Cut the text of a lock into its stages; None if it is not in DVC's format."""
    head, *blocks = re.split(r"(?m)^(?=  \S)", text)
    whole = head == HEAD and not any(re.search(r"(?m)^\S|\n\n", block) for block in blocks)
    return blocks if whole and text.endswith("\n") else None


def spelled(stages: dict[str, Any]) -> str:
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


_load_whole, _dump_whole = Lockfile._load_yaml, Lockfile.dump_stages


def _load(self: Lockfile, **how: Any) -> tuple[Any, str]:
    with self.repo.fs.open(self.path, encoding="utf-8") as file:
        text = file.read()
    blocks = cut(text)
    if how or blocks is None:
        return _load_whole(self, **how)
    try:
        stages = [pickle.loads(_parsed(block)) for block in blocks]
    except Exception:  # DVC's own message is better
        return _load_whole(self)
    return {"schema": "2.0", "stages": {name: told for stage in stages for name, told in stage.items()}}, text


def _whole(self: Lockfile, text: str, stage: Any, **how: Any) -> str:
    """Let DVC put a stage into a copy of a lock that is not in its usual format."""
    copied = Path(f"{self.path}.copy.partial")
    copied.write_text(text, encoding="utf-8")
    path, self.path = self.path, str(copied)
    try:
        _dump_whole(self, [stage], **how)
        return copied.read_text(encoding="utf-8")
    finally:
        self.path = path
        copied.unlink(missing_ok=True)


def _dump(self: Lockfile, stages: list, **how: Any) -> None:
    for stage in stages:
        text = HEAD
        if self.repo.fs.exists(self.path):
            with self.repo.fs.open(self.path, encoding="utf-8") as file:
                text = file.read()
        blocks = cut(text)
        changed = None if blocks is None else put(blocks, spelled(to_lockfile(stage, **how)))
        if changed is None:
            changed = _whole(self, text, stage, **how)
        partial = Path(f"{self.path}.partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(changed)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)  # a process killed here must leave either the old lock or the new one
        if changed != text:
            self.repo.scm_context.track_file(self.relpath)
