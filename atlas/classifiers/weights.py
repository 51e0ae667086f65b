"""Read weights trained by others: files of PyTorch and of safetensors, however they are wrapped."""

import hashlib
import pickle
import re
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from atlas.study.errors import UserError

# The first bytes of a PyTorch checkpoint: an archive, formerly a pickle. A safetensors file begins with a number.
ARCHIVE, PICKLE, SAFETENSORS, NUMBER = b"PK\x03\x04", b"\x80", b"{", 8
# The usual entries of a checkpoint that hold the weights.
ENTRIES = ("state_dict", "model", "model_state_dict")
# Prefixes that parallel training, compilation, Lightning and attack code (robustness) add to a network's names.
WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|model|attacker\.model)\.)*")
# Buffers with which a network normalizes images itself: in a module of its own, or in the outermost one.
NORMALIZER = re.compile(
    WRAPPERS.pattern + r"(?:(?:attacker\.)?(?:normalize|normalizer|norm_layer)\.)?(?:new_)?(mean|std)"
)
# Names in torchvision's DenseNet files, which torchvision renames when it loads them.
DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")
# Auxiliary training heads, which torchvision's own loading leaves out.
AUXILIARY = {"GoogLeNet": ("aux1.", "aux2."), "Inception3": ("AuxLogits.",)}
SHOWN = 3  # names of weights in a message


class Unwrapped(NamedTuple):
    """Weights by the network's names, and the parameters of a normalizer among them, if there is one."""

    weights: dict[str, Tensor]
    mean: list[float] | None
    std: list[float] | None


def digest_of(file: Path) -> str:
    """Return a file's SHA-256, reading a few megabytes at a time.

    Raises:
        UserError: it cannot be read.
    """
    total = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while part := opened.read(2**22):
                total.update(part)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    return total.hexdigest()


def read(file: Path, entry: str | None) -> dict[str, Tensor]:
    """Read the weights of a file by name.

    Args:
        file: A safetensors file, or a PyTorch checkpoint, from which no code is run. The content decides, not the name.
        entry: The entry of a checkpoint that holds the weights, or a dotted path to it; None if they are the file
            itself or in a usual entry.

    Raises:
        UserError: the file cannot be read, or has no mapping of names to tensors there.
    """
    found = _content(file)
    for name in entry.split(".") if entry is not None else _usual(file, found):
        if not isinstance(found, dict) or name not in found:
            known = _some(found) if isinstance(found, dict) else f"a {type(found).__name__}"
            raise UserError(f"{file}: there is no entry '{name}' in it; it has: {known}")
        found = found[name]
    if not isinstance(found, dict) or not found:
        raise UserError(f"{file}: expected a mapping of names to tensors, got {type(found).__name__}: {found!r:.60}")
    others = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        about = f"{len(others)} of its {len(found)} entries are no tensors: {_some(others)}"
        raise UserError(
            f"{file}: expected a mapping of names to tensors; {about}; `entry` may name the one that is meant"
        )
    return {str(name): value for name, value in found.items()}


def renamed(weights: dict[str, Tensor], rename: dict[str, str | None] | None, file: Path) -> dict[str, Tensor]:
    """Replace prefixes of names, the longest match first; weights whose prefix is replaced by null are left out.

    Raises:
        UserError: a prefix matches no name, or two names become the same.
    """
    rename = rename or {}
    found: dict[str, Tensor] = {}
    used = set()
    for name, value in weights.items():
        prefix = max((one for one in rename if name.startswith(one)), key=len, default=None)
        used.add(prefix)
        new = name if prefix is None else None if rename[prefix] is None else f"{rename[prefix]}{name[len(prefix) :]}"
        if new in found:
            raise UserError(f"{file}: after `rename` two weights have the name '{new}'; expected each name once")
        if new is not None:
            found[new] = value
    if unused := [prefix for prefix in rename if prefix not in used]:
        raise UserError(f"{file}: no weight has the prefix {_some(unused)} of `rename`; it has: {_some(weights)}")
    return found


def unwrapped(weights: dict[str, Tensor], network: nn.Module, file: Path) -> Unwrapped:
    """Extract a network's weights from those of a wrapper around it.

    Raises:
        UserError: the file holds two networks that differ, or an invalid normalizer.
    """
    expected = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    old = {name: found[1] + found[2] for name in weights if (found := DENSENET.match(name))}
    if set(old.values()) & expected:
        weights = {old.get(name, name): value for name, value in weights.items()}
    normalizer = {name: found[1] for name in weights if (found := NORMALIZER.fullmatch(name)) and name not in expected}
    others = {name: value for name, value in weights.items() if name not in normalizer}
    prefixes = {prefix[0] for name in others if (prefix := WRAPPERS.match(name))}
    steps = {prefix[:end] for prefix in prefixes for end in (0, *(dot.end() for dot in re.finditer(r"\.", prefix)))}
    names_found = {prefix: {name for name in expected if prefix + name in others} for prefix in sorted(steps)}
    best = max(names_found, key=lambda prefix: (len(names_found[prefix]), -len(prefix))) if names_found else ""
    chosen = {name.removeprefix(best): value for name, value in others.items() if name.startswith(best)}
    for other in [prefix for prefix, names in names_found.items() if names == expected and prefix != best and expected]:
        if any(not torch.equal(others[other + name], chosen[name]) for name in expected):
            message = f"those with the prefix '{best}' and those with '{other}'"
            raise UserError(
                f"{file}: holds the weights of two networks that differ: {message}; `rename` says which is meant"
            )
        copies = {other + name for name in network.state_dict()}
        chosen = {name: value for name, value in chosen.items() if best + name not in copies}
        others = {name: value for name, value in others.items() if name not in copies}
    # Names without the prefix are not the network's, and will be reported as unexpected.
    chosen |= {name: value for name, value in others.items() if not name.startswith(best)}
    if type(network).__module__.startswith("transformers.") and not expected <= set(chosen):
        chosen = _converted(chosen, network)
    return Unwrapped(chosen, *(_moment(weights, normalizer, kind, file) for kind in ("mean", "std")))


