"""Judge Python's audit events (PEP 578) during a call: return a message if no key holds what is read."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from atlas.cache.fingerprint.packages import edited
from atlas.inputs.audit.places import PROJECT, ROOT, is_own, is_scratch, module_of, relative, within
from atlas.inputs.audit.reading import NAMED, Reading

# Modules that read source in order to show it.
SHOWING = ("inspect", "linecache", "tokenize", "traceback")
# The audit itself, whose frames do not belong to the call.
WATCHING = ("atlas.inputs.audit.events", "atlas.inputs.audit.reads")
# CALLING runs the user's own code; LOOKING search for it.
CALLING, LOOKING = "atlas.networks.shared.called", ("atlas.networks.shared.called", "atlas.cache.fingerprint.called")
# These build a network that is not code of this project, or pass images through it.
RUNNING = (CALLING, "atlas.networks.shared.construct", "atlas.model.")
# Functions of C that read what no key holds, or of which Python reports no event.
OF_C = (
    "getenv", "secure_getenv", "environ", "fopen", "open", "openat",
    "time", "gettimeofday", "clock_gettime", "rand", "random",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


def _import(reading: Reading, given: tuple) -> str | None:
    name, path = given[:2]
    if path:  # a compiled module is being loaded
        return _file(reading, path)
    if name.partition(".")[0] not in PROJECT or name in reading.modules:
        return None
    where = ROOT.joinpath(*name.split("."))
    if not where.is_dir() and not where.with_suffix(".py").is_file():
        return None  # an attribute of a package is looked up
    return _imports(reading, name)


def _imports(reading: Reading, name: str) -> str:
    if user := _users_file(reading):
        return f"imports {name}, which its key does not hold: {user} may import packages and files beside it"
    return f"imports {name}, which its key does not hold: import it by name at the top level of the module that uses it"


def _open(reading: Reading, given: tuple) -> str | None:
    path, mode, flags = given
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    flags, mode = flags or 0, mode or ""
    writes = bool(flags & WRITING) or any(one in mode for one in "wax+")
    reads = not writes or (not flags & os.O_TRUNC and ("+" in mode or bool(flags & os.O_RDWR)))
    return (_file(reading, path) if reads else None) or (_writes(reading, path) if writes else None)


def _file(reading: Reading, path: Any) -> str | None:
    full = os.path.realpath(os.fsdecode(path))
    if full in reading.written or full in reading.files or not os.path.isfile(full):
        return None
    if full.endswith("/environ") and full.startswith("/proc"):
        return "reads the environment, which no key holds: make it a setting in params.yaml"
    if not is_own(full) or (full.endswith(".py") and _shown()):
        return None
    module = module_of(full)
    if module in reading.modules:
        return None
    if module and _shown("importlib._bootstrap_external"):
        return _imports(reading, module)
    if _is_of_package(full) or _source_of(full) in reading.files:
        return None
    if full.endswith((".py", ".pyc")) and (user := _users_file(reading)):
        where = (
            f"have it beside the file that params.yaml names, and import it there by name, not while it runs ({user})"
        )
        return f"imports {relative(_source_of(full) or full)}, which its key does not hold: {where}"
    if module:
        return f"reads {relative(full)}, a module that its key does not hold: import it by name at a module's top level"
    return f"reads {relative(full)}, which its key does not hold: {_declaring(reading, full)}"


def _is_of_package(full: str) -> bool:
    """Return whether a file is a module of an editable installation."""
    folders = tuple(folder for folder in edited() if not within(str(ROOT), (folder,)))
    return full.endswith((".py", ".pyc")) and within(full, folders)


def _source_of(full: str) -> str:
    """Return the source file of a bytecode file in `__pycache__`; empty for any other file."""
    path = Path(full)
    kept = path.suffix == ".pyc" and path.parent.name == "__pycache__"
    return str(path.parents[1] / f"{path.name.partition('.')[0]}.py") if kept else ""


def _users_file(reading: Reading) -> str:
    """Return the user's own network file that is running; empty if none is."""
    frame: FrameType | None = sys._getframe(1)
    while frame:
        code = os.path.realpath(frame.f_code.co_filename)
        if code in reading.files and not _is_of_project(code):
            return relative(code)
        frame = frame.f_back
    return ""


def _is_network() -> bool:
    """Return whether a package's network is reading: project code called it only to build or run it."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (
        frame.f_globals.get("__name__") in WATCHING or not _is_of_project(os.path.realpath(frame.f_code.co_filename))
    ):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").startswith(RUNNING)


def _is_of_project(full: str) -> bool:
    return within(full, tuple(str(ROOT / name) for name in PROJECT))


def _looks_for_code() -> bool:
    """Return whether this project itself, not the user's code, is looking for the user's code."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_globals.get("__name__") in WATCHING or not is_own(frame.f_code.co_filename)):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in LOOKING


