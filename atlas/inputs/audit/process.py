"""Check that a call leaves the process unchanged, and restore it: torch, NumPy, Python, random states."""

import builtins
import ctypes
import decimal
import gc
import locale
import math
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from operator import is_
from typing import Any, NamedTuple

import numpy as np
from google_crc32c import value as crc32c

from atlas.inputs.audit.places import PROJECT

# Modules of classes that are not watched as layers' classes; torch.nn.Module itself always is.
OTHERS = (*PROJECT, "builtins", "torch.fx", "torch.nn.modules.module")
CACHED = "__slotnames__"  # what Python adds to a class when an object of it is first copied
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP)


class Part(NamedTuple):
    """A piece of process-wide state: its name, how to read it, and how to restore it."""

    what: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    by_imports: bool = False  # packages may change it when they are imported, which is no fault
    owner: int = 0  # the identity of a class: two may have one name, if their module was loaded twice


class Names:
    """The contents of a module or class, by name; equal to another's as long as nothing was replaced.

    Additions to a module do not count: packages add names to themselves when submodules are imported.
    """

    def __init__(self, owner: object):
        self.held = _held(owner)
        self._grows = not isinstance(owner, type)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and not self.replaced(other)

    __hash__ = None  # type: ignore[assignment]

    def are_of(self, owner: object) -> bool:
        """Return whether an owner still holds these objects and no others."""
        held = vars(owner)
        if CACHED in held:
            held = _held(owner)
        return len(held) == len(self.held) and all(map(is_, held.values(), self.held.values()))

    def replaced(self, before: "Names") -> list[str]:
        """Return the names whose objects were replaced or removed, or added to a class."""
        held = self.held
        if len(held) == len(before.held) and all(map(is_, held.values(), before.held.values())):
            return []
        added = [] if self._grows else [name for name in held if name not in before.held]
        return added + [name for name, value in before.held.items() if held.get(name, before) is not value]

    def is_own(self, before: "Names") -> bool:
        """Return whether an object of this project replaced one of the originals."""
        kinds = [getattr(self.held.get(name), "__module__", None) for name in self.replaced(before)]
        return any(str(kind).partition(".")[0] in PROJECT for kind in kinds)


def _held(owner: object) -> dict[str, object]:
    held = dict(vars(owner))
    held.pop(CACHED, None)
    return held


State = dict[tuple[str, int], Any]


def state() -> State:
    """Read all parts of the state."""
    return {(part.what, part.owner): _look(part) for part in (*_parts(), *_kernel())}


def restored(before: State, imported: bool) -> list[str]:
    """Restore the state, and return the names of the parts that had changed.

    Args:
        before: The earlier state.
        imported: Whether other packages have been imported since.
    """
    known = [(part, before[place]) for part in (*_parts(), *_kernel()) if (place := (part.what, part.owner)) in before]
    changed = [(part, now, was) for part, was in known if not _same(now := _look(part), was)]
    for part, _, was in changed:
        part.set(was)
    return [part.what for part, now, was in changed if not (imported and part.by_imports) or _is_own(now, was)]


@cache
def _parts() -> list[Part]:
    owners = [builtins, math, os, random, time, np, np.linalg, np.random]
    if (torch := sys.modules.get("torch")) is None:
        return [*_of_python(), *_of_numpy(), *map(_of_owner, owners)]
    owners += [torch, torch.nn.functional, torch.nn.Module, torch.Tensor, torch.fft, torch.linalg]
    return [*_of_python(), *_of_numpy(), *_of_torch(), *map(_of_owner, owners)]


# Modules whose functions methods and metrics may call, by the numbers of loaded modules and classes (a cache).
KERNEL: dict[tuple[int, int], list[Part]] = {}
# The classes of packages that the layers of classifiers' networks are of, bases included.
LAYERS: set[type] = set()


def watch_layers(kinds: Iterable[type]) -> None:
    """From now on, watch the classes of a network's layers: all networks with such layers would run what is put there.

    Classes of this project's networks are watched with their modules (`kept`); torch.fx makes one for each graph.
    """
    LAYERS.update(base for kind in kinds for base in kind.__mro__ if not base.__module__.startswith(OTHERS))


