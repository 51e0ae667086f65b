"""Parts of a process's state, which a call must leave as it was: Python's, NumPy's, torch's."""

import ctypes
import decimal
import gc
import locale
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from google_crc32c import value as crc32c

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGHUP)


class Part(NamedTuple):
    """A piece of process-wide state: its name, how to read it, and how to restore it."""

    what: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    by_imports: bool = False  # packages may change it when they are imported, which is no fault
    owner: int = 0  # the identity of a class: two may have one name, if their module was loaded twice


def _variables() -> dict:
    """Return the environment's own dictionary: `os.environ` is watched and slow."""
    environ: Any = os.environ
    return environ._data


def of_python() -> Iterator[Part]:
    """Yield the state of Python and of the operating system's process."""

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

    def mask() -> int:
        os.umask(known := os.umask(0))
        return known

    context = decimal.getcontext
    yield Part("the handlers of signals", lambda: [*map(signal.getsignal, SIGNALS)], handlers, True)
    yield Part("what traces calls", lambda: (sys.gettrace(), sys.getprofile(), sys.excepthook), tracers)
    yield Part("Python's random numbers", random.getstate, random.setstate)
    yield Part("the environment", lambda: dict(_variables()), environ, True)
    yield Part("the working directory", os.getcwd, os.chdir)
    yield Part("the permissions of new files", mask, os.umask)
    if sys.platform == "linux":
        yield Part("its processors", lambda: os.sched_getaffinity(0), lambda known: os.sched_setaffinity(0, known))
    alarm = signal.ITIMER_REAL
    yield Part("its alarm", lambda: signal.getitimer(alarm)[0] > 0, lambda _: signal.setitimer(alarm, 0))
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


def of_numpy() -> Iterator[Part]:
    """Yield the state of NumPy."""
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


def of_torch() -> Iterator[Part]:
    """Yield the state of torch, which is imported."""
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
