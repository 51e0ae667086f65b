"""Integrated gradients and its relatives: restated, completeness, processed gradients, invariance, cost."""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from atlas.methods import gradient, path, path_variants
from atlas.methods.shared import regions as _regions
from atlas.methods.shared.regions import ranked, regions
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.study import seeds as draws
from atlas.study.errors import UserError
from atlas.study.schema.signatures import signature
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

RULES = ["gauss_legendre", "midpoint", "endpoints"]
BASELINES = ["black", "mean", "blur"]
# Where a test is not about these.
PLAIN = {"sign": "both", "output": "logit"}
FREE = {**PLAIN, "percentile": 0, "floor": "raw"}
GUIDED = {"sign": "absolute", "output": "loss", "percentile": 60, "floor": "minmax"}
LINE = {"steps": 3, "rule": "midpoint"}
WANDER = {"steps": 3, "baseline": "black", "fraction": 0.25, "max_distance": 0.1}
BLUR = {"steps": 3, "max_sigma": 8.0}
REGIONS = {"steps": 2, "rule": "midpoint", "dilation": 1, "min_pixels": 4}
EVERY = {
    "integrated": (path.integrated_gradients, {**LINE, "baseline": "blur", **PLAIN, "layer": "input"}),
    "at_final": (path.integrated_gradients, {**LINE, "baseline": "zero", **PLAIN, "layer": "final"}),
    "at_path": (path.integrated_gradients, {**LINE, "baseline": "zero", **PLAIN, "layer": "features.2"}),
    "random": (path.integrated_gradients_random, {**LINE, "steps": 2, "baselines": 2, **FREE}),
    "random_processed": (path.integrated_gradients_random, {**LINE, "steps": 2, "baselines": 2, **GUIDED}),
    "expected": (path.expected_gradients, {"samples": 3, "output": "logit"}),
    "guided": (path_variants.guided_ig, {**WANDER, **FREE}),
    "guided_processed": (path_variants.guided_ig, {**WANDER, "baseline": "blur", "max_distance": 1.0, **GUIDED}),
    "blur": (path_variants.blur_ig, {**BLUR, **FREE}),
    "blur_processed": (path_variants.blur_ig, {**BLUR, **GUIDED}),
    "xrai": (path_variants.xrai, {**REGIONS, "output": "logit"}),
}
every = pytest.mark.parametrize("name", EVERY)
BACKGROUND = 0.6 * torch.rand(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(7))
OUTPUTS = {
    "logit": lambda logits: logits,
    "probability": lambda logits: logits.softmax(1),
    "loss": lambda logits: -logits.log_softmax(1),
}
SEGMENTED = {}


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture(autouse=True)
def _segments_are_coarse_and_made_once(monkeypatch):
    """Segments take long, and depend on nothing but the pixels."""
    monkeypatch.setattr(_regions, "SIDE", 56)
    monkeypatch.setattr(_regions, "SMALLEST", 10)

    def known(image: np.ndarray, dilation: int) -> np.ndarray:
        key = (image.tobytes(), image.shape, dilation)
        if key not in SEGMENTED:
            SEGMENTED[key] = regions(image, dilation)
        return SEGMENTED[key]

    monkeypatch.setattr(path_variants, "regions", known)


@pytest.fixture
def images() -> torch.Tensor:
    return photographs(3)


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014]


