"""Make DVC look at each path once for all stages: it digests a path again for each stage that names it.

DVC's own functions say what the digest of a file is, what is ignored, and what is in the cache. Here the digest of a
folder is put together from those of its files; of a folder with anything out of the ordinary DVC makes it. What all
stages read is locked together, and params.yaml is parsed once.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from hashlib import md5
from typing import TYPE_CHECKING, Any

from dvc import rwlock
from dvc.dependency import param
from dvc.output import Output
from dvc_data.fsutils import _localfs_info
from dvc_data.hashfile.build import DefaultIgnoreFile, _get_hashes
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.obj import HashFile

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
    """Something out of the ordinary, which is left to DVC."""


class Digests:
    """The digests of files and folders, each looked at once.

    Args:
        repo: The repository: what it ignores, and the digests that it knows.
    """

    def __init__(self, repo: "Repo"):
        self._repo = repo
        self._files: dict[str, tuple[Meta, HashInfo]] = {}  # by path
        self._listings: dict[str, tuple[list[str], list[str]]] = {}  # by folder: its folders and files
        self._below: dict[
            str, tuple[dict[str, str | None], int]
        ] = {}  # by folder: digests of the files below it, their bytes
        self._made: dict[str, tuple[Meta, HashInfo]] = {}

    def of(self, output: Output) -> tuple[Meta, HashInfo]:
        """Return what DVC says of an output or dependency: its size and digest.

        Raises:
            Odd: DVC is to say it.
        """
        path = output.fs_path
        if output.protocol != "local" or output.hash_name != MD5:
            raise Odd
        if path not in self._made:
            self._made[path] = self._folder(path) if os.path.isdir(path) else self._file(path)
        return self._made[path]

    def _folder(self, path: str) -> tuple[Meta, HashInfo]:
        self._look([*self._new(path)])
        below, size = self._all(path)
        if not below:
            raise Odd
        listed = [{MD5: digest, "relpath": name} for name, digest in sorted(below.items())]
        digest = md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()
        return Meta(size=size, nfiles=len(below), isdir=True), HashInfo(MD5, f"{digest}.dir")

    def _file(self, path: str) -> tuple[Meta, HashInfo]:
        if not os.path.isfile(path):
            raise Odd
        self._look([path])
        return self._files[path]

    def _listing(self, folder: str) -> tuple[list[str], list[str]]:
        """Return a folder's folders, in which DVC looks, and its files, without what it ignores."""
        if folder not in self._listings:
            _, folders, files = next(self._repo.dvcignore.walk(self._repo.fs, folder), ("", [], []))
            if DefaultIgnoreFile in files:
                raise Odd
            whole = [name for name in folders if not os.path.islink(f"{folder}{os.sep}{name}")]
            self._listings[folder] = whole, files
        return self._listings[folder]

    def _new(self, folder: str) -> Iterator[str]:
        """Yield the files below a folder, without those of folders of which all is known."""
        if folder not in self._below:
            folders, files = self._listing(folder)
            for name in files:
                yield f"{folder}{os.sep}{name}"
            for name in folders:
                yield from self._new(f"{folder}{os.sep}{name}")

    def _look(self, paths: list[str]) -> None:
        """Digest files, or take their digests from DVC's state."""
        new = {path: _localfs_info(path) for path in paths if path not in self._files}
        found = _get_hashes(list(new), self._repo.fs, MD5, new, state=self._repo.state) if new else {}
        self._files |= {path: (meta, digest) for path, (meta, digest, _) in found.items()}

    def _all(self, folder: str) -> tuple[dict[str, str | None], int]:
        """Return the digests of all files below a folder, by their paths from there, and their bytes."""
        if folder not in self._below:
            folders, files = self._listing(folder)
            known = {name: self._files[f"{folder}{os.sep}{name}"] for name in files}
            below = {name: digest.value for name, (_, digest) in known.items()}
            size = sum(meta.size or 0 for meta, _ in known.values())
            for one in folders:
                inside, more = self._all(f"{folder}{os.sep}{one}")
                below |= {f"{one}/{name}": digest for name, digest in inside.items()}
                size += more
            self._below[folder] = below, size
        return self._below[folder]


@contextmanager
def look_once(repo: "Repo") -> Iterator[None]:
    """Make DVC, inside the `with` block, look at each path once; of what it looks at, nothing may change meanwhile.

    Outputs that it records, and files whose digests are not DVC's usual ones, are left to DVC.
    """
    digests, known = Digests(repo), {}
    get_hash, build, read_param_file = _output.get_hash, _output._build, _param.read_param_file

    def digest(self: Output) -> HashInfo:
        try:
            return digests.of(self)[1]
        except Odd:
            return get_hash(self)

    def built(self: Output, *given: Any, **how: Any) -> tuple[Any, Meta, HashFile]:
        try:
            if not how.get("dry_run"):
                return build(self, *given, **how)
            meta, found = digests.of(self)
            return None, meta, HashFile(self.fs_path, self.fs, found)
        except Odd:
            return build(self, *given, **how)

    def values(fs: Any, path: str, names: list[str] | None = None, flatten: bool = False, **how: Any) -> Any:
        if not names or not flatten or how:
            return read_param_file(fs, path, names, flatten, **how)
        if path not in known:
            known[path] = read_param_file(fs, path)
        found = {name: _value(known[path], name) for name in names}
        if None in found.values():  # absent, or a name for which DVC searches
            return read_param_file(fs, path, names, flatten)
        return deepcopy(found)  # of objects that two stages share, dvc.lock would say so

    _output.get_hash, _output._build, _param.read_param_file = digest, built, values
    try:
        yield
    finally:
        _output.get_hash, _output._build, _param.read_param_file = get_hash, build, read_param_file


@contextmanager
def lock_together(repo: "Repo") -> Iterator[None]:
    """Lock what all stages read, inside the `with` block, for reading; DVC would lock it stage by stage."""
    lock, hardlink = _rwlock.rwlock, repo.config["core"].get("hardlink_lock", False)
    paths = sorted({one.fs_path for stage in repo.index.stages for one in (*stage.deps, *stage.outs)})
    with lock(repo.tmp_dir, repo.fs, " ".join(sys.argv), paths, [], hardlink):
        _rwlock.rwlock = lambda *given: nullcontext()
        try:
            yield
        finally:
            _rwlock.rwlock = lock


def _value(values: Any, name: str) -> Any:
    """Return the value of a plain name in params.yaml; None if there is none, or DVC is to search for it."""
    if not PLAIN.fullmatch(name):
        return None
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values
