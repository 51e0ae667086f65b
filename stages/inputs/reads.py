"""Tell what a function reads while it is called: modules of this project, files, the environment, programs, networks.

What its rows' keys do not hold is a fault: were it changed, the old values would stand. Python tells of most reading
(PEP 578), whichever thread does it. Not seen are files that compiled code opens by itself, as `cv2.imread`.
"""

import os
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from stages.study.problem import Fault
from stages.study.settings import Entry
from stages.study.signatures import HOUSE

ROOT = HOUSE.parent
PROJECT = ("stages", "flows")
# What Python and its packages read of their own accord.
SYSTEM = ("/dev", "/etc", "/lib", "/lib64", "/proc", "/sys", "/usr", "/Library", "/System")
SHOWING = ("inspect", "linecache", "tokenize", "traceback")  # they read source to show it
# Threads that others' reading is done on.
SERVING = ("zarr", "asyncio", "ThreadPoolExecutor", "fsspec")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


class Reading:
    """What one call may read, and what it has read beyond that.

    Args:
        bound: Whose function is called.
        modules: Those of the project that its rows' keys hold.
        files: The data files that they hold.
    """

    def __init__(self, bound: Entry, modules: frozenset[str], files: frozenset[Path]):
        self.bound, self.modules = bound, modules
        self.files = {str(file) for file in files}
        self.faults: list[str] = []
        self.written: set[str] = set()
        self.packages = len(sys.modules)
        self.own = threading.get_ident()
        self.others = {
            number for number, one in [*threading._active.items()] if not one.name.startswith(SERVING)
        } - {self.own}

    def fault(self, told: str) -> Fault:
        """Note something that the call must not do, and give the error to raise."""
        self.faults.append(told)
        return Fault(f"{self.bound.name}: {told}", self.bound.kind, self.bound.name)

    @property
    def imported(self) -> bool:
        """Say whether modules have been imported since it began."""
        return len(sys.modules) != self.packages


# The calls under way, the innermost last; None while the kernel works in between.
ACTIVE: list[Reading | None] = []
INSTALLED: list[bool] = []


@contextmanager
def watching(reading: Reading) -> Iterator[None]:
    """Watch what is read, and keep modules of this project out of reach that a call's keys do not hold."""
    if not INSTALLED:
        INSTALLED.append(True)
        sys.addaudithook(_audit)
    outer = ACTIVE[-1] if ACTIVE else None
    ACTIVE.append(None)
    hidden = _hide(reading.modules)
    kinds = type(os.environ), type(os.environb)
    os.environ.__class__ = os.environb.__class__ = Environment
    ACTIVE[-1] = reading
    try:
        yield
    finally:
        ACTIVE[-1] = None
        os.environ.__class__, os.environb.__class__ = kinds
        _show(hidden)
        ACTIVE.pop()
        if outer is not None:
            outer.faults += reading.faults


@contextmanager
def paused() -> Iterator[None]:
    """Let the kernel work within a call: what it reads is not the function's."""
    ACTIVE.append(None)
    try:
        yield
    finally:
        ACTIVE.pop()


