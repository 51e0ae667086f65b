"""Read and write dvc.lock stage by stage, as DVC spells it: for each cell DVC itself parses and spells all of it anew.

That takes seconds of pure Python for every cell. What is not written as DVC writes it is left to DVC.
"""

import os
import pickle
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml

HEAD = "schema: '2.0'\nstages:\n"
# Where a mapping or a list first stands, and where it is named again; DVC numbers it where it is first named again.
ANCHOR = re.compile(r"(?m)^(.*(?:: |- ))([&*])(id\d+)(?= \[\]$| \{\}$|$)")


def patch() -> None:
    """Let DVC, in this process, read and write the lock stage by stage."""
    Lockfile._load_yaml = _load
    Lockfile.dump_stages = _dump


def cut(text: str) -> list[str] | None:
    """Cut the text of a lock into its stages; None where it is not as DVC writes it."""
    head, *blocks = re.split(r"(?m)^(?=  \S)", text)
    whole = head == HEAD and not any(re.search(r"(?m)^\S|\n\n", block) for block in blocks)
    return blocks if whole and text.endswith("\n") else None


def spelled(stages: dict[str, Any]) -> str:
    """Spell stages as they stand in a lock."""
    return dumps_yaml({"stages": stages}).removeprefix("stages:\n")


def put(blocks: list[str], block: str) -> str | None:
    """Put a stage in place of the one of its name, or at the end; None where the lock is not as DVC writes it."""
    name = block[: block.index("\n") + 1]
    places = [i for i, one in enumerate(blocks) if one.startswith(name)]
    changed = [*blocks[: places[0]], block, *blocks[places[0] + 1 :]] if places else [*blocks, block]
    try:
        return HEAD + "".join(_numbered(changed))
    except KeyError:  # a stage names what stands in another
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
        numbered.append(ANCHOR.sub(lambda found, names=names: f"{found[1]}{found[2]}{names[found[3]]}", block))
    return numbered


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
    except Exception:  # DVC says it better
        return _load_whole(self)
    return {"schema": "2.0", "stages": {name: told for stage in stages for name, told in stage.items()}}, text


def _whole(self: Lockfile, text: str, stage: Any, **how: Any) -> str:
    """Let DVC put a stage into a lock that is not as it writes it, in a copy."""
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
        partial.replace(self.path)  # a process that is killed here must leave the old lock or the new
        if changed != text:
            self.repo.scm_context.track_file(self.relpath)
