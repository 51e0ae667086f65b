"""Class activation maps: restated at several layers, identities, closed forms, invariance, cost."""

from collections import OrderedDict
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from atlas.methods import cam, cam_averaged
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.errors import Unsupported, UserError
from atlas.study.schema.signatures import signature
from tests.support.methods import (
    CLASSES,
    ENGINE,
    MEAN,
    STD,
    Whole,
    classified,
    close,
    network,
    rows_of_passes,
)
from tests.support.reference import methods as reference

SMOOTH = {"samples": 3, "deviation": 0.3}
AVERAGED = {
    "smooth": (cam_averaged.smooth_gradcam_pp, {**SMOOTH, "form": "paper"}),
    "smooth_torchcam": (cam_averaged.smooth_gradcam_pp, {**SMOOTH, "form": "torchcam"}),
    "integrated": (cam_averaged.integrated_gradcam, {"steps": 3, "baseline": "black", "difference": False}),
    "integrated_difference": (cam_averaged.integrated_gradcam, {"steps": 2, "baseline": "mean", "difference": True}),
    **{
        f"expected_{difference}_{smoothing}": (
            cam_averaged.expected_gradcam,
            {"samples": samples, "difference": difference, "smoothing": smoothing, "scale": scale},
        )
        for difference, smoothing, scale, samples in (
            ("latent", "uniform", 0.8, 4),
            ("latent", "gaussian", 0.0, 1),
            ("image", "uniform", 0.0, 2),
            ("image", "gaussian", 0.5, 3),
        )
    },
}
EVERY = {
    "xgradcam": (cam.xgradcam, {}),
    "eigencam": (cam.eigencam, {}),
    "guided_gradcam": (cam.guided_gradcam, {}),
    "gradcam_pp_torchcam": (cam.gradcam_pp, {"form": "torchcam"}),
    **AVERAGED,
}
every = pytest.mark.parametrize("name", EVERY)
every_averaged = pytest.mark.parametrize("name", AVERAGED)
HEIGHT, WIDTH = 12, 16
# A layer's features, and into how few pixels a side of theirs turns one of the image.
LAYERS = {"input": (3, 1), "features.2": (6, 2), "final": (8, 4)}
BACKGROUND = torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014]


def attribute(name: str, classifier, images, targets, seeds, *, background=BACKGROUND, **others) -> torch.Tensor:
    function, settings = EVERY[name]
    family = function.__module__.rpartition(".")[2]
    given = {"classifier": classifier, "images": images, "targets": targets, "seeds": seeds, "background": background}
    inputs = signature("methods", family, function.__name__).inputs
    return function(*(given[key] for key in inputs), **{"layer": "final", **settings, **others})


# The formulas again, slowly, in double precision.


