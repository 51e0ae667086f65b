"""Check that a function leaves its inputs unchanged: tensors, arrays, lists, and the classifier's network.

Version counters detect writes through torch. Writes around them (`.data`, `.numpy()`) change bytes, which are digested:
all of them up to a size, beyond it blocks spread over the tensor. So a change of few values in a large tensor that
bypasses the counters may go unnoticed.
"""

import ctypes
import sys
import weakref
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from google_crc32c import value as crc32c

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atlas.model.classifier import Classifier

LARGE, LARGE_NETWORK = 2**25, 2**22  # bytes of a tensor, and of a whole network; beyond, blocks are digested
BLOCK, BLOCKS = 2**14, 8
HARMLESS = "_is_full_backward_hook"  # set once a hook was registered, and irrelevant to computation
COUNTS = "passes"  # the classifier's own counter

# The states of objects when they were first passed, by identity; the entry of a deleted object is removed.
_KNOWN: dict[int, tuple[weakref.ref, object]] = {}


class OnDevice:
    """Bytes of a tensor on an accelerator, compared there, and therefore without a hash."""

    def __init__(self, data: "Tensor"):
        self.data = data

    def __eq__(self, other: object) -> bool:
        import torch

        return isinstance(other, OnDevice) and torch.equal(self.data, other.data)


def first(value: Any) -> object:
    """Return the state of a value when it was first passed, or its present state if it never was."""
    if isinstance(value, list | tuple):
        return [first(one) for one in value]
    if not isinstance(value, np.ndarray) and not is_tensor(value) and not hasattr(value, COUNTS):
        return state(value)
    place = id(value)
    known = _KNOWN.get(place)
    if known is None or known[0]() is not value:
        known = _KNOWN[place] = weakref.ref(value, lambda _: _KNOWN.pop(place, None)), state(value)
    return known[1]


def state(value: Any) -> object:
    """Return a comparable state of a value; states are compared by ==."""
    if is_tensor(value):
        return _tensor(value, value.numel() * value.element_size() <= LARGE)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, list | tuple):
        return [state(one) for one in value]
    if isinstance(value, dict):
        return {name: state(one) for name, one in value.items()}
    if isinstance(value, int | float | str | bytes | bool | type(None)):
        return repr(value)
    if hasattr(value, COUNTS):
        return of_classifier(value)
    if hasattr(value, "named_parameters"):
        return [_module(module, True) for module in _modules([value])]
    return id(value)


def renew(classifier: "Classifier") -> None:
    """Record the present state of a classifier as its original one."""
    known = _KNOWN[id(classifier)]
    _KNOWN[id(classifier)] = known[0], of_classifier(classifier)


def same(before: object, after: object) -> bool:
    """Return whether a state is unchanged; additions to a mapping are ignored."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(name in after and same(old, after[name]) for name, old in before.items())
    return before == after


def of_classifier(classifier: "Classifier") -> dict[str | int, object]:
    """Return the state of a classifier: its own attributes, and its networks' parameters, buffers, hooks and
    attributes.

    Cutting its network later is no change.
    """
    found: dict[str | int, object] = {"": [*vars(classifier)]}
    parts: dict[str, nn.Module] = {}
    for name, value in vars(classifier).items():
        if name != COUNTS:
            _gather(name, value, found, parts)
    own = _modules([*parts.values()][:1])  # the network as built: later cuts must not change how bytes are digested
    small = sum(one.nbytes for module in own for one in _tensors(module)) <= LARGE_NETWORK
    spelled = {id(module): _module(module, small) for module in _modules(parts.values())}
    return found | {name: id(network) for name, network in parts.items()} | spelled


def networks(classifier: "Classifier") -> list["nn.Module"]:
    """Return all networks of a classifier: the whole one, and the two parts of every cut."""
    parts: dict[str, nn.Module] = {}
    for name, value in vars(classifier).items():
        _gather(name, value, {}, parts)
    return [*parts.values()]


def _gather(name: str, value: Any, found: dict[str | int, object], parts: dict[str, "nn.Module"]) -> None:
    torch = sys.modules["torch"]
    if isinstance(value, torch.nn.Module):
        parts[name] = value
    elif isinstance(value, dict):
        for key, one in value.items():
            _gather(f"{name}.{key}", one, found, parts)
    elif isinstance(value, list | tuple):
        for place, one in enumerate(value):
            _gather(f"{name}.{place}", one, found, parts)
    else:
        found[name] = state(value) if isinstance(value, torch.Tensor) else repr(value)


def _modules(networks: Iterable["nn.Module"]) -> list["nn.Module"]:
    """Return all modules of networks, without repetition."""
    found: dict[int, nn.Module] = {}
    waiting: list[nn.Module | None] = [*networks]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            waiting += module._modules.values()
    return [*found.values()]


def _tensors(module: "nn.Module") -> list["Tensor"]:
    """Return a module's own parameters and buffers."""
    return [one for one in (*module._parameters.values(), *module._buffers.values()) if one is not None]


