"""Measure how often intervals hold the true mean, and how often letters tell methods of equal means apart.

    uv run python benchmarks/coverage.py [--studies 4000] [--letters 1000] [--sizes 8 16 32 64] [--seed 0]

Each study draws so many images (or grids) of a known mean. The first table gives the share of studies in which the 95 %
interval of `atlas.statistics.intervals.means` holds it, with the skewness that the scores have (median of |G1|) times
7: where that is more than the images, the report says that they are too few. The second gives the share of studies in
which two methods of equal means have p <= 0.05, with Wilcoxon's test of the same scores beside it; the third that in
which any of five such methods are told apart after Holm's adjustment: what their letters say.
"""

from argparse import ArgumentParser
from collections.abc import Callable

import numpy as np
from scipy.stats import wilcoxon

from atlas.statistics.comparisons.pairs import compare_pairs
from atlas.statistics.comparisons.significance import holm
from atlas.statistics.intervals.bootstrap import pool
from atlas.statistics.intervals.means import SKEWED, intervals, moments

LEVEL = 0.95
TILES, ALIKE = 4, 0.3  # of a grid, and how alike its tiles are
# By name: how scores are drawn, their mean, and whether they are hits.
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SCORES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1),
    "lognormal, sigma 0.5": (lambda rng, shape: rng.lognormal(sigma=0.5, size=shape), float(np.exp(0.125))),
    "lognormal, sigma 1": (lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "near 1, beta(8, 0.5)": (lambda rng, shape: rng.beta(8, 0.5, size=shape), 8 / 8.5),
    "Student's t, 5 degrees": (lambda rng, shape: rng.standard_t(5, size=shape), 0),
    "0 in 7 of 10, else exponential": (lambda rng, shape: rng.exponential(size=shape) * (rng.random(shape) < 0.3), 0.3),
}
RATES = (0.5, 0.8, 0.9, 0.95)


