"""Look for changes of an image inside the radius of a certificate that turn a certified pixel.

    uv run python benchmarks/soundness.py [--study .] [--classifier resnet_vanilla] [--method gradient] [--tries 1000]

One evaluation image of a study is certified as `certify` would: noisy samples vote on the top of its maps, strictly.
Without `data/` the classifier has random weights, and so has the image. A try is a change δ of the image with
‖δ‖₂ = reach · σ · Φ⁻¹(τ); fresh samples of x + δ vote on all certified pixels. Changes take turns:

- random: any direction;
- corner: as much in every value, of random signs;
- votes: for one of the weakest certified pixels, the mean noise of the samples against it less that of those for it,
  which points where it loses votes; local: the same, around the pixel only;
- loss: where the classifier's loss rises;
- climb: the change that took most votes so far, changed a little.

A pixel with less than half of the votes is looked at again, by more and more fresh samples: it has turned where
they reject that at least half of all samples vote for its label, and holds where they reject that at most half do, at
0.001 over all that are looked at again. With probability 1 − α the certificate allows none that turns at reach 1. The
search has teeth if it finds some at a larger reach.

It prints, for each reach: tries, seconds, the smallest share of votes that any certified pixel kept in a try, tries
that were looked at again, pixels that turned (over all tries), tries by which some pixel turned, those of which it
stayed open, the upper end of the one-sided 95% interval (Clopper-Pearson) of the share of both, and the kinds of change
that did it. The interval is of the
share among changes made in these ways; of the worst change it says nothing.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import beta, binom
from torch import Tensor

from atlas.cache.stores import read, values
from atlas.inputs.audit.building import building
from atlas.inputs.calls import attributions
from atlas.inputs.certification import ABSTAINED, IMPORTANT, Votes, labels
from atlas.inputs.explain import Explainer
from atlas.inputs.row_inputs import intensities
from atlas.inputs.top_k import top_k
from atlas.inputs.voting import noised, votes
from atlas.model.classifier import Classifier
from atlas.model.loading import build, load
from atlas.model.runtime import start
from atlas.study import params
from atlas.study.schema.smoothing import radius
from atlas.study.seeds import generator, image_seed

KINDS = ("random", "corner", "votes", "local", "loss", "climb")
# Copies that vote again at a time, and how many times at most; how much of a change that climbs is new.
SEED, ALLOWED, AGAIN, TIMES, STEP = 0, 0.001, 250, 16, 0.3
# Rows a side of what is changed around a pixel, and how many pixels are the weakest.
AROUND, WEAKEST = 5, 20


class Certificate(NamedTuple):
    """An image, what makes its maps, and the label of each pixel at each level."""

    classifier: Classifier
    image: Tensor
    target: Tensor
    explain: Callable
    labels: np.ndarray
    sigma: float
    radius: float
    levels: list[int]


class Found(NamedTuple):
    """What a search found."""

    tries: int
    kept: float  # smallest share of votes for a certified label
    looked_at_again: int
    turned: list[tuple[str, tuple[int, ...]]]  # the kind of change, and (level, y, x)
    tries_that_turned: int
    tries_left_open: int

    @property
    def bound(self) -> float:
        """The upper end of the share of changes that turn a pixel; what stayed open counts as turned."""
        return upper(self.tries_that_turned + self.tries_left_open, self.tries)


def main() -> None:
    """Certify an image, search at each reach, print."""
    given = arguments()
    began = perf_counter()
    classifier, image, target = subject(given)
    settings = {"sigma": given.sigma, "levels": given.levels, "n0": given.n0, "n": given.n}
    own = certificate(classifier, image, target, method(given), **settings, tau=given.tau, alpha=given.alpha)
    certified = (own.labels != ABSTAINED).sum(axis=(1, 2)).tolist()
    print(
        f"{given.method} of {classifier.name}, {tuple(image.shape[1:])}: radius {own.radius:.4f}; certified pixels of"
    )
    print(f"{own.labels[0].size} at levels {own.levels}: {certified}; {perf_counter() - began:.1f} s\n")
    heads = ("reach", "tries", "seconds", "kept", "again", "pixels turned", "tries", "open", "share below")
    print("".join(f"{head:>{len(head) + 3}}" for head in heads) + "   by")
    for reach in given.reach:
        began = perf_counter()
        found = search(own, given.tries if reach <= 1 else given.tries // 10, reach, given.samples)
        seconds = perf_counter() - began
        cells = (f"{reach:g}", found.tries, f"{seconds:.1f}", f"{found.kept:.2f}", found.looked_at_again)
        cells += (len(found.turned), found.tries_that_turned, found.tries_left_open, f"{found.bound:.4f}")
        line = "".join(f"{cell:>{len(head) + 3}}" for head, cell in zip(heads, cells, strict=True))
        print(f"{line}   {', '.join(sorted({kind for kind, _ in found.turned})) or '-'}", flush=True)


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Look for changes inside the radius that turn a certified pixel.")
    parser.add_argument("--study", type=Path, default=Path())
    parser.add_argument("--classifier", default="resnet_vanilla")
    parser.add_argument("--method", default="gradient", help="of the study")
    parser.add_argument("--image", type=int, default=0, help="its place among the evaluation images")
    parser.add_argument("--tries", type=int, default=1000, help="a tenth of them beyond the radius")
    parser.add_argument("--samples", type=int, default=16, help="that vote in a try")
    parser.add_argument("--reach", type=float, nargs="+", default=[1.0, 4.0, 16.0], help="in radii")
    parser.add_argument("--sigma", type=float, default=0.15)
    parser.add_argument("--tau", type=float, default=0.75)
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--levels", type=int, nargs="+", default=[50, 30, 10])
    parser.add_argument("--n0", type=int, default=10)
    parser.add_argument("--n", type=int, default=60)
    return parser.parse_args()


def subject(given: Namespace) -> tuple[Classifier, Tensor, Tensor]:
    """Return the study's classifier and image, or random ones of their kind, and the class that is explained."""
    known = params.load(given.study)
    engine = {"device": "cpu", "precision": "float32", "threads": 1, "batch": known["engine"]["batch"]}
    start(engine)
    network = known["classifiers"][given.classifier]["network"]
    folder = params.path(given.study, "classifiers", given.classifier)
    if (folder / "card.json").is_file():
        classifier = load(folder, given.classifier, network, engine, building)
        images = read(params.path(given.study, "images", given.classifier) / "images", "the evaluation images")
        row = slice(given.image, given.image + 1)
        target = torch.from_numpy(values(images, "target")[row]).long()
        return classifier, intensities(values(images, "pixels")[row], "cpu"), target
    print(f"no {folder}: random weights, a random image of 32 x 32")
    torch.manual_seed(SEED)
    classifier = Classifier(
        "random", build(network, classes=6, watch=building), mean=[0.5] * 3, std=[0.25] * 3, engine=engine
    )
    image = torch.rand(1, 3, 32, 32, generator=generator(SEED, "image", given.image))
    return classifier, image, classifier.logits(image).argmax(dim=1)


