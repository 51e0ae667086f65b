"""Every attribution method: closed forms, identities, its formula restated, second witnesses, invariance, cost."""

import gc
from collections import OrderedDict
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from atlas.inputs.explain import mapped, swapped
from atlas.methods import cam, control, gradient, masking, noise, path
from atlas.methods.shared.batches import pairs
from atlas.methods.shared.masks.windows import covering
from atlas.model import batch_cache, runtime
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import entries, find, load
from atlas.study.schema.settings import Entry
from atlas.study.schema.signatures import signature
from tests.support.every import EVERY, shaping
from tests.support.methods import (
    CLASSES,
    ENGINE,
    HEIGHT,
    KEPT,
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
from tests.support.reference import methods as reference

# How it is done where a test is not about that.
AT_INPUT = {"output": "logit", "layer": "input"}
LINE = {"sign": "both", **AT_INPUT}
BACKGROUND = torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
SMALL = {"samples": 3, "steps": 5, "masks": 9}
# Settings that the default study does not use.
NOISE = {"samples": 3, "spread": 0.15, "extent": "image", "output": "logit", "channels": "sum"}
OTHERS = {
    "noise": {
        "gag_85_minmax": {"function": "gag", **NOISE, "sign": "absolute", "percentile": 85, "floor": "minmax"},
        "gag_85_zero": {"function": "gag", **NOISE, "sign": "both", "percentile": 85, "floor": "zero"},
    },
    "gradient": {
        "guided_backprop_negative": {
            "function": "guided_backprop",
            "sign": "negative",
            "layer": "input",
            "channels": "sum",
        },
        "guided_backprop_absolute": {
            "function": "guided_backprop",
            "sign": "absolute",
            "layer": "input",
            "channels": "sum",
        },
    },
    "path": {
        "integrated_from_mean": {
            "function": "integrated_gradients",
            **{"steps": 5, "baseline": "mean", "rule": "midpoint", "channels": "sum", **LINE},
        },
    },
    "masking": {
        "occlusion_by_black": {
            "function": "occlusion",
            **{"window": 7, "stride": 3, "fill": "black", "channels": "sum"},
        },
    },
}


def listed() -> list[Entry]:
    """The methods of the default study, at small counts, and those with other settings."""
    study = entries(load(Path(__file__).parents[2]), "methods")
    found = [
        entry
        for kind in (study, entries({"methods": OTHERS}, "methods"))
        for f in kind.values()
        for entry in f.values()
    ]
    return [
        entry._replace(settings={key: SMALL.get(key, value) for key, value in entry.settings.items()})
        for entry in found
    ]


ENTRIES = listed()
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(9, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0, 1, 3, 2, 2, 0, 4])


@pytest.fixture
def seeds() -> list[int]:
    return [1000 + 7 * row for row in range(9)]


def attribute(entry, classifier, images, targets, seeds):
    """Run an entry as the verb does: inputs by name, settings by keyword, channels reduced, enlarged."""
    given = {"classifier": classifier, "images": images, "targets": targets, "seeds": seeds, "background": BACKGROUND}
    inputs = signature("methods", entry.family, entry.function).inputs
    function = find("methods", entry.family, entry.function)
    found = function(*(given[name] for name in inputs), **entry.settings)
    return mapped(found, classifier.batched, tuple(images.shape[-2:]), seeds, **shaping(entry))


# What every entry promises.


def rows_of(entry, classifier, rows: list[int], images, targets, seeds):
    return attribute(entry, classifier, images[rows], targets[rows], [seeds[row] for row in rows])


@every_entry
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(entry):
    count = 64
    images = torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    targets = torch.arange(count) % CLASSES
    seeds = list(range(count))
    classifier = classified(network("pooled"))
    whole = attribute(entry, classifier, images, targets, seeds)
    assert len(whole) == count
    shuffled = np.random.default_rng(0).permutation(count).tolist()
    for rows in ([0], [63], [5, 60, 2, 33, 9, 10, 8], list(range(9)), shuffled):
        assert torch.equal(rows_of(entry, classifier, rows, images, targets, seeds), whole[rows])


@every_entry
def test_rows_of_one_image_with_several_targets(entry, images, targets, seeds):
    classifier = classified(network("pooled"))
    rows = [0, 1, 0, 0, 1]
    several = attribute(entry, classifier, images[rows], targets[:5], [seeds[row] for row in rows])
    for place, row in enumerate(rows):
        alone = attribute(entry, classifier, images[row : row + 1], targets[place : place + 1], [seeds[row]])
        assert torch.equal(several[place], alone[0])


