"""Methods on features: restated, closed forms, second witnesses, layers, tokens, invariance, cost, messages."""

from collections import OrderedDict
from itertools import product
from math import prod
from types import SimpleNamespace

import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam import ScoreCAM as OtherScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn.functional import interpolate
from torchcam.methods import ISCAM, SSCAM, ScoreCAM

from atlas.methods import cam, feature
from atlas.methods.shared.masks.cells import mask_maker
from atlas.methods.shared.masks.feature import channel_masks, clean_features
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.model.layers import enlarged
from atlas.networks.residual import small_resnet
from atlas.study import seeds as draws
from atlas.study.errors import UserError
from atlas.study.schema.signatures import signature
from tests.support.reference import methods as reference
from tests.support.reference.networks import First, Tokens

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 16}
HEIGHT, WIDTH, CLASSES = 12, 16, 5
# Channels, rows and columns of layers of `network`.
SHAPES = {"input": (3, HEIGHT, WIDTH), "features.1": (6, 6, 8), "final": (8, 3, 4)}
FEATURES, ROWS, COLUMNS = SHAPES["final"]
PLAIN = {"order": "normalize_first", "fill": "mean"}
MASKED = {**PLAIN, "layer": "final"}
ENTRIES = [
    ("scorecam", {"order": "normalize_first", "fill": "black", "layer": "final"}),
    ("scorecam", {"order": "enlarge_first", "fill": "mean", "layer": "features.1"}),
    ("ss_cam", {"samples": 2, "deviation": 0.7, **MASKED}),
    ("is_cam", {"samples": 3, "ramp": "cumulative", **MASKED}),
    ("is_cam", {"samples": 2, "ramp": "linear", "order": "enlarge_first", "fill": "black", "layer": "input"}),
    ("ablation_cam", {"divisor": "logit", "layer": "final"}),
    ("ablation_cam", {"divisor": "magnitude", "layer": "input"}),
    ("recipro_cam", {"spread": False, "layer": "features.1"}),
    ("recipro_cam", {"spread": True, "layer": "final"}),
    ("rise_features", {"masks": 9, "cells": 3, "probability": 0.4, "seed": 2, "layer": "final"}),
    ("occlusion_features", {"window": 3, "stride": 2, "layer": "final"}),
    ("occlusion_features", {"window": 8, "stride": 5, "layer": "input"}),
]
SCORED = ("scorecam", "ss_cam", "is_cam")
every_entry = pytest.mark.parametrize(
    ("name", "settings"), ENTRIES, ids=[f"{name}-{settings['layer']}" for name, settings in ENTRIES]
)
every_layer = pytest.mark.parametrize("layer", SHAPES)
every_order = pytest.mark.parametrize("order", ["normalize_first", "enlarge_first"])
every_fill = pytest.mark.parametrize(("fill", "color"), [("black", [0.0] * 3), ("mean", MEAN)])


def network(head: str, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A small random network; `pooled` has a head of global average pooling, `deep` one of several layers."""
    torch.manual_seed(3)
    features = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)),
        activation(),
        nn.Conv2d(6, FEATURES, 3, stride=2, padding=1),
        activation(),
    )
    features[0][1].running_mean.uniform_(-0.5, 0.5)
    features[0][1].running_var.uniform_(0.5, 2.0)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    deep = [nn.Conv2d(8, 4, 3, padding=1), activation(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)]
    layers = {"pooled": pooled, "deep": deep}[head]
    parts = OrderedDict(features=features, head=nn.Sequential(*layers))
    parts["head"][-1].weight.data *= 5  # so that masks move the logits, and some logits are negative
    return nn.Sequential(parts).eval()


def halves(module: nn.Sequential, layer: str) -> tuple[nn.Module, nn.Module]:
    """What comes before a layer's activations, from normalized images, and what follows them."""
    count = {"input": 0, "features.1": 2, "final": 4}[layer]
    return module.features[:count], nn.Sequential(*module.features[count:], *module.head)


class Aside(nn.Module):
    """The mean color as class token, before patches that hold nothing."""

    def forward(self, images):
        means = images.mean((2, 3))[:, None]
        return torch.cat([means, torch.zeros_like(means).expand(-1, ROWS * COLUMNS, -1)], dim=1)


def transformer() -> nn.Sequential:
    torch.manual_seed(1)
    mixes = [nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True) for _ in range(2)]
    features = nn.Sequential(OrderedDict(tokens=Tokens(), mix=mixes[0]))
    return gridded(features, nn.Sequential(mixes[1], First(), nn.Linear(6, CLASSES)))


