"""Digest the memory of tensors and arrays: all of it, or blocks spread over it."""

import ctypes
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from google_crc32c import value as crc32c

if TYPE_CHECKING:
    from torch import Tensor

BLOCK, BLOCKS = 2**14, 8


class OnDevice:
    """Bytes of a tensor on an accelerator, compared there, and therefore without a hash."""

    def __init__(self, data: "Tensor"):
        self.data = data

    def __eq__(self, other: object) -> bool:
        import torch

        return isinstance(other, OnDevice) and torch.equal(self.data, other.data)


def of_tensor(tensor: "Tensor", small: bool) -> OnDevice | list[int]:
    """Return what changes with a tensor's bytes: all of them if it is small, otherwise some blocks of them."""
    return digests(of_cpu(tensor, small)) if tensor.device.type == "cpu" else of_device(tensor, small)


def of_device(tensor: "Tensor", small: bool) -> OnDevice:
    """Return a copy of a tensor's bytes on its device: all of them if it is small, otherwise some blocks of them."""
    torch = sys.modules["torch"]
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    parts = [flat] if small else [flat[at : at + BLOCK] for at in _places(len(flat))]
    return OnDevice(torch.cat(parts))  # a copy, even of a single part


def of_cpu(tensor: "Tensor", small: bool) -> list[ctypes.Array]:
    """Return the memory of a tensor, to be digested while it is there: all if it is small, otherwise some blocks."""
    torch = sys.modules["torch"]
    dense = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    if dense:
        return _blocks(tensor.data_ptr(), tensor.nbytes, small)
    storage = tensor.untyped_storage()
    return _blocks(storage.data_ptr(), storage.nbytes(), small)


def of_array(array: np.ndarray, small: bool) -> list[int]:
    """Return what changes with an array's bytes: all of them if it is small, otherwise some blocks of them."""
    whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return digests(_blocks(whole.ctypes.data, whole.nbytes, small))


def digests(blocks: list[ctypes.Array]) -> list[int]:
    """Return the digests of blocks of memory."""
    return [*map(crc32c, blocks)]


@lru_cache(maxsize=2**13)  # cached by address only: the caller holds the tensor with this memory
def _blocks(address: int, size: int, small: bool) -> list[ctypes.Array]:
    """Return the blocks of memory to digest, as objects that are read at the time of use."""
    parts = [(0, size)] if small else [(at, min(BLOCK, size - at)) for at in _places(size)]
    return [(ctypes.c_ubyte * length).from_address(address + at) for at, length in parts if length]


def _places(size: int) -> list[int]:
    return [0] if size <= BLOCK * BLOCKS else np.linspace(0, size - BLOCK, BLOCKS, dtype=int).tolist()
