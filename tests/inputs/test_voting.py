"""Let noisy samples vote: a restatement sample by sample, what no vote depends on, cost, controls, identities."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from atlas.inputs.calls import attributions
from atlas.inputs.certification import ABSTAINED, UNDEFINED, Votes, labels
from atlas.inputs.explain import Explainer
from atlas.inputs.top_k import scale_of, top_k
from atlas.inputs.voting import noised, samples_per_row, votes
from atlas.networks.residual import small_resnet
from atlas.study import params
from atlas.study.errors import Unsupported
from atlas.study.seeds import generator, image_seed
from tests.support.metrics import BATCH, HEIGHT, WIDTH, explain, make_classifier, make_inputs, network

LEVELS, N0, N, SIGMA = [50, 30, 10], 3, 8, 0.2
FORMS = ("strict", "strict_rectified", "authors")
each_form = pytest.mark.parametrize("form", FORMS)


def brightness(classifier, images, targets, seeds):
    """A method that runs no network: the same bits in any batch."""
    return images[:, 0] - images[:, 1] * images[:, 2]


def asked(rows):
    inputs = make_inputs(rows)
    return [inputs[name] for name in ("classifier", "images", "targets", "seeds")]


def cast(given, ways, form="strict", passes=None, **changed):
    passes = {name: dict.fromkeys(given[0].passes, 0) for name in ways} if passes is None else passes
    settings = {"sigma": SIGMA, "levels": LEVELS, "n0": N0, "n": N, **changed}
    return votes(*given, ways, passes, form=form, **settings)


def assert_same(one, other):
    for name in ("counts0", "counts", "tied"):
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


def part(found, rows):
    return {name: counts[rows] for name, counts in found.items()}


def slowly(given, method, form):
    """Restate the vote: every noisy copy explained and marked by itself."""
    classifier, images, targets, seeds = given
    shape = (len(images), len(LEVELS), *images.shape[2:])
    found = {"counts0": np.zeros(shape, np.uint8), "counts": np.zeros(shape, np.uint8)}
    found["tied"] = np.zeros(shape[:2], np.uint16)
    for row, (image, target, seed) in enumerate(zip(images, targets, seeds, strict=True)):
        scale = scale_of(method(classifier, image[None], target[None], [seed])) if form == "authors" else None
        for draw in range(N0 + N):
            noise = torch.randn(image.shape, generator=generator(seed, "certify", draw))
            one = method(classifier, (image + SIGMA * noise)[None], target[None], [seed])
            tops, ties = top_k(one, levels=LEVELS, form=form, scales=scale)
            found["counts0" if draw < N0 else "counts"][row] += tops[0].byte().numpy()
            found["tied"][row] += ties[0].numpy()
    return found


@each_form
@pytest.mark.parametrize("method", [explain, brightness])
def test_every_copy_by_itself(form, method):
    given = asked(5)
    found = cast(given, {"one": method}, form)["one"]
    assert_same(found, slowly(given, method, form))
    assert found["counts0"].max() <= N0 < found["counts"].max() <= N


def test_equal_scores_are_counted():
    # Of every seventh image's seed the map is constant.
    given = asked(30)
    constant = [seed % 7 == 0 for seed in given[3]]
    assert 0 < sum(constant) < 30
    tied = cast(given, {"one": explain})["one"]["tied"]
    assert (tied[constant] == N0 + N).all()
    assert (tied[~np.array(constant)] == 0).all()


@each_form
def test_a_row_is_the_same_in_any_batch(form):
    given = asked(5)
    together = cast(given, {"one": explain}, form)["one"]
    for rows in ([2], [4, 0], [3, 2, 1]):
        classifier, images, targets, seeds = given
        some = [classifier, images[rows], targets[rows], [seeds[row] for row in rows]]
        assert_same(cast(some, {"one": explain}, form)["one"], part(together, rows))


@each_form
@pytest.mark.parametrize("batch", [1, 3, 8, 64])
def test_the_batch_is_nothing_to_the_votes(form, batch):
    # In batches of one the authors' clean image has one of its own.
    given = asked(4)
    expected = cast(given, {"one": brightness}, form)["one"]
    given[0] = make_classifier(network(), batch=batch)
    assert_same(cast(given, {"one": brightness}, form)["one"], expected)


@each_form
def test_of_a_network_the_batch_moves_the_last_digits_alone(form):
    given = asked(4)
    expected = cast(given, {"one": explain}, form)["one"]
    for batch in (1, 3):
        given[0] = make_classifier(network(), batch=batch)
        found = cast(given, {"one": explain}, form)["one"]
        for name in ("counts0", "counts"):
            moved = np.abs(found[name].astype(int) - expected[name])
            assert moved.max() <= 1
            assert (moved > 0).mean() < 0.001


@each_form
def test_methods_side_by_side_are_as_each_alone(form):
    given = asked(4)
    ways = {"gradient": explain, "brightness": brightness}
    together = cast(given, ways, form)
    for name, method in ways.items():
        assert_same(together[name], cast(given, {name: method}, form)[name])


def test_what_one_method_cannot_do_is_nothing_to_the_others():
    asked_for = []

    def cannot(classifier, images, targets, seeds):
        asked_for.append(len(images))
        raise Unsupported("has no such layer")

    given = asked(4)
    passes = {name: dict.fromkeys(given[0].passes, 0) for name in ("cannot", "can")}
    found = cast(given, {"cannot": cannot, "can": explain}, passes=passes)
    assert isinstance(found["cannot"], Unsupported)
    assert str(found["cannot"]) == "has no such layer"
    assert asked_for == [BATCH], "asked once"
    assert_same(found["can"], cast(given, {"can": explain})["can"])
    assert passes["can"]["forward"] == 4 * (N0 + N)
    assert not any(passes["cannot"].values())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_map_that_is_not_finite(value):
    def broken(classifier, images, targets, seeds):
        maps = brightness(classifier, images, targets, seeds)
        maps[-1, 3, 4] = value
        return maps

    found = cast(asked(2), {"fine": brightness, "broken": broken})
    without = (found["broken"]["tied"] == UNDEFINED).all(axis=1)
    assert without[-1]
    for name, counts in found["broken"].items():
        assert (counts[without] == (UNDEFINED if name == "tied" else 0)).all()
        np.testing.assert_array_equal(counts[~without], found["fine"][name][~without])
    assert_same(found["fine"], cast(asked(2), {"fine": brightness})["fine"])


@each_form
@pytest.mark.parametrize("rows", [1, 5])
def test_passes(form, rows):
    given = asked(rows)
    passes = {"one": {"forward": 7, "backward": 0, "head": 0}}
    cast(given, {"one": explain}, form, passes)
    number = rows * (N0 + N + (form == "authors"))
    assert passes == {"one": {"forward": 7 + number, "backward": number, "head": 0}}, "added to what there was"
    assert samples_per_row(form=form, n0=N0, n=N, sigma=SIGMA) == number // rows


class TestNoise:
    def test_sigma_scales_the_same_draws(self):
        zeros, seeds = torch.zeros(2, 3, 6, 5), [11, 12]
        row, draw = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
        unit = noised(zeros, seeds, row, draw, 1.0)
        assert torch.equal(noised(zeros, seeds, row, draw, 0.25), 0.25 * unit)
        assert len(unit.flatten(1).unique(dim=0)) == 4, "each image's and copy's own"

    def test_it_is_added_and_not_clipped(self):
        images = torch.linspace(0, 1, 3 * 64 * 64).view(1, 3, 64, 64)
        noise = noised(torch.zeros_like(images), [3], torch.tensor([0]), torch.tensor([7]), 0.4)
        found = noised(images, [3], torch.tensor([0]), torch.tensor([7]), 0.4)
        assert torch.equal(found, images + noise)
        assert found.min() < -0.5
        assert found.max() > 1.5
        assert noise.mean().item() == pytest.approx(0, abs=0.01)
        assert noise.std().item() == pytest.approx(0.4, rel=0.03)

    def test_the_image_itself_has_none(self):
        images = torch.rand(2, 3, 6, 5)
        assert torch.equal(noised(images, [1, 2], torch.tensor([1, 0]), torch.tensor([-1, -1]), 0.3), images[[1, 0]])

    def test_a_copy_does_not_hang_on_how_many_there_are(self):
        given, seen = asked(2), {}

        def watched(classifier, images, targets, seeds):
            seen.setdefault(number, []).append(images)
            return brightness(classifier, images, targets, seeds)

        for number in (4, 9):
            cast(given, {"one": watched}, n0=1, n=number - 1)
        few, many = (torch.cat(seen[number]).view(2, number, *given[1].shape[1:]) for number in (4, 9))
        assert torch.equal(many[:, :4], few)

    def test_every_copy_has_the_seed_and_target_of_its_image(self):
        given, seen = asked(3), []

        def watched(classifier, images, targets, seeds):
            seen.extend(zip(seeds, targets.tolist(), strict=True))
            return brightness(classifier, images, targets, seeds)

        cast(given, {"one": watched})
        own = zip(given[3], given[2].tolist(), strict=True)
        assert seen == [pair for pair in own for _ in range(N0 + N)]


def ways_of(*listed):
    """Return what makes maps, by name: entries as params.yaml has them."""
    bound = [params.entry("methods", family, name, given, "the test") for family, name, given in listed]
    provided = Explainer(bound, torch.zeros(0, 3, HEIGHT, WIDTH), "float32", attributions)
    return {one.name: provided.by(one.name) for one in bound}


@pytest.mark.parametrize("name", ["uniform", "center"])
def test_what_ignores_the_image_is_certified_everywhere(name):
    settings = {"center": {"sigma": 0.25}}.get(name, {})
    found = cast(asked(3), ways_of(("control", name, {**settings, "channels": "sum"})), n0=10, n=60)[name]
    assert set(np.unique(found["counts"])) == {0, 60}
    given = Votes(**found, n0=10, n=60, sigma=SIGMA, levels=LEVELS, form="strict")
    for correction in ("bonferroni", "holm"):
        certified = labels(given, tau=0.75, alpha=0.001, correction=correction)
        assert (certified != ABSTAINED).all()
        # At the edge of the top the center's own symmetry has equal scores, up to eight, which are left out.
        left = np.array([level * HEIGHT * WIDTH // 100 for level in LEVELS]) - (certified == 1).sum(axis=(2, 3))
        assert ((left >= 0) & (left < (8 if name == "center" else 1))).all()


# Identities of methods, which their votes must have too.


def residual():
    torch.manual_seed(5)
    made = small_resnet(classes=4, widths=[4, 8], blocks=1)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.3, 0.3)
            layer.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(made.head[2].weight)
    return made


def pictures(rows=6, side=32):
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(rows, 3, side, side, generator=draw)
    return images, torch.randint(4, (rows,), generator=draw), [image_seed(0, f"image {row}") for row in range(rows)]


FINAL = {"layer": "final", "channels": "sum"}
LOGIT = {"output": "logit", "baseline": "zero", **FINAL}


def test_on_a_linear_head_three_methods_cast_the_same_votes():
    steps = {"steps": 20, "rule": "gauss_legendre", "sign": "both"}
    ways = {
        **ways_of(("gradient", "input_x_gradient", LOGIT)),
        **ways_of(("path", "integrated_gradients", {**steps, **LOGIT})),
        **ways_of(("relevance", "lrp", {"epsilon": 0.25, **FINAL})),
    }
    maps = {name: [] for name in ways}

    def watched(name):
        return lambda *given: maps[name].append(ways[name](*given)) or maps[name][-1]

    classifier = make_classifier(residual(), batch=64)
    found = cast([classifier, *pictures(3)], {name: watched(name) for name in ways}, n0=10, n=32)
    maps = {name: torch.cat(parts) for name, parts in maps.items()}
    tops = {name: top_k(of, levels=LEVELS, form="strict")[0] for name, of in maps.items()}
    own = maps["input_x_gradient"].flatten(1)
    edges = own.sort(descending=True).values[:, [level * own.shape[1] // 100 - 1 for level in LEVELS]]
    distance = (maps["input_x_gradient"][:, None] - edges[:, :, None, None]).abs()
    distance /= own.abs().amax(dim=1)[:, None, None, None]
    # The last rows of an enlarged map are weighted sums of one value with itself: equal scores that round apart, of
    # which rounding says which is marked. LRP moreover holds the sums that it divides by from 0, by 1e-6.
    for other, rounding in (("integrated_gradients", 1e-6), ("lrp", 1e-4)):
        near = distance <= rounding
        assert near.float().mean() < 0.01
        assert not ((tops[other] != tops["input_x_gradient"]) & ~near).any()
        somewhere = near.view(3, 42, *near.shape[1:]).any(dim=1).numpy()
        for name in ("counts0", "counts"):
            differing = found[other][name] != found["input_x_gradient"][name]
            assert differing.mean() < 0.005
            assert not (differing & ~somewhere).any()


def test_without_relu_guided_backpropagation_casts_no_votes():
    torch.manual_seed(2)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, 8, 3, 2, padding=1), nn.SiLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    settings = {"layer": "input", "channels": "abs_sum"}
    ways = ways_of(
        ("gradient", "gradient", {"sign": "both", "output": "logit", **settings}),
        ("gradient", "guided_backprop", {"sign": "positive", **settings}),
    )
    without = make_classifier(nn.Sequential(OrderedDict(features=features, head=head)))
    found = cast([without, *pictures(3)], ways)
    assert isinstance(found["guided_backprop"], Unsupported)
    relu = cast([make_classifier(residual()), *pictures(3)], ways)
    assert (relu["gradient"]["counts"] != relu["guided_backprop"]["counts"]).any()
