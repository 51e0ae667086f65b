"""Masks by optimization: restated with torch's optimizers, closed forms, invariance, cost."""

from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from atlas.methods import optimized_mask
from atlas.methods.shared.masks.optimized import Pooling, largest
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError
from atlas.study.schema.signatures import signature
from tests.support.methods import (
    CLASSES,
    ENGINE,
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    Whole,
    classified,
    close,
    linear,
    network,
    rows_of_passes,
)
from tests.support.reference import optimized as reference

MEANINGFUL = {
    **{"steps": 3, "cells": 5, "window": 5, "area_weight": 0.01, "variation_weight": 0.2},
    **{"power": 3.0, "noise": 0.2, "rate": 0.1},
}
EXTREMAL = {"steps": 3, "areas": [0.1, 0.3, 0.5], "stride": 4, "sigma": 6.0, "smoothing": 0.05}
EVERY = {
    "meaningful_perturbation": (optimized_mask.meaningful_perturbation, MEANINGFUL),
    "extremal_perturbation": (optimized_mask.extremal_perturbation, EXTREMAL),
}
every = pytest.mark.parametrize("name", EVERY)


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> torch.Tensor:
    return pictures(3)


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014]


def pictures(count: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def steep() -> nn.Sequential:
    """A network whose outputs differ enough between images for the area and the variation not to decide all."""
    module = network("deep")
    module.head[-1].weight.data *= 30
    return module


def attribute(name: str, classifier, images, targets, seeds, **changed) -> torch.Tensor:
    function, settings = EVERY[name]
    inputs = [classifier, images, targets] + ([seeds] if name == "meaningful_perturbation" else [])
    return function(*inputs, **{**settings, **changed})


# What every function promises.


@pytest.mark.parametrize("batch", [8, 3])  # of 3, tensors end where no vector register does
@every
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(name, batch):
    count = 20
    images, targets, seeds = pictures(count), torch.arange(count) % CLASSES, list(range(count))
    images[10:13] = images[10]  # one image, several targets
    classifier = Classifier("tiny", steep(), mean=MEAN, std=STD, engine={**ENGINE, "batch": batch})

    def rows_of(rows: list[int]) -> torch.Tensor:
        changed = {"power": 2.3} if name == "meaningful_perturbation" else {}
        return attribute(name, classifier, images[rows], targets[rows], [seeds[row] for row in rows], **changed)

    whole = rows_of(list(range(count)))
    assert all(map.std() > 0 for map in whole)
    shuffled = np.random.default_rng(0).permutation(count).tolist()
    for rows in ([0], [19], [2], [5, 18, 2, 12, 10, 11], list(range(9)), shuffled):
        assert torch.equal(rows_of(rows), whole[rows])


@every
def test_a_row_of_a_real_network_is_the_same_in_any_batch(name):
    torch.manual_seed(7)
    whole = torchvision.models.mobilenet_v2(num_classes=CLASSES).eval()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), whole.classifier)
    module = nn.Sequential(OrderedDict(features=whole.features, head=head))
    classifier = Classifier("real", module, mean=MEAN, std=STD, engine={**ENGINE, "batch": 4})
    images, targets, seeds = pictures(3, 33, 40), torch.tensor([0, 1, 2]), [1, 2, 3]
    found = attribute(name, classifier, images, targets, seeds, steps=2)
    assert torch.isfinite(found).all()
    flipped = attribute(name, classifier, images.flip(0), targets.flip(0), seeds[::-1], steps=2)
    assert torch.equal(flipped, found.flip(0))