def gridded(features: nn.Module, head: nn.Module) -> nn.Sequential:
    whole = nn.Sequential(OrderedDict(features=features, head=head))
    whole.grid = (ROWS, COLUMNS)
    return whole.eval()


def classified(module: nn.Sequential, batch: int = 16) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine={**ENGINE, "batch": batch})


def normalized(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0, 1])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014, 1021]


def attribute(name: str, settings: dict, classifier, images, targets, seeds):
    given = {"classifier": classifier, "images": images, "targets": targets, "seeds": seeds}
    inputs = signature("methods", "feature", name).inputs
    return getattr(feature, name)(**{part: given[part] for part in inputs}, **settings)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-6):
    assert found.shape == expected.shape
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


# What every entry promises.


def check_batch_independent(entries: list, classifier: Classifier, side: tuple[int, int], count: int) -> None:
    """Rows alone, in another order and with others are the same bit for bit."""
    images = torch.rand(count, 3, *side, generator=torch.Generator().manual_seed(6))
    targets, seeds = torch.arange(count) % CLASSES, list(range(count))
    for name, settings in entries:
        whole = attribute(name, settings, classifier, images, targets, seeds)
        assert torch.isfinite(whole).all()
        assert whole.std() > 0
        for rows in ([count - 1], [2, count - 2, 0], list(reversed(range(count)))):
            alone = attribute(name, settings, classifier, images[rows], targets[rows], [seeds[row] for row in rows])
            assert torch.equal(alone, whole[rows]), name


@every_entry
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(name, settings):
    check_batch_independent([(name, settings)], classified(network("deep"), batch=32), (HEIGHT, WIDTH), 19)


def test_rows_of_a_wider_network_are_the_same_in_any_batch():
    """A matrix product over so many features sums them in another order for another number of rows."""
    torch.manual_seed(2)
    module = small_resnet(classes=CLASSES, widths=[16, 40], blocks=1)
    module.head = nn.Sequential(nn.Flatten(), nn.Linear(40 * 5 * 5, CLASSES))
    layers = {"final": "final", "input": "input", "features.1": "features.3"}
    entries = [(name, {**settings, "layer": layers[settings["layer"]]}) for name, settings in ENTRIES]
    few = [entry for entry in entries if entry[0] not in ("ss_cam", "is_cam")]
    check_batch_independent(few, classified(module), (18, 20), 5)