@every_entry
def test_shape_dtype_finite_and_repeatable(entry, images, targets, seeds):
    classifier = classified(network("pooled"))
    first = attribute(entry, classifier, images, targets, seeds)
    again = attribute(entry, classifier, images.clone(), targets.clone(), list(seeds))
    assert first.shape == (9, HEIGHT, WIDTH)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert first.std() > 0 or entry.function == "canny"
    assert torch.equal(first, again)


@every_entry
def test_the_map_changes_with_the_inputs_it_names_and_no_other(entry, images, targets, seeds):
    classifier = classified(network("deep" if entry.function != "cam" else "pooled"))
    named = signature("methods", entry.family, entry.function).inputs
    before = attribute(entry, classifier, images, targets, seeds)
    other_targets = attribute(entry, classifier, images.clone(), (targets + 1) % CLASSES, seeds)
    other_seeds = attribute(entry, classifier, images.clone(), targets, [seed + 1 for seed in seeds])
    for name, after in (("targets", other_targets), ("seeds", other_seeds)):
        changed = [not torch.equal(old, new) for old, new in zip(before, after, strict=True)]
        assert any(changed) == (name in named)
        assert all(changed) == (name in named) or entry.family == "cam"  # a CAM may be 0 for both targets


@every_entry
def test_images_weights_and_hooks_are_left_alone(entry, images, targets, seeds):
    classifier = classified(network("pooled"))
    attribute(entry, classifier, images, targets, seeds)  # so that the network is cut where it will be
    modules = [module for halves in classifier._cuts.values() for half in halves for module in half.modules()]
    weights = [parameter.clone() for module in modules for parameter in module.state_dict().values()]
    before = images.clone(), targets.clone(), list(seeds)
    attribute(entry, classifier, images, targets, seeds)
    assert torch.equal(images, before[0])
    assert torch.equal(targets, before[1])
    assert seeds == before[2]
    after = [parameter for module in modules for parameter in module.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(weights, after, strict=True))
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in modules)
    assert not images.requires_grad


CAMS = ("gradcam", "gradcam_pp", "hirescam", "xgradcam", "layercam")
ONE = ("gradient", "input_x_gradient", "guided_backprop", "lrp", *CAMS)
SAMPLED = ("smoothgrad", "vargrad", "gag", "expected_gradients")
FEATURES, LOCATIONS = 8, 5 * 6  # of the small networks


