"""Methods on the last features: formulas restated, closed forms, second witnesses, invariance, cost, messages."""

from collections import OrderedDict
from itertools import product
from math import ceil
from types import SimpleNamespace

import pytest
import torch
import torchvision
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam import ScoreCAM as OtherScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn.functional import interpolate
from torchcam.methods import ISCAM, SSCAM, ScoreCAM

from stages import classifier as kernel
from stages import seeds as draws
from stages.classifier import Classifier
from stages.methods import cam, feature
from stages.methods._feature import channel_masks
from stages.problem import Problem
from stages.signatures import signature

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
HEIGHT, WIDTH, CLASSES, FEATURES = 20, 24, 5, 8
ROWS, COLUMNS = 5, 6  # of the features
MASKED = {"order": "normalize_first", "fill": "mean"}
ENTRIES = [
    ("scorecam", {"order": "normalize_first", "fill": "black"}),
    ("scorecam", {"order": "enlarge_first", "fill": "mean"}),
    ("ss_cam", {"samples": 2, "deviation": 0.7, **MASKED}),
    ("is_cam", {"samples": 3, "ramp": "cumulative", **MASKED}),
    ("is_cam", {"samples": 2, "ramp": "linear", "order": "enlarge_first", "fill": "black"}),
    ("ablation_cam", {}),
    ("recipro_cam", {"spread": False}),
    ("recipro_cam", {"spread": True}),
    ("rise_features", {"masks": 9, "cells": 3, "probability": 0.4, "seed": 2}),
    ("occlusion_features", {"window": 3, "stride": 2}),
]
every_entry = pytest.mark.parametrize(("name", "settings"), ENTRIES, ids=[name for name, _ in ENTRIES])
every_order = pytest.mark.parametrize("order", ["normalize_first", "enlarge_first"])
every_fill = pytest.mark.parametrize(("fill", "color"), [("black", [0.0] * 3), ("mean", MEAN)])


def network(head: str, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A small random network; `pooled` has a head of global average pooling, `deep` one of several layers."""
    torch.manual_seed(3)
    features = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.BatchNorm2d(6),
        activation(),
        nn.Conv2d(6, FEATURES, 3, stride=2, padding=1),
        activation(),
    )
    features[1].running_mean.uniform_(-0.5, 0.5)
    features[1].running_var.uniform_(0.5, 2.0)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    deep = [nn.Conv2d(8, 8, 3, padding=1), activation(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)]
    layers = {"pooled": pooled, "deep": deep}[head]
    parts = OrderedDict(features=features, head=nn.Sequential(*layers))
    parts["head"][-1].weight.data *= 5  # so that masks move the logits, and some logits are negative
    return nn.Sequential(parts).eval()


def resnet18(last: int = 8) -> nn.Sequential:
    """Features up to the fourth stage; up to the second, of 128 features, with `last` 6."""
    torch.manual_seed(1)
    layers = list(torchvision.models.resnet18(weights=None, num_classes=CLASSES).children())
    features, head = nn.Sequential(*layers[:last]), nn.Sequential(*layers[last:-1], nn.Flatten(), layers[-1])
    return nn.Sequential(OrderedDict(features=features, head=head)).eval()


def squeezenet() -> nn.Sequential:
    """No batch normalization, and convolutions in the head."""
    torch.manual_seed(1)
    whole = torchvision.models.squeezenet1_1(weights=None, num_classes=CLASSES)
    head = nn.Sequential(*whole.classifier, nn.Flatten())
    return nn.Sequential(OrderedDict(features=whole.features, head=head)).eval()


LARGE = pytest.mark.parametrize("large", [resnet18, squeezenet])


def classified(module: nn.Sequential, batch: int = 8) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine={**ENGINE, "batch": batch})


def normalized(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


@pytest.fixture(autouse=True)
def _one_thread():
    kernel.start(ENGINE)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def large_images() -> torch.Tensor:
    """Smooth ones, which a random network's features tell apart."""
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    return interpolate(coarse, size=(64, 64), mode="bilinear")


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0, 1])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014, 1021]