@every_entry
def test_maps_have_the_layers_size_and_all_else_is_left_alone(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    before, clean = images.clone(), classifier.features(images, settings["layer"])[0]
    first = attribute(name, settings, classifier, images, targets, seeds)
    assert first.shape == (4, 1, *SHAPES[settings["layer"]][1:])
    assert torch.equal(images, before)
    assert torch.equal(clean_features(classifier, images, settings["layer"])[0], clean)
    assert torch.equal(first, attribute(name, settings, classifier, images, targets, seeds))


def expected_passes(name: str, settings: dict) -> dict[str, int]:
    """Passes of an image: one that finds its features, none at the input, and those of what is perturbed."""
    channels, rows, columns = SHAPES[settings["layer"]]
    whole = settings["layer"] == "input"
    if name in SCORED:
        return {"forward": (not whole) + channels * settings.get("samples", 1), "backward": 0, "head": 0}
    if name == "occlusion_features":
        count = 1 + prod(side // settings["stride"] + 1 for side in (rows, columns))
    else:
        count = {"ablation_cam": channels + 1, "recipro_cam": rows * columns, "rise_features": 9}[name]
    return {"forward": count if whole else 1, "backward": 0, "head": count * (not whole)}


@every_entry
def test_passes_are_those_of_the_definition_in_full_batches(name, settings, images, targets, seeds, monkeypatch):
    classifier = classified(network("deep"))
    rows = []
    for asked in ("logits", "head"):
        ask = getattr(classifier, asked)
        monkeypatch.setattr(classifier, asked, lambda *given, ask=ask: (rows.append(len(given[0])), ask(*given))[1])
    attribute(name, settings, classifier, images[:3], targets[:3], seeds[:3])
    assert classifier.passes == {kind: 3 * count for kind, count in expected_passes(name, settings).items()}
    assert max(rows) <= classifier.batch
    assert all(count == classifier.batch for count in rows[:-1])


@every_entry
def test_copies_of_one_image_are_looked_at_once_for_all_targets(name, settings, images, targets, seeds):
    classifier = classified(network("deep"))
    rows = [0, 1, 0, 0]
    several = attribute(name, settings, classifier, images[rows], targets, [seeds[row] for row in rows])
    due, clean = expected_passes(name, settings), settings["layer"] != "input"
    forward = 4 * clean + 2 * (due["forward"] - clean)
    assert classifier.passes == {**due, "forward": forward, "head": 2 * due["head"]}
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


def test_entries_of_two_layers_share_the_clean_features(images, targets, seeds):
    classifier = classified(network("deep"))
    entries = [entry for entry in ENTRIES if entry[1]["layer"] != "input"]
    for name, settings in entries:
        attribute(name, settings, classifier, images, targets, seeds)
    assert classifier.passes["forward"] == 4 * (2 + sum(expected_passes(*entry)["forward"] - 1 for entry in entries))


# The formulas again, slowly: one image, one mask after the other, in the network's own normalized space.


def mask(channel: torch.Tensor, order: str, size: tuple[int, int]) -> torch.Tensor:
    def scale(part: torch.Tensor) -> torch.Tensor:
        return (part - part.min()) / (part.max() - part.min())

    def enlarge(part: torch.Tensor) -> torch.Tensor:
        return interpolate(part[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]

    if channel.max() == channel.min():
        return torch.zeros(size)
    return enlarge(scale(channel)) if order == "normalize_first" else scale(enlarge(channel))


def score_map(module, image, target, order, color, variants, layer="final") -> torch.Tensor:
    """`variants` gives the masks that one mask is looked at as."""
    features = halves(module, layer)[0](normalized(image[None]))[0]
    color, size = torch.tensor(color).view(-1, 1, 1), tuple(image.shape[1:])
    scores = []
    for number, channel in enumerate(features):
        logits = [
            module(normalized((color + shown * (image - color))[None]))[0, target]
            for shown in variants(number, mask(channel, order, size))
        ]
        scores.append(sum(logits) / len(logits))
    weights = torch.tensor(scores).double().softmax(0).float()
    return sum(w * a for w, a in zip(weights, features, strict=True)).clamp(min=0)[None]


def restated(images, targets, function) -> torch.Tensor:
    return torch.stack([function(*pair) for pair in zip(images, targets, strict=True)])


@every_order
@every_fill
@pytest.mark.parametrize(("activation", "layer"), [(nn.ReLU, "final"), (nn.Tanh, "features.1"), (nn.Tanh, "input")])
def test_scorecam_restated(order, fill, color, activation, layer, images, targets):
    module = network("deep", activation)
    expected = restated(images, targets, lambda *pair: score_map(module, *pair, order, color, lambda _, m: [m], layer))
    close(feature.scorecam(classified(module), images, targets, order=order, fill=fill, layer=layer), expected)


@every_order
@every_fill
def test_ss_cam_restated(order, fill, color, images, targets, seeds):
    module = network("deep")
    noisy = {"samples": 3, "deviation": 0.8, "layer": "final"}

    def one(image, target, seed):
        def variants(number, shown):
            noise = [draws.normal([seed], "ss_cam", s * FEATURES + number, (1, HEIGHT, WIDTH)) for s in range(3)]
            return [shown + 0.8 * noise[s][0, 0] for s in range(3)]

        return score_map(module, image, target, order, color, variants)

    expected = torch.stack([one(*row) for row in zip(images, targets, seeds, strict=True)])
    close(feature.ss_cam(classified(module), images, targets, seeds, **noisy, order=order, fill=fill), expected)


@every_order
@pytest.mark.parametrize(
    ("ramp", "strengths"), [("linear", [0.25, 0.5, 0.75, 1]), ("cumulative", [0.25, 0.75, 1.5, 2.5])]
)
def test_is_cam_restated(order, ramp, strengths, images, targets):
    module = network("deep")
    expected = restated(
        images,
        targets,
        lambda *pair: score_map(module, *pair, order, MEAN, lambda _, m: [c * m for c in strengths], "features.1"),
    )
    settings = {"samples": 4, "ramp": ramp, "order": order, "fill": "mean", "layer": "features.1"}
    close(feature.is_cam(classified(module), images, targets, **settings), expected)


def ablation_map(module, image, target, layer="final") -> torch.Tensor:
    before, after = halves(module, layer)
    features = before(normalized(image[None]))
    whole = after(features)[0, target]
    total = torch.zeros(features.shape[-2:])
    for number in range(features.shape[1]):
        without = features.clone()
        without[:, number] = 0
        total += (whole - after(without)[0, target]) / abs(whole) * features[0, number]
    return total.clamp(min=0)[None]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@every_layer
def test_ablation_cam_restated(activation, layer, images, targets):
    module = network("deep", activation)
    logits = module(normalized(images)).gather(1, targets[:, None])
    assert (logits < 0).any()
    assert (logits > 0).any()
    expected = restated(images, targets, lambda *pair: ablation_map(module, *pair, layer))
    close(feature.ablation_cam(classified(module), images, targets, divisor="magnitude", layer=layer), expected, 1e-5)


@pytest.mark.parametrize(("spread", "layer"), [(False, "final"), (True, "final"), (True, "features.1")])
def test_recipro_cam_restated(spread, layer, images, targets):
    module = network("deep")
    before, after = halves(module, layer)
    _, rows, columns = SHAPES[layer]
    stencil = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16

    def one(image, target):
        features = before(normalized(image[None]))
        coarse = torch.zeros(rows, columns)
        for i, j in product(range(rows), range(columns)):
            alone = torch.zeros_like(features)
            for a, b in product((-1, 0, 1), repeat=2):
                if 0 <= i + a < rows and 0 <= j + b < columns:
                    share = stencil[a + 1, b + 1] if spread else float(a == b == 0)
                    alone[0, :, i + a, j + b] = share * features[0, :, i, j]
            coarse[i, j] = after(alone)[0].softmax(0)[target]
        return coarse[None]

    found = feature.recipro_cam(classified(module), images, targets, spread=spread, layer=layer)
    close(found, restated(images, targets, one))


@pytest.mark.parametrize(("cells", "layer"), [(2, "final"), (9, "final"), (3, "features.1"), (3, "input")])
def test_rise_on_features_restated(cells, layer, images, targets):
    module = network("deep")
    before, after = halves(module, layer)
    make = mask_maker(torch.zeros(1, *SHAPES[layer]), 7, cells, 0.3, 4)

    def one(image, target):
        features = before(normalized(image[None]))
        return sum(after(features * make(n))[0].softmax(0)[target] * make(n) for n in range(7))[None] / (7 * 0.3)

    settings = {"masks": 7, "cells": cells, "probability": 0.3, "seed": 4, "layer": layer}
    close(feature.rise_features(classified(module), images, targets, **settings), restated(images, targets, one))


@pytest.mark.parametrize(
    ("window", "stride", "layer"), [(1, 1, "final"), (3, 2, "final"), (9, 9, "final"), (4, 3, "features.1")]
)
def test_occlusion_of_features_restated(window, stride, layer, images, targets):
    module = network("deep")
    before, after = halves(module, layer)
    _, rows, columns = SHAPES[layer]

    def one(image, target):
        features = before(normalized(image[None]))
        whole = after(features)[0, target]
        total = torch.zeros(rows, columns)
        for top in reference.starts(rows, window, stride):
            for left in reference.starts(columns, window, stride):
                inside = torch.zeros(rows, columns, dtype=torch.bool)
                for row, column in product(range(rows), range(columns)):
                    inside[row, column] = top <= row < top + window and left <= column < left + window
                drop = whole - after(features.where(~inside, 0.0))[0, target]
                total[inside] += drop / inside.sum()
        return total[None]

    found = feature.occlusion_features(classified(module), images, targets, window=window, stride=stride, layer=layer)
    close(found, restated(images, targets, one), 1e-5)


# Tokens: patches are perturbed, the class token is not.


def tokens_of(settings: dict) -> dict:
    return {
        **settings,
        "layer": {"input": "input", "features.1": "features.tokens", "final": "final"}[settings["layer"]],
    }


@every_entry
def test_rows_of_tokens_are_the_same_in_any_batch(name, settings):
    check_batch_independent([(name, tokens_of(settings))], classified(transformer(), batch=32), (HEIGHT, WIDTH), 7)


@pytest.mark.parametrize("layer", ["final", "features.tokens"])
def test_methods_perturb_patches_and_leave_the_class_token(layer, images, targets):
    module = transformer()
    rest = [module.head] if layer == "final" else [module.features.mix, module.head]
    after = nn.Sequential(*rest)
    tokens = module.features.tokens(normalized(images))
    tokens = module.features.mix(tokens) if layer == "final" else tokens

    def patches(image: int, change) -> torch.Tensor:
        changed = tokens[image : image + 1].clone()
        changed[:, 1:] = change(changed[:, 1:])
        return after(changed)[0]

    def keep(place: int):
        return lambda part: torch.where((torch.arange(ROWS * COLUMNS) == place)[:, None], part, 0.0)

    def drop(channel: int):
        return lambda part: torch.where(torch.arange(6) == channel, 0.0, part)

    kept = [[patches(i, keep(j)).softmax(0)[t] for j in range(ROWS * COLUMNS)] for i, t in enumerate(targets)]
    found = feature.recipro_cam(classified(module), images, targets, spread=False, layer=layer)
    close(found, torch.tensor(kept).view(4, 1, ROWS, COLUMNS))

    whole = after(tokens).gather(1, targets[:, None])
    drops = torch.tensor([[whole[i, 0] - patches(i, drop(k))[t] for k in range(6)] for i, t in enumerate(targets)])
    summed = ((drops / whole.abs())[:, None] * tokens[:, 1:]).sum(2).relu()
    close(
        feature.ablation_cam(classified(module), images, targets, divisor="magnitude", layer=layer),
        summed.view(4, 1, ROWS, COLUMNS),
        1e-5,
    )


def test_rows_of_the_same_patches_have_their_own_class_tokens(images, targets):
    torch.manual_seed(1)
    module = gridded(Aside(), nn.Sequential(First(), nn.Linear(3, CLASSES)))
    classifier = classified(module)
    probabilities = module(normalized(images)).softmax(1).gather(1, targets[:, None])
    expected = probabilities[:, :, None, None].expand(-1, 1, ROWS, COLUMNS)
    close(feature.recipro_cam(classifier, images, targets, spread=False, layer="final"), expected)
    found = feature.rise_features(classifier, images, targets, masks=3, cells=2, probability=1.0, seed=0, layer="final")
    close(found, expected)


# Closed forms where the head is global average pooling and a linear layer.


def test_closed_forms_of_a_pooled_head(images, targets):
    module = network("pooled")
    classifier, features = classified(module), module.features(normalized(images))
    weights = module.head[2].weight[targets]
    found = feature.occlusion_features(classifier, images, targets, window=1, stride=1, layer="final")
    with torch.enable_grad():  # which the CAMs of one backward pass take for granted
        expected = cam.cam(classifier, images, targets, rectified=False, layer="final")
    close(found * ROWS * COLUMNS, expected, 1e-5)

    logits = torch.einsum("ck,nkij->ncij", module.head[2].weight, features) / (ROWS * COLUMNS)
    probabilities = (logits + module.head[2].bias[:, None, None]).softmax(1)
    expected = torch.stack([p[t][None] for p, t in zip(probabilities, targets, strict=True)])
    close(feature.recipro_cam(classifier, images, targets, spread=False, layer="final"), expected)

    whole = module.head(features).gather(1, targets[:, None]).abs()
    expected = ((weights * features.mean((2, 3)) / whole)[:, :, None, None] * features).sum(1, keepdim=True).relu()
    close(feature.ablation_cam(classifier, images, targets, divisor="magnitude", layer="final"), expected, 1e-5)


@every_layer
def test_all_cells_on_is_the_probability(layer, images, targets):
    classifier = classified(network("deep"))
    settings = {"masks": 3, "cells": 2, "probability": 1.0, "seed": 0, "layer": layer}
    found = feature.rise_features(classifier, images, targets, **settings)
    expected = classifier.probabilities(images).gather(1, targets[:, None])
    close(found, expected[:, :, None, None].expand_as(found))


# Identities.


@every_order
@every_fill
def test_without_noise_or_with_one_strength_all_are_scorecam(order, fill, color, images, targets, seeds):
    classifier, masked = classified(network("deep")), {"order": order, "fill": fill, "layer": "final"}
    plain = feature.scorecam(classifier, images, targets, **masked)
    assert torch.equal(feature.ss_cam(classifier, images, targets, seeds, samples=1, deviation=0.0, **masked), plain)
    for ramp in ("linear", "cumulative"):
        assert torch.equal(feature.is_cam(classifier, images, targets, samples=1, ramp=ramp, **masked), plain)


@pytest.mark.parametrize(
    ("name", "count", "settings"),
    [
        ("ss_cam", "samples", {"deviation": 1.0, **MASKED}),
        ("rise_features", "masks", {"cells": 3, "probability": 0.5, "seed": 1, "layer": "final"}),
    ],
)
def test_more_samples_keep_the_first_ones(name, count, settings, images, targets, seeds, monkeypatch):
    shown = []
    for number in (2, 3):
        classifier = classified(network("deep"), batch=1)
        for asked in ("logits", "head"):
            ask = getattr(classifier, asked)
            monkeypatch.setattr(classifier, asked, lambda *given, ask=ask: (shown[-1].append(given[0]), ask(*given))[1])
        shown.append([])
        attribute(name, {**settings, count: number}, classifier, images[:1], targets[:1], seeds[:1])
    assert len(shown[0]) * 3 == len(shown[1]) * 2
    assert all(torch.equal(old, new) for old, new in zip(shown[0], shown[1], strict=False))
    assert not torch.equal(shown[1][0], shown[1][-1])


# Features that never fire.


@pytest.mark.parametrize(("bias", "dead"), [(-1.0, 3), (0.3, 3), (-1.0, FEATURES), (0.1, FEATURES)])
def test_features_that_are_the_same_everywhere_hide_the_image(bias, dead, images, targets, seeds):
    """TorchCAM and pytorch-grad-cam had 0/0 here."""
    module = network("deep")
    module.features[2].weight[:dead] = 0
    module.features[2].bias[:dead] = bias
    classifier = classified(module)
    for order in ("normalize_first", "enlarge_first"):
        found = feature.scorecam(classifier, images, targets, order=order, fill="mean", layer="final")
        expected = restated(
            images, targets, lambda *pair, order=order: score_map(module, *pair, order, MEAN, lambda _, m: [m])
        )
        assert torch.allclose(found, expected, atol=1e-6)
    features = clean_features(classifier, images, "final")[0][:, :dead].amax((1, 2, 3))
    assert torch.equal(features, torch.full_like(features, max(bias, 0)))
    for name, settings in [entry for entry in ENTRIES if entry[1]["layer"] == "final"]:
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
    found = feature.ablation_cam(classified(module), images, targets, divisor="magnitude", layer="final")
    assert torch.equal(found, torch.zeros_like(found))


# Second witnesses.


class Plain(nn.Module):
    """Takes normalized images, so that what the packages mask with 0 is hidden by the mean."""

    def __init__(self, module: nn.Sequential):
        super().__init__()
        self.features, self.head = module.features, module.head

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(inputs))


def torchcam_map(extractor, images, targets) -> torch.Tensor:
    """The raw map, before TorchCAM's scaling to [0, 1]."""
    with extractor:
        extractor.model(normalized(images))
        (coarse,) = extractor(class_idx=targets.tolist(), normalized=False)
    return coarse[:, None]


def test_torchcam_scorecam_and_is_cam(images, targets):
    module = network("deep")
    classifier = classified(module)
    expected = torchcam_map(ScoreCAM(Plain(module), "features"), images, targets)
    close(feature.scorecam(classifier, images, targets, **MASKED), expected)
    expected = torchcam_map(ISCAM(Plain(module), "features", num_samples=4), images, targets)
    close(feature.is_cam(classifier, images, targets, samples=4, ramp="cumulative", **MASKED), expected)


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
    expected = torchcam_map(extractor, images, targets)
    found = feature.ss_cam(classified(module), images, targets, seeds, samples=3, deviation=2.0, **MASKED)
    close(found, expected)


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Enlarged as the verb does, and scaled to [0, 1]."""
    maps = enlarged(maps, (HEIGHT, WIDTH))
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-7)  # some are 0 everywhere


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
    settings = {"order": "enlarge_first", "fill": "mean", "layer": "final"}
    close(scaled(feature.scorecam(classified(module), images, targets, **settings)), scaled(expected), 1e-5)


def test_pytorch_grad_cam_ablation_cam(images):
    """It divides by the logit, so that a negative one turns its map over: there the formula's restatement decides."""
    module = network("deep")
    logits = module(normalized(images))
    for targets, alike in ((logits.argmax(1), True), (logits.argmin(1), False)):
        assert (logits.gather(1, targets[:, None]) > 0).all() == alike
        expected = grad_cam_map(AblationCAM, module, images, targets)
        found = feature.ablation_cam(classified(module), images, targets, divisor="magnitude", layer="final")
        if alike:
            close(scaled(found), scaled(expected), 1e-5)
        else:
            assert (scaled(found) - expected).abs().max() > 0.1
            close(found, restated(images, targets, lambda *pair: ablation_map(module, *pair)), 1e-5)


# Messages.


RISE = {"masks": 1, "cells": 1, "probability": 0.5, "seed": 0, "layer": "final"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("ss_cam", {"samples": 0, "deviation": 1.0, **MASKED}, "'samples' is 0, expected at least 1"),
        ("ss_cam", {"samples": 1, "deviation": -0.5, **MASKED}, "'deviation' is -0.5, expected at least 0"),
        ("is_cam", {"samples": 0, "ramp": "linear", **MASKED}, "'samples' is 0, expected at least 1"),
        ("rise_features", {**RISE, "probability": 0.0}, "'probability' is 0.0, expected above 0 and up to 1"),
        ("rise_features", {**RISE, "masks": 0}, "'masks' is 0, expected at least 1"),
        ("rise_features", {**RISE, "cells": 0}, "'cells' is 0, expected at least 1"),
        (
            "occlusion_features",
            {"window": 2, "stride": 3, "layer": "final"},
            "'stride' is 3, expected 1 to window = 2",
        ),
    ],
)
def test_settings_out_of_range(name, settings, message, images, targets, seeds):
    with pytest.raises(UserError) as problem:
        attribute(name, settings, classified(network("pooled")), images, targets, seeds)
    assert str(problem.value) == f"{name}: the setting {message}"
