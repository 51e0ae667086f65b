"""Record the layers of networks as they are, and compare them after each call: hundreds of layers in a few ms."""

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import eq, is_
from typing import TYPE_CHECKING, Any

from atlas.inputs.audit import memory

if TYPE_CHECKING:
    from torch import Tensor, nn

HARMLESS = "_is_full_backward_hook"  # set once a hook was registered, and irrelevant to computation


class Layers:
    """Layers as they are: classes and attributes by identity, parts, hooks, and their own tensors.

    Args:
        modules: The layers.
        small: Whether all bytes of their tensors are digested.
    """

    def __init__(self, modules: list["nn.Module"], small: bool):
        self._modules, self._small = modules, small
        names = [*chain.from_iterable(map(vars, modules))]
        values = [*chain.from_iterable(map(dict.values, map(vars, modules)))]
        self._harmless = [at for at, name in enumerate(names) if name == HARMLESS]
        self._tables = [at for at, value in enumerate(values) if isinstance(value, dict)]
        tensors = [tensor for module in modules for tensor in tensors_of(module)]
        self._on_device = [one for one in tensors if one.device.type != "cpu"]
        self._blocks = [
            block for one in tensors if one.device.type == "cpu" for block in memory.of_cpu(one, self._small)
        ]
        self._state = [*self._parts()]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layers) and self._state == other._state

    __hash__ = None  # type: ignore[assignment]

    def unchanged(self) -> bool:
        """Return whether the layers are as they were."""
        return all(map(eq, self._state, self._parts()))

    def _parts(self) -> Iterator[object]:
        """Yield the state part by part; a part can be made only if all before it are unchanged."""
        kinds: list[Any] = [*map(type, self._modules)]
        yield kinds
        yield {kind: kind.forward for kind in kinds}
        held = [*map(vars, self._modules)]
        values = [*chain.from_iterable(map(dict.values, held))]
        yield len(values)
        for at in self._harmless:
            values[at] = None
        yield Objects(values)
        tables = [values[at] for at in self._tables]  # parts, parameters, buffers, hooks
        yield [*map(len, tables)]
        yield Objects([*chain.from_iterable(map(dict.values, tables))])
        yield [*chain.from_iterable(one["_modules"] for one in held)]
        tensors = [tensor for module in self._modules for tensor in tensors_of(module)]
        yield [None if one.is_inference() else one._version for one in tensors]
        yield [one.data_ptr() for one in tensors]
        yield [(one.shape, one.stride(), one.dtype, one.requires_grad) for one in tensors]
        yield [(one._backward_hooks is None, id(one.grad) if one.is_leaf else None) for one in tensors]
        yield [*chain.from_iterable(map(vars, tensors))]  # the names of attributes that were set on them
        yield memory.digests(self._blocks)  # where they were: the addresses are unchanged
        yield [memory.of_device(one, self._small) for one in self._on_device]


class Objects:
    """Objects, equal to others if these are the same objects."""

    def __init__(self, objects: list[object]):
        self._objects = objects

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Objects) or len(self._objects) != len(other._objects):
            return False
        return all(map(is_, self._objects, other._objects))

    __hash__ = None  # type: ignore[assignment]


def modules_of(networks: Iterable["nn.Module"]) -> list["nn.Module"]:
    """Return all modules of networks, without repetition."""
    found: dict[int, nn.Module] = {}
    waiting: list[nn.Module | None] = [*networks]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            waiting += module._modules.values()
    return [*found.values()]


def tensors_of(module: "nn.Module") -> list["Tensor"]:
    """Return a module's own parameters and buffers."""
    return [one for one in (*module._parameters.values(), *module._buffers.values()) if one is not None]