def _declaring(reading: Reading, full: str) -> str:
    """Return how to declare a data file: beside the module that reads it, if that is in a folder of `atlas/`."""
    taken = "take what is in it as a setting of its network in params.yaml"
    if user := _users_file(reading):
        return f"have {user} {taken}, import that from a .py file beside it, or hold that in a buffer of its weights"
    if _is_network():
        return f"have the network {taken}, in place of the file"
    frame: FrameType | None = sys._getframe(1)
    while frame and not frame.f_globals.get("__name__", "").startswith(NAMED):
        frame = frame.f_back
    reader = frame.f_code.co_filename if frame else str(ROOT / f"atlas/{reading.bound.kind}/{reading.bound.family}.py")
    inside = within(full, (str(ROOT / "atlas"),))
    name = os.path.relpath(full, os.path.dirname(reader)) if inside else os.path.basename(full)
    put = "declare it" if inside else "put it beside the module, and declare it"
    return f'{put} at the top level of {relative(reader)}: FILES = ["{name}"]'


def _writes(reading: Reading, path: Any) -> str | None:
    full = os.path.realpath(os.fsdecode(path))
    reading.written.add(full)
    if "__pycache__" in full or full.startswith("/dev/") or is_scratch(full):
        return None
    return f"writes {relative(full)}: a function must return values and leave files alone"


def _lists(reading: Reading, given: tuple) -> str | None:
    path = given[0] if given and given[0] is not None else "."
    full = os.path.realpath(f"/dev/fd/{path}" if isinstance(path, int) else os.fsdecode(path))
    if not is_own(full) or is_scratch(full) or _shown("importlib._bootstrap_external") or _looks_for_code():
        return None
    if user := _users_file(reading):
        return f"lists the folder {relative(full)}, whose content no key holds: name the files in {user}"
    return f"lists the folder {relative(full)}, whose content no key holds: name the files, and declare them: FILES"


def _changes(reading: Reading, given: tuple) -> str | None:
    if isinstance(given[-1], int) and given[-1] >= 0:
        return None  # relative to an open folder, checked when it was opened
    return next(
        (message for one in given[:2] if isinstance(one, str | bytes) and (message := _writes(reading, one))), None
    )


def _library(reading: Reading, given: tuple) -> str | None:
    name = given[0]
    return _file(reading, name) if isinstance(name, str) and "/" in name else None


def _symbol(reading: Reading, given: tuple) -> str | None:
    name = given[1]
    return f"calls {name} of the C library, whose result no key holds" if name in OF_C else None


def _database(reading: Reading, given: tuple) -> str | None:
    path = os.fsdecode(given[0])
    return None if path in ("", ":memory:") else _file(reading, path.removeprefix("file:").partition("?")[0])


def _unpickled(reading: Reading, given: tuple) -> str | None:
    module, name = given
    whole = (module, "*"), (module, name.partition(".")[0])
    if module.partition(".")[0] not in PROJECT or not reading.names.isdisjoint(whole):
        return None
    return f"finds {module}.{name} by unpickling, which its key does not hold: import it by name"


def _program(reading: Reading, given: tuple) -> str:
    name = given[0] if given and isinstance(given[0], str | bytes | list) else ""
    shown = f" ({os.fsdecode(name) if isinstance(name, str | bytes) else name})" if name else ""
    return f"starts a process{shown}: no key can hold what it returns"


def _network(reading: Reading, given: tuple) -> str:
    return "uses the network: no key can hold what it receives"


def asked(reading: Reading, path: Any) -> str | None:
    """Judge a query of whether a file exists, how large or how old it is."""
    if isinstance(path, int):
        return None  # an open file, checked when it was opened
    full = os.path.realpath(os.fsdecode(path))
    if full in reading.written or full in reading.files or module_of(full) in reading.modules:
        return None
    folder = os.path.isdir(full) and within(full, (str(ROOT / "atlas"),))
    if folder or _looks_for_code() or within(str(ROOT), (full,)) or not is_own(full) or is_scratch(full):
        return None
    return f"asks about {relative(full)}, which its key does not hold: {_declaring(reading, full)}"


JUDGES: dict[str, Callable[[Reading, tuple], str | None]] = {
    "import": _import,
    "open": _open,
    "ctypes.dlopen": _library,
    "ctypes.dlsym": _symbol,
    "sqlite3.connect": _database,
    "os.listdir": _lists,
    "os.scandir": _lists,
    "os.remove": _changes,
    "os.rename": _changes,
    "os.rmdir": _changes,
    "os.mkdir": _changes,
    "os.link": _changes,
    "os.symlink": _changes,
    "subprocess.Popen": _program,
    "os.system": _program,
    "os.exec": _program,
    "os.posix_spawn": _program,
    "os.fork": _program,
    "os.forkpty": _program,
    "pickle.find_class": _unpickled,
    "socket.connect": _network,
    "socket.sendto": _network,
    "socket.getaddrinfo": _network,
    "socket.gethostbyname": _network,
}


def _shown(*others: str) -> bool:
    """Return whether Python reads source in order to show it."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_globals.get("__name__") in WATCHING or not is_own(frame.f_code.co_filename)):
        if frame.f_globals.get("__name__") in (*SHOWING, *others):
            return True
        frame = frame.f_back
    return False