def _module(module: "nn.Module", small: bool) -> object:
    """Return the state of one layer: class and attributes by identity, the number of hooks, and its own tensors."""
    own, kind = dict(vars(module)), type(module)
    own.pop(HARMLESS, None)
    found: list[object] = [id(kind), id(kind.forward), *map(id, own.values())]
    for name, value in own.items():
        if isinstance(value, dict) and value:
            found += [name, *(value if name == "_modules" else ()), *map(id, value.values())]
    return _short(found + [_tensor(one, small) for one in _tensors(module)])


def _tensor(tensor: "Tensor", small: bool) -> object:
    version = None if tensor.is_inference() else tensor._version
    about: list[object] = [version, tensor.data_ptr(), tensor.shape, tensor.stride()]
    about += [tensor.dtype, tensor.requires_grad]
    about += vars(tensor)  # attributes that were set on the tensor
    about += [id(tensor.grad) if tensor.is_leaf else None, tensor._backward_hooks is None]
    return _short([*about, _digest(tensor, small)])


def _short(parts: list[object]) -> object:
    """Return one integer for the parts if all are hashable: many small objects slow the garbage collector down."""
    try:
        return hash(tuple(parts))
    except TypeError:
        return parts


def _digest(tensor: "Tensor", small: bool) -> object:
    import torch

    if tensor.device.type != "cpu":
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        parts = [flat] if small else [flat[at : at + BLOCK] for at in _places(len(flat))]
        return OnDevice(torch.cat(parts))  # a copy, even of a single part
    dense = tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    if dense:
        return _bytes(tensor.data_ptr(), tensor.nbytes, small)
    storage = tensor.untyped_storage()
    return _bytes(storage.data_ptr(), storage.nbytes(), small)


def _array(array: np.ndarray) -> tuple[object, ...]:
    about = array.shape, array.strides, array.dtype.str, array.flags.writeable
    if array.dtype.hasobject:
        return *about, repr(array.tolist())
    whole = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return *about, _bytes(whole.ctypes.data, whole.nbytes, whole.nbytes <= LARGE)


def _bytes(address: int, size: int, small: bool) -> object:
    return tuple(crc32c(block) for block in _blocks(address, size, small))


@lru_cache(maxsize=2**13)  # cached by address only: the caller holds the tensor with this memory
def _blocks(address: int, size: int, small: bool) -> list[ctypes.Array]:
    """Return the blocks of memory to digest, as objects that are read at the time of use."""
    parts = [(0, size)] if small else [(at, min(BLOCK, size - at)) for at in _places(size)]
    return [(ctypes.c_ubyte * length).from_address(address + at) for at, length in parts if length]


def _places(size: int) -> list[int]:
    return [0] if size <= BLOCK * BLOCKS else np.linspace(0, size - BLOCK, BLOCKS, dtype=int).tolist()


def is_tensor(value: object) -> bool:
    """Return whether a value is a tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
