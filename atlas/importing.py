"""Make Python load the project's modules by their source's digest: `atlas`, `stages` and `flows` import this first.

By default, bytecode is valid if the source has the same size and modification time in seconds: after an edit within a
second of the last one, the old code would run under the new code's key. Here bytecode belongs to one source text (PEP
552).
"""

import marshal
import sys
from collections.abc import Sequence
from hashlib import blake2b
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from pathlib import Path
from types import CodeType, ModuleType

PROJECT = ("atlas", "stages", "flows")
CHECKED_BY_HASH = (0b11).to_bytes(4, "little")
# By file, the digest of the source from which the imported module was compiled.
LOADED: dict[str, bytes] = {}
# The project's modules that are being imported right now, the innermost last.
IMPORTING: list[str] = []


class Loader(SourceFileLoader):
    """Load a module from its source, or from bytecode of exactly this source."""

    def get_code(self, fullname: str) -> CodeType:
        """Return a module's code."""
        path = self.get_filename(fullname)
        source = self.get_data(path)
        LOADED[path] = blake2b(source).digest()
        header, cached = MAGIC_NUMBER + CHECKED_BY_HASH + source_hash(source), cache_from_source(path)
        try:
            kept = self.get_data(cached)
            if kept.startswith(header):
                return marshal.loads(kept[len(header) :])
        except (OSError, EOFError, ValueError, TypeError):
            pass  # missing or damaged bytecode
        code = self.source_to_code(source, path)
        if not sys.dont_write_bytecode:
            self.set_data(cached, header + marshal.dumps(code))
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's top level, and register meanwhile that it is being imported."""
        IMPORTING.append(module.__name__)
        try:
            super().exec_module(module)
        finally:
            IMPORTING.pop()


class Finder(MetaPathFinder):
    """Find the project's modules where Python would, for `Loader` to load."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a module's specification; None for anything outside this project."""
        if fullname.partition(".")[0] not in PROJECT:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


# Just before Python's own finder, so that finders placed before it, such as type checks in tests, keep working.
sys.meta_path.insert(sys.meta_path.index(PathFinder), Finder())
LOADED[__file__] = blake2b(Path(__file__).read_bytes()).digest()
