"""Read and write dvc.lock stage by stage, in DVC's format: DVC itself parses and writes the whole file for every cell.

That takes up to seconds per cell. What a stage's text says is kept in .atlas/lock.json, after DVC's schema has been
checked, so that only stages that are new are parsed. A file in any other format is left to DVC.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize._yaml import dumps_yaml, parse_yaml

from flows.dvc_patches.whole_lock import replace

HEAD = "schema: '2.0'\nstages:\n"
# A YAML anchor (&id001) or alias (*id001) of a mapping or list; DVC numbers anchors in the order of their first alias.
ANCHOR = re.compile(r"(?m)(?<=: |- )([&*])(id\d+)(?= \[\]$| \{\}$|$)")
ALIAS = re.compile(r"\*(\w+)")
DIGEST = 16  # bytes, of a stage's text

_lockfile: Any = Lockfile  # whose functions are replaced
_load_whole, _dump_whole = Lockfile._load_yaml, Lockfile.dump_stages


@contextmanager
def lock_by_stage(study: Path) -> Iterator[None]:
    """Make DVC, inside the `with` block, read and write a study's lock stage by stage."""
    kept = study.resolve() / ".atlas" / "lock.json"
    _lockfile._load_yaml = lambda self, **options: _load(self, kept, **options)
    _lockfile.dump_stages = _dump
    try:
        yield
    finally:
        _lockfile._load_yaml, _lockfile.dump_stages = _load_whole, _dump_whole


def cut(text: str) -> list[str] | None:
    """Cut the text of a lock into its stages; None if it is not in DVC's format."""
    head, *blocks = re.split(r"(?m)^(?=  \S)", text)
    whole = head == HEAD and text.endswith("\n") and not re.search(r"\n[\S\n]", text[len(HEAD) - 1 :])
    return blocks if whole else None


def formatted(stages: dict[str, Any]) -> str:
    """Format stages as they are written in a lock."""
    return dumps_yaml({"stages": stages}).removeprefix("stages:\n")


def put(blocks: list[str], *new: str) -> str | None:
    """Replace stages by those of the same names, or append them; None if the lock is not in DVC's format."""
    changed = {block[: block.index("\n")]: block for block in (*blocks, *new)}
    try:
        return HEAD + "".join(_numbered([*changed.values()]))
    except KeyError:  # an alias whose anchor is in another stage
        return None


def _numbered(blocks: list[str]) -> list[str]:
    count = 0
    numbered = []
    for block in blocks:
        names: dict[str, str] = {}
        for mark, name in ANCHOR.findall(block):
            if mark == "*" and name not in names:
                count += 1
                names[name] = f"id{count:03}"
        numbered.append(ANCHOR.sub(partial(_renumbered, names), block))
    return numbered


def _renumbered(names: dict[str, str], found: re.Match[str]) -> str:
    return f"{found[1]}{names[found[2]]}"


def _load(self: Lockfile, kept: Path, **options: Any) -> tuple[Any, str]:
    with self.repo.fs.open(self.path, encoding="utf-8") as file:
        text = file.read()
    blocks, stages = cut(text), None
    if not options and blocks is not None and all(map(_alone, blocks)):
        with suppress(Exception):  # DVC's own message is better
            stages = _stages(blocks, kept)
    return _load_whole(self, **options) if stages is None else ({"schema": "2.0", "stages": stages}, text)


def _alone(block: str) -> bool:
    """Return whether a stage's text refers to nothing that is in another's."""
    return all(f"&{found[1]}" in block[: found.start()] for found in ALIAS.finditer(block))


def _stages(blocks: list[str], kept: Path) -> dict[str, Any]:
    """Return the content of each stage, parsing those that are not kept; keep exactly these."""
    known = _read(kept)
    texts = {blake2b(block.encode(), digest_size=DIGEST).hexdigest(): block for block in blocks}
    new = {digest: text for digest, text in texts.items() if digest not in known}
    stages = {digest: known[digest] for digest in texts if digest in known}
    if new:
        found = parse_yaml(HEAD + "".join(new.values()), "dvc.lock")
        Lockfile.SCHEMA(found)
        parsed = [{name: content} for name, content in found["stages"].items()]
        fresh = dict(zip(new, parsed, strict=True))
        kept.parent.mkdir(exist_ok=True)
        replace(kept, json.dumps(stages | {digest: stage for digest, stage in fresh.items() if _is_json(stage)}))
        stages |= fresh
    content = {name: content for digest in texts for name, content in stages[digest].items()}
    if len(content) < len(blocks):
        raise ValueError("the same stage twice")
    return content


def _read(kept: Path) -> dict[str, Any]:
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _is_json(stage: Any) -> bool:
    """Return whether JSON keeps all of a stage: dates, and keys that are no text, would not come back."""
    try:
        return json.loads(json.dumps(stage)) == stage
    except (TypeError, ValueError):
        return False


def _dump(self: Lockfile, stages: list, **options: Any) -> None:
    text = HEAD
    if self.repo.fs.exists(self.path):
        with self.repo.fs.open(self.path, encoding="utf-8") as file:
            text = file.read()
    blocks = cut(text)
    new = [formatted(to_lockfile(stage, **options)) for stage in stages]
    changed = None if blocks is None else put(blocks, *new)
    if changed is None:
        _dump_whole(self, stages, **options)
    elif changed != text:
        replace(Path(self.path), changed)
        self.repo.scm_context.track_file(self.relpath)