def attribute(name: str, settings: dict, classifier, images, targets, seeds):
    given = {"classifier": classifier, "images": images, "targets": targets, "seeds": seeds}
    evidence = signature("methods", "feature", name).evidence
    return getattr(feature, name)(**{part: given[part] for part in evidence}, **settings)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5):
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def enlarged(coarse: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return interpolate(coarse[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


# What every entry promises.


@every_entry
def test_a_row_is_the_same_alone_and_in_any_company_and_order(name, settings):
    count = 64
    images = torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    targets, seeds = torch.arange(count) % CLASSES, list(range(count))
    classifier = classified(network("deep"), batch=32)
    whole = attribute(name, settings, classifier, images, targets, seeds)
    assert whole.shape == (count, 1, HEIGHT, WIDTH)
    assert torch.isfinite(whole).all()
    assert whole.std() > 0
    for rows in ([63], [5, 60, 2, 33, 9, 10, 8], list(reversed(range(count)))):
        alone = attribute(name, settings, classifier, images[rows], targets[rows], [seeds[row] for row in rows])
        assert torch.equal(alone, whole[rows])


@LARGE
def test_rows_of_larger_networks_are_the_same_in_any_company(large, large_images, targets, seeds):
    classifier = classified(large(), batch=16)
    for name, settings in ENTRIES:
        if name in ("scorecam", "ss_cam", "is_cam"):  # 512 whole passes a row
            continue
        order = [2, 0, 1]
        whole = attribute(name, settings, classifier, large_images[order], targets[order], seeds)
        assert torch.isfinite(whole).all()
        for place, row in enumerate(order[:2]):
            alone = attribute(name, settings, classifier, large_images[[row]], targets[[row]], [seeds[place]])
            assert torch.equal(alone[0], whole[place])


def test_score_maps_of_a_larger_network_are_the_same_in_any_company(large_images, targets):
    classifier = classified(resnet18(last=6), batch=16)
    small = large_images[:, :, ::2, ::2]
    whole = feature.scorecam(classifier, small[:2], targets[:2], **MASKED)
    alone = feature.scorecam(classifier, small[1:2], targets[1:2], **MASKED)
    assert torch.equal(alone[0], whole[1])


@every_entry
def test_rows_of_one_image_with_several_targets(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    rows = [0, 1, 0, 0]
    several = attribute(name, settings, classifier, images[rows], targets, [seeds[row] for row in rows])
    for place, row in enumerate(rows):
        pair = images[row : row + 1], targets[place : place + 1]
        assert torch.equal(several[place], attribute(name, settings, classifier, *pair, [seeds[row]])[0])


def test_rows_of_one_image_with_unlike_seeds_get_unlike_noise(images, targets):
    classifier = classified(network("deep"))
    settings = {"samples": 2, "deviation": 1.0, **MASKED}
    two = feature.ss_cam(classifier, images[[0, 0]], targets[[0, 0]], [1, 2], **settings)
    assert not torch.equal(two[0], two[1])
    for row, seed in enumerate([1, 2]):
        assert torch.equal(two[row], feature.ss_cam(classifier, images[[0]], targets[[0]], [seed], **settings)[0])


def expected_passes(name: str, settings: dict) -> tuple[int, int]:
    if name in ("scorecam", "ss_cam", "is_cam"):
        return 1 + FEATURES * settings.get("samples", 1), 0
    if name == "occlusion_features":
        windows = [ceil((side + settings["window"]) / settings["stride"]) - 1 for side in (ROWS, COLUMNS)]
        return 1, 1 + windows[0] * windows[1]
    return 1, {"ablation_cam": FEATURES + 1, "recipro_cam": ROWS * COLUMNS, "rise_features": 9}[name]


@every_entry
def test_passes_per_image_are_those_of_the_definition(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    attribute(name, settings, classifier, images, targets, seeds)
    forward, head = expected_passes(name, settings)
    assert classifier.passes == {"forward": 4 * forward, "backward": 0, "head": 4 * head}


@every_entry
def test_perturbed_copies_of_one_image_are_looked_at_once_for_all_targets(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    attribute(name, settings, classifier, images[[0, 1, 0, 0]], targets, [seeds[row] for row in (0, 1, 0, 0)])
    forward, head = expected_passes(name, settings)
    assert classifier.passes == {"forward": 4 + 2 * (forward - 1), "backward": 0, "head": 2 * head}


def test_the_family_shares_the_clean_features(images, targets, seeds):
    classifier = classified(network("deep"))
    for name, settings in ENTRIES:
        attribute(name, settings, classifier, images, targets, seeds)
    assert classifier.passes["forward"] == 4 * (1 + sum(expected_passes(*entry)[0] - 1 for entry in ENTRIES))


@every_entry
def test_batches_are_filled_and_no_more_than_one_exists(name, settings, images, targets, seeds, monkeypatch):
    classifier = classified(network("deep"))
    rows = []
    for asked in ("logits", "head"):
        ask = getattr(classifier, asked)
        monkeypatch.setattr(classifier, asked, lambda part, ask=ask: (rows.append(len(part)), ask(part))[1])
    attribute(name, settings, classifier, images[:3], targets[:3], seeds[:3])
    assert max(rows) <= classifier.batch
    assert all(count == classifier.batch for count in rows[:-1])


@every_entry
def test_images_and_features_are_left_alone(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    before, clean = images.clone(), classifier.features(images)
    first = attribute(name, settings, classifier, images, targets, seeds)
    assert torch.equal(images, before)
    assert torch.equal(feature.clean_features(classifier, images), clean)
    assert torch.equal(first, attribute(name, settings, classifier, images, targets, seeds))


# The formulas again, slowly: one image, one mask after the other, in the network's own normalized space.


def mask(channel: torch.Tensor, order: str, size: tuple[int, int]) -> torch.Tensor:
    def scale(part: torch.Tensor) -> torch.Tensor:
        return (part - part.min()) / (part.max() - part.min())

    if channel.max() == channel.min():
        return torch.zeros(size)
    return enlarged(scale(channel), size) if order == "normalize_first" else scale(enlarged(channel, size))


def score_map(module, image, target, order, color, variants) -> torch.Tensor:
    """`variants` gives the masks that one mask is looked at as."""
    features = module.features(normalized(image[None]))[0]
    color, size = torch.tensor(color).view(-1, 1, 1), tuple(image.shape[1:])
    scores = []
    for number, channel in enumerate(features):
        logits = [
            module(normalized((color + shown * (image - color))[None]))[0, target]
            for shown in variants(number, mask(channel, order, size))
        ]
        scores.append(sum(logits) / len(logits))
    weights = torch.tensor(scores).double().softmax(0).float()
    return enlarged(sum(w * a for w, a in zip(weights, features, strict=True)).clamp(min=0), size)[None]


def restated(images, targets, function) -> torch.Tensor:
    return torch.stack([function(*pair) for pair in zip(images, targets, strict=True)])


@every_order
@every_fill
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_scorecam_restated(order, fill, color, activation, images, targets):
    module = network("deep", activation)
    expected = restated(images, targets, lambda *pair: score_map(module, *pair, order, color, lambda _, m: [m]))
    close(feature.scorecam(classified(module), images, targets, order=order, fill=fill), expected)


@every_order
@every_fill
def test_ss_cam_restated(order, fill, color, images, targets, seeds):
    module = network("deep")
    noisy = {"samples": 3, "deviation": 0.8}

    def one(image, target, seed):
        def variants(number, shown):
            noise = [draws.normal([seed], "ss_cam", s * FEATURES + number, (1, HEIGHT, WIDTH)) for s in range(3)]
            return [shown + 0.8 * noise[s][0, 0] for s in range(3)]

        return score_map(module, image, target, order, color, variants)

    expected = torch.stack([one(*row) for row in zip(images, targets, seeds, strict=True)])
    close(feature.ss_cam(classified(module), images, targets, seeds, **noisy, order=order, fill=fill), expected)


@every_order
@every_fill
@pytest.mark.parametrize(
    ("ramp", "strengths"), [("linear", [0.25, 0.5, 0.75, 1]), ("cumulative", [0.25, 0.75, 1.5, 2.5])]
)
def test_is_cam_restated(order, fill, color, ramp, strengths, images, targets):
    module = network("deep")
    expected = restated(
        images,
        targets,
        lambda *pair: score_map(module, *pair, order, color, lambda _, m: [c * m for c in strengths]),
    )
    found = feature.is_cam(classified(module), images, targets, samples=4, ramp=ramp, order=order, fill=fill)
    close(found, expected)


def ablation_map(module, image, target) -> torch.Tensor:
    features = module.features(normalized(image[None]))
    whole = module.head(features)[0, target]
    total = torch.zeros(features.shape[-2:])
    for number in range(features.shape[1]):
        without = features.clone()
        without[:, number] = 0
        total += (whole - module.head(without)[0, target]) / abs(whole) * features[0, number]
    return enlarged(total.clamp(min=0), tuple(image.shape[1:]))[None]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_ablation_cam_restated(activation, images, targets):
    module = network("deep", activation)
    logits = module(normalized(images)).gather(1, targets[:, None])
    assert (logits < 0).any()
    assert (logits > 0).any()
    expected = restated(images, targets, lambda *pair: ablation_map(module, *pair))
    close(feature.ablation_cam(classified(module), images, targets), expected, 1e-4)


@pytest.mark.parametrize("spread", [False, True])
def test_recipro_cam_restated(spread, images, targets):
    module = network("deep")
    stencil = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def one(image, target):
        features = module.features(normalized(image[None]))
        coarse = torch.zeros(ROWS, COLUMNS)
        for i, j in product(range(ROWS), range(COLUMNS)):
            alone = torch.zeros_like(features)
            for a, b in product((-1, 0, 1), repeat=2):
                if 0 <= i + a < ROWS and 0 <= j + b < COLUMNS:
                    share = stencil[a + 1, b + 1] if spread else float(a == b == 0)
                    alone[0, :, i + a, j + b] = share * features[0, :, i, j]
            coarse[i, j] = module.head(alone)[0].softmax(0)[target]
        return enlarged(coarse, (HEIGHT, WIDTH))[None]

    close(feature.recipro_cam(classified(module), images, targets, spread=spread), restated(images, targets, one))


@pytest.mark.parametrize("cells", [2, 3, 9])
def test_rise_on_features_restated(cells, images, targets):
    module = network("deep")
    make = feature.mask_maker(torch.zeros(1, FEATURES, ROWS, COLUMNS), 7, cells, 0.3, 4)

    def one(image, target):
        features = module.features(normalized(image[None]))
        total = sum(module.head(features * make(n))[0].softmax(0)[target] * make(n) for n in range(7))
        return enlarged(total / (7 * 0.3), (HEIGHT, WIDTH))[None]

    settings = {"masks": 7, "cells": cells, "probability": 0.3, "seed": 4}
    close(feature.rise_features(classified(module), images, targets, **settings), restated(images, targets, one))


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 2), (4, 3), (9, 9)])
def test_occlusion_of_features_restated(window, stride, images, targets):
    module = network("deep")

    def one(image, target):
        features = module.features(normalized(image[None]))
        whole = module.head(features)[0, target]
        total = torch.zeros(ROWS, COLUMNS)
        for top in range(stride - window, ROWS, stride):
            for left in range(stride - window, COLUMNS, stride):
                inside = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
                for row, column in product(range(ROWS), range(COLUMNS)):
                    inside[row, column] = top <= row < top + window and left <= column < left + window
                drop = whole - module.head(features.where(~inside, 0.0))[0, target]
                total[inside] += drop / inside.sum()
        return enlarged(total, (HEIGHT, WIDTH))[None]

    found = feature.occlusion_features(classified(module), images, targets, window=window, stride=stride)
    close(found, restated(images, targets, one), 1e-4)


@LARGE
def test_larger_networks_restated(large, large_images, targets):
    module, few = large(), (large_images[:1], targets[:1])
    classifier = classified(module, batch=16)
    close(feature.ablation_cam(classifier, *few), restated(*few, lambda *pair: ablation_map(module, *pair)), 1e-3)
    features = module.features(normalized(few[0]))
    places = list(product(range(features.shape[2]), range(features.shape[3])))
    alone = torch.zeros(len(places), *features.shape[1:])
    for number, (i, j) in enumerate(places):
        alone[number, :, i, j] = features[0, :, i, j]
    coarse = module.head(alone).softmax(1)[:, int(targets[0])].view(features.shape[2:])
    close(feature.recipro_cam(classifier, *few, spread=False), enlarged(coarse, (64, 64))[None, None])


# Closed forms where the head is global average pooling and a linear layer.


@pytest.fixture
def pooled(images):
    module = network("pooled")
    return module, classified(module), module.features(normalized(images))


def test_closed_forms_of_a_pooled_head(pooled, images, targets):
    module, classifier, features = pooled
    weights = module.head[2].weight[targets]
    found = feature.occlusion_features(classifier, images, targets, window=1, stride=1)
    with torch.enable_grad():  # which the CAMs of one backward pass take for granted
        expected = cam.cam(classifier, images, targets)
    close(found * ROWS * COLUMNS, expected, 1e-4)

    logits = torch.einsum("ck,nkij->ncij", module.head[2].weight, features) / (ROWS * COLUMNS)
    probabilities = (logits + module.head[2].bias[:, None, None]).softmax(1)
    expected = torch.stack([enlarged(p[t], (HEIGHT, WIDTH))[None] for p, t in zip(probabilities, targets, strict=True)])
    close(feature.recipro_cam(classifier, images, targets, spread=False), expected)

    whole = module.head(features).gather(1, targets[:, None]).abs()
    coarse = ((weights * features.mean((2, 3)) / whole)[:, :, None, None] * features).sum(1).relu()
    expected = torch.stack([enlarged(part, (HEIGHT, WIDTH))[None] for part in coarse])
    close(feature.ablation_cam(classifier, images, targets), expected, 1e-4)


def test_all_cells_on_is_the_probability(pooled, images, targets):
    _, classifier, _ = pooled
    found = feature.rise_features(classifier, images, targets, masks=3, cells=2, probability=1.0, seed=0)
    expected = classifier.probabilities(images).gather(1, targets[:, None])
    close(found, expected[:, :, None, None].expand_as(found))


# Identities.


@every_order
@every_fill
def test_without_noise_or_with_one_strength_all_are_scorecam(order, fill, color, images, targets, seeds):
    classifier, masked = classified(network("deep")), {"order": order, "fill": fill}
    plain = feature.scorecam(classifier, images, targets, **masked)
    assert torch.equal(feature.ss_cam(classifier, images, targets, seeds, samples=1, deviation=0.0, **masked), plain)
    for ramp in ("linear", "cumulative"):
        assert torch.equal(feature.is_cam(classifier, images, targets, samples=1, ramp=ramp, **masked), plain)


@pytest.mark.parametrize(
    ("name", "count", "settings"),
    [
        ("ss_cam", "samples", {"deviation": 1.0, **MASKED}),
        ("rise_features", "masks", {"cells": 3, "probability": 0.5, "seed": 1}),
    ],
)
def test_more_samples_keep_the_first_ones(name, count, settings, images, targets, seeds, monkeypatch):
    shown = []
    for number in (2, 3):
        classifier = classified(network("deep"), batch=1)
        for asked in ("logits", "head"):
            ask = getattr(classifier, asked)
            monkeypatch.setattr(classifier, asked, lambda part, ask=ask: (shown[-1].append(part), ask(part))[1])
        shown.append([])
        attribute(name, {**settings, count: number}, classifier, images[:1], targets[:1], seeds[:1])
    assert len(shown[0]) * 3 == len(shown[1]) * 2
    assert all(torch.equal(old, new) for old, new in zip(shown[0], shown[1], strict=False))
    assert not torch.equal(shown[1][0], shown[1][-1])


# Features that never fire.


@pytest.mark.parametrize(("bias", "dead"), [(-1.0, 3), (0.3, 3), (-1.0, FEATURES), (0.1, FEATURES)])
@every_order
def test_features_that_are_the_same_everywhere_hide_the_image(bias, dead, order, images, targets, seeds):
    """TorchCAM and pytorch-grad-cam had 0/0 here."""
    module = network("deep")
    module.features[3].weight[:dead] = 0
    module.features[3].bias[:dead] = bias
    classifier = classified(module)
    found = feature.scorecam(classifier, images, targets, order=order, fill="mean")
    expected = restated(images, targets, lambda *pair: score_map(module, *pair, order, MEAN, lambda _, m: [m]))
    assert torch.isfinite(found).all()
    assert torch.allclose(found, expected, atol=1e-6)
    masks = feature.clean_features(classifier, images)[:, :dead].amax((1, 2, 3))
    assert torch.equal(masks, torch.full_like(masks, max(bias, 0)))
    for name, settings in ENTRIES:
        assert torch.isfinite(attribute(name, settings, classifier, images, targets, seeds)).all()


@every_order
def test_rounding_in_the_enlargement_is_no_range(order):
    constant = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.3, -0.3]).view(-1, 1, 1, 1).expand(6, 1, 5, 6)
    assert interpolate(constant, size=(50, 70), mode="bilinear").flatten(1).std(1).max() > 0
    masks = channel_masks(classified(network("deep")), constant, (50, 70), order)
    assert torch.equal(masks, torch.zeros(6, 1, 50, 70))


def test_a_logit_of_zero_has_no_shares(images, targets):
    module = network("pooled")
    module.head[2].weight[:] = 0
    module.head[2].bias[:] = 0
    found = feature.ablation_cam(classified(module), images, targets)
    assert torch.equal(found, torch.zeros_like(found))


# Second witnesses.


class Plain(nn.Module):
    """Takes normalized images, so that what the packages mask with 0 is hidden by the mean."""

    def __init__(self, module: nn.Sequential):
        super().__init__()
        self.features, self.head = module.features, module.head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs))