@every
def test_passes_are_those_of_the_definition_and_batches_are_full(name, images, targets, seeds, monkeypatch):
    classifier = classified(steep())
    rows, asked = [], classifier.gradient
    monkeypatch.setattr(classifier, "gradient", lambda part, *rest: (rows.append(len(part)), asked(part, *rest))[1])
    attribute(name, classifier, images.repeat(3, 1, 1, 1), targets.repeat(3), seeds * 3)
    masks = 9 * (len(EXTREMAL["areas"]) if name == "extremal_perturbation" else 1)
    assert classifier.passes == {"forward": 3 * masks, "backward": 3 * masks, "head": 0}
    assert rows == [8] * (masks // 8 * 3) + [masks % 8] * 3


@every
def test_no_more_than_a_batch_of_images_exists_at_a_time(name, images, targets, seeds, monkeypatch):
    classifier = classified(steep())
    rows = rows_of_passes(monkeypatch)
    attribute(name, classifier, images.repeat(2, 1, 1, 1), targets.repeat(2), seeds * 2)
    assert max(rows) <= classifier.batch


@every
def test_shape_range_and_inputs_left_alone(name, images, targets, seeds):
    classifier = classified(steep())
    modules = [module for half in classifier._cut("final") for module in half.modules()]
    weights = [parameter.clone() for module in modules for parameter in module.state_dict().values()]
    before = images.clone(), targets.clone(), list(seeds)
    first = attribute(name, classifier, images, targets, seeds)
    assert first.shape == (3, 1, HEIGHT, WIDTH)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= (1 if name == "meaningful_perturbation" else len(EXTREMAL["areas"]))
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])
    assert seeds == before[2]
    after = [parameter for module in modules for parameter in module.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(weights, after, strict=True))
    other = attribute(name, classifier, images, (targets + 1) % CLASSES, seeds)
    assert all(not torch.equal(old, new) for old, new in zip(first, other, strict=True))


def test_only_meaningful_perturbation_draws(images, targets):
    named = {name: signature("methods", "optimized_mask", name).inputs for name in EVERY}
    assert [name for name in EVERY if "seeds" in named[name]] == ["meaningful_perturbation"]
    classifier = classified(steep())
    one, two = (
        attribute("meaningful_perturbation", classifier, images, targets, seeds) for seeds in ([1, 2, 3], [1, 2, 4])
    )
    assert [torch.equal(a, b) for a, b in zip(one, two, strict=True)] == [True, True, False]


@every
def test_a_longer_run_begins_with_the_steps_of_a_shorter_one(name, images, targets, seeds, monkeypatch):
    runs = []
    for steps in (2, 4):
        classifier = classified(steep())
        seen, asked = [], classifier.gradient

        def spied(part, *rest, seen=seen, asked=asked):
            seen.append(part.clone())
            return asked(part, *rest)

        monkeypatch.setattr(classifier, "gradient", spied)
        attribute(name, classifier, images[:2], targets[:2], seeds[:2], steps=steps)
        runs.append(seen)
    assert [len(seen) for seen in runs] == [2, 4]
    assert all(torch.equal(one, two) for one, two in zip(runs[0], runs[1][:2], strict=True))
    assert not torch.equal(runs[1][0], runs[1][1])


# Meaningful perturbation.


def whole(module: nn.Sequential) -> nn.Module:
    return Whole(deepcopy(module).double())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"steps": 12, "cells": 4, "area_weight": 0.3, "variation_weight": 3.0, "window": 3, "rate": 0.02},
        {"steps": 6, "power": 2.5, "noise": 0.0, "variation_weight": 1.0},
    ],
)
def test_meaningful_perturbation_restated(changed, images, targets, seeds):
    module, settings = steep(), {**MEANINGFUL, **changed}
    expected = [
        reference.meaningful(whole(module), STD, image, int(target), seed, **settings)
        for image, target, seed in zip(images, targets, seeds, strict=True)
    ]
    found = attribute("meaningful_perturbation", classified(module), images, targets, seeds, **settings)
    assert np.abs(expected).max() > 0.05
    close(found, expected, 1e-4)


def test_nothing_is_hidden_from_a_classifier_that_looks_at_nothing(images, targets, seeds):
    module = linear()
    module.head[1].weight.data.zero_()
    found = attribute("meaningful_perturbation", classified(module), images, targets, seeds, steps=10)
    assert torch.equal(found, torch.zeros_like(found))


