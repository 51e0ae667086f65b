"""Digest everything a row's value depends on, from params.yaml, stores and source text alone.

Of the code, the digest holds what a function reaches (`atlas.cache.fingerprint.source`): where possible, single
definitions as syntax trees without docstrings and comments, so that a better comment or another function in the same
file changes no key; otherwise whole modules. Added are the versions of the packages that this code imports and of all
that these require, and the data files that it declares.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.cache.fingerprint import called, packages, source
from atlas.study import cards, unedited
from atlas.study.params import CHOOSING
from atlas.study.schema.settings import Entry, canonical

if TYPE_CHECKING:
    from atlas.study.study import Study

SIZE = 16  # bytes of a key: 128 bits
# The code that loads and runs every network, as (module, name).
NETWORK = (
    ("atlas.model.loading", "load"),
    ("atlas.model.runtime", "start"),
    ("atlas.model.classifier", "Classifier"),
)


def digest(*parts: object) -> bytes:
    """Digest bytes, text and settings; each part is preceded by its length, so that boundaries are unambiguous."""
    total = hashlib.blake2b(digest_size=SIZE)
    for part in parts:
        data = part if isinstance(part, bytes) else canonical(part).encode()
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.digest()


def entry(bound: Entry, study: "Study", *parts: tuple[str, str]) -> bytes:
    """Digest what all rows of an entry share: settings, code of its function and of the stage, engine, dtype.

    The entry's name is not included: a renamed entry finds its rows. Neither are options that do not affect values.
    """
    shaping = {name: value for name, value in bound.options.items() if name not in CHOOSING}
    reached = code(
        (f"atlas.{bound.kind}.{bound.family}", bound.function), ("atlas.inputs.row_inputs", "tensors"), *parts
    )
    return digest(bound.settings, shaping, reached, study.engine, study.dtype)


def classifier(study: "Study", name: str) -> bytes:
    """Digest a trained classifier: its weights, normalization, format, network settings and network code."""
    folder = study.path("classifiers", name)
    weights = hashlib.blake2b(cards.weights(folder), digest_size=SIZE).digest()
    bound = study.network(name)
    reached = code((f"atlas.networks.{bound.family}", bound.function), *NETWORK)
    own = called.content(bound.settings, study.folder)
    return digest(weights, cards.computing(folder), bound.settings, reached, own)


def code(*roots: tuple[str, str]) -> bytes:
    """Digest the code that (module, name) pairs reach, the packages it imports, and the data files it declares."""
    return _code(tuple(dict.fromkeys(roots)))


@cache
def _code(roots: tuple[tuple[str, str], ...]) -> bytes:
    found = source.reach(*roots)
    # Also those that no reached definition declares: reading a file leaves no name to follow.
    digests = sorted([file.name, digest(unedited.read(file)).hex()] for file in found.files)
    # Whole texts are the same for all functions of a module and depend on its place, so the roots are added.
    message = [list(roots), list(found.texts)] if found.whole or found.placed else []
    return digest(list(found.texts.values()), len(roots), packages.versions(found.packages), digests, *message)


def modules(*roots: tuple[str, str]) -> frozenset[str]:
    """Return the project modules that the digest of some code holds, or that are imported with it."""
    return source.reach(*roots).modules


def files(*roots: tuple[str, str]) -> frozenset[Path]:
    """Return the data files whose content the digest of some code holds."""
    return source.reach(*roots).files


def names(*roots: tuple[str, str]) -> frozenset[tuple[str, str]]:
    """Return the (module, name) pairs whose text the digest of some code holds; the name is '*' for a whole module."""
    return frozenset(source.reach(*roots).texts)


def uncovered(*roots: tuple[str, str]) -> tuple[str, ...]:
    """Return what some code depends on that no digest can hold: the clock, entropy, the machine."""
    return source.reach(*roots).uncovered
