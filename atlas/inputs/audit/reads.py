"""Record what a called function reads: modules of this project, files, the environment, programs, networks.

Reading what the keys of its rows do not hold is a fault: if that changed, the old values would be kept. Python reports
most reading as audit events (PEP 578), in any thread. It does not report files that compiled code opens by itself, as
`cv2.imread` does; such functions are found in the source (`atlas.cache.fingerprint.uncovered`).
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any

from atlas.inputs.audit import events, places
from atlas.inputs.audit.places import is_own, relative
from atlas.inputs.audit.reading import Reading
from atlas.study.errors import Fault

# Modules of Python through which the environment is read.
MAPPINGS = ("os", "collections.abc", "_collections_abc")
# Modules of Python through which files are queried.
FINDING = ("os", "genericpath", "glob", "ntpath", "pathlib", "pathlib._abc", "pathlib._local", "posixpath")
# The running calls, the innermost last; None while the kernel works in between.
ACTIVE: list[Reading | None] = []
INSTALLED: list[bool] = []


@contextmanager
def watching(reading: Reading) -> Iterator[None]:
    """Audit what is read, and hide the modules of this project that the call's keys do not hold."""
    if not INSTALLED:
        INSTALLED.append(True)
        places.prepare()
        sys.addaudithook(_audit)
    kinds = type(os.environ), type(os.environb)
    os.environ.__class__ = os.environb.__class__ = Environment
    stat, access = os.stat, os.access
    os.stat, os.access = _checked(stat), _checked(access)
    reading.hide()
    ACTIVE.append(reading)
    try:
        yield
    finally:
        ACTIVE[-1] = None
        reading.show()
        os.environ.__class__, os.environb.__class__ = kinds
        os.stat, os.access = stat, access
        ACTIVE.pop()


@contextmanager
def paused() -> Iterator[Reading | None]:
    """Suspend the audit while the kernel works within a call: its reads are not the function's."""
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
    """The environment while a function runs: this project's code must not read it."""

    def __getitem__(self, key: Any) -> Any:
        _asked(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator:
        _asked("all of it")
        return super().__iter__()

    def __len__(self) -> int:
        _asked("its size")
        return super().__len__()

    def __repr__(self) -> str:
        _asked("all of it")
        return super().__repr__()


def _asked(key: object) -> None:
    reading = _concerned()
    if reading is not None and (frame := _asking(MAPPINGS)):
        where = f"make it a setting in params.yaml ({_at(frame)})"
        _stop(reading, f"reads the environment ({key}), which no key holds: {where}")


def _checked(function: Callable) -> Callable:
    """Wrap a function of `os` that queries a file, so that it is checked: Python raises no audit event for it."""

    @wraps(function)
    def checking(path: Any, *given: Any, **named: Any) -> Any:
        reading = _concerned()
        if reading is not None and named.get("dir_fd") is None and _asking(FINDING):
            _check(reading, events.asked, path)
        return function(path, *given, **named)

    return checking


def _asking(through: tuple[str, ...]) -> FrameType | None:
    """Return the frame of this project's code that asks, directly or through the given modules of Python."""
    frame: FrameType | None = sys._getframe(1)
    while frame and (frame.f_globals.get("__name__") in (__name__, *through) or frame.f_code.co_name == "expandvars"):
        frame = frame.f_back
    return frame if frame and is_own(frame.f_code.co_filename) else None


def _audit(event: str, given: tuple) -> None:
    if ACTIVE and event in events.JUDGES:
        reading = _concerned()
        if reading is not None:
            _check(reading, events.JUDGES[event], given)


def _check(reading: Reading, check: Callable[[Reading, Any], str | None], given: Any) -> None:
    thread = threading.get_ident()
    reading.checking.add(thread)  # what the judging reads is not the function's
    try:
        message = check(reading, given)
    finally:
        reading.checking.remove(thread)
    if message:
        _stop(reading, message)


def _concerned() -> Reading | None:
    """Return the running call if this thread works for it and is not judging it at the moment."""
    reading, thread = ACTIVE[-1] if ACTIVE else None, threading.get_ident()
    return reading if reading is not None and thread not in reading.others | reading.checking else None


def _stop(reading: Reading, message: str) -> None:
    """Record a fault; raise it in the call's own thread only: in another, a caller might wait forever."""
    reading.faults.append(message)
    if threading.get_ident() == reading.own:
        raise Fault(message, reading.bound.kind, reading.bound.name)


def _at(frame: FrameType) -> str:
    return f"{relative(os.path.realpath(frame.f_code.co_filename))}, line {frame.f_lineno}"