class Slow:
    """A network cut at a layer, one image at a time."""

    def __init__(self, module: nn.Sequential, layer: str):
        self.whole = deepcopy(Whole(module)).double()
        steps = [*self.whole.features, *self.whole.head]
        count = {"input": 0, "features.2": 3, "final": 5}[layer]
        self.before, self.after = nn.Sequential(*steps[:count]), nn.Sequential(*steps[count:])

    def features(self, image: torch.Tensor) -> np.ndarray:
        return self.before(self.whole.normalized(image.double()[None]))[0].detach().numpy()

    def both(self, image: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        features = self.features(image)
        return features, reference.gradient(self.after, torch.from_numpy(features), int(target))


def combined(weights: list[float], features: np.ndarray) -> np.ndarray:
    coarse = np.zeros(features.shape[1:])
    for weight, feature in zip(weights, features, strict=True):
        coarse += weight * feature
    return np.maximum(coarse, 0)


def slow_xgradcam(slow: Slow, image, target, _) -> np.ndarray:
    features, gradients = slow.both(image, target)
    weights = [(g * a).sum() / a.sum() if a.sum() else 0.0 for a, g in zip(features, gradients, strict=True)]
    return combined(weights, features)


def slow_eigencam(slow: Slow, image, *_) -> np.ndarray:
    features = slow.features(image)
    places = features.reshape(len(features), -1).T
    places = places - places.mean(0)
    found = places @ np.linalg.svd(places)[2][0]
    return np.maximum(found * np.sign(found[np.abs(found).argmax()]), 0).reshape(features.shape[1:])


def slow_guided_gradcam(slow: Slow, image, target, _) -> np.ndarray:
    guided = deepcopy(slow.whole)
    for part in (guided.features, guided.head):
        for place, layer in enumerate(part):
            if isinstance(layer, nn.ReLU):
                part[place] = Guided()
    coarse = reference.gradcam(*slow.both(image, target))
    return reference.gradient(guided, image.double(), int(target)) * reference.enlarged(coarse, (HEIGHT, WIDTH))


class Guided(nn.Module):
    """A ReLU that lets gradients above 0 back alone."""

    def forward(self, given):
        return Positive.apply(given).relu()


class Positive(torch.autograd.Function):
    @staticmethod
    def forward(_, given):
        return given.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient.clamp(min=0)


def slow_gradcam_pp(slow: Slow, image, target, _, form: str) -> np.ndarray:
    features, gradients = slow.both(image, target)
    assert form == "torchcam"
    return combined([(g**2 * np.maximum(g, 0)).sum() for g in gradients], features)


def slow_smooth_gradcam_pp(slow: Slow, image, target, seed, samples: int, deviation: float, form: str) -> np.ndarray:
    clean = slow.features(image)
    noise = [draws.normal([seed], "smooth_gradcam_pp", number, tuple(image.shape))[0] for number in range(samples)]
    noisy = [slow.both(image + deviation * torch.tensor(STD).view(-1, 1, 1) * one, target) for one in noise]
    one, two, three = (np.mean([gradients**power for _, gradients in noisy], axis=0) for power in (1, 2, 3))
    last_features, last_gradients = noisy[-1]
    weights = []
    for k, a in enumerate(clean):
        weight = 0.0
        for i, j in np.ndindex(*a.shape):
            if form == "paper":
                divisor, rising = 2 * two[k, i, j] + three[k, i, j] * a.sum(), one[k, i, j]
            else:
                divisor, rising = 2 * two[k, i, j] + (three[k] * a).sum(), last_gradients[k, i, j]
            weight += two[k, i, j] / divisor * max(rising, 0.0) if divisor else 0.0
        weights.append(weight)
    return combined(weights, clean if form == "paper" else last_features)


def slow_integrated_gradcam(slow: Slow, image, target, _, steps: int, baseline: str, difference: bool) -> np.ndarray:
    start = torch.tensor({"black": [0.0] * 3, "mean": MEAN}[baseline]).view(-1, 1, 1).expand_as(image)
    maps = []
    for step in range(steps):
        features, gradients = slow.both(start + step / steps * (image - start), target)
        if difference:
            features = features - slow.features(start)
        maps.append(reference.gradcam(features, gradients))
    return np.mean(maps, axis=0)


def drawn(seed: int, samples: int, background: torch.Tensor = BACKGROUND) -> list[tuple[torch.Tensor, float]]:
    generators = [draws.rng(seed, "background", sample) for sample in range(samples)]
    return [(background[draw.integers(len(background))], draw.random()) for draw in generators]


def slow_expected_gradcam(
    slow: Slow, image, target, seed, samples: int, difference: str, smoothing: str, scale: float
) -> np.ndarray:
    clean = slow.features(image)
    noisy = {"uniform": draws.uniform, "gaussian": draws.normal}[smoothing]
    weights = np.zeros(len(clean))
    for sample, (start, share) in enumerate(drawn(seed, samples)):
        noise = noisy([seed], "expected_gradcam", sample, tuple(image.shape))[0]
        point = start + share * (image - start) + scale * torch.tensor(STD).view(-1, 1, 1) * noise
        _, gradients = slow.both(point, target)
        if difference == "latent":
            change = clean - slow.features(start)
        else:  # of the image that is normalized to the difference
            change = slow.features(image - start + torch.tensor(MEAN).view(-1, 1, 1))
        weights += (change * gradients).mean((1, 2)) / samples
    return combined(weights, clean)


@every
@pytest.mark.parametrize(
    ("head", "layer"), [("pooled", "final"), ("deep", "final"), ("deep", "features.2"), ("deep", "input")]
)
def test_maps_restated(name, head, layer, images, targets, seeds):
    module = network(head)
    function, settings = EVERY[name]
    slow, restated = Slow(module, layer), globals()[f"slow_{function.__name__}"]
    expected = [restated(slow, *row, **settings) for row in zip(images, targets, seeds, strict=True)]
    assert np.abs(expected).max() > 0
    found = attribute(name, classified(module), images, targets, seeds, layer=layer)
    close(found if found.shape[1] == 3 else found[:, 0], expected, 3e-6)


@pytest.mark.parametrize("name", ["xgradcam", "smooth", "smooth_torchcam", "integrated_difference"])
def test_maps_of_features_of_both_signs_restated(name, images, targets, seeds):
    module = network("deep", nn.Tanh)
    function, settings = EVERY[name]
    slow, restated = Slow(module, "final"), globals()[f"slow_{function.__name__}"]
    expected = [restated(slow, *row, **settings) for row in zip(images, targets, seeds, strict=True)]
    close(attribute(name, classified(module), images, targets, seeds)[:, 0], expected)


# What every function promises.


@every
@pytest.mark.parametrize("layer", ["final", "features.2"])
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(name, layer):
    count = 20
    images = torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    targets, seeds = torch.arange(count) % CLASSES, list(range(count))
    classifier = classified(network("deep"))

    def rows_of(rows: list[int]) -> torch.Tensor:
        return attribute(name, classifier, images[rows], targets[rows], [seeds[row] for row in rows], layer=layer)

    whole = rows_of(list(range(count)))
    for rows in ([19], [10, 11, 12, 2, 9, 19, 8], list(range(count))[::-1]):
        assert torch.equal(rows_of(rows), whole[rows])


@every
@pytest.mark.parametrize("layer", LAYERS)
def test_maps_have_the_size_of_the_layer_and_inputs_are_left_alone(name, layer, images, targets, seeds):
    before, background = images.clone(), BACKGROUND.clone()
    found = attribute(name, classified(network("deep")), images, targets, seeds, layer=layer)
    _, factor = LAYERS[layer]
    shape = (3, 3, HEIGHT, WIDTH) if name == "guided_gradcam" else (3, 1, HEIGHT // factor, WIDTH // factor)
    assert found.shape == shape
    assert found.dtype == torch.float32
    assert found.min() >= 0 or name == "guided_gradcam"
    assert torch.equal(images, before)
    assert torch.equal(BACKGROUND, background)


PASSES = {
    **{"xgradcam": (3, 3), "eigencam": (3, 0), "guided_gradcam": (6, 6), "gradcam_pp_torchcam": (3, 3)},
    **{"smooth": (12, 9), "smooth_torchcam": (12, 9), "integrated": (9, 9), "integrated_difference": (9, 6)},
    **{"expected_latent_uniform": (15 + 4, 12), "expected_latent_gaussian": (6 + 4, 3)},
    **{"expected_image_uniform": (15, 6), "expected_image_gaussian": (21, 9)},
}


@every
def test_passes_of_three_images_are_those_of_the_definition(name, images, targets, seeds):
    classifier = classified(network("deep"))
    attribute(name, classifier, images, targets, seeds)
    forward, backward = PASSES[name]
    assert classifier.passes == {"forward": forward, "backward": backward, "head": 0}


def test_the_family_shares_a_pass_of_each_layer(images, targets):
    classifier = classified(network("pooled"))
    for _ in range(2):
        for layer in ("final", "features.2"):
            for function in (cam.gradcam, cam.hirescam, cam.xgradcam, cam.layercam):
                function(classifier, images, targets, layer=layer)
            for form in ("paper", "torchcam"):
                cam.gradcam_pp(classifier, images, targets, form=form, layer=layer)
    assert classifier.passes == {"forward": 6, "backward": 6, "head": 0}
    for _ in range(2):
        cam.cam(classifier, images, targets, rectified=False, layer="final")
        cam.eigencam(classifier, images, layer="final")
    assert classifier.passes == {"forward": 9, "backward": 6, "head": 0}


def test_the_background_is_looked_at_once_for_all_images(images, targets, seeds):
    classifier = classified(network("deep"))
    for batch in (images, images.flip(0)):
        for layer in ("final", "features.2"):
            attribute("expected_latent_gaussian", classifier, batch, targets, seeds, layer=layer)
    assert classifier.passes["forward"] == 4 * 6 + 2 * len(BACKGROUND)


@every_averaged
def test_no_more_than_a_batch_of_versions_exists_at_a_time(name, images, targets, seeds, monkeypatch):
    classifier = classified(network("deep"))
    rows = rows_of_passes(monkeypatch)
    attribute(name, classifier, images.repeat(2, 1, 1, 1), targets.repeat(2), seeds * 2)
    assert max(rows) <= classifier.batch


@pytest.mark.parametrize("name", [name for name in EVERY if name != "eigencam"])
def test_another_target_has_another_map(name, images, seeds):
    classifier = classified(network("deep"))
    one, other = (
        attribute(name, classifier, images, torch.tensor(targets), seeds) for targets in ([4, 2, 0], [0, 4, 2])
    )
    assert not torch.equal(one, other)


# Identities and closed forms.


def test_cams_of_one_linear_layer_are_one_map(images, targets):
    """On global average pooling and a linear layer the gradient is the weight over the number of places."""
    classifier = classified(network("pooled"))
    expected = cam.cam(classifier, images, targets, rectified=False, layer="final").relu() / 12
    assert (expected.amax((1, 2, 3)) > 0).any()
    for function in (cam.gradcam, cam.hirescam, cam.xgradcam):
        close(function(classifier, images, targets, layer="final"), expected, 1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_smooth_gradcam_pp_without_noise_is_gradcam_pp(layer, images, targets, seeds):
    classifier = classified(network("deep"))
    expected = cam.gradcam_pp(classifier, images, targets, form="paper", layer=layer)
    assert expected.max() > 0
    close(attribute("smooth", classifier, images, targets, seeds, deviation=0.0, layer=layer), expected, 3e-6)


def test_integrated_gradcam_of_one_step_is_the_gradcam_of_the_baseline(images, targets):
    classifier = classified(network("deep"))
    baseline = torch.tensor(MEAN).view(-1, 1, 1).expand_as(images).contiguous()
    expected = cam.gradcam(classifier, baseline, targets, layer="final")
    assert expected.max() > 0
    close(attribute("integrated", classifier, images, targets, [], steps=1, baseline="mean"), expected, 1e-6)
    nothing = attribute("integrated_difference", classifier, images, targets, [], steps=1)
    assert nothing.abs().max() < 1e-6


@pytest.mark.parametrize("difference", ["latent", "image"])
@pytest.mark.parametrize(("smoothing", "scale"), [("uniform", 0.0), ("uniform", 0.7), ("gaussian", 0.7)])
def test_expected_gradcam_of_a_linear_head_needs_no_gradient(difference, smoothing, scale, images, targets, seeds):
    """There w is w_ck times the mean change of a feature, over places and draws, over the number of places."""
    module = network("pooled")
    classifier = classified(module)

    def means(points: torch.Tensor) -> torch.Tensor:
        return classifier.features(points, "final")[0].mean((2, 3))

    expected = []
    for image, target, seed in zip(images, targets, seeds, strict=True):
        starts = torch.stack([start for start, _ in drawn(seed, 4)])
        if difference == "latent":
            change = means(image[None])[0] - means(starts).mean(0)
        else:
            change = means(image - starts + torch.tensor(MEAN).view(-1, 1, 1)).mean(0)
        weights = module.head[2].weight.detach()[target] * change / 12
        features = classifier.features(image[None], "final")[0]
        expected.append((weights[:, None, None] * features[0]).sum(0, keepdim=True).relu())
    settings = {"samples": 4, "difference": difference, "smoothing": smoothing, "scale": scale}
    found = attribute("expected_latent_uniform", classifier, images, targets, seeds, **settings)
    assert found.max() > 0
    close(found, torch.stack(expected), 3e-6)


def test_expected_gradcam_against_the_image_itself_is_0(images, targets, seeds):
    given = classified(network("deep")), images[:1], targets[:1], seeds[:1]
    assert attribute("expected_latent_uniform", *given, background=images[:1]).abs().max() == 0


# Eigen-CAM.


def test_eigencam_of_fewer_places_than_features(images):
    module = network("deep")
    slow, few = Slow(module, "final"), images[:, :, :8, :8].contiguous()
    expected = [slow_eigencam(slow, image) for image in few]
    assert expected[0].size < 8
    close(attribute("eigencam", classified(module), few, None, [])[:, 0], expected, 3e-6)


@pytest.mark.parametrize("bright", [True, False])
def test_eigencam_is_positive_where_one_place_stands_out(bright):
    images = torch.full((1, 3, 8, 8), 0.5)
    images[:, :, 2, 5] = 1.0 if bright else 0.0
    found = attribute("eigencam", classified(network("deep")), images, None, [], layer="input")[0, 0]
    # Along the one direction there is the place lies (63/64) of the distance from the mean, the others on the far side.
    length = (0.5 / torch.tensor(STD)).norm()
    expected = torch.zeros(8, 8)
    expected[2, 5] = length * 63 / 64
    close(found, expected, 1e-6)


# Where nothing is to be seen.


def test_eigencam_of_constant_features_is_0():
    images = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 3, HEIGHT, WIDTH).contiguous()
    module = nn.Sequential(OrderedDict(features=nn.Conv2d(3, 200, 1), head=nn.Sequential(nn.Flatten())))
    for layer in ("input", "final"):
        assert attribute("eigencam", classified(module), images, None, [], layer=layer).abs().max() == 0


def test_xgradcam_leaves_out_features_that_sum_to_0():
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4, 1, bias=False))
    head[1].weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0] * 3])
    module = nn.Sequential(OrderedDict(features=nn.Identity(), head=head))
    classifier = Classifier("exact", module, mean=[0.5] * 3, std=[1.0] * 3, engine=ENGINE)
    images = torch.tensor([[0.75, 0.25, 0.75, 0.25], [0.5] * 4, [1.0, 0.5, 0.5, 0.5]]).view(1, 3, 2, 2)
    found = attribute("xgradcam", classifier, images, torch.tensor([0]), [])
    # The third alone: Σ g A / Σ A is the gradient of its one place, 1.
    close(found, torch.tensor([[[[0.5, 0.0], [0.0, 0.0]]]]), 1e-6)