def torchcam_map(extractor, module, images, targets) -> torch.Tensor:
    """The raw map, before TorchCAM's scaling to [0, 1]."""
    with extractor:
        extractor.model(normalized(images))
        (coarse,) = extractor(class_idx=targets.tolist(), normalized=False)
    return torch.stack([enlarged(part, tuple(images.shape[-2:]))[None] for part in coarse])


def test_torchcam_scorecam(images, targets):
    module = network("deep")
    expected = torchcam_map(ScoreCAM(Plain(module), "features"), module, images, targets)
    close(feature.scorecam(classified(module), images, targets, **MASKED), expected)


@pytest.mark.parametrize("large", [lambda: resnet18(last=6), squeezenet], ids=["resnet18", "squeezenet"])
def test_torchcam_scorecam_of_larger_networks(large, large_images, targets):
    module, few = large(), (large_images[:1], targets[:1])
    expected = torchcam_map(ScoreCAM(Plain(module), "features"), module, *few)
    close(feature.scorecam(classified(module, batch=32), *few, **MASKED), expected, 1e-4)


def test_torchcam_ss_cam(images, targets, seeds):
    """With our noise in place of its own."""
    module = network("deep")
    extractor = SSCAM(Plain(module), "features", num_samples=3)
    drawn = [
        torch.stack(
            [draws.normal(seeds, "ss_cam", s * FEATURES + k, (1, HEIGHT, WIDTH))[:, 0] for k in range(FEATURES)], dim=1
        )
        for s in range(3)
    ]
    noise = iter(2.0 * part for part in drawn)
    extractor._distrib = SimpleNamespace(sample=lambda size: next(noise))
    expected = torchcam_map(extractor, module, images, targets)
    found = feature.ss_cam(classified(module), images, targets, seeds, samples=3, deviation=2.0, **MASKED)
    close(found, expected)