def expected_passes(entry) -> tuple[int, int, int] | None:
    """Forward, backward and head passes of an image, as the definitions give them; None for a method unknown here."""
    settings, function = entry.settings, entry.function
    if function in ONE:
        return 1, 1, 0
    if function in SAMPLED:
        return settings["samples"], settings["samples"], 0
    if function == "integrated_gradients":
        return settings["steps"], settings["steps"], 0
    if function == "occlusion":
        # Windows start a stride apart, from half a window before the border to half a window before the end.
        return 1 + prod(side // settings["stride"] + 1 for side in (HEIGHT, WIDTH)), 0, 0
    return {
        "guided_gradcam": (2, 2, 0),
        **dict.fromkeys(("cam", "eigencam"), (1, 0, 0)),
        "scorecam": (1 + FEATURES, 0, 0),
        "ablation_cam": (1, 0, FEATURES + 1),
        "recipro_cam": (1, 0, LOCATIONS),
        "rise": (settings.get("masks"), 0, 0),
        **dict.fromkeys(("uniform", "canny", "center", "intensity"), (0, 0, 0)),
    }.get(function)


KNOWN = [entry for entry in ENTRIES if expected_passes(entry)]
# Methods of other families than those listed, whose passes their own files count.
ELSEWHERE = {
    "path_variants": "path",
    "cam_averaged": "cam",
    "superpixel": "superpixel",
    "optimized_mask": "optimized",
    "attention": "transformers",
    "integrated_gradients_random": "path",
    "smoothgrad_squared": "methods",
    "deep_lift": "relevance",
    **dict.fromkeys(("ss_cam", "is_cam", "rise_features", "occlusion_features"), "feature"),
}


def test_no_method_is_left_uncounted():
    for entry in EVERY:
        assert expected_passes(entry) or entry.family in ELSEWHERE or entry.function in ELSEWHERE, entry.name


def test_squared_gradients_are_those_of_smoothgrad(images, targets, seeds):
    classifier = classified(network("pooled"))
    settings = {"samples": 3, "spread": 0.15, "extent": "image", "output": "logit"}
    for _ in range(2):
        noise.smoothgrad_squared(classifier, images, targets, seeds, **settings)
        noise.smoothgrad(classifier, images, targets, seeds, sign="both", **settings)
    assert classifier.passes == {"forward": 9 * 3, "backward": 9 * 3, "head": 0}


@pytest.mark.parametrize("entry", KNOWN, ids=lambda entry: entry.name)
def test_passes_per_image_are_those_of_the_definition(entry, images, targets, seeds):
    classifier = classified(network("pooled"))
    attribute(entry, classifier, images, targets, seeds)
    forward, backward, head = expected_passes(entry)
    assert classifier.passes == {"forward": 9 * forward, "backward": 9 * backward, "head": 9 * head}


def values_in_tensors() -> int:
    gc.collect()
    return sum(known.numel() for known in gc.get_objects() if issubclass(type(known), torch.Tensor))


@pytest.mark.parametrize("entry", [e for e in EVERY if e.family != "attention"], ids=lambda entry: entry.name)
def test_a_method_holds_nothing_of_the_images_it_is_done_with(entry, images, targets, seeds):
    classifier, held = classified(network("pooled")), []
    for _ in range(4):
        attribute(entry, classifier, images.clone(), targets, seeds)
        batch_cache.forget(batch=True)
        held.append(values_in_tensors())
    assert held[3] == held[1]


# What a family's entries cost together: the dearest, and what is their own (a second backward pass through the ReLUs
# for what is guided; a pass without gradients; the head passes of each that perturbs features).
SHARED = {
    "gradient": (2, 2, 0),
    "noise": (3, 3, 0),
    "cam": (3, 2, 0),
    "feature": (1 + FEATURES, 0, FEATURES + 1 + LOCATIONS),
}


@pytest.mark.parametrize("family", SHARED)
def test_a_family_shares_its_passes(family, images, targets, seeds):
    classifier = classified(network("pooled"))
    for entry in [one for one in KNOWN if one.family == family]:
        if entry.name not in OTHERS.get("gradient", {}):
            attribute(entry, classifier, images, targets, seeds)
    forward, backward, head = SHARED[family]
    assert classifier.passes == {"forward": 9 * forward, "backward": 9 * backward, "head": 9 * head}


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if entry.function in ("occlusion", "rise")], ids=lambda entry: entry.name
)
def test_masked_copies_of_one_image_are_looked_at_once_for_all_targets(entry, images, seeds):
    classifier = classified(network("pooled"))
    attribute(entry, classifier, images[[0, 1, 0, 0, 1]], torch.arange(5), seeds[:5])
    assert classifier.passes["forward"] == 2 * expected_passes(entry)[0]


@every_entry
def test_no_more_than_a_batch_of_perturbed_images_exists_at_a_time(entry, images, targets, seeds, monkeypatch):
    classifier = classified(network("pooled"))
    rows = rows_of_passes(monkeypatch)
    attribute(entry, classifier, images[:3], targets[:3], seeds[:3])
    assert max(rows, default=0) <= classifier.batch
    full = [count for count in rows[:-2] if count != classifier.batch]  # the last reduces channels
    assert not full or entry.function not in (*SAMPLED, "integrated_gradients", "occlusion", "rise")


# Closed forms on a linear classifier.


def linear_weights(module: nn.Sequential, targets: torch.Tensor) -> torch.Tensor:
    weights = module.head[1].weight.detach()[targets].view(-1, 3, HEIGHT, WIDTH)
    return weights / torch.tensor(STD).view(-1, 1, 1)


def test_gradient_of_a_linear_classifier_is_its_weights(images, targets):
    module = linear()
    weights = linear_weights(module, targets)
    classifier = classified(module)
    close(gradient.gradient(classifier, images, targets, sign="both", **AT_INPUT), weights)


@pytest.mark.parametrize("rule", ["gauss_legendre", "midpoint"])
def test_input_x_gradient_and_integrated_gradients_of_a_linear_classifier(rule, images, targets):
    module = linear()
    expected = linear_weights(module, targets) * images
    classifier = classified(module)
    close(gradient.input_x_gradient(classifier, images, targets, baseline="black", **AT_INPUT), expected)
    integrated = path.integrated_gradients(classifier, images, targets, steps=3, baseline="black", rule=rule, **LINE)
    close(integrated, expected)


