"""Metrics of votes restated for one image: pixel by pixel, with SciPy's binomial test."""

import numpy as np
from scipy.stats import binomtest


def label(count0, count, n0, n, tau, alpha, pixels, correction):
    """One pixel's label by Bonferroni's correction, or none."""
    chosen = 1 if count0 > n0 / 2 else 0
    agree = count if chosen else n - count
    p = binomtest(int(agree), n, tau, alternative="greater").pvalue
    return chosen if p <= (alpha / pixels if correction == "bonferroni" else alpha) else -1


def labels(votes, tau, alpha, correction):
    """All labels: radius level y x."""
    found = []
    for one in votes:
        for share in tau:
            known: dict = {}
            marks = np.zeros(one.counts0.shape, int)
            for at in np.ndindex(*one.counts0.shape):
                pair = int(one.counts0[at]), int(one.counts[at])
                if pair not in known:
                    pixels = one.counts0.shape[-1] * one.counts0.shape[-2]
                    known[pair] = label(*pair, one.n0, one.n, share, alpha, pixels, correction)
                marks[at] = known[pair]
            found.append(marks)
    return np.stack(found)


def _each(votes, tau, alpha, correction, score):
    return np.array([[score(one) for one in levels] for levels in labels(votes, tau, alpha, correction)])


def certified_important(votes, *, tau, alpha, correction):
    return _each(votes, tau, alpha, correction, lambda one: 100 * np.mean(one == 1))


def certified_unimportant(votes, *, tau, alpha, correction):
    return _each(votes, tau, alpha, correction, lambda one: 100 * np.mean(one == 0))


def abstained(votes, *, tau, alpha, correction):
    return _each(votes, tau, alpha, correction, lambda one: 100 * np.mean(one == -1))


def grid_abstained(votes, tiles, *, tau, alpha, correction):
    return abstained(votes, tau=tau, alpha=alpha, correction=correction)


def certified_nothing(votes, tiles, *, tau, alpha, correction):
    return _each(votes, tau, alpha, correction, lambda one: float(not (one == 1).any()))


def certified_grid_pointing_game(votes, tiles, *, tau, alpha, correction, nothing):
    def score(one):
        total = (one == 1).sum()
        if not total:
            return 0.0 if nothing == "zero" else np.nan
        return (tiles & (one == 1)).sum() / total

    return _each(votes, tau, alpha, correction, score)


def certified_localization(votes, masks, *, tau, alpha, correction):
    def score(one):
        total = (one == 1).sum()
        return (masks & (one == 1)).sum() / total if total and masks.any() else np.nan

    return _each(votes, tau, alpha, correction, score)


def certified_deletion(votes, images, witness, *, tau, alpha, correction, baseline):
    fill = witness.mean if baseline == "mean" else np.zeros(3, np.float32)
    curves = []
    for levels in labels(votes, tau, alpha, correction):
        image = images.copy()
        curve = [witness.probability(image)]
        for one in levels[::-1]:
            for y, x in zip(*np.nonzero(one == 1), strict=True):
                image[:, y, x] = fill
            curve.append(witness.probability(image))
        curves.append(curve)
    return np.array(curves)


def certified_consistency(votes, maps, *, tau, alpha, correction):
    if not np.isfinite(maps).all():
        return np.full((len(votes) * len(tau), len(votes[0].levels)), np.nan)
    flat = maps.ravel()
    as_high = np.array([(flat >= one).sum() for one in flat])
    found = labels(votes, tau, alpha, correction)
    scores = np.full(found.shape[:2], np.nan)
    for at in np.ndindex(*scores.shape):
        top = as_high <= votes[0].levels[at[1]] * maps.size // 100
        kept = found[at].ravel() != -1
        if kept.any():
            scores[at] = np.mean(found[at].ravel()[kept] == top[kept])
    return scores


def parted_ties(votes, *, tau, alpha, correction):
    return np.array([one.tied / (one.n0 + one.n) for one in votes for _ in tau])


def grid_parted_ties(votes, tiles, *, tau, alpha, correction):
    return parted_ties(votes, tau=tau, alpha=alpha, correction=correction)