def test_torchcam_is_cam(images, targets):
    module = network("deep")
    expected = torchcam_map(ISCAM(Plain(module), "features", num_samples=4), module, images, targets)
    close(feature.is_cam(classified(module), images, targets, samples=4, ramp="cumulative", **MASKED), expected)


def scaled(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low)


def grad_cam_map(kind, module, images, targets) -> torch.Tensor:
    """Scaled to [0, 1] before and after enlargement."""
    whole = Plain(module)
    with kind(model=whole, target_layers=[whole.features]) as extractor:
        found = extractor(normalized(images), targets=[ClassifierOutputTarget(int(target)) for target in targets])
    return torch.from_numpy(found)[:, None]


def test_pytorch_grad_cam_scorecam(images, targets, monkeypatch):
    """It enlarges with aligned corners; here it is made not to."""
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear"))
    module = network("deep")
    expected = grad_cam_map(OtherScoreCAM, module, images, targets)
    found = feature.scorecam(classified(module), images, targets, order="enlarge_first", fill="mean")
    close(scaled(found), scaled(expected), 1e-4)


def test_pytorch_grad_cam_ablation_cam(images):
    """It divides by the logit, so that a negative one turns its map over: there the formula's restatement decides."""
    module = network("deep")
    logits = module(normalized(images))
    for targets, alike in ((logits.argmax(1), True), (logits.argmin(1), False)):
        assert (logits.gather(1, targets[:, None]) > 0).all() == alike
        expected = grad_cam_map(AblationCAM, module, images, targets)
        found = feature.ablation_cam(classified(module), images, targets)
        if alike:
            close(scaled(found), scaled(expected), 1e-4)
        else:
            assert (scaled(found) - expected).abs().max() > 0.1
            close(found, restated(images, targets, lambda *pair: ablation_map(module, *pair)), 1e-4)


