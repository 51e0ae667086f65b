"""Certificates hold: errors are as rare as they say, and no change inside the radius turns a pixel."""

import importlib.util
import shutil
import sys
from functools import cache
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binom

from atlas.inputs.certification import ABSTAINED, IMPORTANT, Votes, labels, tails
from atlas.inputs.voting import votes
from atlas.study.schema.smoothing import radius
from atlas.study.seeds import image_seed
from tests.support.forked import call
from tests.support.metrics import ROOT, make_classifier, make_inputs, network
from tests.support.study import environment

N0, N, TAU, ALPHA, SIGMA = 10, 60, 0.75, 0.05, 0.15
REPETITIONS = 2000
each_correction = pytest.mark.parametrize("correction", ["bonferroni", "holm"])


def benchmark():
    spec = importlib.util.spec_from_file_location("soundness", ROOT / "benchmarks" / "soundness.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


soundness = benchmark()


def counted(first, rest):
    """Return votes: a map a repetition, a column a pixel."""
    first, rest = (one.astype(np.uint8)[:, None, None] for one in (first, rest))
    return Votes(first, rest, np.zeros((len(first), 1), np.uint16), N0, N, SIGMA, [50], "strict")


def errors(cast, probability, correction):
    """Count the maps that have a label which no more than a share τ of all samples votes for."""
    found = labels(cast, tau=TAU, alpha=ALPHA, correction=correction)[:, 0, 0]
    false = ((found == IMPORTANT) & (probability <= TAU)) | ((found == 0) & (1 - probability <= TAU))
    return int(false.any(axis=1).sum())


def allowed(repetitions):
    """Return the most errors that a share of α makes but once in ten thousand."""
    return binom.ppf(1 - 1e-4, repetitions, ALPHA)


def hardest(pixels):
    """Return what is hardest to tell from certain: each label has just the share τ, or the other one has."""
    return np.where(np.arange(pixels) % 2, TAU, 1 - TAU)


def tight():
    """Return a number of pixels for which the test of counts, which are whole, rejects nearly as often as it may."""
    return next(pixels for value in tails(N, TAU) if (pixels := int(ALPHA / value)) >= 200)


def binomials(seed, probability):
    rng, shape = np.random.default_rng(seed), (REPETITIONS, len(probability))
    return counted(rng.binomial(N0, probability, shape), rng.binomial(N, probability, shape))


class TestErrorsAreRare:
    @each_correction
    @pytest.mark.parametrize("pixels", [tight(), 4096])
    def test_where_every_pixel_is_at_the_edge(self, correction, pixels):
        probability = hardest(pixels)
        cast = binomials(0, probability)
        assert errors(cast, probability, correction) <= allowed(REPETITIONS)
        assert errors(cast, probability, "none") > 10 * allowed(REPETITIONS)

    def test_nearly_as_many_as_allowed(self):
        # Were the bar a vote lower, there would be too many.
        probability = hardest(tight())
        found = errors(binomials(0, probability), probability, "bonferroni")
        assert found > 0.6 * ALPHA * REPETITIONS

    def test_the_copies_that_choose_a_label_do_not_test_it(self):
        # Every pixel is a coin, so that any label is wrong; votes that choose it as well are twice as often.
        pixels = next(number for value in tails(N, 0.5) if (number := int(ALPHA / value)) >= 200)
        cast = binomials(3, np.full(pixels, 0.5))
        reused = cast._replace(counts0=np.where(2 * cast.counts > N, N0, 0).astype(np.uint8))
        wrong, more = (
            int((labels(one, tau=0.5, alpha=ALPHA, correction="bonferroni") != ABSTAINED).any(axis=(1, 2, 3)).sum())
            for one in (cast, reused)
        )
        assert 0.6 * ALPHA * REPETITIONS < wrong <= allowed(REPETITIONS) < more

    @each_correction
    def test_where_most_pixels_are_sure(self, correction):
        # The others' bar is lowered by Holm's procedure, and they still hold.
        pixels, edge = 20 * tight(), tight()
        probability = np.concatenate([hardest(edge), np.full(pixels - edge, 0.9999)])
        cast = binomials(1, probability)
        found = errors(cast, probability, correction)
        assert found <= allowed(REPETITIONS)
        assert correction == "bonferroni" or found > 3 * errors(cast, probability, "bonferroni")

    @each_correction
    @pytest.mark.parametrize("dimensions", [2, 8])
    def test_where_pixels_vote_alike(self, correction, dimensions):
        # A pixel is at the top iff w · ε > t, so that its probability is known: Φ(−t / ‖w‖).
        rng, probability = np.random.default_rng(2), hardest(100)
        weights = rng.normal(size=(100, dimensions)).astype(np.float32)
        edge = -np.linalg.norm(weights, axis=1) * np.array([NormalDist().inv_cdf(one) for one in probability])
        samples = rng.standard_normal((REPETITIONS, N0 + N, dimensions), np.float32)
        first, rest = (
            sum((samples[:, one] @ weights.T > edge).astype(np.uint8) for one in part)
            for part in (range(N0), range(N0, N0 + N))
        )
        assert rest.mean(axis=0)[::2] / N == pytest.approx(1 - TAU, abs=0.01)
        assert errors(counted(first, rest), probability, correction) <= allowed(REPETITIONS)
        assert errors(counted(first, rest), probability, "none") > 2 * allowed(REPETITIONS)

    @each_correction
    def test_by_the_votes_of_noisy_copies(self, correction):
        rows = 300
        cast = half_spaces(TAU, rows)
        probability = np.tile([TAU, 1 - TAU], 16)
        flat = Votes(*(one.reshape(rows, 1, 1, 32) for one in cast[:2]), *cast[2:])
        assert errors(flat, probability, correction) <= allowed(rows)
        assert errors(flat, probability, "none") > 2 * allowed(rows)
        # Every pixel's count is binomial: samples are drawn one apart from the other, of just this noise.
        count = cast.counts.reshape(rows, 32)[:, ::2].astype(float)
        assert count.mean() / N == pytest.approx(TAU, abs=5 * np.sqrt(TAU * (1 - TAU) / count.size / N))
        assert count.var() / (N * TAU * (1 - TAU)) == pytest.approx(1, abs=5 * np.sqrt(2 / count.size))


def sides(threshold):
    """Make maps of which just half is above 0: of each two pixels the first iff the value of its own exceeds a bar."""

    def maps(classifier, images, targets, seeds):
        above = images.flatten(1)[:, :16] - threshold
        return torch.stack([above, -above], dim=2).view(len(images), 4, 8)

    return maps


@cache
def half_spaces(probability, rows, *, shift=0.0, draws=N):
    """Let samples of black images vote, in whose maps every first pixel is at the top with a known probability.

    Args:
        probability: Of an image that is not shifted.
        rows: Images.
        shift: What is taken from every value that decides, in intensities: each pixel's worst change of that norm.
        draws: Samples that test.
    """
    images = torch.zeros(rows, 3, 4, 8) - shift
    threshold = -SIGMA * NormalDist().inv_cdf(probability)
    given = (make_classifier(network(), batch=512), images, torch.zeros(rows, dtype=torch.int64))
    seeds = [image_seed(0, f"row {row}") for row in range(rows)]
    passes = {"own": {"forward": 0, "backward": 0, "head": 0}}
    settings = {"form": "strict", "sigma": SIGMA, "levels": [50], "n0": N0, "n": draws}
    cast = votes(*given, seeds, {"own": sides(threshold)}, passes, **settings)["own"]
    return Votes(**cast, n0=N0, n=draws, sigma=SIGMA, levels=[50], form="strict")


def test_the_radius_is_just_what_the_share_allows():
    # At the edge of the radius a pixel of share τ has half of the votes, inside more, outside less.
    reach = radius(SIGMA, TAU)
    shares = [half_spaces(TAU, 20, shift=by * reach, draws=240).counts[..., ::2].mean() / 240 for by in (0.8, 1, 1.2)]
    expected = [NormalDist().cdf((1 - by) * NormalDist().inv_cdf(TAU)) for by in (0.8, 1, 1.2)]
    assert shares == pytest.approx(expected, abs=5 * np.sqrt(0.25 / (20 * 16 * 240)))
    assert shares[0] > 0.53 > 0.51 > shares[1] > 0.49 > 0.47 > shares[2]


SMOOTHED = {"sigma": SIGMA, "levels": [50, 30, 10], "n0": N0, "n": N, "tau": TAU, "alpha": ALPHA}


def gradients(classifier, images, targets, seeds):
    return classifier.gradient(images, targets, "logit").abs().sum(dim=1)


def test_no_change_inside_the_radius_turns_a_pixel_of_a_network():
    inputs = make_inputs(rows=2)
    classifier = make_classifier(network(), batch=32)
    image, target = inputs["images"][1:], inputs["targets"][1:]
    own = soundness.certificate(classifier, image, target, gradients, **SMOOTHED)
    certified = own.labels != ABSTAINED
    assert 0.2 < certified.mean() < 0.95
    assert {0, 1} <= set(np.unique(own.labels))
    inside = soundness.search(own, 1000, 1.0, 16)
    assert inside.turned == []
    assert inside.tries_left_open == 0
    assert inside.bound < 0.003
    assert soundness.search(own, 20, 12.0, 16).tries_that_turned > 0, "the search finds what there is"


def test_what_lies_in_a_half_space_turns_beyond_the_radius_only():
    classifier = make_classifier(network(), batch=32)
    image, target = torch.zeros(1, 3, 4, 8), torch.tensor([0])
    given = sides(-SIGMA * NormalDist().inv_cdf(0.95))  # turns at 1.645 σ, which is 2.44 times the radius
    own = soundness.certificate(classifier, image, target, given, **{**SMOOTHED, "levels": [50]})
    assert (own.labels != ABSTAINED).mean() > 0.5
    assert soundness.search(own, 30, 1.0, 32).turned == []
    beyond = soundness.search(own, 30, 6.0, 32)
    assert {kind for kind, _ in beyond.turned} >= {"votes", "local"}
    assert beyond.tries_that_turned >= 5


@pytest.mark.parametrize(
    ("hits", "tries", "expected"), [(0, 1000, 0.00299), (0, 60, 0.0487), (3, 10, 0.6066), (5, 5, 1)]
)
def test_the_upper_end_of_a_share(hits, tries, expected):
    assert soundness.upper(hits, tries) == pytest.approx(expected, abs=5e-5)
    if hits < tries:
        assert binom.cdf(hits, tries, soundness.upper(hits, tries)) == pytest.approx(0.05)


def test_the_benchmark_runs(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    counts = ["--tries", "20", "--samples", "8", "--reach", "1", "16"]
    command = [sys.executable, "benchmarks/soundness.py", "--study", tmp_path, *counts]
    done = call(command, ROOT, environment(ROOT))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("gradient of ") for line in lines)
    rows = [line.split() for line in lines[lines.index("") + 2 :]]
    assert [row[:2] for row in rows] == [["1", "20"], ["16", "2"]]
    assert rows[0][5] == "0", "nothing turns inside the radius"