@every
def test_a_network_that_sees_nothing_gives_0(name, images, targets, seeds):
    """Features of 0, and gradients of 0 by them."""
    module = network("deep")
    module.features[3].weight.data.zero_()
    module.features[3].bias.data.fill_(-1.0)
    module.head[4].weight.data.zero_()
    assert attribute(name, classified(module), images, targets, seeds).abs().max() == 0


# Messages.


class Untraceable(nn.Module):
    def forward(self, given):
        return given.relu() if given.sum() > 0 else given


def test_guided_gradcam_tells_that_relus_may_be_missed(images, targets):
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    module = nn.Sequential(OrderedDict(features=Untraceable(), head=head))
    with pytest.raises(
        Unsupported, match="the forward of Untraceable cannot be traced, so that not every ReLU can be found"
    ):
        attribute("guided_gradcam", classified(module), images, targets, [])


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("smooth", {"samples": 0}, "smooth_gradcam_pp: the setting 'samples' is 0, expected at least 1"),
        ("smooth", {"deviation": -0.1}, "smooth_gradcam_pp: the setting 'deviation' is -0.1, expected at least 0"),
        ("integrated", {"steps": 0}, "integrated_gradcam: the setting 'steps' is 0, expected at least 1"),
        ("expected_image_uniform", {"samples": 0}, "expected_gradcam: the setting 'samples' is 0, expected at least 1"),
        ("expected_image_uniform", {"scale": -1.0}, "expected_gradcam: the setting 'scale' is -1.0, expected at least"),
        ("expected_image_uniform", {"background": BACKGROUND[:0]}, "the background set, which has no image"),
    ],
)
def test_impossible_settings_are_explained(name, wrong, message, images, targets, seeds):
    with pytest.raises(UserError, match=message):
        attribute(name, classified(network("pooled")), images, targets, seeds, **wrong)