# Messages.


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "ss_cam",
            {"samples": 0, "deviation": 1.0, **MASKED},
            "ss_cam: the setting 'samples' is 0, expected at least 1",
        ),
        (
            "ss_cam",
            {"samples": 1, "deviation": -0.5, **MASKED},
            "ss_cam: the setting 'deviation' is -0.5, expected at least 0",
        ),
        (
            "is_cam",
            {"samples": 0, "ramp": "linear", **MASKED},
            "is_cam: the setting 'samples' is 0, expected at least 1",
        ),
        (
            "rise_features",
            {"masks": 1, "cells": 1, "probability": 0.0, "seed": 0},
            "rise_features: the setting 'probability' is 0.0, expected above 0 and up to 1",
        ),
        (
            "rise_features",
            {"masks": 0, "cells": 1, "probability": 0.5, "seed": 0},
            "rise_features: the setting 'masks' is 0, expected at least 1",
        ),
        (
            "rise_features",
            {"masks": 1, "cells": 0, "probability": 0.5, "seed": 0},
            "rise_features: the setting 'cells' is 0, expected at least 1",
        ),
        (
            "occlusion_features",
            {"window": 2, "stride": 3},
            "occlusion_features: the setting 'stride' is 3, expected 1 to window = 2",
        ),
    ],
)
def test_settings_out_of_range(name, settings, message, images, targets, seeds):
    with pytest.raises(Problem) as problem:
        attribute(name, settings, classified(network("pooled")), images, targets, seeds)
    assert str(problem.value) == message
