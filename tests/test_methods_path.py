"""Integrated gradients and its relatives: restated, completeness, PAIR and Captum as witnesses, invariance, cost."""

from collections import OrderedDict

import numpy as np
import pytest
import saliency.core as pair
import torch
import torchvision
from captum import attr as captum
from scipy.ndimage import gaussian_filter
from torch import nn

from stages import classifier as kernel
from stages import seeds as draws
from stages.classifier import Classifier
from stages.methods import path, path_variants
from stages.methods._regions import ranked, regions
from stages.problem import Problem
from tests.reference import methods as reference
from tests.test_methods import CLASSES, ENGINE, HEIGHT, MEAN, STD, WIDTH, Whole, classified, close, linear, network

RULES = ["gauss_legendre", "midpoint", "endpoints"]
BASELINES = ["black", "mean", "blur"]
INTEGRATED = {"steps": 3, "baseline": "blur", "rule": "midpoint"}
RANDOM = {"steps": 2, "baselines": 2, "rule": "endpoints"}
GUIDED = {"steps": 3, "baseline": "black", "fraction": 0.25, "max_distance": 0.1}
BLURRED = {"steps": 3, "max_sigma": 8.0}
REGIONS = {"steps": 2, "rule": "midpoint", "dilation": 1, "min_pixels": 4}
EVERY = {
    "integrated": (path.integrated_gradients, INTEGRATED),
    "integrated_random": (path.integrated_gradients_random, RANDOM),
    "guided": (path_variants.guided_ig, GUIDED),
    "guided_from_blur": (path_variants.guided_ig, {**GUIDED, "baseline": "blur", "max_distance": 1.0}),
    "blur": (path_variants.blur_ig, BLURRED),
    "xrai": (path_variants.xrai, REGIONS),
}
every = pytest.mark.parametrize("name", EVERY)


def resnet() -> nn.Sequential:
    whole = torchvision.models.resnet18(num_classes=CLASSES)
    layers = OrderedDict(whole.named_children())
    head = nn.Sequential(layers.pop("avgpool"), nn.Flatten(), layers.pop("fc"))
    return nn.Sequential(OrderedDict(features=nn.Sequential(layers), head=head))


def mobilenet() -> nn.Sequential:
    whole = torchvision.models.mobilenet_v2(num_classes=CLASSES)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), whole.classifier)
    return nn.Sequential(OrderedDict(features=whole.features, head=head))


def real(architecture) -> nn.Sequential:
    """An architecture of torchvision with random weights, and batch statistics that are not 0 and 1."""
    torch.manual_seed(7)
    module = architecture().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module


def smooth(module: nn.Sequential) -> nn.Sequential:
    """Without kinks, whose two sides a last digit could tell apart."""
    for layer in list(module.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6):
                setattr(layer, name, nn.SiLU())
    return module


@pytest.fixture(autouse=True)
def _one_thread():
    kernel.start(ENGINE)


SEGMENTED = {}


@pytest.fixture(autouse=True)
def _each_image_is_segmented_once(monkeypatch):
    """Segments take long, and depend on nothing but the pixels."""

    def known(image: np.ndarray, dilation: int) -> np.ndarray:
        key = (image.tobytes(), image.shape, dilation)
        if key not in SEGMENTED:
            SEGMENTED[key] = regions(image, dilation)
        return SEGMENTED[key]

    monkeypatch.setattr(path_variants, "regions", known)


@pytest.fixture
def images() -> torch.Tensor:
    return photographs(3, WIDTH)[:, :, :HEIGHT].contiguous()


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([4, 2, 0])


@pytest.fixture
def seeds() -> list[int]:
    return [1000, 1007, 1014]


