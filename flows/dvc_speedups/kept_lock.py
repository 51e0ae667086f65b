"""Keep what dvc.lock says in .atlas/lock.json, stage by stage: DVC parses all of a file of up to 100,000 lines.

A stage is known by its text, and was checked by DVC's schema before it was kept. A file in any other format than DVC's
is left to DVC.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.utils.serialize._yaml import parse_yaml

from flows.dvc_patches.whole_lock import replace
from flows.dvc_speedups.lock_by_stage import HEAD, cut

ALIAS = re.compile(r"[\s\[{,]\*(\w+)")
DIGEST = 16  # bytes

_lockfile: Any = Lockfile  # whose function is replaced


@contextmanager
def kept_lock(study: Path) -> Iterator[None]:
    """Make DVC, inside the `with` block, parse of a study's dvc.lock only the stages that are not kept."""
    kept, as_dvc = study.resolve() / ".atlas" / "lock.json", Lockfile._load_yaml

    def load(self: Lockfile, **options: Any) -> tuple[Any, str]:
        with self.repo.fs.open(self.path, encoding="utf-8") as file:
            text = file.read()
        blocks = cut(text)
        if options or blocks is None or not all(map(_alone, blocks)):
            return as_dvc(self, **options)
        try:
            return {"schema": "2.0", "stages": _stages(blocks, kept)}, text
        except Exception:  # DVC's own message is better
            return as_dvc(self)

    _lockfile._load_yaml = load
    try:
        yield
    finally:
        _lockfile._load_yaml = as_dvc


def _stages(blocks: list[str], kept: Path) -> dict[str, Any]:
    """Return the content of each stage, of those that are not kept by parsing them; keep exactly these."""
    known = _read(kept)
    named = {blake2b(block.encode(), digest_size=DIGEST).hexdigest(): block for block in blocks}
    stages = {name: known[name] for name in named if name in known}
    if new := {name: block for name, block in named.items() if name not in known}:
        found = parse_yaml(HEAD + "".join(new.values()), "dvc.lock")
        Lockfile.SCHEMA(found)
        parsed = [{name: content} for name, content in found["stages"].items()]
        stages |= dict(zip(new, parsed, strict=True))
    if new or len(known) > len(named):
        kept.parent.mkdir(exist_ok=True)
        replace(kept, json.dumps({name: stage for name, stage in stages.items() if _is_json(stage)}))
    return {name: content for one in named for name, content in stages[one].items()}


def _alone(block: str) -> bool:
    """Return whether a stage's text refers to nothing that is in another's."""
    return all(f"&{found[1]}" in block[: found.start()] for found in ALIAS.finditer(block))


def _read(kept: Path) -> dict[str, Any]:
    try:
        known = json.loads(kept.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _is_json(stage: Any) -> bool:
    """Return whether JSON keeps all of a stage: keys that are no text, and dates, would not come back."""
    try:
        return json.loads(json.dumps(stage)) == stage
    except (TypeError, ValueError):
        return False
