"""Tell what a function reads while it is called: modules of this project, files, the environment, programs, networks.

What its rows' keys do not hold is a fault: were it changed, the old values would stand. Python tells of most reading
(PEP 578), whichever thread does it. Not seen are files that compiled code opens by itself, as `cv2.imread`.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from stages.inputs.places import PROJECT, ROOT, is_own, module_of, relative, scratch, within
from stages.study.problem import Fault
from stages.study.settings import Entry

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
        self.within: list[Fault] = []  # its own, and those of calls within it
        self.written: set[str] = set()
        self.hidden: list[tuple[str, ModuleType, dict, str]] = []
        self.packages = len(sys.modules)
        self.own = threading.get_ident()
        self.others = {number for number, one in [*threading._active.items()] if not one.name.startswith(SERVING)} - {
            self.own
        }

    def fault(self, told: str) -> Fault:
        """Note something that the call must not do, and give the error that stops it there."""
        self.faults.append(told)
        return Fault(told, self.bound.kind, self.bound.name)

    def hide(self) -> None:
        """Take modules out of reach that the keys do not hold: to import one again is an event, to find it is not."""
        for name in _own_modules():
            if name not in self.modules and name in sys.modules:
                parent, _, child = name.rpartition(".")
                place = vars(sys.modules[parent]) if parent in sys.modules else {}
                module = sys.modules.pop(name)
                self.hidden.append((name, module, place if place.get(child) is module else {}, child))
        for _, _, place, child in self.hidden:
            place.pop(child, None)

    def show(self) -> None:
        """Put them back."""
        for name, module, place, child in self.hidden:
            sys.modules[name] = place[child] = module
        self.hidden.clear()

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
    kinds = type(os.environ), type(os.environb)
    os.environ.__class__ = os.environb.__class__ = Environment
    reading.hide()
    ACTIVE.append(reading)
    try:
        yield
    finally:
        ACTIVE[-1] = None
        reading.show()
        os.environ.__class__, os.environb.__class__ = kinds
        ACTIVE.pop()


@contextmanager
def paused() -> Iterator[Reading | None]:
    """Let the kernel work within a call, if there is one: what it reads is not the function's."""
    outer = next((one for one in reversed(ACTIVE) if one is not None), None)
    ACTIVE.append(None)
    if outer is not None:
        outer.show()
    try:
        yield outer
    finally:
        if outer is not None:
            outer.hide()
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
    if frame and is_own(frame.f_code.co_filename):
        raise reading.fault(
            f"reads the environment ({key}), which no key holds: make it a setting in params.yaml ({_at(frame)})"
        )


def _expands(frame: FrameType) -> bool:
    return frame.f_code.co_name == "expandvars"


# By how many modules there are and which came last: those of this project.
_OWN: dict[tuple[int, str], list[str]] = {}


def _own_modules() -> list[str]:
    """List the modules that are neither Python's nor a package's."""
    known = len(sys.modules), next(reversed(sys.modules))
    if known not in _OWN:
        _OWN.clear()
        files = {name: getattr(module, "__file__", None) or "" for name, module in [*sys.modules.items()]}
        _OWN[known] = [name for name, file in files.items() if name != "__main__" and is_own(file)]
    return _OWN[known]


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
    if not is_own(full) or _shown():
        return None
    module = module_of(full)
    if module in reading.modules:
        return None
    if module:
        return f"reads {relative(full)}, a module that its key does not hold: import it by name at a module's top level"
    return f"reads {relative(full)}, which its key does not hold: {_declaring(reading, full)}"


def _declaring(reading: Reading, full: str) -> str:
    """Say how a data file is declared: beside the module that reads it, where it is in a folder of `stages/`."""
    frame: FrameType | None = sys._getframe(1)
    while frame and module_of(frame.f_code.co_filename) not in reading.modules:
        frame = frame.f_back
    reader = frame.f_code.co_filename if frame else str(ROOT / f"stages/{reading.bound.kind}/{reading.bound.family}.py")
    beside = within(full, (str(ROOT / "stages"),))
    name = os.path.relpath(full, os.path.dirname(reader)) if beside else os.path.basename(full)
    put = "declare it" if beside else "put it beside the module, and declare it"
    return f'{put} at the top level of {relative(reader)}: FILES = ["{name}"]'


def _writes(reading: Reading, path: Any) -> str | None:
    full = os.path.realpath(os.fsdecode(path))
    reading.written.add(full)
    if "__pycache__" in full or full.startswith("/dev/") or within(full, scratch()):
        return None
    return f"writes {relative(full)}: a function gives values and leaves files alone"


def _lists(reading: Reading, given: tuple) -> str | None:
    path = given[0] if given and given[0] is not None else "."
    if isinstance(path, int):
        return None
    full = os.path.realpath(os.fsdecode(path))
    if (
        not is_own(full)
        or within(full, (tempfile.gettempdir(),))
        or _shown("importlib", "importlib._bootstrap_external")
    ):
        return None
    return f"lists the folder {relative(full)}, whose content no key holds: name the files, and declare them: FILES"


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
    "os.listdir": _lists,
    "os.scandir": _lists,
    "os.remove": _changes,
    "os.rename": _changes,
    "os.rmdir": _changes,
    "os.mkdir": _changes,
    "os.truncate": _changes,
    "os.link": _changes,
    "os.symlink": _changes,
    "subprocess.Popen": _program,
    "os.system": _program,
    "os.exec": _program,
    "os.posix_spawn": _program,
    "os.fork": _program,
    "os.forkpty": _program,
    "socket.connect": _network,
    "socket.sendto": _network,
    "socket.getaddrinfo": _network,
    "socket.gethostbyname": _network,
}


def _shown(*others: str) -> bool:
    """Say whether it is Python that reads source, to show it."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_code.co_filename == __file__ or not is_own(frame.f_code.co_filename)):
        if frame.f_globals.get("__name__") in (*SHOWING, *others):
            return True
        frame = frame.f_back
    return False


def _at(frame: FrameType) -> str:
    return f"{relative(os.path.realpath(frame.f_code.co_filename))}, line {frame.f_lineno}"
