"""Make DVC, in this process, write nothing outside its outputs, whatever a cache or a remote names.

Listings of a folder's files, their digests and runs filed in the cache come from places that others can write to. DVC
joins their names to a path unchecked, so that `../atlas/share.py` in a listing of maps would be run as code at the next
start. Plain `dvc` is not guarded.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from dvc.stage import Stage
from dvc.stage.cache import StageCache
from dvc_data.hashfile.db.local import LocalHashFileDB
from dvc_data.hashfile.tree import Tree
from dvc_objects.db import ObjectDB

from atlas.cache.recorded import AGAIN, check
from atlas.study.errors import UserError

# Functions of the same name hide these modules from `from ... import`.
_of_output: Any = import_module("dvc_data.hashfile.checkout")
_of_index: Any = import_module("dvc_data.index.checkout")
# Classes whose functions are replaced.
_tree: Any = Tree
_objects: Any = ObjectDB
_local_objects: Any = LocalHashFileDB
_read, _load, _run = _tree.from_list.__func__, _tree.load.__func__, StageCache._load
_lay_out, _apply = _of_output._checkout, _of_index.apply
_object, _local_object = ObjectDB.oid_to_path, LocalHashFileDB.oid_to_path

# For a folder that cannot be read, DVC reports a missing one; what was refused must be reported all the same.
REFUSED: list[UserError] = []


def guard() -> None:
    """Refuse, in all that DVC does in this process, a path that leaves an output, or a digest that is a path."""
    _tree.from_list, _tree.load = classmethod(_listing), classmethod(_listing_of)
    StageCache._load = _filed
    _objects.oid_to_path, _local_objects.oid_to_path = _place_of, _local_place_of
    _of_output._checkout, _of_index.apply = _laid_out, _applied


def _listing(cls: type[Tree], entries: list[dict], *rest: Any, **how: Any) -> Tree:
    names: list[Any] = [one.get("relpath") for one in entries]
    check(names)
    return _read(cls, entries, *rest, **how)


def _listing_of(cls: type[Tree], odb: ObjectDB, hash_info: Any, *rest: Any, **how: Any) -> Tree:
    try:
        return _load(cls, odb, hash_info, *rest, **how)
    except UserError as problem:
        refused = UserError(f"{odb.oid_to_path(hash_info.value)}: {problem}")
        REFUSED.append(refused)
        raise refused from None


def _filed(self: StageCache, stage: Stage) -> dict | None:
    """Return a run of a stage that is filed in the cache, after checking that its outputs are those of the stage."""
    found = _run(self, stage)
    due = {out.def_path for out in stage.outs}
    for out in (found or {}).get("outs", []):
        if out["path"] not in due:
            raise UserError(
                f"{self.cache_dir}: a run of {stage.addressing} is filed with the output {out['path']!r}; "
                f"expected {', '.join(sorted(due))}: delete that folder"
            )
    return found


def _place_of(self: ObjectDB, oid: str) -> str:
    return _object(self, _digest(oid))


def _local_place_of(self: LocalHashFileDB, oid: str) -> str:
    return _local_object(self, _digest(oid))


def _digest(oid: str) -> str:
    if "/" in oid or ".." in oid:
        raise UserError(f"a file in DVC's cache or remote is named by the digest {oid!r}; expected hexadecimal digits")
    return oid


def _laid_out(diff: Any, path: str, *rest: Any, **how: Any) -> Any:
    """Lay out an output, after checking its paths."""
    keys = [change.new.key for change in (*diff.added, *diff.modified)]
    _inside(Path(path), [key for key in keys if key not in ((), _of_output.ROOT)])
    return _lay_out(diff, path, *rest, **how)


def _applied(diff: Any, path: str, *rest: Any, **how: Any) -> None:
    """Lay out what a pull fetched; DVC's index of listings may be older than this check of them."""
    outputs = set(diff.new.storage_map) if diff.new is not None else set()
    inside: dict[tuple, list[tuple]] = {}
    for entry in (*diff.files_create, *diff.dirs_create):
        for depth in range(1, len(entry.key)):
            if entry.key[:depth] in outputs:
                inside.setdefault(entry.key[:depth], []).append(entry.key[depth:])
    for output, keys in inside.items():
        _inside(Path(path, *output), keys)
    return _apply(diff, path, *rest, **how)


def _inside(output: Path, keys: list[tuple[str, ...]]) -> None:
    """Check that the files of an output lie in it: no `..` in a path, and no folder on the way is a link."""
    for key in keys:
        check(["/".join(key)])
    folders = {output, *(output.joinpath(*key[:depth]) for key in keys for depth in range(1, len(key)))}
    for folder in sorted(folders):
        if folder.is_symlink():
            raise UserError(f"{folder}: a link to {folder.resolve()}; expected a folder: delete the link; {AGAIN}")