def test_one_pixel_occlusion_of_a_linear_classifier(images, targets):
    module = linear()
    expected = (linear_weights(module, targets) * images).sum(1, keepdim=True)[:2]
    found = masking.occlusion(classified(module), images[:2], targets[:2], window=1, stride=1, fill="black")
    close(found, expected, 1e-4)


def test_cams_of_a_linear_head_on_features(images, targets):
    """On the pooled head the gradient by a feature is its weight over the number of locations."""
    module = network("pooled")
    classifier = classified(module)
    coarse, _ = zip(*[reference.layer(Whole(module), *pair) for pair in zip(images, targets, strict=True)], strict=True)
    weights = module.head[2].weight.detach().numpy()[targets]
    expected = np.einsum("nk,nkrc->nrc", weights, np.stack(coarse))
    close(cam.cam(classifier, images, targets, rectified=False, layer="final")[:, 0], expected)
    for function in (cam.gradcam, cam.hirescam, cam.xgradcam):
        close(function(classifier, images, targets, layer="final")[:, 0], expected.clip(0) / coarse[0][0].size)


def test_cam_averages_to_the_logit_less_its_bias(images, targets):
    module = network("pooled")
    classifier = classified(module)
    logits = classifier.logits(images).gather(1, targets[:, None])[:, 0]
    found = cam.cam(classifier, images, targets, rectified=False, layer="final").mean((1, 2, 3))
    close(found, logits - module.head[2].bias.detach()[targets])


# Identities.


@pytest.mark.parametrize(
    ("activation", "steps", "rule", "tolerance"),
    [
        (nn.Softplus, 20, "gauss_legendre", 1e-4),
        (nn.Softplus, 100, "midpoint", 1e-4),
        (nn.ReLU, 200, "gauss_legendre", 1e-2),  # kinks
    ],
)
@pytest.mark.parametrize(("baseline", "color"), [("black", [0.0] * 3), ("mean", MEAN)])
def test_integrated_gradients_sum_to_the_difference_of_logits(
    activation, steps, rule, tolerance, baseline, color, images, targets
):
    classifier = classified(network("deep", activation))
    found = path.integrated_gradients(classifier, images, targets, steps=steps, baseline=baseline, rule=rule, **LINE)
    absent = torch.tensor(color).view(-1, 1, 1).expand_as(images)
    difference = classifier.logits(images) - classifier.logits(absent)
    close(found.sum((1, 2, 3)), difference.gather(1, targets[:, None])[:, 0], tolerance)


def test_smoothgrad_without_spread_is_the_gradient(images, targets, seeds):
    classifier = classified(network("deep"))
    smooth = noise.smoothgrad(
        classifier, images, targets, seeds, samples=3, spread=0.0, extent="image", output="logit", sign="both"
    )
    assert torch.equal(smooth, gradient.gradient(classifier, images, targets, sign="both", **AT_INPUT))
    assert (
        noise.vargrad(classifier, images, targets, seeds, samples=3, spread=0.0, extent="image", output="logit")
        .abs()
        .max()
        == 0
    )


def test_images_of_one_color_have_no_noise(targets, seeds):
    images = torch.full((2, 3, HEIGHT, WIDTH), 0.5)
    classifier = classified(network("deep"))
    plain = gradient.gradient(classifier, images, targets[:2], sign="both", **AT_INPUT)
    settings = {"samples": 3, "spread": 0.15, "extent": "image", "output": "logit"}
    assert torch.equal(noise.smoothgrad(classifier, images, targets[:2], seeds[:2], **settings, sign="both"), plain)
    for floor in ("raw", "minmax", "zero"):
        held = noise.gag(
            classifier, images, targets[:2], seeds[:2], **settings, sign="absolute", percentile=85, floor=floor
        )
        assert torch.equal(held, torch.zeros_like(images))
    free = noise.gag(classifier, images, targets[:2], seeds[:2], **settings, sign="absolute", percentile=0, floor="raw")
    close(free, plain.abs())


def test_more_samples_keep_the_noise_of_earlier_ones(images, targets, seeds):
    """So the second sample can be had from two runs, and gives the variance of the longer one."""
    classifier = classified(network("deep"))
    settings = {"spread": 0.15, "extent": "image", "output": "logit"}
    one, two = (
        noise.smoothgrad(classifier, images, targets, seeds, samples=n, **settings, sign="both") for n in (1, 2)
    )
    second = 2 * two - one
    variance = noise.vargrad(classifier, images, targets, seeds, samples=2, **settings)
    close(variance, (one - second) ** 2 / 2)