def photographs(count: int) -> torch.Tensor:
    """Smooth images with edges, that have regions, and grain."""
    generator = torch.Generator().manual_seed(9)
    noise = torch.rand(count, 3, 5, 5, generator=generator)
    images = nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bilinear")
    images[:, :, HEIGHT // 4 : HEIGHT // 2, WIDTH // 3 :] = noise[:, :, :1, :1]
    return (images + 0.02 * torch.rand(images.shape, generator=generator)).clamp(max=1)


def attribute(name: str, classifier, images, targets, seeds, background=BACKGROUND, **others) -> torch.Tensor:
    function, settings = EVERY[name]
    family = function.__module__.rpartition(".")[2]
    given = {"classifier": classifier, "images": images, "targets": targets, "seeds": seeds, "background": background}
    inputs = signature("methods", family, function.__name__).inputs
    return function(*(given[key] for key in inputs), **{**settings, **others})


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Black beyond the border, as SciPy does it."""
    return torch.from_numpy(gaussian_filter(image.double().numpy(), [0, sigma, sigma], mode="constant"))


def absent(image: torch.Tensor, baseline: str) -> torch.Tensor:
    if baseline == "blur":
        sigma = 0.1 * min(image.shape[1:])
        return blurred(image, sigma) / blurred(torch.ones_like(image), sigma)
    return torch.tensor({"black": [0.0] * 3, "mean": MEAN}[baseline]).view(-1, 1, 1).expand_as(image).double()


def differentiable(module: nn.Module, output: str = "logit") -> Callable:
    """Return an output of a network by images, both in double precision."""
    whole = deepcopy(Whole(module)).double()
    return lambda images: OUTPUTS[output](whole(images))


def change(module: nn.Module, starts, ends, targets: torch.Tensor, output: str = "logit") -> torch.Tensor:
    """Return f(end) − f(start) of every row: in single precision its few digits would be lost."""
    f = differentiable(module, output)
    with torch.no_grad():
        return (f(ends.double()) - f(starts.double())).gather(1, targets[:, None])[:, 0]


def every_row(slow: Callable, *rows) -> list[np.ndarray]:
    return [slow(*row) for row in zip(*rows, strict=True)]


# What every function promises.


@every
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(name):
    count = 21
    images = torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    if name == "xrai":  # segments take long: few images, many targets
        images = photographs(3)[torch.arange(count) // 7]
    targets, seeds = torch.arange(count) % CLASSES, list(range(count))
    classifier = classified(network("pooled"))

    def rows_of(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        found = attribute(name, classifier, images[rows], targets[rows], [seeds[row] for row in rows])
        return found, found.sum(1)

    whole, maps = rows_of(list(range(count)))
    for rows in ([20], [10, 11, 12, 2, 9, 20, 8], list(range(count))[::-1]):
        found = rows_of(rows)
        assert torch.equal(found[0], whole[rows])
        assert torch.equal(found[1], maps[rows])


@every
def test_passes_per_image_are_those_of_the_definition(name, images, targets, seeds):
    classifier = classified(network("pooled"))
    attribute(name, classifier, images, targets, seeds)
    passes = 4 if name in ("random", "random_processed", "xrai") else 3
    forward, head = (1, passes) if name.startswith("at_") else (passes, 0)
    assert classifier.passes == {"forward": 3 * forward, "backward": 3 * passes, "head": 3 * head}


@every
def test_no_more_than_a_batch_of_images_exists_at_a_time(name, images, targets, seeds, monkeypatch):
    classifier = classified(network("pooled"))
    rows = rows_of_passes(monkeypatch)
    attribute(name, classifier, images.repeat(3, 1, 1, 1), targets.repeat(3), seeds * 3)
    # A layer's activations are taken of all images at once, by the kernel, batch by batch.
    assert max(rows[1:] if name.startswith("at_") else rows) == classifier.batch


@every
def test_shape_and_inputs_left_alone(name, images, targets, seeds):
    classifier = classified(network("deep"))
    before, background = images.clone(), BACKGROUND.clone()
    first = attribute(name, classifier, images, targets, seeds)
    shapes = {"xrai": (3, 1, HEIGHT, WIDTH), "at_final": (3, 8, 5, 6), "at_path": (3, 6, 10, 12)}
    assert first.shape == shapes.get(name, (3, 3, HEIGHT, WIDTH))
    assert first.dtype == torch.float32
    assert torch.equal(images, before)
    assert torch.equal(BACKGROUND, background)
    other = attribute(name, classifier, images, (targets + 1) % CLASSES, seeds)
    assert all(not torch.equal(old, new) for old, new in zip(first, other, strict=True))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "xrai"])
def test_images_of_one_color_are_no_trouble(name, targets, seeds):
    images = torch.stack([torch.full((3, HEIGHT, WIDTH), value) for value in (0.0, 0.5, 1.0)])
    found = attribute(name, classified(network("deep")), images, targets, seeds)
    assert torch.isfinite(found).all()
    nothing = {"guided": [0], "integrated": [0, 1, 2], "guided_processed": [0, 1, 2], "blur": [0]}.get(name, [])
    assert found[nothing].abs().sum() < 1e-4


# Integrated gradients.


def quadrature(rule: str, steps: int) -> list[tuple[float, float]]:
    if rule == "gauss_legendre":
        return [
            ((node + 1) / 2, weight / 2) for node, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True)
        ]
    return [((n + 0.5) / steps if rule == "midpoint" else n / (steps - 1), 1 / steps) for n in range(steps)]


def slow_line(f: Callable, end, target, start, rule: str, steps: int, kept: Callable = KEPT["both"]) -> np.ndarray:
    """(x − b) · Σ w g over one line, of the gradients that are kept."""
    way = end.double() - start
    total = sum(w * kept(reference.gradient(f, start + a * way, int(target))) for a, w in quadrature(rule, steps))
    return way.numpy() * total


def signed(total: np.ndarray, sign: str) -> np.ndarray:
    return np.abs(total) if sign == "absolute" else total


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_restated(rule, baseline, images, targets):
    module, line = network("deep"), {"steps": 4, "rule": rule}
    classifier, f = classified(module), differentiable(module)
    starts = [absent(image, baseline) for image in images]
    for sign, kept in KEPT.items():
        expected = every_row(lambda *row, kept=kept: slow_line(f, *row, **line, kept=kept), images, targets, starts)
        found = attribute("integrated", classifier, images, targets, [], **line, baseline=baseline, sign=sign)
        close(found, signed(np.stack(expected), sign), 3e-6)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", ["integrated", "random", "expected", "guided", "blur"])
def test_the_gradient_is_of_the_output_that_is_named(name, output, images, targets, seeds):
    """One pass of each method, or two."""
    images = images[:, :, :8, :9].contiguous()
    module = network("deep")
    background = BACKGROUND[..., :8, :9].contiguous()
    steps = {"expected": {"samples": 1}}.get(name, {"steps": 2} if name == "blur" else {"steps": 1})
    found = attribute(name, classified(module), images, targets, seeds, background, **steps, output=output)
    f = differentiable(module, output)
    slow = {
        "integrated": lambda x, t, _: slow_line(f, x, t, absent(x, "blur"), "midpoint", 1),
        "random": lambda x, t, seed: slow_random(f, x, t, seed, KEPT["both"], steps=1, baselines=2).mean(0),
        "expected": lambda x, t, seed: slow_expected(f, x, t, seed, background, 1).mean(0),
        "guided": lambda x, t, _: slow_guided(f, x, t, absent(x, "black"), 1, 0.25, 0.1).sum(0),
        "blur": lambda x, t, _: slow_blur(f, x, t, KEPT["both"], steps=2, max_sigma=8.0).sum(0),
    }[name]
    close(found, every_row(slow, images, targets, seeds), 3e-6)


def test_more_random_baselines_keep_the_first(images, targets, seeds):
    module = network("deep", nn.Softplus)
    classifier = classified(module)
    start = torch.stack([draws.uniform([seed], "baseline", 1, (3, HEIGHT, WIDTH))[0] for seed in seeds])
    settings = {"steps": 8, "rule": "gauss_legendre"}
    one, two = (
        attribute("random", classifier, images, targets, seeds, baselines=count, **settings) for count in (1, 2)
    )
    second = (2 * two - one).sum((1, 2, 3))
    close(second, change(module, start, images, targets))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("steps", "rule", "tolerance"), [(10, "gauss_legendre", 1e-5), (20, "midpoint", 1e-3), (40, "endpoints", 5e-2)]
)
def test_integrated_gradients_sum_to_the_difference_of_outputs(output, steps, rule, tolerance, images, targets):
    module = network("deep", nn.Softplus)
    classifier = classified(module)
    for baseline in BASELINES if rule == "gauss_legendre" else ["black"]:
        settings = {"steps": steps, "rule": rule, "baseline": baseline, "output": output}
        found = attribute("integrated", classifier, images, targets, [], **settings)
        starts = torch.stack([absent(image, baseline) for image in images])
        close(found.sum((1, 2, 3)), change(module, starts, images, targets, output), tolerance)


# Integrated gradients at a layer.


@pytest.mark.parametrize("layer", ["final", "features.2", "head.0"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_integrated_gradients_at_a_layer_restated(layer, output, images, targets):
    module, line = network("deep"), {"steps": 3, "rule": "gauss_legendre"}
    whole = deepcopy(Whole(module)).double()
    steps = [*whole.features, *whole.head]
    count = {"final": 5, "features.2": 3, "head.0": 6}[layer]
    before, after = nn.Sequential(*steps[:count]), nn.Sequential(*steps[count:])
    activations = before(whole.normalized(images.double())).detach()
    classifier = classified(module)

    def f(features: torch.Tensor) -> torch.Tensor:
        return OUTPUTS[output](after(features))

    for sign, kept in KEPT.items():
        expected = every_row(lambda *row, kept=kept: slow_line(f, *row, 0.0, **line, kept=kept), activations, targets)
        found = attribute("at_final", classifier, images, targets, [], **line, layer=layer, sign=sign, output=output)
        close(found, signed(np.stack(expected), sign), 3e-6)


def test_integrated_gradients_before_a_linear_head_are_input_x_gradient(images, targets):
    classifier = classified(network("pooled"))
    expected = gradient.input_x_gradient(classifier, images, targets, baseline="zero", output="logit", layer="final")
    close(attribute("at_final", classifier, images, targets, []), expected, 1e-6)


@pytest.mark.parametrize(
    ("layer", "output"),
    [("final", "logit"), ("head.0", "logit"), ("features.2", "probability"), ("features.2", "loss")],
)
def test_integrated_gradients_at_a_layer_sum_to_what_its_absence_takes(layer, output, images, targets):
    classifier = classified(network("deep", nn.Softplus))
    check_sum_at(layer, classifier, images, targets, output)


def test_integrated_gradients_of_tokens_leave_the_class_token(images, targets):
    torch.manual_seed(0)
    module = nn.Sequential(OrderedDict(features=Tokens(), head=nn.Sequential(Mix(), nn.Linear(6, CLASSES))))
    module.grid = (5, 6)
    check_sum_at("final", Classifier("tokens", module, mean=MEAN, std=STD, engine=ENGINE), images, targets, "logit")


class Tokens(nn.Module):
    """Patches of 4 pixels as tokens, behind a class token that is each image's own."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).mT
        return torch.cat([(tokens**2).sum(1, keepdim=True), tokens], dim=1)


class Mix(nn.Module):
    def forward(self, tokens):
        return tokens[:, 0] * nn.functional.softplus(tokens[:, 1:]).mean(1)


def check_sum_at(layer: str, classifier: Classifier, images, targets, output: str) -> None:
    settings = {"steps": 12, "rule": "gauss_legendre", "layer": layer, "output": output}
    found = attribute("at_final", classifier, images, targets, [], **settings)
    features, bypass = classifier.features(images, layer)
    present, gone = (
        OUTPUTS[output](classifier.head(part, bypass, layer)).gather(1, targets[:, None])[:, 0]
        for part in (features, torch.zeros_like(features))
    )
    close(found.sum((1, 2, 3)), present - gone)


# Processed gradients.


def slow_random(f, image, target, seed, kept, *, steps: int, baselines: int) -> np.ndarray:
    """One term per baseline."""
    starts = [draws.uniform([seed], "baseline", n, tuple(image.shape))[0].double() for n in range(baselines)]
    return np.stack([slow_line(f, image, target, start, "midpoint", steps, kept) for start in starts])


def slow_blur(f, image, target, kept, *, steps: int, max_sigma: float) -> np.ndarray:
    """One term per level of blur."""
    terms = []
    for step in range(steps):
        sigma = step * max_sigma / steps
        point = blurred(image, sigma) if step else image.double()
        slope = (blurred(image, sigma + 0.01) - point) / 0.01
        terms.append(-max_sigma / steps * slope.numpy() * kept(reference.gradient(f, point, int(target))))
    return np.stack(terms)


def processed(terms: Callable, sign: str, percentile: int, floor: str) -> np.ndarray:
    """W · Σ t, or W · Σ |t| of absolute gradients, from the terms of the gradients that are kept."""
    found = terms(KEPT[sign])
    total = signed(found, sign).sum(0)
    if percentile == 0:
        return total
    varying = found if sign == "absolute" else terms(KEPT["both"])
    return total * reference.gag(varying, percentile, floor, lambda _: 1.0, std=[1.0] * 3)


# sign, percentile and floor; at 100 the floor is everywhere
VARIANTS = [
    *((sign, 0, "raw") for sign in KEPT),
    *(("both", 85, "zero"), ("both", 100, "raw"), ("both", 40, "minmax")),
    *(("absolute", 70, "zero"), ("absolute", 100, "minmax"), ("absolute", 100, "raw")),
    *(("positive", 50, "minmax"), ("negative", 100, "raw")),
]
SLOW = {
    "random": lambda f, x, t, seed, kept: slow_random(f, x, t, seed, kept, steps=2, baselines=4),
    "guided": lambda f, x, t, _, kept: kept(slow_guided(f, x, t, absent(x, "mean"), 5, 0.25, 0.1)),
    "blur": lambda f, x, t, _, kept: slow_blur(f, x, t, kept, steps=5, max_sigma=8.0),
}
ONCE = {"random": {"baselines": 4}, "guided": {"steps": 5, "baseline": "mean"}, "blur": {"steps": 5}}


@pytest.mark.parametrize("name", SLOW)
def test_processed_gradients_restated_from_one_set_of_passes(name, images, targets, seeds):
    images = images[:2, :, :8, :9].contiguous()
    targets, seeds = targets[:2], seeds[:2]
    module = network("deep", nn.SiLU)
    classifier, f = classified(module), differentiable(module)
    for sign, percentile, floor in VARIANTS:
        variant = {"sign": sign, "percentile": percentile, "floor": floor}
        expected = every_row(
            lambda *row, variant=variant: processed(lambda kept: SLOW[name](f, *row, kept), **variant),
            *(images, targets, seeds),
        )
        found = attribute(name, classifier, images, targets, seeds, **ONCE[name], **variant)
        close(found, np.stack(expected) / ONCE[name].get("baselines", 1))
    passes = {"random": 8}.get(name, 5)
    assert classifier.passes == {"forward": 2 * passes, "backward": 2 * passes, "head": 0}


# Expected gradients.


def slow_expected(f, image, target, seed, background, samples: int) -> np.ndarray:
    terms = []
    for sample in range(samples):
        draw = draws.rng(seed, "background", sample)
        start = background[draw.integers(len(background))].double()
        way = image.double() - start
        terms.append(way.numpy() * reference.gradient(f, start + draw.random() * way, int(target)))
    return np.stack(terms)


@pytest.mark.parametrize("samples", [1, 5])
def test_expected_gradients_restated(samples, images, targets, seeds):
    """More samples keep the first."""
    module = network("deep")
    f = differentiable(module)
    expected = every_row(lambda *row: slow_expected(f, *row, BACKGROUND, samples).mean(0), images, targets, seeds)
    close(attribute("expected", classified(module), images, targets, seeds, samples=samples), expected, 3e-6)


def test_expected_gradients_sum_on_average_to_the_difference_from_the_background(images):
    count = 300
    module = network("deep", nn.Softplus)
    classifier = classified(module)
    image, target = images[:1], torch.tensor([1])
    found = attribute(
        *("expected", classifier, image.expand(count, -1, -1, -1), target.expand(count), list(range(count))),
        samples=1,
    )
    sums = found.sum((1, 2, 3)).double()
    expected = change(module, BACKGROUND, image, target.expand(len(BACKGROUND))).mean().item()
    error = sums.std().item() / count**0.5
    assert sums.mean().item() == pytest.approx(expected, abs=3 * error)
    assert error < 0.05 * abs(expected)


def test_expected_gradients_change_with_the_background_and_its_order(images, targets, seeds):
    classifier = classified(network("deep"))
    before, same, turned, darker = (
        attribute("expected", classifier, images, targets, seeds, background)
        for background in (BACKGROUND, BACKGROUND.clone(), BACKGROUND.flip(0), 0.5 * BACKGROUND)
    )
    assert torch.equal(before, same)
    assert not torch.equal(before, turned)
    assert all(not torch.equal(old, new) for old, new in zip(before, darker, strict=True))


# Guided IG.


def slow_guided(f, image, target, start, steps, fraction, max_distance) -> np.ndarray:
    """One term per step; the path value by value: sorted, not thresholded."""
    end, begin = image.double().numpy().ravel(), start.double().numpy().ravel()
    place, terms, count = begin.copy(), [], len(begin)
    length = np.abs(end - begin).sum()
    for step in range(1, steps + 1):
        slope = reference.gradient(f, torch.from_numpy(place).view_as(image), int(target)).ravel()
        low, high = (
            begin + (end - begin) * bound
            for bound in (max(step / steps - max_distance, 0), min(step / steps + max_distance, 1))
        )
        before = place.copy()
        for _ in range(1000):
            behind = np.abs(place - begin) < np.abs(low - begin) - 1e-12
            place = np.where(behind, low, place)
            gap = np.abs(end - place).sum() - length * (1 - step / steps)
            if gap < 1e-9:
                break
            order = sorted(np.flatnonzero(place != high), key=lambda value: abs(slope[value]))
            chosen = order[: int(np.floor(fraction * (count - 1))) + 1]
            room = np.abs(high[chosen] - place[chosen]).sum()
            place[chosen] += (high[chosen] - place[chosen]) * min(1.0, gap / room)
            if gap < room:
                break
            place[chosen] = high[chosen]
        terms.append(((place - before) * slope).reshape(image.shape))
    return np.stack(terms)


@pytest.mark.parametrize(
    ("baseline", "fraction", "max_distance"),
    [("black", 0.25, 0.1), ("blur", 0.25, 0.1), ("mean", 0.0, 0.3), ("black", 0.6, 1.0), ("blur", 0.6, 1.0)],
)
def test_guided_ig_restated(baseline, fraction, max_distance, images, targets):
    images, targets = images[:2, :, :8, :9].contiguous(), targets[:2]
    module = network("deep")
    f, settings = differentiable(module), {"steps": 4, "fraction": fraction, "max_distance": max_distance}
    expected = every_row(
        lambda image, target: slow_guided(f, image, target, absent(image, baseline), **settings).sum(0), images, targets
    )
    close(attribute("guided", classified(module), images, targets, [], baseline=baseline, **settings), expected)


def test_guided_ig_without_leeway_integrates_along_the_line(images, targets):
    """With the gradient taken where a step begins."""
    module = network("deep")
    f = differentiable(module)

    def slow(image: torch.Tensor, target: torch.Tensor) -> np.ndarray:
        start = absent(image, "mean")
        way = image - start
        return way.numpy() * np.mean([reference.gradient(f, start + n / 5 * way, int(target)) for n in range(5)], 0)

    settings = {"steps": 5, "baseline": "mean", "max_distance": 0.0}
    found = attribute("guided", classified(module), images, targets, [], **settings)
    close(found, every_row(slow, images, targets), 3e-6)


def test_guided_ig_sums_to_about_the_difference_of_logits(images, targets):
    module = network("deep", nn.Softplus)
    classifier = classified(module)
    expected = change(module, torch.zeros_like(images), images, targets)
    few, many = (
        attribute("guided", classifier, images, targets, [], steps=steps).sum((1, 2, 3)) - expected for steps in (8, 32)
    )
    assert (many / expected).abs().max() < 0.05
    assert (many / expected).abs().max() < 0.4 * (few / expected).abs().max()


# Blur IG.


@pytest.mark.parametrize(("steps", "max_sigma"), [(1, 3.0), (7, 5.0), (5, 40.0)])
def test_blur_ig_restated(steps, max_sigma, images, targets):
    module = network("deep")
    f, settings = differentiable(module), {"steps": steps, "max_sigma": max_sigma}
    expected = every_row(lambda *row: slow_blur(f, *row, KEPT["both"], **settings).sum(0), images, targets)
    if steps == 1:
        assert np.abs(expected).max() == 0  # a Gaussian of 0.01 pixels is a point
    close(attribute("blur", classified(module), images, targets, [], **settings), expected, 3e-6)


def test_blur_ig_sums_to_about_the_difference_of_logits(images, targets):
    """Cutting Gaussians off at 4 σ, rounded, makes small jumps that no derivative sees."""
    images, targets = images[:2], targets[:2]
    module = network("deep", nn.Softplus)
    classifier = classified(module)
    end = torch.stack([blurred(image, 6.0) for image in images])
    expected = change(module, end, images, targets)
    found = attribute("blur", classifier, images, targets, [], steps=60, max_sigma=6.0).sum((1, 2, 3))
    close(found, expected, 0.03)


# XRAI.


def slow_ranked(values: np.ndarray, masks: list[np.ndarray], min_pixels: int) -> np.ndarray:
    result, covered, left = np.zeros_like(values), np.zeros(values.shape, dtype=bool), list(masks)
    while True:
        left = [mask for mask in left if (mask & ~covered).sum() >= min_pixels]
        if not left:
            break
        best = max(left, key=lambda mask: values[mask & ~covered].mean())
        new = best & ~covered
        result[new] = values[new].mean()
        covered |= new
    if not covered.all():
        result[~covered] = values[~covered].mean()
    return result


@pytest.mark.parametrize("min_pixels", [1, 7, 30, 10_000])
def test_regions_are_ranked_by_the_mean_of_what_they_add(min_pixels):
    random = np.random.default_rng(0)
    values = random.normal(size=(15, 17))
    masks = []
    for _ in range(40):
        mask = np.zeros((15, 17), dtype=bool)
        top, left = random.integers(0, 12, 2)
        mask[top : top + random.integers(1, 9), left : left + random.integers(1, 9)] = True
        masks.append(mask)
    found = ranked(values, np.stack(masks), min_pixels)
    close(torch.from_numpy(found), slow_ranked(values, masks, min_pixels), 1e-12)
    assert found.sum() == pytest.approx(values.sum())
    if min_pixels == 10_000:
        assert np.ptp(found) == 0


@pytest.mark.parametrize("output", ["logit", "loss"])
def test_xrai_gives_regions_the_largest_values_over_channels(output, images, targets):
    module = network("deep")
    f = differentiable(module, output)
    maps = [slow_line(f, images[0], targets[0], torch.full((3, 1, 1), color), "midpoint", 2) for color in (0.0, 1.0)]
    pixels = np.mean(maps, axis=0).max(axis=0)
    found = attribute("xrai", classified(module), images[:1], targets[:1], [], output=output)[0, 0]
    assert found.sum() == pytest.approx(pixels.sum(), rel=1e-5)
    image = images[0].movedim(0, -1).numpy()
    close(found, slow_ranked(pixels, list(path_variants.regions(image, 1)), 4), 3e-6)
    assert len(found.unique()) > 3


def test_regions_of_a_square_are_the_square_the_rest_and_frames_between(monkeypatch):
    monkeypatch.undo()  # at full size
    segmented, known = _regions.felzenszwalb, {}

    def once(image: np.ndarray, *, scale: int, **settings) -> np.ndarray:
        if scale not in known:
            known[scale] = segmented(image, scale=scale, **settings)
        return known[scale]

    monkeypatch.setattr(_regions, "felzenszwalb", once)
    image = np.zeros((224, 224, 3), dtype=np.float32)
    image[64:160, 48:144] = 1
    masks = regions(image, 0)
    square = image[..., 0] > 0
    assert (masks.sum(0) == 6).all()  # at each scale every pixel is in one segment
    inner = [mask for mask in masks if not (mask & ~square).any() and mask.sum() > 0.85 * square.sum()]
    outer = [mask for mask in masks if not (mask & square).any() and mask.sum() > 0.9 * (~square).sum()]
    assert len(inner) == len(outer) == 6
    wider = regions(image, 3)
    assert (wider & masks == masks).all()
    corner = next(place for place, mask in enumerate(masks) if mask is inner[0] or (mask == inner[0]).all())
    sides = [int(part.any(axis).sum()) for part in (masks[corner], wider[corner]) for axis in (0, 1)]
    assert sides[2:] == [side + 6 for side in sides[:2]]


def test_an_image_of_one_color_is_one_region():
    assert regions(np.full((20, 24, 3), 0.3, dtype=np.float32), 2).all()


# A linear classifier.


@pytest.mark.parametrize("name", ["integrated", "random", "expected", "guided"])
def test_every_path_of_a_linear_classifier_gives_the_weighted_difference(name, images, targets, seeds):
    module = linear()
    weights = module.head[1].weight.detach()[targets].view(-1, 3, HEIGHT, WIDTH) / torch.tensor(STD).view(-1, 1, 1)
    if name == "random":
        starts = [draws.uniform(seeds, "baseline", n, (3, HEIGHT, WIDTH)) for n in (0, 1)]
    elif name == "expected":
        starts = [
            torch.stack([BACKGROUND[draws.rng(seed, "background", n).integers(4)] for seed in seeds]) for n in range(3)
        ]
    else:
        starts = [torch.stack([absent(image, EVERY[name][1]["baseline"]).float() for image in images])]
    expected = weights * (images - torch.stack(starts).mean(0))
    close(attribute(name, classified(module), images, targets, seeds), expected, 1e-6)


# Messages.


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("integrated", {"steps": 0}, "integrated_gradients: the setting 'steps' is 0, expected at least 1"),
        ("integrated", {"baseline": "zero"}, "'baseline' is zero, expected a color at layer input"),
        ("integrated", {"layer": "final"}, "'baseline' is blur, expected zero at layer final"),
        ("random", {"steps": 0}, "integrated_gradients_random: the setting 'steps' is 0, expected at least 1"),
        ("random", {"baselines": 0}, "integrated_gradients_random: the setting 'baselines' is 0, expected at least 1"),
        ("random", {"percentile": 50, "baselines": 1}, "'baselines' is 1, expected at least 2: it takes a variance"),
        ("expected", {"samples": 0}, "expected_gradients: the setting 'samples' is 0, expected at least 1"),
        ("expected", {"background": BACKGROUND[:0]}, "it draws from the background set, which has no image"),
        ("guided", {"steps": 0}, "guided_ig: the setting 'steps' is 0, expected at least 1"),
        ("guided", {"fraction": 1.5}, "guided_ig: the setting 'fraction' is 1.5, expected 0 to 1"),
        ("guided", {"max_distance": -0.1}, "guided_ig: the setting 'max_distance' is -0.1, expected 0 to 1"),
        ("guided", {"percentile": -1}, "guided_ig: the setting 'percentile' is -1, expected 0 to 100"),
        ("blur", {"steps": 0}, "blur_ig: the setting 'steps' is 0, expected at least 1"),
        ("blur", {"steps": 1, "percentile": 5}, "blur_ig: the setting 'steps' is 1, expected at least 2"),
        ("blur", {"max_sigma": 0.0}, "blur_ig: the setting 'max_sigma' is 0.0, expected above 0"),
        ("xrai", {"steps": 0}, "xrai: the setting 'steps' is 0, expected at least 1"),
        ("xrai", {"dilation": -1}, "xrai: the setting 'dilation' is -1, expected at least 0"),
        ("xrai", {"min_pixels": 0}, "xrai: the setting 'min_pixels' is 0, expected at least 1"),
    ],
)
def test_impossible_settings_are_explained(name, wrong, message, images, targets, seeds):
    with pytest.raises(UserError, match=message):
        attribute(name, classified(linear()), images, targets, seeds, **wrong)