def method(given: Namespace) -> Callable:
    """Return what makes maps by a method of the study."""
    listed = params.entries(params.load(given.study), "methods")
    (bound,) = (family[given.method] for family in listed.values() if given.method in family)
    return Explainer([bound], torch.zeros(0, 3, 1, 1), "float32", attributions).by(given.method)


def certificate(
    classifier: Classifier, image: Tensor, target: Tensor, explain: Callable, *, tau: float, alpha: float, **smoothed
) -> Certificate:
    """Certify an image by the project's own stages; its maps are of one seed, whatever the noise is drawn from."""
    seeded = partial(of_one_seed, explain)
    cast = vote(classifier, image, target, seeded, "certified", **smoothed)
    counted = Votes(
        **cast,
        n0=smoothed["n0"],
        n=smoothed["n"],
        sigma=smoothed["sigma"],
        levels=smoothed["levels"],
        form="strict",
    )
    found = labels(counted, tau=tau, alpha=alpha, correction="holm")[0]
    reached = radius(smoothed["sigma"], tau)
    return Certificate(classifier, image, target, seeded, found, smoothed["sigma"], reached, smoothed["levels"])


def of_one_seed(explain: Callable, classifier: Classifier, images: Tensor, targets: Tensor, seeds: list[int]) -> Tensor:
    """Make maps by a function of the image alone."""
    return explain(classifier, images, targets, [image_seed(SEED, "image")] * len(images))


def vote(classifier: Classifier, images: Tensor, target: Tensor, explain: Callable, purpose: str, **smoothed) -> dict:
    """Let fresh samples of each image vote."""
    seeds = [image_seed(SEED, f"{purpose} {row}") for row in range(len(images))]
    passes = {"own": dict.fromkeys(classifier.passes, 0)}
    targets = target.repeat(len(images))
    return votes(classifier, images, targets, seeds, {"own": explain}, passes, form="strict", **smoothed)["own"]