@pytest.mark.parametrize("layer", ["input", "final"])
@pytest.mark.parametrize("activation", [nn.Identity, nn.SiLU, nn.LeakyReLU])
def test_guided_backprop_without_relu_would_be_the_gradient(activation, layer, images, targets):
    classifier = classified(network("deep", activation))
    reason = f"no ReLU follows its layer {layer}: guided backpropagation would be the plain gradient"
    for sign in ("positive", "negative", "absolute"):
        with pytest.raises(Unsupported, match=reason):
            gradient.guided_backprop(classifier, images, targets, sign=sign, layer=layer)
    with pytest.raises(Unsupported, match="no ReLU follows its layer input"):
        cam.guided_gradcam(classifier, images, targets, layer="final")


def test_every_pixel_is_occluded_equally_often_and_all_drops_are_kept(images, targets):
    """On a linear classifier a window's drop is the sum of w · x in it."""
    module = linear()
    products = (linear_weights(module, targets) * images).sum(1)[:2]
    found = masking.occlusion(classified(module), images[:2], targets[:2], window=8, stride=4, fill="black")
    close(found.sum((1, 2, 3)), 4 * products.sum((1, 2)), 1e-4)


def test_rise_masks_of_a_shorter_run_come_first(images, targets):
    classifier = classified(network("pooled"))
    settings = {"cells": 3, "probability": 0.5, "fill": "mean", "seed": 1}
    four, five = (masking.rise(classifier, images[:2], targets[:2], masks=n, **settings) for n in (4, 5))
    fifth = 5 * five - 4 * four
    assert fifth.min() > -1e-5
    assert fifth.amax((1, 2, 3)).lt(2 + 1e-5).all()
    other = masking.rise(classifier, images[:2], targets[:2], masks=4, **{**settings, "seed": 2})
    assert not torch.equal(four, other)


def test_rise_with_all_cells_on_is_the_probability(images, targets):
    classifier = classified(network("pooled"))
    found = masking.rise(classifier, images, targets, masks=3, cells=3, probability=1.0, fill="black", seed=0)
    expected = classifier.probabilities(images).gather(1, targets[:, None])
    close(found, expected[:, :, None, None].expand_as(found))


# The formulas again, slowly.


def slow(images, targets, function):
    return [function(image, int(target)) for image, target in zip(images, targets, strict=True)]


@pytest.fixture
def few(images, targets, seeds):
    return images[:3], targets[:3], seeds[:3]


@pytest.mark.parametrize("percentile", [0, 15, 50, 85, 100])
@pytest.mark.parametrize("floor", ["raw", "minmax", "zero"])
def test_noise_methods_restated(percentile, floor, few):
    images, targets, seeds = few
    module = network("deep")
    whole = Whole(module)
    samples = [
        reference.noisy_gradients(whole, image, int(target), seed, 5, 0.2)
        for image, target, seed in zip(*few, strict=True)
    ]
    classifier = classified(module)
    given, noisy = (
        (classifier, images, targets, seeds),
        {"samples": 5, "spread": 0.2, "extent": "image", "output": "logit"},
    )
    close(noise.vargrad(*given, **noisy), [gradients.var(0, ddof=1) for gradients in samples])
    close(noise.smoothgrad_squared(*given, **noisy), [(gradients**2).mean(0) for gradients in samples])
    for sign, kept in KEPT.items():
        close(noise.smoothgrad(*given, **noisy, sign=sign), [kept(gradients).mean(0) for gradients in samples])
    guided = {"percentile": percentile, "floor": floor}
    for sign in ("both", "absolute"):
        close(
            noise.gag(*given, **noisy, sign=sign, **guided),
            [reference.gag(gradients, percentile, floor, KEPT[sign], STD) for gradients in samples],
        )


def test_noise_of_a_batch_of_photographs_is_the_same_for_every_image(few):
    """The authors' range is of the normalized batch, in which some values are black and some white."""
    images, targets, seeds = few
    whole, classifier = Whole(network("deep")), classified(network("deep"))
    normalized = [[(end - mean) / std for mean, std in zip(MEAN, STD, strict=True)] for end in (0, 1)]
    spread = 0.2 * (max(normalized[1]) - min(normalized[0])) * torch.tensor(STD).view(-1, 1, 1)
    samples = [
        reference.noisy_gradients(whole, image, int(target), seed, 3, spread / (image.max() - image.min()))
        for image, target, seed in zip(*few, strict=True)
    ]
    found = noise.smoothgrad(
        classifier, images, targets, seeds, samples=3, spread=0.2, extent="batch", output="logit", sign="both"
    )
    close(found, [gradients.mean(0) for gradients in samples])


