"""Set up torch for a process: threads, deterministic algorithms, memory reuse."""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from atlas.study.errors import UserError

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def start(engine: dict) -> None:
    """Set torch's threads and, where they exist, deterministic algorithms, once per process.

    Raises:
        UserError: the engine's device is not there.
    """
    if engine["device"] == "cuda" and not torch.cuda.is_available():
        raise UserError("params.yaml: engine.device = cuda, but torch sees no CUDA device here; accepted: cpu")
    keep_memory()
    # Otherwise MKL's matrix products of some widths depend on a row's position. It is read at the first product.
    os.environ.setdefault("MKL_CBWR", "AUTO")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required for deterministic matrix products
    torch.set_num_threads(engine["threads"])
    torch.set_deterministic_debug_mode("warn")  # use_deterministic_algorithms imports the compiler: seconds
    deterministic: Any = torch.utils.deterministic  # a module whose attribute is set by a property
    deterministic.fill_uninitialized_memory = False  # saves a tenth of the time: such memory is never read
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def release_memory() -> None:
    """Return freed memory to the system, on Linux: it is fragmented and does not fit another cell's sizes."""
    trim = _c_library("malloc_trim")
    if trim:
        trim(0)


def keep_memory() -> None:
    """Keep freed memory for later tensors, on Linux.

    The C library returns blocks of over 32 MB at once, so that the activations of every pass lie on new pages, which
    the kernel first fills with zeros: a third of the time of a ResNet-18's passes at 224 x 224 in batches of 32.
    """
    mallopt = _c_library("mallopt")
    if mallopt:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)


def _c_library(name: str) -> Callable | None:
    """Return a function of the C library; None if it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