def test_only_what_the_class_is_seen_by_is_hidden(seeds):
    """A linear classifier that looks at a corner, brighter than its surroundings: cells away from it stay 1."""
    images = torch.full((1, 3, HEIGHT, WIDTH), 0.3)
    images[..., 3:5, 3:5] = 0.9
    module = linear()
    weights = torch.zeros(CLASSES, 3, HEIGHT, WIDTH)
    weights[2, :, 3:5, 3:5] = 0.2
    module.head[1].weight.data = weights.flatten(1)
    settings = {"steps": 40, "variation_weight": 0.0, "cells": 5, "noise": 0.1}
    found = attribute("meaningful_perturbation", classified(module), images, torch.tensor([2]), seeds[:1], **settings)[
        0, 0
    ]
    assert found[3:5, 3:5].min() > 0.95
    # Cells lie 4.75 and 5.75 pixels apart.
    assert found[10:].abs().max() < 1e-6
    assert found[:, 12:].abs().max() < 1e-6
    other = attribute("meaningful_perturbation", classified(module), images, torch.tensor([1]), seeds[:1], **settings)
    assert other.max() == 0  # without it the other classes would be more probable


# Extremal perturbation.


@pytest.mark.parametrize(
    ("height", "width", "stride", "sigma"), [(20, 24, 4, 6.0), (30, 21, 7, 21.0), (9, 14, 5, 2.0), (6, 5, 1, 2.0)]
)
def test_pooling_and_its_gradient_are_the_dense_formula(height, width, stride, sigma):
    generator = torch.Generator().manual_seed(2)
    pooling = Pooling.of(torch.zeros(1, 3, height, width), stride, sigma)
    cells = torch.rand(4, *pooling.grid, generator=generator) ** torch.tensor([0.1, 1, 4, 30]).view(-1, 1, 1)
    dense = cells.double().requires_grad_()
    expected = torch.stack([reference.pooled(one, stride, sigma) for one in dense])
    masks, sums = pooling.masks(cells)
    assert masks.shape == expected.shape
    torch.testing.assert_close(masks.double(), expected.detach(), rtol=0, atol=1e-5)
    gradients = torch.randn(masks.shape, generator=generator)
    (back,) = torch.autograd.grad((expected * gradients).sum(), dense)
    found = pooling.cells(cells, masks, sums, gradients)
    close(found, back, 1e-5)


def test_a_mask_of_ones_is_one_near_its_cells_and_the_image_lies_within():
    pooling = Pooling.of(torch.zeros(1, 3, 224, 224), 7, 21.0)
    assert pooling.grid == (32, 32)
    assert pooling.image == (21, 21)
    (mask,), _ = pooling.masks(torch.ones(1, 32, 32))
    assert mask.shape == (260, 260)
    assert mask[21:245, 21:245].min() > 0.9
    assert mask.max() <= 1
    assert mask[0, 0] < 0.5


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_gradient_by_sorted_pixels(count):
    masks = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    wanted = torch.cat([torch.zeros(40 - count), torch.ones(count)])
    loss = ((masks.flatten(1).sort(1).values - wanted) ** 2).sum()
    (expected,) = torch.autograd.grad(loss, masks)
    torch.testing.assert_close(2 * (masks - largest(masks, [count, count])).detach(), expected)


