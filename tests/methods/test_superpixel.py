"""LIME: the authors' regression, the masks restated, a closed form, invariance, cost."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from lime.lime_base import LimeBase
from skimage.segmentation import slic
from sklearn.metrics import pairwise_distances
from torch import nn

from atlas.methods import superpixel
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.networks.residual import small_resnet
from atlas.study.errors import UserError
from atlas.study.seeds import rng
from tests.support.methods import rows_of_passes

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
SIDE, CLASSES = 24, 5
SETTINGS = {"samples": 30, "superpixels": 12, "compactness": 10.0, "sigma": 1.0, "width": 0.25, "fill": "black"}


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


def smooth(count: int, side: int, seed: int) -> torch.Tensor:
    """Images with more than one superpixel, which noise may lack."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").contiguous()


def made(count: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    images = smooth(count, SIDE, 5)
    return images, torch.arange(count) % CLASSES, list(range(100, 100 + count))


def residual() -> nn.Sequential:
    torch.manual_seed(4)
    return small_resnet(classes=CLASSES, widths=[8, 12], blocks=1).eval()


def wide() -> nn.Sequential:
    """With a matrix product over so many features that it sums them in another order for another number of rows."""
    torch.manual_seed(4)
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))
    return nn.Sequential(OrderedDict(features=nn.Identity(), head=head)).eval()


def classified(module: nn.Sequential) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine=ENGINE)


def authors(classifier, image, target, seed, settings):
    """The authors' distances, kernel and regression, on the segments and masks of the definition."""
    segments = slic(
        image.permute(1, 2, 0).numpy(),
        **{"n_segments": settings["superpixels"], "compactness": settings["compactness"]},
        **{"sigma": settings["sigma"], "start_label": 0},
    )
    names = np.unique(segments)
    assert len(names) > 2
    data = (rng(seed, "lime").random((settings["samples"], len(names))) < 0.5).astype(int)
    data[0] = 1
    filling = torch.tensor({"black": [0.0] * 3, "mean": MEAN}[settings["fill"]])
    labels = []
    for row in data:
        hidden = image.clone()
        for name, on in zip(names, row, strict=True):
            if not on:
                hidden[:, torch.from_numpy(segments == name)] = filling[:, None]
        labels.append(classifier.probabilities(hidden[None])[0].numpy())
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / settings["width"] ** 2)))
    found = base.explain_instance_with_data(data, np.array(labels), distances, target, len(names), "none")[1]
    expected = np.zeros((SIDE, SIDE))
    for name, coefficient in found:
        expected[segments == names[name]] = coefficient
    return expected


@pytest.mark.parametrize("changed", [{}, {"fill": "mean", "superpixels": 20, "samples": 50}, {"width": 2.0}])
def test_lime_is_the_authors_regression(changed):
    images, targets, seeds = made(3)
    settings = {**SETTINGS, **changed}
    classifier = classified(residual())
    found = superpixel.lime(classifier, images, targets, seeds, **settings)
    for row, expected in enumerate(
        authors(classifier, images[row], int(targets[row]), seeds[row], settings) for row in range(3)
    ):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found[row, 0].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_no_superpixel_shown_has_the_distance_of_the_authors():
    assert pairwise_distances([[0, 0]], [[1, 1]], metric="cosine")[0, 0] == 1  # as 1 − √0


class Even(nn.Module):
    """Logits (log of the mean intensity, log of the rest), so that a probability is the mean intensity."""

    def forward(self, x):
        share = (x * 0.5 + 0.5).mean((1, 2, 3), keepdim=False)[:, None]
        return torch.cat([share, 1 - share], 1).clamp(min=1e-6).log()


def test_of_a_linear_probability_lime_finds_every_superpixel_s_share():
    """With many samples the ridge hardly shrinks: a superpixel's coefficient is its summed intensity."""
    image = smooth(1, SIDE, 1)
    module = nn.Sequential(OrderedDict(features=nn.Identity(), head=Even()))
    classifier = Classifier("even", module, mean=[0.5] * 3, std=[0.5] * 3, engine={**ENGINE, "batch": 100})
    settings = {**SETTINGS, "samples": 4000, "superpixels": 6, "width": 10.0}
    found, opposite = superpixel.lime(classifier, image[[0, 0]], torch.tensor([0, 1]), [3, 3], **settings)[:, 0]
    values = found.unique()
    assert 2 <= len(values) <= 12
    for value in values:
        share = image[0][:, found == value].sum() / image.numel()
        assert abs(value - share) < 0.01 * share
    torch.testing.assert_close(opposite, -found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", [residual, wide])
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(network):
    images, targets, seeds = made(19)
    classifier = classified(network())
    settings = {**SETTINGS, "samples": 9}
    whole = superpixel.lime(classifier, images, targets, seeds, **settings)
    assert whole.shape == (19, 1, SIDE, SIDE)
    assert (whole.flatten(1).std(1) > 0).all()
    for rows in ([0], [18], [5, 16, 2, 11, 9, 10, 8], list(range(19))[::-1]):
        again = superpixel.lime(classifier, images[rows], targets[rows], [seeds[row] for row in rows], **settings)
        assert torch.equal(again, whole[rows])


def test_passes_batches_and_rows_of_one_image(monkeypatch):
    images, targets, seeds = made(3)
    classifier = classified(residual())
    rows = rows_of_passes(monkeypatch)
    before = images.clone()
    superpixel.lime(classifier, images, targets, seeds, **SETTINGS)
    assert torch.equal(images, before)
    assert classifier.passes == {"forward": 3 * 30, "backward": 0, "head": 0}
    assert rows == [8] * 11 + [2]
    several = superpixel.lime(classifier, images[[0, 1, 0]], torch.arange(3), [100, 101, 100], **SETTINGS)
    assert classifier.passes["forward"] == 3 * 30 + 2 * 30
    unlike = superpixel.lime(classifier, images[[0, 0]], torch.tensor([0, 0]), [100, 101], **SETTINGS)
    assert torch.equal(unlike[0], several[0])
    assert not torch.equal(unlike[1], unlike[0])
    for row, (image, seed) in enumerate([(0, 100), (1, 101), (0, 100)]):
        alone = superpixel.lime(classifier, images[[image]], torch.tensor([row]), [seed], **SETTINGS)
        assert torch.equal(alone[0], several[row])


def test_one_seed_one_map_and_more_samples_keep_the_first():
    images, targets, seeds = made(2)
    classifier = classified(residual())
    first = superpixel.lime(classifier, images, targets, seeds, **SETTINGS)
    assert torch.equal(superpixel.lime(classifier, images.clone(), targets, seeds, **SETTINGS), first)
    other = superpixel.lime(classifier, images, targets, [seed + 1 for seed in seeds], **SETTINGS)
    assert not torch.equal(other, first)
    assert np.array_equal(superpixel._shown(5, 40, 7)[:30], superpixel._shown(5, 30, 7))
    assert superpixel._shown(5, 30, 7)[0].all()


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [("samples", 0, "at least 1"), ("superpixels", 0, "at least 1"), ("width", 0.0, "above 0")],
)
def test_settings_out_of_range(setting, value, expected):
    images, targets, seeds = made(1)
    with pytest.raises(UserError, match=f"lime: the setting '{setting}' is {value}, expected {expected}"):
        superpixel.lime(classified(residual()), images, targets, seeds, **{**SETTINGS, setting: value})
