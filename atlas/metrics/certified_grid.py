"""How much of the maps of grids is certified, and whether it lies in the explained tile (Anani et al. 2025)."""

from collections.abc import Sequence
from typing import Literal

from atlas.inputs.certification import ABSTAINED, IMPORTANT, Votes
from atlas.metrics.shared.certified import certified, parted, share, share_of
from atlas.model.arrays import Certified, Masks
from atlas.study.schema.types import Alpha, Correction, Taus

ATTRS = {
    "grid_abstained": {
        "long_name": "pixels of grids without a certificate",
        "units": "%",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "level",
        "summary": "level",
        "role": "diagnostic",
    },
    "certified_grid_pointing_game": {
        "long_name": "certified grid pointing game",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "higher",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "certified_nothing": {
        "long_name": "maps of grids without a pixel certified important",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "level",
        "summary": "level",
        "role": "diagnostic",
    },
    "grid_parted_ties": {
        "long_name": "noisy samples of grids with equal scores at the edge of the top",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "level",
        "summary": "level",
        "role": "diagnostic",
    },
}


def grid_abstained(
    votes: Sequence[Votes],
    tiles: Masks,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure how many pixels of a grid get no certificate when one of its tiles is explained.

    Returns:
        Percent, 0 to 100, lower is better. Never undefined.

    Reference: anani2025pixel, whose trade-off plot is probably computed on grids.
    """
    return 100 * share_of(votes, ABSTAINED, tau, alpha, correction)


def certified_grid_pointing_game(
    votes: Sequence[Votes],
    tiles: Masks,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
    nothing: Literal["zero", "undefined"],
) -> Certified:
    """Measure the share of the pixels certified important that lies in the tile whose class is explained.

        #{i in the tile : cᵢ = 1} / #{i : cᵢ = 1}

    Args:
        votes, tiles: The votes on grids, and the tiles.
        tau, alpha, correction: Settings of the test.
        nothing: The score of a map without a pixel certified important: zero, as in the authors' code, or undefined.

    Returns:
        0 to 1, higher is better; 1 / tiles by chance.

    Reference: anani2025pixel. The authors explain only the top-left tile: the option `tile: 0`. The share of maps
    without a pixel certified important is `certified_nothing`.
    """
    important = certified(votes, tau, alpha, correction, tiles.device.type) == IMPORTANT
    found = share(tiles[:, None, None].expand_as(important), important)
    return found.nan_to_num(0.0) if nothing == "zero" else found


def certified_nothing(
    votes: Sequence[Votes],
    tiles: Masks,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Return which maps of grids have no pixel certified important.

    Returns:
        1 if there is none, otherwise 0; lower is better. Never undefined.

    Reference: anani2025pixel.
    """
    return (share_of(votes, IMPORTANT, tau, alpha, correction) == 0).float()


def grid_parted_ties(
    votes: Sequence[Votes],
    tiles: Masks,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure in how many noisy samples of a grid equal scores straddle the edge of the top: `parted_ties` on grids.

        #{samples with a tie at the edge of the top} / samples

    Returns:
        Share of the samples, 0 to 1, lower is better. Never undefined; the same at every τ.

    Reference: anani2025pixel, whose form of the top does not mark pixels of such a tie either.
    """
    return parted(votes, tau)