def _kernel() -> list[Part]:
    place = len(sys.modules), len(LAYERS)
    if place not in KERNEL:
        KERNEL.clear()
        names = [name for name in sys.modules if name.startswith(("atlas.model.", "atlas.inputs."))]
        owners: list[Any] = [sys.modules[name] for name in names]
        if classifier := sys.modules.get("atlas.model.classifier"):
            owners.append(classifier.Classifier)
        parts = [*map(_of_owner, owners), *map(_of_layer, LAYERS)]
        KERNEL[place] = [part._replace(by_imports=False) for part in parts]
    return KERNEL[place]


def _look(part: Part) -> Any:
    try:
        return part.get()
    except (RuntimeError, OSError) as error:  # contradicting flags, or a deleted working folder
        return repr(error)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and one and hasattr(one[0], "numel"):
        torch = sys.modules["torch"]
        return len(one) == len(other) and all(map(torch.equal, one, other))
    return one is other or one == other


def _is_own(now: Any, before: Any) -> bool:
    return isinstance(now, Names) and now.is_own(before)


def _of_owner(owner: Any) -> Part:
    def put(known: Names) -> None:
        for name in Names(owner).replaced(known):
            if name in known.held:
                setattr(owner, name, known.held[name])
            else:
                delattr(owner, name)

    last: list[Names] = []

    def get() -> Names:
        if not last or not last[0].are_of(owner):  # a copy takes longer than a comparison
            last[:] = [Names(owner)]
        return last[0]

    return Part(f"what {owner.__name__} holds", get, put, True)


def forget_layers() -> None:
    """Watch no classes of layers any more; for when networks are loaded anew."""
    LAYERS.clear()
    KERNEL.clear()


def _of_layer(kind: type) -> Part:
    return _of_owner(kind)._replace(what=f"what {kind.__module__}.{kind.__qualname__} holds", owner=id(kind))


def _variables() -> dict:
    """Return the environment's own dictionary: `os.environ` is watched and slow."""
    environ: Any = os.environ
    return environ._data


