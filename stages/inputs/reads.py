"""Tell what a function reads while it is called: modules of this project, files, the environment, programs, networks.

What its rows' keys do not hold is a fault: were it changed, the old values would stand. Python tells of most reading
(PEP 578), whichever thread does it. Not seen are files that compiled code opens by itself, as `cv2.imread`.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from stages.inputs.events import JUDGES
from stages.inputs.places import is_own, relative
from stages.inputs.reading import Reading
from stages.study.problem import Fault

# Modules of Python's through which the environment is asked.
MAPPINGS = ("os", "collections.abc", "_collections_abc")
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
    while frame and (frame.f_globals.get("__name__") in MAPPINGS or frame.f_code.co_name == "expandvars"):
        frame = frame.f_back  # type: ignore[assignment]
    if frame and is_own(frame.f_code.co_filename):
        where = f"make it a setting in params.yaml ({_at(frame)})"
        _stop(reading, f"reads the environment ({key}), which no key holds: {where}")


def _audit(event: str, given: tuple) -> None:
    if ACTIVE and event in JUDGES:
        reading, thread = _concerned(), threading.get_ident()
        if reading is not None and thread not in reading.judging:
            reading.judging.add(thread)  # what judging itself does is not the function's
            try:
                told = JUDGES[event](reading, given)
            finally:
                reading.judging.remove(thread)
            if told:
                _stop(reading, told)


def _concerned() -> Reading | None:
    """Give the call under way, if this thread works for it."""
    reading = ACTIVE[-1] if ACTIVE else None
    return reading if reading is not None and threading.get_ident() not in reading.others else None


def _stop(reading: Reading, told: str) -> None:
    """Note a fault, and raise it where the function itself runs: in others' threads somebody may wait for ever."""
    reading.faults.append(told)
    if threading.get_ident() == reading.own:
        raise Fault(told, reading.bound.kind, reading.bound.name)


def _at(frame: FrameType) -> str:
    return f"{relative(os.path.realpath(frame.f_code.co_filename))}, line {frame.f_lineno}"
