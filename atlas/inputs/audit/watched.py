"""Check that a function leaves its inputs unchanged: tensors, arrays, lists, and the classifier's network.

Version counters detect writes through torch. Writes around them (`.data`, `.numpy()`) change bytes, which are digested:
all of them up to a size, beyond it blocks spread over the tensor. So a change of few values in a large tensor that
bypasses the counters may go unnoticed.
"""

import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.inputs.audit import memory
from atlas.inputs.audit.layers import Layers, modules_of, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atlas.model.classifier import Classifier

LARGE, LARGE_NETWORK = 2**25, 2**22  # bytes of a tensor, and of a whole network; beyond, blocks are digested
COUNTS = "passes"  # the classifier's own counter

# The states of objects when they were first passed, by identity; the entry of a deleted object is removed.
_KNOWN: dict[int, tuple[weakref.ref, object]] = {}


class ClassifierState:
    """A classifier's own attributes, and its networks' parameters, buffers, hooks and attributes, as they are."""

    def __init__(self, classifier: "Classifier"):
        self._attributes, networks = _attributes(classifier)
        self._networks = {name: id(network) for name, network in networks.items()}
        own = modules_of([*networks.values()][:1])  # the network as built: cuts must not change how bytes are digested
        small = sum(one.nbytes for module in own for one in tensors_of(module)) <= LARGE_NETWORK
        self._layers = Layers(modules_of(networks.values()), small)

    def unchanged(self, classifier: "Classifier") -> bool:
        """Return whether a classifier is still in this state. Cutting its network further is no change."""
        attributes, networks = _attributes(classifier)
        now = {name: id(network) for name, network in networks.items()}
        return same(self._attributes, attributes) and same(self._networks, now) and self._layers.unchanged()


def first(value: Any) -> object:
    """Return the state of a value when it was first passed, or its present state if it never was."""
    if isinstance(value, list | tuple):
        return [first(one) for one in value]
    if isinstance(value, dict):
        return {name: first(one) for name, one in value.items()}
    if not isinstance(value, np.ndarray) and not is_tensor(value) and not hasattr(value, COUNTS):
        return state(value)
    place = id(value)
    known = _KNOWN.get(place)
    if known is None or known[0]() is not value:
        known = _KNOWN[place] = weakref.ref(value, lambda _: _KNOWN.pop(place, None)), state(value)
    return known[1]


def state(value: Any) -> object:
    """Return a comparable state of a value; states are compared by ==, those of classifiers with their `unchanged`."""
    if is_tensor(value):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, list | tuple):
        return [state(one) for one in value]
    if isinstance(value, dict):
        return {name: state(one) for name, one in value.items()}
    if isinstance(value, int | float | str | bytes | bool | type(None)):
        return repr(value)
    if hasattr(value, COUNTS):
        return ClassifierState(value)
    if hasattr(value, "named_parameters"):
        return Layers(modules_of([value]), True)
    return id(value)


def renew(classifier: "Classifier") -> None:
    """Record the present state of a classifier as its original one."""
    known = _KNOWN[id(classifier)]
    _KNOWN[id(classifier)] = known[0], ClassifierState(classifier)


def unchanged(before: object, value: Any) -> bool:
    """Return whether a value is in the state in which it was before; additions to a mapping are ignored."""
    if isinstance(before, ClassifierState):
        return before.unchanged(value)
    if isinstance(before, list) and isinstance(value, list | tuple):
        return len(before) == len(value) and all(map(unchanged, before, value))
    if isinstance(before, dict) and isinstance(value, dict):
        return all(name in value and unchanged(one, value[name]) for name, one in before.items())
    return same(before, state(value))


def same(before: object, after: object) -> bool:
    """Return whether a state is unchanged; additions to a mapping are ignored."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(name in after and same(old, after[name]) for name, old in before.items())
    return before == after


def networks(classifier: "Classifier") -> list["nn.Module"]:
    """Return all networks of a classifier: the whole one, and the two parts of every cut."""
    return [*_attributes(classifier)[1].values()]


def _attributes(classifier: "Classifier") -> tuple[dict[str, object], dict[str, "nn.Module"]]:
    """Return the states of a classifier's attributes, and its networks, by name."""
    found: dict[str, object] = {"": [*vars(classifier)]}
    parts: dict[str, nn.Module] = {}
    for name, value in vars(classifier).items():
        if name != COUNTS:
            _gather(name, value, found, parts)
    return found, parts


def _gather(name: str, value: Any, found: dict[str, object], parts: dict[str, "nn.Module"]) -> None:
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


def _tensor(tensor: "Tensor") -> tuple[object, ...]:
    return (
        None if tensor.is_inference() else tensor._version,
        tensor.data_ptr(),
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.requires_grad,
        id(tensor.grad) if tensor.is_leaf else None,
        tensor._backward_hooks is None,
        [*vars(tensor)],  # attributes that were set on the tensor
        memory.of_tensor(tensor, tensor.nbytes <= LARGE),
    )


def _array(array: np.ndarray) -> tuple[object, ...]:
    about = array.shape, array.strides, array.dtype.str, array.flags.writeable
    if array.dtype.hasobject:
        return *about, repr(array.tolist())
    return *about, memory.of_array(array, array.nbytes <= LARGE)


def is_tensor(value: object) -> bool:
    """Return whether a value is a tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
