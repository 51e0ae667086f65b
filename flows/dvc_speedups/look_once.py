"""Make DVC look at each path once for all stages: it digests a path again for each stage that names it.

What a path's digest is, and whether it is in the cache, is for DVC's functions to say, of each file, and for DVC's rules
of what it ignores. Put together here, of digests that are known, is the digest of a folder; of a folder with anything
out of the ordinary DVC makes it. params.yaml is parsed once, and the paths of all stages are locked together.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import md5
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dvc import rwlock
from dvc.dependency import param
from dvc.output import Output
from dvc_data.fsutils import _localfs_info
from dvc_data.hashfile.build import DefaultIgnoreFile, _get_hashes
from dvc_data.hashfile.hash_info import HashInfo

if TYPE_CHECKING:
    from dvc.repo import Repo

# A name in params.yaml as most are; of others DVC looks for all that match.
PLAIN = re.compile(r"\w+(\.\w+)*")
MD5 = "md5"

# Modules and classes whose functions are replaced.
_output: Any = Output
_param: Any = param
_rwlock: Any = rwlock


class Odd(Exception):
    """A folder whose digest DVC is to make."""


class Digests:
    """The digests of files and folders, each looked at once.

    Args:
        repo: The repository: what it ignores, and the digests that it knows.
    """

    def __init__(self, repo: "Repo"):
        self._repo = repo
        self._files: dict[str, str] = {}  # by path
        self._listings: dict[str, tuple[list[str], list[str]]] = {}  # by folder: its folders and files
        self._below: dict[str, dict[str, str]] = {}  # by folder: the digests of files below it
        self._made: dict[str, HashInfo] = {}

    def of(self, path: str) -> HashInfo:
        """Return the digest of a file or folder.

        Raises:
            Odd: it is no folder with files, and no file.
        """
        if path not in self._made:
            if os.path.isdir(path):
                self._digest(list(self._new(path)))
                listed = [{MD5: digest, "relpath": name} for name, digest in sorted(self._all(path).items())]
                if not listed:
                    raise Odd(path)
                value = f"{md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"
            elif os.path.isfile(path):
                self._digest([path])
                value = self._files[path]
            else:
                raise Odd(path)
            self._made[path] = HashInfo(MD5, value)
        return self._made[path]

    def _listing(self, folder: str) -> tuple[list[str], list[str]]:
        """Return a folder's folders, in which DVC looks, and its files, without what it ignores."""
        if folder not in self._listings:
            _, folders, files = next(self._repo.dvcignore.walk(self._repo.fs, folder), ("", [], []))
            if DefaultIgnoreFile in files:
                raise Odd(folder)
            links = [name for name in folders if os.path.islink(f"{folder}{os.sep}{name}")]
            self._listings[folder] = [name for name in folders if name not in links], files
        return self._listings[folder]

    def _new(self, folder: str) -> Iterator[str]:
        """Yield the files below a folder of which no digest is known."""
        if folder in self._below:
            return
        folders, files = self._listing(folder)
        for name in files:
            yield f"{folder}{os.sep}{name}"
        for name in folders:
            yield from self._new(f"{folder}{os.sep}{name}")

    def _digest(self, paths: list[str]) -> None:
        """Digest files, or take their digests from DVC's state."""
        new = {path: _localfs_info(path) for path in paths if path not in self._files}
        found = _get_hashes(list(new), self._repo.fs, MD5, new, state=self._repo.state) if new else {}
        self._files |= {path: known.value for path, (_, known, _) in found.items()}

    def _all(self, folder: str) -> dict[str, str]:
        """Return the digests of all files below a folder, by their paths from there."""
        if folder not in self._below:
            folders, files = self._listing(folder)
            below = {name: self._files[f"{folder}{os.sep}{name}"] for name in files}
            for one in folders:
                inside = self._all(f"{folder}{os.sep}{one}")
                below |= {f"{one}/{name}": digest for name, digest in inside.items()}
            self._below[folder] = below
        return self._below[folder]


@contextmanager
def look_once(repo: "Repo") -> Iterator[None]:
    """Make DVC, inside the `with` block, look at each path once. Nothing that it looks at may change meanwhile."""
    digests, known = Digests(repo), {}
    get_hash, read_param_file, lock = _output.get_hash, _param.read_param_file, _rwlock.rwlock

    def digest(self: Output) -> HashInfo:
        if self.protocol != "local" or self.hash_name != MD5:
            return get_hash(self)
        try:
            return digests.of(self.fs_path)
        except Odd:
            return get_hash(self)

    def values(fs: Any, path: str, names: list[str] | None = None, flatten: bool = False, **how: Any) -> Any:
        if not names or not flatten or how:
            return read_param_file(fs, path, names, flatten, **how)
        if path not in known:
            known[path] = read_param_file(fs, path)
        found = {name: _value(known[path], name) for name in names}
        if None in found.values():  # absent, or a name for which DVC searches
            return read_param_file(fs, path, names, flatten)
        return found

    paths = sorted({one.fs_path for stage in repo.index.stages for one in (*stage.deps, *stage.outs)})
    hardlink = repo.config["core"].get("hardlink_lock", False)
    _output.get_hash, _param.read_param_file = digest, values
    try:
        with lock(repo.tmp_dir, repo.fs, " ".join(sys.argv), paths, [], hardlink):
            _rwlock.rwlock = lambda *given: nullcontext()
            yield
    finally:
        _output.get_hash, _param.read_param_file, _rwlock.rwlock = get_hash, read_param_file, lock


def _value(values: Any, name: str) -> Any:
    """Return the value of a plain name in params.yaml; None if there is none, or DVC is to search for it."""
    if not PLAIN.fullmatch(name):
        return None
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
