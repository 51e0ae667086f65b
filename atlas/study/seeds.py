"""A separate random generator for every draw, so that no result depends on batch, order or restart.

A generator is made from (seed of the image, purpose, draw), and the image's seed from the study's seed and the image's
id. There is no shared stream that one image would advance for the next.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def image_seed(seed: int, image: str) -> int:
    """Return an image's seed, 63 bits made from the study's seed and the image's id."""
    return _digest(f"{seed}/{image}")


def order(seed: int, ids: list[str], purpose: str) -> list[int]:
    """Return the positions of ids in a seeded order, into which a new id is inserted without moving the others.

    Each id has its own sort key, so the order of the other ids does not change when some come or go.
    """
    return sorted(range(len(ids)), key=lambda i: (_digest(f"{seed}/{purpose}/{ids[i]}"), ids[i]))


def rng(seed: int, purpose: str, draw: int = 0) -> np.random.Generator:
    """Return the NumPy generator of one draw."""
    return np.random.default_rng(_digest(f"{seed}/{purpose}/{draw}"))


def generator(seed: int, purpose: str, draw: int = 0) -> "torch.Generator":
    """Return the torch generator of one draw, on the CPU: the same numbers on every device."""
    import torch

    return torch.Generator().manual_seed(_digest(f"{seed}/{purpose}/{draw}"))


def normal(seeds: list[int], purpose: str, draw: int, shape: tuple[int, ...]) -> "torch.Tensor":
    """Draw standard normal numbers, one block per image, on the CPU."""
    import torch

    return torch.stack([torch.randn(shape, generator=generator(seed, purpose, draw)) for seed in seeds])


def uniform(seeds: list[int], purpose: str, draw: int, shape: tuple[int, ...]) -> "torch.Tensor":
    """Draw uniform numbers in [0, 1), one block per image, on the CPU."""
    import torch

    return torch.stack([torch.rand(shape, generator=generator(seed, purpose, draw)) for seed in seeds])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