def test_input_x_gradient_from_the_mean_color_is_of_the_normalized_image(images, targets):
    module = network("deep")
    normalized = Whole(module).normalized(images).requires_grad_()
    logits = module.head(module.features(normalized)).gather(1, targets[:, None]).sum()
    expected = normalized * torch.autograd.grad(logits, normalized)[0]
    found = gradient.input_x_gradient(classified(module), images, targets, baseline="mean", **AT_INPUT)
    close(found, expected.detach())


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
def test_gradients_of_one_sign(images, targets, sign):
    classifier = classified(network("deep"))
    both = gradient.gradient(classifier, images, targets, sign="both", **AT_INPUT)
    assert torch.equal(gradient.gradient(classifier, images, targets, sign=sign, **AT_INPUT), KEPT[sign](both))


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
def test_guided_backprop_keeps_a_sign_at_every_relu(few, sign):
    """Two ReLUs in a row of layers without bias, passed back by hand."""
    images, targets, _ = few
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 5, 3, 2), nn.Linear(5, CLASSES)
    features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    module = nn.Sequential(OrderedDict(features=features, head=head)).eval()
    given = ((images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)).requires_grad_()
    one = first(given)
    two = second(one.relu())
    back = last.weight[targets][:, :, None, None] / two[0, 0].numel()
    back = KEPT[sign](back * (two > 0))
    back = KEPT[sign](torch.autograd.grad(two, one, back, retain_graph=True)[0])
    (expected,) = torch.autograd.grad(one, given, back)
    close(
        gradient.guided_backprop(classified(module), images, targets, sign=sign, layer="input"),
        expected / torch.tensor(STD).view(-1, 1, 1),
    )


