"""Find the output that dvc.lock records for a cell in DVC's cache, and lay it out as links.

A listing (DVC's `.dir` file) comes from a cache or a remote that others write to: its paths are checked before use.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import yaml

from atlas.cache import remote
from atlas.study.errors import UserError

OBJECT = re.compile(r"[0-9a-f]{32}")
AGAIN = "nothing of it was laid out: delete the listing, and fetch it again from where it was made"


def recorded(
    folder: Path, cell: str, output: Path | None, place: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Lay out the output that dvc.lock records for a cell as links into DVC's cache; nothing if none is recorded.

    Args:
        folder: The folder of params.yaml.
        cell: The cell's name.
        output: The path of the output; None: the first output that the lock records for the cell.
        place: Where to lay it out; what is there is deleted.
        wanted: Returns whether a file of the output is fetched at once, if it is not in the cache and rows are pulled
            from the remote. Links to the other files are dangling.

    Raises:
        UserError: the listing names a path outside the output, or something that is no file of the cache.
    """
    cleared(place)
    found = listed(folder, cell, output)
    if remote.pulling():
        fetch(folder, [file for name, file in found.items() if wanted(name)])
    for relative, file in found.items():
        link = place / relative
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return place


def fetch(folder: Path, files: Iterable[Path]) -> None:
    """Fetch missing files of DVC's cache, given by their paths in it, from the remote."""
    missing = [file for file in files if not file.exists()]
    if missing:
        remote.fetch(folder, missing[0].parents[1], [file.parent.name + file.name for file in missing])


def listed(folder: Path, cell: str, output: Path | None) -> dict[str, Path]:
    """Return the files of the output that dvc.lock records for a cell: path in the output -> path in DVC's cache.

    Raises:
        UserError: the listing names a path outside the output, or something that is no file of the cache.
    """
    md5 = listing_of(folder, cell, output)
    if md5 is None:
        return {}
    objects = cache(folder)
    place = remote.place(objects, md5)
    if remote.pulling() and not place.exists():
        listings = folder / ".atlas" / "listings"
        remote.fetch(folder, listings, [md5])
        place = remote.place(listings, md5)
    try:
        entries = [(item["relpath"], item["md5"]) for item in json.loads(place.read_text())]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return {}  # not in the cache, or not a listing
    try:
        check(name for name, _ in entries)
        return {name: _file(objects, name, md5) for name, md5 in entries}
    except UserError as problem:
        raise UserError(f"{place}: {problem}") from None


def renamed_cells(folder: Path, verb: str, named: dict[str, dict[str, Iterable[str]]]) -> list[str]:
    """Return the recorded cells of a verb that params.yaml no longer has in that form: their rows may have moved.

    These are cells that params.yaml no longer names (a family or classifier was renamed) and cells whose family held a
    method that is gone. DVC keeps both in the lock, and the files of their outputs in its cache until garbage
    collection.

    Args:
        folder: The folder of params.yaml.
        verb: The stage's name.
        named: The current cells, each with the sections of params.yaml that it depends on and their entries.
    """
    try:
        text = (folder / "dvc.lock").read_text()
    except OSError:
        return []
    cells = re.findall(rf"(?m)^  ({re.escape(verb)}@[^\s:]+):$", text)
    return [cell for cell in cells if cell not in named or _had_more(_stage(text, cell), cell, named[cell])]


def _had_more(block: str, cell: str, named: dict[str, Iterable[str]]) -> bool:
    """Return whether a section that a stage depends on has lost entries since it was recorded."""
    try:
        params = _parsed(block)["stages"][cell]["params"]["params.yaml"]
        return any(set(params[section]) - set(entries) for section, entries in named.items())
    except (KeyError, TypeError, yaml.YAMLError):
        return False