def _of_python() -> Iterator[Part]:
    def environ(known: dict) -> None:
        held = _variables()
        for name in [name for name in held if name not in known]:
            os.unsetenv(name)
            del held[name]
        for name in [name for name, value in known.items() if held.get(name) != value]:
            os.putenv(name, known[name])
            held[name] = known[name]

    def path(known: list[str]) -> None:
        sys.path[:] = known

    def filters(known: tuple) -> None:
        module: Any = warnings
        module.filters[:] = known[0]
        module.showwarning = known[1]
        module._filters_mutated()

    def streams(known: tuple) -> None:
        sys.stdout, sys.stderr = known

    def finders(known: tuple) -> None:
        sys.meta_path[:], sys.path_hooks[:] = known

    def decimals(known: tuple) -> None:
        decimal.getcontext().prec, decimal.getcontext().rounding = known

    def handlers(known: list) -> None:
        for number, handler in zip(SIGNALS, known, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def tracers(known: tuple) -> None:
        sys.settrace(known[0])
        sys.setprofile(known[1])
        sys.excepthook = known[2]

    context = decimal.getcontext
    yield Part("the handlers of signals", lambda: [*map(signal.getsignal, SIGNALS)], handlers, True)
    yield Part("what traces calls", lambda: (sys.gettrace(), sys.getprofile(), sys.excepthook), tracers)
    yield Part("Python's random numbers", random.getstate, random.setstate)
    yield Part("the environment", lambda: dict(_variables()), environ, True)
    yield Part("the working directory", os.getcwd, os.chdir)
    yield Part("sys.path", lambda: [*sys.path], path, True)
    yield Part("the filters of warnings", lambda: ([*warnings.filters], warnings.showwarning), filters, True)
    yield Part("the limit of recursion", sys.getrecursionlimit, sys.setrecursionlimit, True)
    yield Part("the garbage collector", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Part("what finds modules", lambda: ([*sys.meta_path], [*sys.path_hooks]), finders, True)
    yield Part("the precision of decimal numbers", lambda: (context().prec, context().rounding), decimals)
    yield Part("the locale", lambda: locale.setlocale(locale.LC_ALL), lambda to: locale.setlocale(locale.LC_ALL, to))
    yield Part(
        "cv2's number of threads",
        lambda: cv2.getNumThreads() if (cv2 := sys.modules.get("cv2")) else None,
        lambda known: known is None or sys.modules["cv2"].setNumThreads(known),
        True,
    )
    yield Part("the standard streams", lambda: (sys.stdout, sys.stderr), streams)


def _of_numpy() -> Iterator[Part]:
    legacy: Any = np.random
    generator = legacy.get_bit_generator()
    # NumPy's state, read in place: 624 words and the position; copying them out takes 30 microseconds.
    words = (ctypes.c_ubyte * 2500).from_address(generator.ctypes.state_address)
    kept: dict[int, Any] = {}  # the last two states, by digest

    def drawn() -> int:
        bits = crc32c(words)
        kept[bits] = kept.pop(bits) if bits in kept else np.random.get_state()
        if len(kept) > 2:
            del kept[next(iter(kept))]
        return bits

    yield Part("NumPy's generator", legacy.get_bit_generator, legacy.set_bit_generator)
    yield Part("NumPy's random numbers", drawn, lambda bits: np.random.set_state(kept[bits]))
    yield Part("NumPy's treatment of errors", lambda: (np.geterr(), np.geterrcall()), _set_errors)


def _set_errors(known: tuple) -> None:
    np.seterr(**known[0])
    np.seterrcall(known[1])


def _of_torch() -> Iterator[Part]:
    import torch
    from torch import backends
    from torch.nn.modules import module

    def attribute(owner: Any, name: str, what: str) -> Part:
        return Part(what, lambda: getattr(owner, name), lambda value: setattr(owner, name, value))

    def autocast(known: list) -> None:
        for device, (on, dtype) in zip(devices, known, strict=True):
            torch.set_autocast_enabled(device, on)
            torch.set_autocast_dtype(device, dtype)

    def drawn() -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]

    def draw(known: list[torch.Tensor]) -> None:
        torch.set_rng_state(known[0])
        torch.cuda.set_rng_state_all(known[1:])

    def clear(_: object) -> None:
        for one in hooks:
            one.clear()

    devices = ("cpu", "cuda")
    hooks = [hooks for name, hooks in vars(module).items() if name.startswith("_global_") and isinstance(hooks, dict)]
    least = sys.float_info.min
    yield Part("torch's random numbers", drawn, draw)
    yield Part("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
    # The value that torch.get_default_device looks at first; calling that function takes 20 microseconds.
    context = torch._GLOBAL_DEVICE_CONTEXT
    yield Part(
        "torch's default device",
        lambda: getattr(context, "device_context", None),
        lambda _: torch.set_default_device(None),
    )
    yield Part("torch's number of threads", torch.get_num_threads, torch.set_num_threads)
    yield Part("torch's gradient mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield Part("torch's inference mode", torch.is_inference_mode_enabled, lambda _: None)
    yield Part("torch's modes", torch._C._len_torch_function_stack, lambda _: None)
    yield Part("torch's detection of anomalies", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)
    yield Part(
        "torch's autocast",
        lambda: [(torch.is_autocast_enabled(one), torch.get_autocast_dtype(one)) for one in devices],
        autocast,
    )
    yield Part("torch's algorithms", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode)
    yield Part("torch's precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    yield Part("torch's treatment of denormal numbers", lambda: least / 2 == 0, torch.set_flush_denormal)
    yield Part(
        "torch's hooks of all layers",
        lambda: [*map(len, hooks)],
        clear,
    )
    yield Part("torch.backends.nnpack", torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled)
    yield attribute(torch.utils.deterministic, "fill_uninitialized_memory", "torch's filling of memory")
    for owner in (backends.cudnn, backends.mkldnn):
        for name, flag in vars(type(owner)).items():
            # Once both were set, reading the new form of allow_tf32 contradicts the old one.
            if isinstance(flag, backends.ContextProp) and name not in ("fp32_precision", "depthwise_kernel"):
                yield attribute(owner, name, f"torch.backends.{owner.m.__name__.split('.')[-1]}.{name}")
    for name in ("enabled", "strategy"):
        yield attribute(backends.opt_einsum, name, f"torch.backends.opt_einsum.{name}")
    for name in ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
        yield attribute(backends.cuda.matmul, name, f"torch.backends.cuda.matmul.{name}")
    for name in [name.removesuffix("_enabled") for name in vars(backends.cuda) if name.endswith("_sdp_enabled")]:
        enabled, enable = getattr(backends.cuda, f"{name}_enabled"), getattr(backends.cuda, f"enable_{name}")
        yield Part(f"torch's attention ({name})", enabled, enable)