@pytest.mark.parametrize("name", ["gradcam", "gradcam_pp", "hirescam", "layercam"])
@pytest.mark.parametrize("head", ["pooled", "deep"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_cams_restated(name, head, activation, images, targets):
    module = network(head, activation)
    restated = getattr(reference, name)
    expected = slow(images, targets, lambda *pair: restated(*reference.layer(Whole(module), *pair)))
    assert np.max(expected) > 0
    form = {"form": "paper"} if name == "gradcam_pp" else {}
    close(getattr(cam, name)(classified(module), images, targets, layer="final", **form)[:, 0], expected)


def test_gradcam_pp_is_zero_where_gradient_or_denominator_is():
    """Features of sum −2 and gradients of 1 make the denominator 2 g² + g³ Σ A zero."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4, 2, bias=False))
    head[1].weight.data = torch.tensor([[1.0] * 4 + [0.0] * 4 + [2.0] * 4, [0.0] * 12])
    module = nn.Sequential(OrderedDict(features=nn.Identity(), head=head)).eval()
    classifier = Classifier("exact", module, mean=[0.0] * 3, std=[-1.0, 1.0, 1.0], engine=ENGINE)
    images = torch.full((1, 3, 2, 2), 0.5)
    form = {"form": "paper", "layer": "final"}
    found = cam.gradcam_pp(classifier, images, torch.tensor([0]), **form)
    # Only the third feature counts: α = 1/(2 + 2 · 2), w = 4 α · 2, map w · 0.5.
    close(found, torch.full((1, 1, 2, 2), 4 * 2 / 6 * 0.5))
    assert cam.gradcam_pp(classifier, images, torch.tensor([1]), **form).abs().max() == 0


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize(("baseline", "color"), [("black", [0.0] * 3), ("mean", MEAN)])
def test_integrated_gradients_restated(steps, baseline, color, few):
    images, targets, _ = few
    module = network("deep")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    rules = {
        "gauss_legendre": ((nodes + 1) / 2, weights / 2),
        "midpoint": ((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)),
    }
    start = torch.tensor(color).view(-1, 1, 1)
    for rule, (points, shares) in rules.items():
        expected = slow(
            images,
            targets,
            lambda *pair, points=points, shares=shares: reference.integrated_gradients(
                Whole(module), *pair, start, points.astype(np.float32), shares
            ),
        )
        found = path.integrated_gradients(
            classified(module), images, targets, steps=steps, baseline=baseline, rule=rule, **LINE
        )
        close(found, expected)


@pytest.mark.parametrize(
    ("window", "stride", "sides", "count"),
    [
        (16, 8, (224, 224), 841),
        (16, 8, (448, 448), 3249),
        (5, 2, (7, 7), 16),
        (5, 2, (14, 14), 64),
        (5, 2, (28, 28), 225),
        (1, 1, (3, 4), 12),
    ],
)
def test_as_many_windows_as_in_the_certified_study(window, stride, sides, count):
    assert len(covering("occlusion", sides, window, stride)) == count


@pytest.mark.parametrize(("window", "stride"), [(w, s) for w in range(1, 10) for s in range(1, w + 1)])
def test_windows_cover_everything_and_none_is_empty(window, stride):
    for side in range(1, 25):
        windows = covering("occlusion", (side, 3), window, stride)
        seen = np.zeros((side, 3), int)
        for place in windows:
            assert seen[place].size
            seen[place] += 1
        assert seen.min() > 0


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (5, 5), (7, 3)])
@pytest.mark.parametrize(("fill", "color"), [("black", [0.0] * 3), ("mean", MEAN)])
def test_occlusion_restated(window, stride, fill, color, few):
    images, targets, _ = few
    module = network("deep")
    start = torch.tensor(color).view(-1, 1, 1)
    expected = slow(images, targets, lambda *pair: reference.occlusion(Whole(module), *pair, window, stride, start))
    found = masking.occlusion(classified(module), images, targets, window=window, stride=stride, fill=fill)
    close(found[:, 0], expected, 1e-4)


@pytest.mark.parametrize(("fill", "color"), [("black", [0.0] * 3), ("mean", MEAN)])
@pytest.mark.parametrize(("cells", "probability"), [(3, 0.5), (7, 0.2)])
def test_rise_restated(fill, color, cells, probability, few):
    images, targets, _ = few
    module = network("deep")
    start = torch.tensor(color).view(-1, 1, 1)
    settings = {"masks": 11, "cells": cells, "probability": probability, "seed": 3}
    expected = slow(images, targets, lambda *pair: reference.rise(Whole(module), *pair, color=start, **settings))
    found = masking.rise(classified(module), images, targets, fill=fill, **settings)
    close(found[:, 0], expected)


# The verb's part of a map.


def test_channels_are_reduced_at_the_layers_size_and_then_enlarged(seeds):
    raw = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]]]])
    expected = {"sum": [-2.0, -1.0], "abs_sum": [4.0, 3.0], "max_abs": [3.0, 2.0]}
    for channels, (left, right) in expected.items():
        found = mapped(raw, classified(linear()).batched, (2, 4), seeds[:1], channels=channels, reverse=None)
        # Corners are not aligned: pixel centers lie at -1/4, 1/4, 3/4, 5/4 of the way between the two.
        row = [left, left + (right - left) / 4, left + 3 * (right - left) / 4, right]
        close(found, [[row, row]])


def test_a_reversed_map_swaps_the_lowest_values_with_those_next_to_the_highest(seeds):
    maps = torch.stack([torch.randperm(100, generator=torch.Generator().manual_seed(n)) for n in range(2)]).float()
    found = mapped(
        maps.view(2, 1, 10, 10), classified(linear()).batched, (10, 10), seeds[:2], channels="sum",
        reverse={"remain": 0.07, "swap": 0.1},
    ).flatten(1)  # fmt: skip
    for before, after in zip(maps, found, strict=True):
        moved = before != after
        assert sorted(before[moved].tolist()) == [*range(10), *range(83, 93)]
        assert (after[before < 10] >= 83).all()
        assert (after[before >= 93] == before[before >= 93]).all()
        assert sorted(after.tolist()) == list(range(100))
    lowest = [after[before.argsort()[:10]].tolist() for before, after in zip(maps, found, strict=True)]
    assert lowest[0] != lowest[1]  # each image has its own order
    assert lowest[0] != sorted(lowest[0])
    alone = swapped(maps[1:].view(1, 10, 10), seeds[1:2], remain=0.07, swap=0.1)
    assert torch.equal(alone.flatten(), found[1])


# Controls.


def test_controls_know_no_classifier_and_no_target():
    for name in ("uniform", "canny", "center"):
        assert set(signature("methods", "control", name).inputs) <= {"images", "seeds"}


def test_uniform_is_uniform_and_each_image_has_its_own(images, seeds):
    found = control.uniform(images, seeds)
    assert found.shape == (9, 1, HEIGHT, WIDTH)
    assert found.min() >= 0
    assert found.max() < 1
    assert abs(found.mean() - 0.5) < 0.02
    assert len({tuple(row) for row in found.flatten(1).tolist()}) == 9


def test_canny_marks_the_border_of_a_square():
    images = torch.zeros(1, 3, 30, 40)
    images[:, :, 10:20, 12:28] = 1
    found = control.canny(images, sigma=1.0)[0, 0]
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert found[13:17, 15:25].sum() == 0
    assert found[:8].sum() == 0
    assert (found[9:11, 14:26].amax(0) == 1).all()
    # Equal luminance, other colors: nothing to see.
    images[:, 0, 10:20, 12:28], images[:, 1:, 10:20, 12:28] = 0.2125, 0
    images[:, 2, :10] = images[:, 2, 20:] = 0.2125**2 / 0.0721
    assert control.canny(images[:, :, :20, 12:28], sigma=1.0).sum() == 0


def test_center_is_a_gaussian_in_shares_of_the_sides(images):
    found = control.center(torch.zeros(2, 3, 40, 80), sigma=0.25)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found, found.flip(2, 3))
    # Ten rows from the middle of 40 is one standard deviation.
    middle = found[0, 0, 20, 40]
    assert found[0, 0, 30, 40] / middle == pytest.approx(np.exp(-(10.5**2 - 0.5**2) / 200), rel=1e-5)
    assert found[0, 0, 20, 60] / middle == pytest.approx(np.exp(-(20.5**2 - 0.5**2) / 800), rel=1e-5)


# Messages.


@pytest.mark.parametrize("fault", ["size", "function"])
def test_cam_sees_what_is_no_layer(fault, images, targets):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.flatten = nn.AdaptiveAvgPool2d(2 if fault == "size" else 1), nn.Flatten()
            self.last = nn.Linear(32 if fault == "size" else 8, CLASSES)

        def forward(self, features):
            features = self.flatten(self.pool(features))
            return self.last(features if fault == "size" else features.tanh())

    module = nn.Sequential(OrderedDict(features=network("pooled").features, head=Head())).eval()
    with pytest.raises(Unsupported, match="global average pooling and one linear layer; this one has Adaptive"):
        cam.cam(classified(module), images, targets, rectified=False, layer="final")


def test_cam_rectified(images, targets):
    classifier = classified(network("pooled"))
    plain, rectified = (cam.cam(classifier, images, targets, rectified=on, layer="final") for on in (False, True))
    assert plain.min() < 0
    assert torch.equal(rectified, plain.relu())


def test_cam_tells_why_it_cannot_serve_a_network(images, targets):
    with pytest.raises(Unsupported, match="global average pooling and one linear layer"):
        cam.cam(classified(network("deep")), images, targets, rectified=False, layer="final")


NOISY = {
    "samples": 2,
    "spread": 0.1,
    "extent": "image",
    "output": "logit",
    "sign": "absolute",
    "percentile": 50,
    "floor": "raw",
}
MASKED = {"masks": 2, "cells": 3, "probability": 0.5, "fill": "mean", "seed": 0}


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (noise.gag, {**NOISY, "percentile": 101}, "gag: the setting 'percentile' is 101, expected 0 to 100"),
        (noise.gag, {**NOISY, "samples": 1}, "gag: the setting 'samples' is 1, expected at least 2"),
        (
            noise.vargrad,
            {"samples": 1, "spread": 0.1, "extent": "image", "output": "logit"},
            "vargrad: the setting 'samples' is 1, expected at least 2",
        ),
        (
            masking.occlusion,
            {"window": 4, "stride": 5, "fill": "mean"},
            "occlusion: the setting 'stride' is 5, expected 1 to window = 4",
        ),
        (masking.rise, {**MASKED, "probability": 0.0}, "rise: the setting 'probability' is 0.0, expected above 0"),
    ],
)
def test_impossible_settings_are_explained(function, settings, message, images, targets, seeds):
    inputs = [classified(linear()), images, targets]
    inputs += [seeds] if function.__module__.endswith("noise") else []
    with pytest.raises(UserError, match=message):
        function(*inputs, **settings)


def test_pairs_fill_every_batch_but_the_last():
    batches = list(pairs(3, 5, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    assert [pair for batch in batches for pair in batch] == [(outer, inner) for outer in range(3) for inner in range(5)]