def test_tied_pixels_share_the_last_places():
    masks = torch.tensor([[[0.9, 0.5, 0.500001], [0.499999, 0.5, 0.1]], [[0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]])
    found = largest(masks, [3, 3])
    torch.testing.assert_close(found, torch.tensor([[[1, 0.5, 0.5], [0.5, 0.5, 0]], [[0.5] * 3] * 2]))


@pytest.mark.parametrize(
    "changed",
    [{"steps": 6}, {"steps": 25, "areas": [0.2], "stride": 5, "sigma": 5.0, "smoothing": 0.0}],
)
def test_extremal_perturbation_restated(changed, images, targets, seeds):
    module, settings = steep(), {**EXTREMAL, **changed}
    expected = [
        reference.extremal(whole(module), MEAN, image, int(target), **settings)
        for image, target in zip(images[:2], targets[:2], strict=True)
    ]
    found = attribute("extremal_perturbation", classified(module), images[:2], targets[:2], seeds, **settings)
    close(found, expected, 1e-4)


def test_areas_add_up(images, targets, seeds):
    classifier = classified(steep())
    found = [
        attribute("extremal_perturbation", classifier, images, targets, seeds, areas=areas)
        for areas in ([0.1, 0.5], [0.1], [0.5])
    ]
    close(found[0], found[1] + found[2])


@pytest.mark.parametrize("area", [0.15, 0.2])
def test_the_mask_of_a_linear_classifier_lies_where_the_image_differs_most_from_its_blur(area, seeds):
    """Weights times stripes, the same left and right; every mask of the area keeps them sharp."""
    images = torch.tensor(MEAN).view(1, -1, 1, 1).repeat(1, 1, HEIGHT, WIDTH)
    stripes = torch.where(torch.arange(HEIGHT) % 2 == 0, 0.2, -0.2)[:, None]
    images += stripes
    place = (slice(4, 11), slice(8, 16))
    weights = torch.zeros(CLASSES, 3, HEIGHT, WIDTH)
    weights[1, :, *place] = stripes[place[0]]
    module = linear()
    module.head[1].weight.data = weights.flatten(1) / 10
    classifier = Classifier("alone", module, mean=MEAN, std=STD, engine={**ENGINE, "batch": 1})
    settings = {"steps": 300, "areas": [area], "stride": 2, "sigma": 4.0, "smoothing": 0.0}
    mask = attribute("extremal_perturbation", classifier, images, torch.tensor([1]), seeds, **settings)[0, 0]
    canvas = (2 * 9 + 8 + 1) * (2 * 11 + 8 + 1)
    assert mask.sum() == pytest.approx(area * canvas, rel=0.1)
    assert mask[place].min() > 0.9
    assert mask[:, [0, 1, -2, -1]].max() < 0.1
    assert mask[-3:].max() < 0.1


# Messages.


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("meaningful_perturbation", {"steps": 0}, "'steps' is 0, expected at least 1"),
        ("meaningful_perturbation", {"cells": 1}, "'cells' is 1, expected at least 2"),
        ("meaningful_perturbation", {"window": 10}, "'window' is 10, expected an odd number, at least 1"),
        ("meaningful_perturbation", {"window": -1}, "'window' is -1, expected an odd number, at least 1"),
        ("meaningful_perturbation", {"area_weight": -0.1}, "'area_weight' is -0.1, expected at least 0"),
        ("meaningful_perturbation", {"variation_weight": -1.0}, "'variation_weight' is -1.0, expected at least 0"),
        ("meaningful_perturbation", {"power": 0.5}, "'power' is 0.5, expected at least 1"),
        ("meaningful_perturbation", {"noise": -0.2}, "'noise' is -0.2, expected at least 0"),
        ("meaningful_perturbation", {"rate": 0.0}, "'rate' is 0.0, expected above 0"),
        ("extremal_perturbation", {"steps": 0}, "'steps' is 0, expected at least 1"),
        ("extremal_perturbation", {"areas": []}, r"'areas' is \[\], expected shares above 0 and below 1, at least one"),
        ("extremal_perturbation", {"areas": [0.1, 1.0]}, r"'areas' is \[0.1, 1.0\], expected shares above 0 and below"),
        ("extremal_perturbation", {"areas": [0.0]}, r"'areas' is \[0.0\], expected shares above 0 and below 1"),
        ("extremal_perturbation", {"stride": 0}, "'stride' is 0, expected at least 1"),
        ("extremal_perturbation", {"sigma": 0.0}, "'sigma' is 0.0, expected above 0"),
        ("extremal_perturbation", {"smoothing": -0.1}, "'smoothing' is -0.1, expected at least 0"),
    ],
)
def test_impossible_settings_are_explained(name, wrong, message, images, targets, seeds):
    with pytest.raises(UserError, match=f"{name}: the setting {message}"):
        attribute(name, classified(linear()), images, targets, seeds, **wrong)