def listing_of(folder: Path, cell: str, output: Path | None) -> str | None:
    """Return the digest of the listing, as recorded in dvc.lock, by which DVC's cache holds a cell's output."""
    try:
        text = (folder / "dvc.lock").read_text()
        outs = _parsed(_stage(text, cell))["stages"][cell]["outs"]
        relative = output and output.relative_to(folder).as_posix()
        md5 = next(out["md5"] for out in outs if relative in (None, out["path"]))
        return md5 if OBJECT.fullmatch(md5.removesuffix(".dir")) else None
    except (OSError, KeyError, TypeError, AttributeError, StopIteration, ValueError, yaml.YAMLError):
        return None  # nothing recorded, or another process is writing dvc.lock just now


def _can_be(part: str) -> bool:
    """Return whether a file can have a name: no NUL, no half of a surrogate pair, at most 255 bytes."""
    try:
        return "\0" not in part and len(part.encode()) <= 255
    except UnicodeEncodeError:
        return False


def check(names: Iterable[str]) -> None:
    """Check that the files of a listing lie inside its folder and that no two conflict.

    Args:
        names: Paths, relative to the folder, with `/` between their parts.

    Raises:
        UserError: a path is absolute, leaves the folder, is empty, is none that a file system can have, occurs twice,
            or is both a file and a folder.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for name in names:
        parts = name.split("/") if isinstance(name, str) else [""]
        if {"", ".", ".."} & set(parts) or not all(map(_can_be, parts)):
            raise UserError(f"the listing names the file {name!r}; expected a path inside its folder; {AGAIN}")
        if name in files:
            raise UserError(f"the listing names the file {name!r} twice; expected once; {AGAIN}")
        files.add(name)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if both := files & folders:
        raise UserError(f"the listing names {min(both)!r} as a file and as a folder; expected one of them; {AGAIN}")


def cleared(place: Path) -> None:
    """Delete a folder of the scratch; if a link stands in its place, delete the link and not its target."""
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)


def cache(folder: Path) -> Path:
    """Return where DVC keeps tracked files, from its configuration files: system, global, repository, local.

    Raises:
        UserError: the study is in no DVC repository, or its configuration cannot be read.
    """
    dvc = import_module("dvc.config")  # imported by name, so that DVC's version is in no key
    folders = [folder.resolve(), *folder.resolve().parents]
    root = next((one / ".dvc" for one in folders if (one / ".dvc").is_dir()), None)
    if root is None:
        raise UserError(f"{folder.resolve()}: in no repository of DVC (no folder .dvc here or above); run `dvc init`")
    try:
        config = dvc.Config(str(root))
    except (dvc.ConfigError, SyntaxError) as error:  # SyntaxError: `%(name)s` with an unknown name
        raise UserError(f"{root / 'config'}: {' '.join(str(error).split())}") from None
    named = config["cache"].get("local")
    given = config["remote"].get(named, {}).get("url") if named else config["cache"].get("dir")
    return (Path(given or root / "cache") / "files" / "md5").resolve()


def _stage(lock: str, cell: str) -> str:
    """Cut one stage out of a lock file, by DVC's formatting: parsing all of it takes half a second."""
    head = "schema: '2.0'\nstages:\n"
    found = re.search(rf"(?m)^  {re.escape(cell)}:\n(?:   .*\n)+", lock) if lock.startswith(head) else None
    return head + found.group() if found else "" if lock.startswith(head) else lock


def _parsed(lock: str) -> dict:
    return yaml.load(lock, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _file(objects: Path, name: str, md5: object) -> Path:
    if not isinstance(md5, str) or not OBJECT.fullmatch(md5):
        raise UserError(
            f"the listing gives the file {name!r} the digest {md5!r}; expected 32 hexadecimal digits; {AGAIN}"
        )
    file = remote.place(objects, md5)
    if file.is_symlink() and not file.resolve().is_relative_to(objects):
        raise UserError(f"the file {name!r} is in DVC's cache a link out of it, {file}; expected a file; {AGAIN}")
    return file