def main() -> None:
    """Print three tables."""
    parser = ArgumentParser(description="Measure intervals and letters by simulation.")
    for name, default in (("studies", 4000), ("letters", 1000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    heads = [f"{size} images" for size in given.sizes]
    table("held, of scores", heads, coverage(given.sizes, given.studies, rng))
    heads = [f"{size}: ours, Wilcoxon" for size in given.sizes]
    table("told apart, of two", heads, pairs(given.sizes, given.letters, rng))
    table("told apart, of five", heads, letters(given.sizes, given.letters, rng))


def coverage(sizes: list[int], studies: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return by kind of score how often intervals hold the mean; of skewed scores too few for it also 7 |G1|."""
    found = {}
    for name, (drawn, mean) in SCORES.items():
        found[name] = [_held(drawn(rng, (size, 1, studies)), mean, binary=False) for size in sizes]
    for rate in RATES:
        scores = [(rng.random((size, 1, studies)) < rate).astype(float) for size in sizes]
        found[f"hits, rate {rate:g}"] = [_held(one, rate, binary=True) for one in scores]
        found[f"hits in grids of {TILES}, rate {rate:g}"] = [
            _held(_grids(rng, size, studies, rate), rate, binary=True) for size in sizes
        ]
    differences = {
        "exponential − normal": lambda shape: rng.exponential(size=shape) - rng.normal(size=shape) - 1,
        "lognormal − lognormal": lambda shape: rng.lognormal(size=shape) - rng.lognormal(size=shape),
    }
    for name, drawn in differences.items():
        found[f"difference, {name}"] = [_held(drawn((size, 1, studies)), 0, binary=False) for size in sizes]
    for one, other in ((0.9, 0.9), (0.95, 0.5)):
        held = [_hits_differ(rng, size, studies, one, other) for size in sizes]
        found[f"difference, hits of {one:g} and {other:g}"] = held
    return found


def pairs(sizes: list[int], studies: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return how often two methods of equal means are told apart, at 0.05, by our test and by Wilcoxon's."""
    found = {}
    for name, drawn in alike(rng).items():
        cells = []
        for size in sizes:
            scores = [drawn(size, 2) for _ in range(studies)]
            ours = [compare_pairs(one[:, None], binary=name == "hits", level=LEVEL).p[0, 1] for one in scores]
            cells.append(_rates(ours, [_wilcoxon(*one.T) for one in scores]))
        found[name] = cells
    return found


def letters(sizes: list[int], studies: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return how often any two of five methods of equal means are told apart, adjusted by Holm, by either test."""
    found = {}
    for name, drawn in alike(rng).items():
        cells = []
        for size in sizes:
            ours, others = [], []
            for _ in range(studies):
                scores = drawn(size, 5)
                compared = compare_pairs(scores[:, None], binary=name == "hits", level=LEVEL)
                ours.append(np.nanmin(compared.p_adjusted))
                every = [_wilcoxon(scores[:, one], scores[:, other]) for one in range(5) for other in range(one)]
                others.append(holm(np.array(every)).min())
            cells.append(_rates(ours, others))
        found[name] = cells
    return found


def alike(rng: np.random.Generator) -> dict[str, Callable[[int, int], np.ndarray]]:
    """Return by name how scores of methods with equal means are drawn: every other one skewed, the others not."""

    def mixed(skewed: Callable[[int], np.ndarray]) -> Callable[[int, int], np.ndarray]:
        return lambda size, methods: np.stack(
            [skewed(size) if at % 2 else 0.3 * rng.normal(size=size) for at in range(methods)], axis=1
        )

    return {
        "normal": mixed(lambda size: rng.normal(size=size)),
        "exponential, and a narrow one": mixed(lambda size: rng.exponential(size=size) - 1),
        "lognormal (0.5), and a narrow one": mixed(lambda size: rng.lognormal(sigma=0.5, size=size) - np.exp(0.125)),
        "lognormal (1), and a narrow one": mixed(lambda size: rng.lognormal(size=size) - np.exp(0.5)),
        "hits": lambda size, methods: (rng.random((size, methods)) < 0.8).astype(float),
    }


def table(corner: str, heads: list[str], rows: dict[str, list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"\n| {corner} | " + " | ".join(heads) + " |\n| --- |" + " ---: |" * len(heads))
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _held(scores: np.ndarray, mean: float, *, binary: bool) -> str:
    sums, counts = pool(scores)
    low, high = intervals(sums, counts, binary=binary, level=LEVEL)
    held = f"{((low <= mean) & (mean <= high)).mean():.3f}"
    takes = SKEWED * np.median(np.abs(moments(sums, counts).skewness))
    return f"{held} (takes {takes:.0f})" if not binary and takes > len(scores) else held


def _grids(rng: np.random.Generator, size: int, studies: int, rate: float) -> np.ndarray:
    own = 1 / ALIKE - 1
    return (
        rng.random((size, TILES, studies)) < rng.beta(rate * own, (1 - rate) * own, size=(size, 1, studies))
    ).astype(float)


def _hits_differ(rng: np.random.Generator, size: int, studies: int, one: float, other: float) -> str:
    held = []
    for _ in range(studies):
        scores = (rng.random((size, 1, 2)) < [one, other]).astype(float)
        found = compare_pairs(scores, binary=True, level=LEVEL)
        held.append(found.difference_low[0, 1] <= one - other <= found.difference_high[0, 1])
    return f"{np.mean(held):.3f}"


def _wilcoxon(one: np.ndarray, other: np.ndarray) -> float:
    return 1.0 if (one == other).all() else float(wilcoxon(one, other).pvalue)


def _rates(ours: list[float], others: list[float]) -> str:
    return ", ".join(f"{(np.array(p) <= 1 - LEVEL).mean():.3f}" for p in (ours, others))


if __name__ == "__main__":
    main()