class Environment(os._Environ):
    """The environment while a function is called: this project's code must not read it."""

    def __getitem__(self, key: Any) -> Any:
        _asked(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator:
        _asked("all of it")
        return super().__iter__()

    def __len__(self) -> int:
        _asked("its size")
        return super().__len__()


def _asked(key: object) -> None:
    reading = _concerned()
    if reading is None:
        return
    frame = sys._getframe(2)
    while frame and (frame.f_globals.get("__name__") in ("os", "_collections_abc") or _expands(frame)):
        frame = frame.f_back  # type: ignore[assignment]
    if frame and _is_own(frame.f_code.co_filename):
        raise reading.fault(
            f"reads the environment ({key}), which no key holds: make it a setting in params.yaml "
            f"({_at(frame)})"
        )


def _expands(frame: FrameType) -> bool:
    return frame.f_code.co_name == "expandvars"


def _hide(modules: frozenset[str]) -> list[tuple[str, ModuleType]]:
    hidden = []
    for name in _own_modules(len(sys.modules)):
        if name not in modules and name in sys.modules:
            module = sys.modules.pop(name)
            hidden.append((name, module))
            parent, _, child = name.rpartition(".")
            vars(sys.modules[parent]).pop(child, None) if parent in sys.modules else None
    return hidden


def _show(hidden: list[tuple[str, ModuleType]]) -> None:
    for name, module in hidden:
        sys.modules[name] = module
    for name, module in hidden:
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            vars(sys.modules[parent])[child] = module


_OWN: dict[int, list[str]] = {}


def _own_modules(count: int) -> list[str]:
    """List the modules that are this project's, or stand in no place for packages: the kernel's own work aside."""
    if count not in _OWN:
        _OWN.clear()
        _OWN[count] = [
            name
            for name, module in [*sys.modules.items()]
            if name != "__main__" and _is_own(getattr(module, "__file__", None) or "")
        ]
    return _OWN[count]


def _audit(event: str, given: tuple) -> None:
    if ACTIVE and event in JUDGES:
        reading = _concerned()
        if reading is not None:
            ACTIVE.append(None)  # what judging itself does
            try:
                told = JUDGES[event](reading, given)
            finally:
                ACTIVE.pop()
            if told:
                raise reading.fault(told)


def _concerned() -> Reading | None:
    """Give the call under way, if this thread works for it."""
    reading = ACTIVE[-1] if ACTIVE else None
    return reading if reading is not None and threading.get_ident() not in reading.others else None


def _import(reading: Reading, given: tuple) -> str | None:
    name = given[0]
    if name.partition(".")[0] not in PROJECT or name in reading.modules:
        return None
    where = ROOT.joinpath(*name.split("."))
    if not where.is_dir() and not where.with_suffix(".py").is_file():
        return None  # it looks for an attribute of a package
    return (
        f"imports {name}, which its key does not hold: import it by name at the module's top level, so that the key "
        "follows it"
    )


def _open(reading: Reading, given: tuple) -> str | None:
    path, mode, flags = given
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    writes = bool((flags or 0) & WRITING) or any(one in (mode or "") for one in "wax+")
    return _writes(reading, path) if writes else _file(reading, path)


def _file(reading: Reading, path: Any) -> str | None:
    full = os.path.realpath(os.fsdecode(path))
    if full in reading.written or full in reading.files or not os.path.isfile(full):
        return None
    if full.endswith("/environ") and full.startswith("/proc"):
        return "reads the environment, which no key holds: make it a setting in params.yaml"
    if not _is_own(full) or _shown():
        return None
    shown = _relative(full)
    module = _module_of(full)
    if module in reading.modules:
        return None
    if module:
        return f"reads {shown}, a module that its key does not hold: import it by name at its module's top level"
    return f'reads {shown}, which its key does not hold: declare it where it is read: FILES = ["{shown}"]'


def _writes(reading: Reading, path: Any) -> str | None:
    full = os.path.realpath(os.fsdecode(path))
    reading.written.add(full)
    if "__pycache__" in full or full.startswith("/dev/") or _within(full, _scratch()):
        return None
    return f"writes {_relative(full)}: a function gives values and leaves files alone"


def _lists(reading: Reading, given: tuple) -> str | None:
    path = given[0] if given and given[0] is not None else "."
    if isinstance(path, int):
        return None
    full = os.path.realpath(os.fsdecode(path))
    if not _is_own(full) or _within(full, (tempfile.gettempdir(),)) or _shown("importlib", "importlib._bootstrap_external"):
        return None
    return f"lists the folder {_relative(full)}, whose content no key holds: name the files, and declare them: FILES"


def _changes(reading: Reading, given: tuple) -> str | None:
    return next((told for one in given[:2] if isinstance(one, str | bytes) and (told := _writes(reading, one))), None)


def _library(reading: Reading, given: tuple) -> str | None:
    name = given[0]
    return _file(reading, name) if isinstance(name, str) and "/" in name else None


def _database(reading: Reading, given: tuple) -> str | None:
    path = os.fsdecode(given[0])
    return None if path in ("", ":memory:") else _file(reading, path.removeprefix("file:").partition("?")[0])


def _program(reading: Reading, given: tuple) -> str:
    name = given[0] if given and isinstance(given[0], str | bytes | list) else ""
    shown = f" ({os.fsdecode(name) if isinstance(name, str | bytes) else name})" if name else ""
    return f"starts a process{shown}: what it gives no key can hold"


def _network(reading: Reading, given: tuple) -> str:
    return "uses the network: what comes from there no key can hold"


JUDGES: dict[str, Callable[[Reading, tuple], str | None]] = {
    "import": _import,
    "open": _open,
    "ctypes.dlopen": _library,
    "sqlite3.connect": _database,
    **dict.fromkeys(("os.listdir", "os.scandir"), _lists),
    **dict.fromkeys(("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "os.symlink"), _changes),
    **dict.fromkeys(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"), _program),
    **dict.fromkeys(("os.forkpty", "pty.spawn"), _program),
    **dict.fromkeys(("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"), _network),
}


def _shown(*others: str) -> bool:
    """Say whether it is Python that reads source, to show it."""
    frame: FrameType | None = sys._getframe(1)
    while frame and not _is_own(frame.f_code.co_filename, kernel=False):
        if frame.f_globals.get("__name__") in (*SHOWING, *others):
            return True
        frame = frame.f_back
    return False


@cache
def _is_own(file: str, kernel: bool = True) -> bool:
    """Say whether a file is no package's, and neither Python's nor the system's."""
    if not file or file.startswith("<frozen") or (not kernel and file == __file__):
        return False
    full = os.path.realpath(file)
    if _within(full, _packages()):
        return False
    return _within(full, (str(ROOT),)) or not _within(full, (*SYSTEM, *_prefixes())) or full.startswith("/dev/shm/")


@cache
def _packages() -> tuple[str, ...]:
    known = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    known |= {str(Path(os.__file__).parent), *(path for path in sys.path if path.endswith(("site-packages", ".zip")))}
    return tuple(os.path.realpath(path) for path in known if path)


@cache
def _prefixes() -> tuple[str, ...]:
    known = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    return tuple(path for path in known if not _within(str(ROOT), (path,)))


def _scratch() -> tuple[str, ...]:
    home = os.path.realpath(os.path.expanduser("~"))
    return tuple(map(os.path.realpath, (tempfile.gettempdir(), f"{home}/.cache", f"{home}/.config")))


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def _module_of(full: str) -> str:
    """Give the module of this project that a file is the source, or the bytecode, of."""
    path = Path(full)
    if path.suffix == ".pyc" and path.parent.name == "__pycache__":
        path = path.parents[1] / f"{path.name.partition('.')[0]}.py"
    if path.suffix != ".py" or not _within(str(path), tuple(f"{ROOT}/{name}" for name in PROJECT)):
        return ""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _relative(full: str) -> str:
    return os.path.relpath(full, ROOT) if _within(full, (str(ROOT),)) else full


def _at(frame: FrameType) -> str:
    return f"{_relative(os.path.realpath(frame.f_code.co_filename))}, line {frame.f_lineno}"