def search(own: Certificate, tries: int, reach: float, samples: int) -> Found:
    """Try changes of one length; give what turned."""
    make = changes(own, pool=8 * own.classifier.batch)
    worst: list[Tensor] = []  # the change that took most votes so far

    def climbing(one: int) -> Tensor:
        change = torch.randn(own.image.shape[1:], generator=generator(SEED, "change", one))
        return worst[0] + STEP * worst[0].norm() / change.norm() * change if worst else change

    make["climb"] = climbing
    turned, suspected, those, still, most = [], [], 0, 0, 0
    for begin in range(0, tries, own.classifier.batch):
        kinds = [KINDS[one % len(KINDS)] for one in range(begin, min(begin + own.classifier.batch, tries))]
        deltas = torch.stack([make[kind](one) for one, kind in enumerate(kinds, begin)])
        deltas *= reach * own.radius / deltas.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        against = counted_against(own, own.image + deltas, f"reach {reach} try {begin}", samples)
        if against.max() > most or not worst:
            most = int(against.max())
            worst[:] = [deltas[int(against.reshape(len(kinds), -1).max(axis=1).argmax())]]
        for row, kind in enumerate(kinds):
            if (2 * against[row] > samples).any():
                suspected.append((kind, deltas[row], 2 * against[row] > samples))
    number = sum(int(marks.sum()) for _, _, marks in suspected)
    for one, (kind, delta, marks) in enumerate(suspected):
        confirmed, open_yet = again(own, delta, marks, f"reach {reach} again {one}", ALLOWED / number / TIMES)
        turned += [(kind, tuple(place)) for place in np.argwhere(confirmed).tolist()]
        those += confirmed.any()
        still += open_yet.any() and not confirmed.any()
    return Found(tries, 1 - most / samples, len(suspected), turned, int(those), int(still))


def again(
    own: Certificate, delta: Tensor, marks: np.ndarray, purpose: str, bar: float
) -> tuple[np.ndarray, np.ndarray]:
    """Let fresh samples of a changed image vote on some pixels until they have turned, or hold; those, and the open."""
    against, turned, waiting = np.zeros(marks.shape, int), np.zeros_like(marks), marks
    for time in range(1, TIMES + 1):
        against += counted_against(own, own.image + delta[None], f"{purpose} {time}", AGAIN)[0]
        turned |= waiting & (binom.sf(against - 1, time * AGAIN, 0.5) <= bar)
        waiting = waiting & ~turned & (binom.cdf(against, time * AGAIN, 0.5) > bar)
        if not waiting.any():
            break
    return turned, waiting


def counted_against(own: Certificate, images: Tensor, purpose: str, samples: int) -> np.ndarray:
    """Count the fresh samples of images that vote against each certified pixel's label."""
    smoothed = {"sigma": own.sigma, "levels": own.levels, "n0": 1, "n": samples - 1}
    cast = vote(own.classifier, images, own.target, own.explain, purpose, **smoothed)
    top = cast["counts0"].astype(int) + cast["counts"]
    return np.where(own.labels == ABSTAINED, 0, np.where(own.labels == IMPORTANT, samples - top, top))


def changes(own: Certificate, pool: int) -> dict[str, Callable[[int], Tensor]]:
    """Return what makes the changes of each kind, of any length, by the number of the try."""
    image, classifier, shape = own.image, own.classifier, own.image.shape[1:]
    row, draw = torch.zeros(pool, dtype=torch.int64), torch.arange(pool)
    seen = noised(image, [image_seed(SEED, "pool")], row, draw, own.sigma)
    tops = []
    for begin in range(0, pool, classifier.batch):
        part = seen[begin : begin + classifier.batch]
        maps = own.explain(classifier, part, own.target.repeat(len(part)), [])
        tops.append(top_k(maps, levels=own.levels, form="strict")[0])
    tops, noise = torch.cat(tops), seen - image
    certified = np.argwhere(own.labels != ABSTAINED)
    for_it = np.array(
        [(tops[:, level, y, x] == bool(own.labels[level, y, x])).sum().item() for level, y, x in certified]
    )
    weakest = certified[np.argsort(for_it, kind="stable")[:WEAKEST]]
    steepest = classifier.gradient(image, own.target, "loss")[0]

    def normal(one: int) -> Tensor:
        return torch.randn(shape, generator=generator(SEED, "change", one))

    def losing(one: int) -> tuple[Tensor, int, int]:
        if not len(weakest):
            return normal(one), 0, 0
        level, y, x = weakest[one // len(KINDS) % len(weakest)]
        for_label = tops[:, level, y, x] == bool(own.labels[level, y, x])
        if for_label.all():
            return normal(one), y, x
        return noise[~for_label].mean(dim=0) - noise[for_label].mean(dim=0), y, x

    def around(one: int) -> Tensor:
        change, y, x = losing(one)
        kept = torch.zeros_like(change)
        window = (slice(None), *(slice(max(0, place - AROUND // 2), place + AROUND // 2 + 1) for place in (y, x)))
        kept[window] = change[window]
        return kept

    return {
        "random": normal,
        "corner": lambda one: normal(one).sign(),
        "votes": lambda one: losing(one)[0],
        "local": around,
        "loss": lambda one: steepest + 0.1 * steepest.std() * normal(one),
    }


def upper(hits: int, tries: int, level: float = 0.95) -> float:
    """Return the upper end of Clopper and Pearson's one-sided interval of a share."""
    return float(beta.ppf(level, hits + 1, tries - hits)) if hits < tries else 1.0


if __name__ == "__main__":
    main()