def photographs(count: int, side: int = 64) -> torch.Tensor:
    """Smooth images with edges, that have regions, and grain, so that no pooling meets a tie."""
    generator = torch.Generator().manual_seed(9)
    noise = torch.rand(count, 3, 5, 5, generator=generator)
    images = nn.functional.interpolate(noise, size=(side, side), mode="bilinear")
    images[:, :, side // 4 : side // 2, side // 3 :] = noise[:, :, :1, :1]
    return (images + 0.02 * torch.rand(images.shape, generator=generator)).clamp(max=1)


def attribute(name: str, classifier, images, targets, seeds) -> torch.Tensor:
    function, settings = EVERY[name]
    evidence = [classifier, images, targets] + ([seeds] if name == "integrated_random" else [])
    return function(*evidence, **settings)


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Black beyond the border, as SciPy does it."""
    return torch.from_numpy(gaussian_filter(image.double().numpy(), [0, sigma, sigma], mode="constant"))


def absent(image: torch.Tensor, baseline: str) -> torch.Tensor:
    if baseline == "blur":
        sigma = 0.1 * min(image.shape[1:])
        return (blurred(image, sigma) / blurred(torch.ones_like(image), sigma)).float()
    return torch.tensor({"black": [0.0] * 3, "mean": MEAN}[baseline]).view(-1, 1, 1).expand_as(image)


def logits(classifier: Classifier, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return classifier.logits(images.float()).gather(1, targets[:, None])[:, 0]


# What every function promises.


@every
def test_a_row_is_the_same_alone_and_in_any_company_and_order(name):
    count = 64
    images = torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    if name == "xrai":  # segments take long: few images, many targets
        images = photographs(2, WIDTH)[torch.arange(count) // 32, :, :HEIGHT].contiguous()
    targets, seeds = torch.arange(count) % CLASSES, list(range(count))
    classifier = classified(network("pooled"))

    def rows_of(rows: list[int]) -> torch.Tensor:
        return attribute(name, classifier, images[rows], targets[rows], [seeds[row] for row in rows])

    whole = rows_of(list(range(count)))
    for rows in ([0], [63], [60, 61, 62, 2, 9, 10, 8], list(range(count))[::-1]):
        assert torch.equal(rows_of(rows), whole[rows])


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        *((name, mobilenet) for name in EVERY),
        *((name, resnet) for name in ("integrated_random", "guided", "blur")),
    ],
)
def test_a_row_of_a_real_network_is_the_same_in_any_company(name, architecture):
    images, targets, seeds = photographs(3), torch.tensor([0, 1, 2]), [1, 2, 3]
    classifier = Classifier("real", real(architecture), mean=MEAN, std=STD, engine={**ENGINE, "batch": 2})
    whole = attribute(name, classifier, images, targets, seeds)
    assert torch.isfinite(whole).all()
    assert whole.std() > 0
    assert torch.equal(attribute(name, classifier, images.flip(0), targets.flip(0), seeds[::-1]), whole.flip(0))
    assert torch.equal(attribute(name, classifier, images[1:2], targets[1:2], seeds[1:2]), whole[1:2])


@every
def test_passes_per_image_are_those_of_the_definition(name, images, targets, seeds):
    classifier = classified(network("pooled"))
    attribute(name, classifier, images, targets, seeds)
    passes = {"integrated_random": 2 * 2, "xrai": 2 * 2}.get(name, 3)
    assert classifier.passes == {"forward": 3 * passes, "backward": 3 * passes, "head": 0}


@every
def test_no_more_than_a_batch_of_images_exists_at_a_time(name, images, targets, seeds, monkeypatch):
    classifier = classified(network("pooled"))
    rows, batched = [], classifier.batched
    monkeypatch.setattr(classifier, "batched", lambda f, *parts: (rows.append(len(parts[0])), batched(f, *parts))[1])
    several = images.repeat(4, 1, 1, 1)
    attribute(name, classifier, several, targets.repeat(4), seeds * 4)
    assert max(rows) == classifier.batch


@every
def test_shape_and_evidence_left_alone(name, images, targets, seeds):
    classifier = classified(network("deep"))
    before = images.clone()
    first = attribute(name, classifier, images, targets, seeds)
    assert first.shape == (3, 1 if name == "xrai" else 3, HEIGHT, WIDTH)
    assert first.dtype == torch.float32
    assert torch.equal(images, before)
    other = attribute(name, classifier, images, (targets + 1) % CLASSES, seeds)
    assert all(not torch.equal(old, new) for old, new in zip(first, other, strict=True))


@pytest.mark.parametrize("name", [name for name in EVERY if name != "xrai"])
def test_images_of_one_color_are_no_trouble(name, targets, seeds):
    images = torch.stack([torch.full((3, HEIGHT, WIDTH), value) for value in (0.0, 0.5, 1.0)])
    found = attribute(name, classified(network("deep")), images, targets, seeds)
    assert torch.isfinite(found).all()
    nothing = {"guided": [0], "integrated": [0, 1, 2], "guided_from_blur": [0, 1, 2], "blur": [0]}.get(name, [])
    assert found[nothing].abs().sum() < 1e-4


# Integrated gradients.


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_restated(rule, baseline, images, targets):
    module, steps = network("deep"), 6
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    points, shares = {
        "gauss_legendre": ((nodes + 1) / 2, weights / 2),
        "midpoint": ((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)),
        "endpoints": (np.arange(steps) / (steps - 1), np.full(steps, 1 / steps)),
    }[rule]
    expected = [
        reference.integrated_gradients(
            Whole(module), image, int(target), absent(image, baseline), points.astype(np.float32), shares
        )
        for image, target in zip(images, targets, strict=True)
    ]
    found = path.integrated_gradients(classified(module), images, targets, steps=steps, baseline=baseline, rule=rule)
    close(found, expected)


def test_integrated_gradients_from_random_baselines_restated(images, targets, seeds):
    module, steps = network("deep"), 4
    points = ((np.arange(steps) + 0.5) / steps).astype(np.float32)
    expected = []
    for image, target, seed in zip(images, targets, seeds, strict=True):
        starts = [draws.uniform([seed], "baseline", number, tuple(image.shape))[0] for number in range(3)]
        maps = [
            reference.integrated_gradients(Whole(module), image, int(target), start, points, [1 / steps] * steps)
            for start in starts
        ]
        expected.append(np.mean(maps, axis=0))
    classifier = classified(module)
    found = path.integrated_gradients_random(
        classifier, images, targets, seeds, steps=steps, baselines=3, rule="midpoint"
    )
    close(found, expected)


def test_more_random_baselines_keep_the_first(images, targets, seeds):
    classifier = classified(network("deep", nn.Softplus))
    start = torch.stack([draws.uniform([seed], "baseline", 1, (3, HEIGHT, WIDTH))[0] for seed in seeds])
    settings = {"steps": 20, "rule": "gauss_legendre"}
    one, two = (
        path.integrated_gradients_random(classifier, images, targets, seeds, baselines=count, **settings)
        for count in (1, 2)
    )
    second = (2 * two - one).sum((1, 2, 3))
    close(second, logits(classifier, images, targets) - logits(classifier, start, targets), 1e-4)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(
    ("steps", "rule", "tolerance"),
    [(20, "gauss_legendre", 1e-4), (50, "midpoint", 1e-3), (100, "endpoints", 5e-2)],
)
def test_integrated_gradients_sum_to_the_difference_of_logits(baseline, steps, rule, tolerance, images, targets):
    classifier = classified(network("deep", nn.Softplus))
    found = path.integrated_gradients(classifier, images, targets, steps=steps, baseline=baseline, rule=rule)
    starts = torch.stack([absent(image, baseline) for image in images])
    expected = logits(classifier, images, targets) - logits(classifier, starts, targets)
    close(found.sum((1, 2, 3)), expected, tolerance)


# Guided IG.


def slow_guided_ig(whole, image, target, start, steps, fraction, max_distance) -> np.ndarray:
    """The path value by value: sorted, not thresholded."""
    end, begin = image.double().numpy().ravel(), start.double().numpy().ravel()
    place, result, count = begin.copy(), np.zeros_like(begin), len(begin)
    length = np.abs(end - begin).sum()
    for step in range(1, steps + 1):
        gradient = reference.gradient(whole, torch.from_numpy(place).float().view_as(image), target).ravel()
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
            order = sorted(np.flatnonzero(place != high), key=lambda value: abs(gradient[value]))
            chosen = order[: int(np.floor(fraction * (count - 1))) + 1]
            room = np.abs(high[chosen] - place[chosen]).sum()
            place[chosen] += (high[chosen] - place[chosen]) * min(1.0, gap / room)
            if gap < room:
                break
            place[chosen] = high[chosen]
        result += (place - before) * gradient
    return result.reshape(image.shape)


@pytest.mark.parametrize(("fraction", "max_distance"), [(0.25, 0.1), (0.0, 0.3), (0.6, 1.0)])
@pytest.mark.parametrize("baseline", BASELINES)
def test_guided_ig_restated(fraction, max_distance, baseline, images, targets):
    images = images[:, :, :8, :9].contiguous()
    module = network("deep")
    settings = {"steps": 4, "fraction": fraction, "max_distance": max_distance}
    expected = [
        slow_guided_ig(Whole(module), image, int(target), absent(image, baseline), *settings.values())
        for image, target in zip(images, targets, strict=True)
    ]
    found = path_variants.guided_ig(
        classified(module), images, targets, steps=4, baseline=baseline, fraction=fraction, max_distance=max_distance
    )
    close(found, expected)


def test_guided_ig_without_leeway_integrates_along_the_line(images, targets):
    """With the gradient taken where a step begins."""
    module = network("deep")
    points = (np.arange(5) / 5).astype(np.float32)
    expected = [
        reference.integrated_gradients(Whole(module), image, int(target), absent(image, "mean"), points, [0.2] * 5)
        for image, target in zip(images, targets, strict=True)
    ]
    settings = {"steps": 5, "baseline": "mean", "fraction": 0.25, "max_distance": 0.0}
    close(path_variants.guided_ig(classified(module), images, targets, **settings), expected)


def test_guided_ig_sums_to_about_the_difference_of_logits(images, targets):
    classifier = classified(network("deep", nn.Softplus))
    expected = logits(classifier, images, targets) - logits(classifier, torch.zeros_like(images), targets)
    errors = []
    for steps in (10, 40):
        settings = {"steps": steps, "baseline": "black", "fraction": 0.25, "max_distance": 0.1}
        found = path_variants.guided_ig(classifier, images, targets, **settings).sum((1, 2, 3))
        errors.append(((found - expected).abs() / expected.abs()).max())
    assert errors[1] < 0.05
    assert errors[1] < 0.4 * errors[0]


# Blur IG.


def slow_blur_ig(whole, image, target, steps, max_sigma) -> np.ndarray:
    total = np.zeros(image.shape)
    for step in range(steps):
        sigma = step * max_sigma / steps
        point = blurred(image, sigma) if step else image.double()
        slope = (blurred(image, sigma + 0.01) - point) / 0.01
        total -= max_sigma / steps * slope.numpy() * reference.gradient(whole, point.float(), target)
    return total


@pytest.mark.parametrize(("steps", "max_sigma"), [(1, 3.0), (7, 5.0), (5, 40.0)])
def test_blur_ig_restated(steps, max_sigma, images, targets):
    module = network("deep")
    expected = [
        slow_blur_ig(Whole(module), image, int(target), steps, max_sigma)
        for image, target in zip(images, targets, strict=True)
    ]
    if steps == 1:
        assert np.abs(expected).max() == 0  # a Gaussian of 0.01 pixels is a point
    close(path_variants.blur_ig(classified(module), images, targets, steps=steps, max_sigma=max_sigma), expected)


def test_blur_ig_sums_to_about_the_difference_of_logits(targets):
    """Cutting Gaussians off at 4 σ, rounded, makes small jumps that no derivative sees."""
    images, targets = photographs(2, 24), targets[:2]
    classifier = classified(network("deep", nn.Softplus))
    end = torch.stack([blurred(image, 6.0) for image in images])
    expected = logits(classifier, images, targets) - logits(classifier, end, targets)
    found = path_variants.blur_ig(classifier, images, targets, steps=120, max_sigma=6.0).sum((1, 2, 3))
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


def test_xrai_keeps_the_sum_of_the_largest_values_over_channels(targets):
    module, images = network("deep"), photographs(1)
    classifier = classified(module)
    starts = (torch.zeros_like(images[0]), torch.ones_like(images[0]))
    maps = [
        reference.integrated_gradients(
            Whole(module), images[0], int(targets[0]), start, np.float32([0.25, 0.75]), [0.5] * 2
        )
        for start in starts
    ]
    pixels = np.mean(maps, axis=0).max(axis=0)
    found = path_variants.xrai(classifier, images, targets[:1], **REGIONS)[0, 0]
    assert found.sum() == pytest.approx(pixels.sum(), rel=1e-4)
    image = images[0].movedim(0, -1).numpy()
    close(found, slow_ranked(pixels, list(regions(image, 1)), 4))
    assert len(found.unique()) > 3


def test_regions_of_a_square_are_the_square_the_rest_and_frames_between():
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
    assert regions(np.full((20, 24, 3), 0.3, dtype=np.float32), 2).all()


# A linear classifier.


@pytest.mark.parametrize("name", ["integrated", "integrated_random", "guided", "guided_from_blur"])
def test_every_path_of_a_linear_classifier_gives_the_weighted_difference(name, images, targets, seeds):
    module = linear()
    weights = module.head[1].weight.detach()[targets].view(-1, 3, HEIGHT, WIDTH) / torch.tensor(STD).view(-1, 1, 1)
    if name == "integrated_random":
        pairs = [[draws.uniform([seed], "baseline", n, (3, HEIGHT, WIDTH))[0] for n in (0, 1)] for seed in seeds]
        starts = torch.stack([(one + two) / 2 for one, two in pairs])
    else:
        baseline = "black" if name == "guided" else "blur"
        starts = torch.stack([absent(image, baseline) for image in images])
    close(attribute(name, classified(module), images, targets, seeds), weights * (images - starts))


# PAIR and Captum as second witnesses.


WITNESSED = {
    "small": lambda: network("deep"),
    "resnet": lambda: smooth(real(resnet)),
    "mobilenet": lambda: smooth(real(mobilenet)),
}


@pytest.fixture(params=WITNESSED)
def witnessed(request, monkeypatch):
    """A classifier, an image, its target, and the gradient as PAIR calls it: y x channel, in double precision.

    PAIR calls `np.quantile` with an argument that NumPy has since renamed.
    """
    quantile = np.quantile
    monkeypatch.setattr(np, "quantile", lambda a, q, interpolation: quantile(a, q, method=interpolation))
    module = WITNESSED[request.param]()
    classifier = Classifier("witnessed", module, mean=MEAN, std=STD, engine={**ENGINE, "batch": 1})

    def call(points, call_model_args=None, expected_keys=None):
        inputs = torch.from_numpy(np.asarray(points)).float().movedim(-1, 1)
        gradient = classifier.gradient(inputs, torch.full((len(inputs),), call_model_args))
        return {pair.INPUT_OUTPUT_GRADIENTS: gradient.movedim(1, -1).double().numpy()}

    return classifier, photographs(1), torch.tensor([2]), call


def witness(method, image: torch.Tensor, call, **settings) -> torch.Tensor:
    values = image[0].movedim(0, -1).double().numpy()
    found = torch.from_numpy(method.GetMask(values, call, 2, **settings))
    return found.movedim(-1, 0)[None] if found.ndim == 3 else found[None, None]


def test_pair_integrated_gradients(witnessed):
    classifier, image, target, call = witnessed
    found = path.integrated_gradients(classifier, image, target, steps=6, baseline="black", rule="endpoints")
    close(found, witness(pair.IntegratedGradients(), image, call, x_steps=6), 1e-4)


def test_pair_guided_ig(witnessed):
    classifier, image, target, call = witnessed
    for max_distance in (0.02, 0.3):
        settings = {"steps": 8, "fraction": 0.25, "max_distance": max_distance}
        found = path_variants.guided_ig(classifier, image, target, baseline="black", **settings)
        expected = witness(pair.GuidedIG(), image, call, x_steps=8, fraction=0.25, max_dist=max_distance)
        close(found, expected, 1e-4)


def test_pair_blur_ig(witnessed):
    classifier, image, target, call = witnessed
    found = path_variants.blur_ig(classifier, image, target, steps=8, max_sigma=20.0)
    close(found, witness(pair.BlurIG(), image, call, steps=8, max_sigma=20), 1e-4)


@pytest.mark.parametrize("witnessed", ["small", "mobilenet"], indirect=True)
def test_pair_xrai(witnessed):
    """From the same baselines, which PAIR takes from the image unless it is told."""
    classifier, image, target, call = witnessed
    values = image[0].movedim(0, -1).double().numpy()
    found = path_variants.xrai(classifier, image, target, steps=4, rule="endpoints", dilation=5, min_pixels=50)
    expected = witness(
        pair.XRAI(),
        image,
        call,
        baselines=[np.zeros_like(values), np.ones_like(values)],
        extra_parameters=pair.XRAIParameters(steps=4),
    )
    assert len(found.unique()) > 2
    close(found, expected, 1e-4)


@pytest.mark.parametrize(("rule", "method"), [("gauss_legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
def test_captum_integrated_gradients(rule, method, images, targets, seeds):
    module = network("deep")
    witness = captum.IntegratedGradients(Whole(module).requires_grad_(False))

    def expected(starts: torch.Tensor) -> torch.Tensor:
        return witness.attribute(images, baselines=starts, target=targets, n_steps=7, method=method).float()

    classifier = classified(module)
    for baseline in BASELINES:
        starts = torch.stack([absent(image, baseline) for image in images])
        found = path.integrated_gradients(classifier, images, targets, steps=7, baseline=baseline, rule=rule)
        close(found, expected(starts), 1e-4)
    drawn = [draws.uniform(seeds, "baseline", number, (3, HEIGHT, WIDTH)) for number in range(2)]
    found = path.integrated_gradients_random(classifier, images, targets, seeds, steps=7, baselines=2, rule=rule)
    close(found, (expected(drawn[0]) + expected(drawn[1])) / 2, 1e-4)


# Messages.


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("integrated", {"steps": 0}, "integrated_gradients: the setting 'steps' is 0, expected at least 1"),
        ("integrated_random", {"steps": 0}, "integrated_gradients_random: the setting 'steps' is 0, expected at least"),
        ("integrated_random", {"baselines": 0}, "integrated_gradients_random: the setting 'baselines' is 0, expected"),
        ("guided", {"steps": 0}, "guided_ig: the setting 'steps' is 0, expected at least 1"),
        ("guided", {"fraction": 1.5}, "guided_ig: the setting 'fraction' is 1.5, expected 0 to 1"),
        ("guided", {"max_distance": -0.1}, "guided_ig: the setting 'max_distance' is -0.1, expected 0 to 1"),
        ("blur", {"steps": 0}, "blur_ig: the setting 'steps' is 0, expected at least 1"),
        ("blur", {"max_sigma": 0.0}, "blur_ig: the setting 'max_sigma' is 0.0, expected above 0"),
        ("xrai", {"steps": 0}, "xrai: the setting 'steps' is 0, expected at least 1"),
        ("xrai", {"dilation": -1}, "xrai: the setting 'dilation' is -1, expected at least 0"),
        ("xrai", {"min_pixels": 0}, "xrai: the setting 'min_pixels' is 0, expected at least 1"),
    ],
)
def test_impossible_settings_are_explained(name, wrong, message, images, targets, seeds, monkeypatch):
    function, settings = EVERY[name]
    monkeypatch.setitem(EVERY, name, (function, {**settings, **wrong}))
    with pytest.raises(Problem, match=message):
        attribute(name, classified(linear()), images, targets, seeds)