def fill(network: nn.Module, weights: dict[str, Tensor], file: Path, owner: str) -> None:
    """Load weights into a network, which must match its own exactly.

    Args:
        network: The network; it is modified in place.
        weights: By name.
        file: The file that they come from.
        owner: What the network is called in messages.

    Raises:
        UserError: names, shapes or dtypes differ; the message counts them and names a few.
    """
    own = network.state_dict()
    counted = {name for name in own if name.endswith("num_batches_tracked")}  # does not affect logits
    auxiliary = AUXILIARY.get(type(network).__name__, ())
    weights = {name: value for name, value in weights.items() if name in own or not name.startswith(auxiliary)}
    faults = []
    missing = [name for name in own if name not in weights and name not in counted]
    unexpected = [name for name in weights if name not in own]
    if missing:
        faults.append(f"{len(missing)} of its {len(own)} weights are missing in the file: {_some(missing)}")
    if unexpected:
        faults.append(f"{len(unexpected)} of the file are not its: {_some(unexpected)}")
    apart = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if apart:
        shapes = [f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}" for name in apart]
        faults.append(f"{len(apart)} have another shape: {_some(shapes)}")
    others = [
        name for name in own if name in weights and name not in counted and _kind(weights[name]) != _kind(own[name])
    ]
    if others:
        kinds = [f"{name} is of {weights[name].dtype}, expected {own[name].dtype}" for name in others]
        faults.append(f"{len(others)} hold another kind of numbers: {_some(kinds)}")
    if faults:
        raise UserError(f"{file}: not the weights of {owner}: {'; '.join(faults)}")
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{file}: the weight {name} holds numbers that are not finite")
    network.load_state_dict({name: weights.get(name, value) for name, value in own.items()})


def _converted(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return weights by the module names of a transformers network, whose files use other names."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    given = {"config": deepcopy(network.config), "state_dict": dict(weights), "ignore_mismatched_sizes": True}
    kind: Any = type(network)
    made, message = kind.from_pretrained(None, **given, output_loading_info=True)
    absent = {
        *message["missing_keys"],
        *(one if isinstance(one, str) else one[0] for one in message["mismatched_keys"]),
    }
    found = {name: value for name, value in made.state_dict().items() if name not in absent}
    return found | {name: weights[name] for name in message["unexpected_keys"] if name in weights}


def _kind(values: Tensor) -> tuple[bool, bool]:
    return values.is_floating_point(), values.is_complex()


def _content(file: Path) -> Any:
    try:
        with file.open("rb") as opened:  # opened here: given a path, torch would go by its name
            begun = opened.read(NUMBER + len(SAFETENSORS))
            if begun[NUMBER:] == SAFETENSORS:
                return load_file(file)
            if not begun.startswith((ARCHIVE, PICKLE)):
                message = "is empty" if not begun else "is neither of safetensors nor a checkpoint of PyTorch"
                raise UserError(f"{file}: {message}; expected one of the two, whatever its name")
            opened.seek(0)
            return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = " ".join(str(error).split())
        named = re.search(r"GLOBAL ([\w.]+)", message)
        what = f"it holds objects of {named[1]}" if named else "it is damaged, or holds more than tensors"
        expected = "save its state_dict alone: torch.save(network.state_dict(), file)"
        raise UserError(f"{file}: cannot be read without running code that is in it: {what}; {expected}") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        message = " ".join(str(error).split())
        raise UserError(
            f"{file}: cut off, damaged, or not what its beginning says ({type(error).__name__}: {message:.120})"
        ) from None


def _usual(file: Path, found: Any) -> list[str]:
    """Return the entry of a checkpoint that holds the weights; empty if they are the file itself."""
    if not isinstance(found, dict) or all(isinstance(value, Tensor) for value in found.values()):
        return []
    there = [name for name in ENTRIES if isinstance(found.get(name), dict)]
    if len(there) != 1:
        got = " and ".join(there) or "none of " + ", ".join(ENTRIES)
        raise UserError(
            f"{file}: which of its entries holds the weights? It has {got}; `entry` names one of {_some(found)}"
        )
    return there


def _moment(weights: dict[str, Tensor], normalizer: dict[str, str], kind: str, file: Path) -> list[float] | None:
    found = {tuple(weights[name].flatten().tolist()) for name, what in normalizer.items() if what == kind}
    if len(found) > 1:
        raise UserError(f"{file}: its normalizers differ: {kind} = {' and '.join(map(str, sorted(found)))}")
    return list(found.pop()) if found else None


def _some(names: Any) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
