"""RISE and occlusion: prefixes of masks share their passes, unbiased masks, messages."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from atlas.methods import masking
from atlas.methods.shared.masks.cells import mask_maker
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.study.errors import UserError

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
HEIGHT, WIDTH, CLASSES = 12, 16, 5
RISE = {"cells": 3, "probability": 0.4, "fill": "mean", "seed": 1}
TARGETS = torch.tensor([4, 2, 0])


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


def classified() -> Classifier:
    torch.manual_seed(3)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    head[-1].weight.data *= 5  # so that masks move the probabilities
    features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
    return of(nn.Sequential(OrderedDict(features=features, head=head)))


def wide() -> Classifier:
    """With a matrix product over so many features that it sums them in another order for another number of rows."""
    torch.manual_seed(3)
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, CLASSES))
    return of(nn.Sequential(OrderedDict(features=nn.Identity(), head=head)))


def of(module: nn.Sequential) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine=ENGINE)


@pytest.mark.parametrize("method", ["rise", "occlusion"])
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(method):
    settings = {"rise": {**RISE, "masks": 9}, "occlusion": {"window": 6, "stride": 3, "fill": "mean"}}[method]
    images = torch.rand(19, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    targets, classifier = torch.arange(19) % CLASSES, wide()
    whole = getattr(masking, method)(classifier, images, targets, **settings)
    for rows in ([18], [5, 16, 2], list(range(19))[::-1]):
        assert torch.equal(getattr(masking, method)(classifier, images[rows], targets[rows], **settings), whole[rows])


@pytest.mark.parametrize("counts", [(12, 30), (30, 12), (12, 30, 7, 30)])
def test_fewer_masks_beside_more_take_no_pass_and_give_the_map_they_give_alone(counts, images):
    classifier = classified()
    together = [masking.rise(classifier, images, TARGETS, masks=masks, **RISE) for masks in counts]
    assert classifier.passes == {"forward": 3 * 30, "backward": 0, "head": 0}
    for masks, found in zip(counts, together, strict=True):
        assert torch.equal(found, masking.rise(classified(), images, TARGETS, masks=masks, **RISE))


@pytest.mark.parametrize("changed", [{"cells": 4}, {"probability": 0.6}, {"fill": "black"}, {"seed": 2}])
def test_other_settings_and_targets_share_no_passes(changed, images):
    classifier = classified()
    variants = [(TARGETS, RISE), (TARGETS, {**RISE, **changed}), (TARGETS.flip(0), RISE), (TARGETS, RISE)]
    first, *others, again = (masking.rise(classifier, images, t, masks=6, **settings) for t, settings in variants)
    assert classifier.passes["forward"] == 3 * 3 * 6
    assert torch.equal(again, first)
    for found, (targets, settings) in zip(others, variants[1:3], strict=True):
        assert not torch.equal(found, first)
        assert torch.equal(found, masking.rise(classified(), images, targets, masks=6, **settings))


@pytest.mark.parametrize(("cells", "probability"), [(3, 0.5), (7, 0.2), (20, 0.5)])
def test_masks_show_every_pixel_with_the_probability(cells, probability, images):
    """Within 5 standard errors at each of 192 pixels."""
    count = 4000
    make = mask_maker(images, count, cells, probability, seed=7)
    masks = torch.stack([make(number) for number in range(count)])
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert ((masks.mean(0) - probability).abs() <= 5 * masks.std(0) / count**0.5).all()


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_of_a_constant_probability_rise_is_the_mean_mask(fill, images):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    head[2].weight.data.zero_()
    classifier = of(nn.Sequential(OrderedDict(features=nn.Identity(), head=head)))
    settings = {**RISE, "fill": fill}
    found = masking.rise(classifier, images, TARGETS, masks=25, **settings)
    make = mask_maker(images, 25, settings["cells"], settings["probability"], settings["seed"])
    mean = torch.stack([make(number) for number in range(25)]).mean(0) / settings["probability"]
    constant = head[2].bias.detach().softmax(0)[TARGETS]
    torch.testing.assert_close(found, constant[:, None, None, None] * mean, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (masking.rise, {**RISE, "masks": 0}, "rise: the setting 'masks' is 0, expected at least 1"),
        (masking.rise, {**RISE, "masks": 2, "cells": 0}, "rise: the setting 'cells' is 0, expected at least 1"),
        (
            masking.rise,
            {**RISE, "masks": 2, "probability": 1.5},
            "rise: the setting 'probability' is 1.5, expected above 0 and up to 1",
        ),
        (
            masking.occlusion,
            {"window": 4, "stride": 0, "fill": "mean"},
            "occlusion: the setting 'stride' is 0, expected 1 to window = 4",
        ),
    ],
)
def test_settings_out_of_range(function, settings, message, images):
    with pytest.raises(UserError) as problem:
        function(classified(), images, TARGETS, **settings)
    assert str(problem.value) == message
