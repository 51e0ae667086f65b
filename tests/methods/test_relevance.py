"""LRP and DeepLIFT: restated with dense matrices, a second witness, layers, conservation, invariance, cost."""

import warnings
from collections import OrderedDict
from math import factorial

import numpy as np
import pytest
import torch
from captum.attr import DeepLift
from torch import nn

from atlas.methods import gradient, path, relevance
from atlas.methods.shared.relevance.maximum import multipliers, windows
from atlas.methods.shared.relevance.rescale import Rescaled
from atlas.metrics.conservation import kept_share
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.model.outputs import NotFinite
from atlas.networks.residual import small_resnet
from atlas.study.errors import Unsupported, UserError

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 4}
HEIGHT, WIDTH, CLASSES = 12, 10, 5
METHODS = {
    "lrp": lambda *given: relevance.lrp(*given, epsilon=0.25, layer="input"),
    "lrp_inside": lambda *given: relevance.lrp(*given, epsilon=0.25, layer="features.2"),
    "deep_lift": lambda *given: relevance.deep_lift(*given, baseline="black"),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
both_methods = pytest.mark.parametrize("method", [METHODS["lrp"], METHODS["deep_lift"]], ids=["lrp", "deep_lift"])


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


TARGETS = torch.tensor([4, 2, 0])


def seeded(module: nn.Module, bias: float = 0.3) -> nn.Module:
    """Random weights, statistics and biases; with bias 0 nothing but weights is left."""
    torch.manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-bias, bias)
            layer.running_var.uniform_(0.5, 2.0)
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight)  # keeps the signal of any depth and kind of convolution
        if getattr(layer, "bias", None) is not None:
            nn.init.uniform_(layer.bias, -bias, bias)
    return module.eval()


def plain(bias: float = 0.3) -> nn.Sequential:
    """Convolutions, a pooling whose windows overlap, one whose do not, two linear layers."""
    torch.manual_seed(3)
    features = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    )
    head = nn.Sequential(
        *(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, CLASSES))
    )
    return seeded(nn.Sequential(OrderedDict(features=features, head=head)), bias)


def residual(bias: float = 0.3) -> nn.Sequential:
    torch.manual_seed(4)
    return seeded(small_resnet(classes=CLASSES, widths=[4, 6], blocks=1), bias)


def linear() -> nn.Sequential:
    torch.manual_seed(4)
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * HEIGHT * WIDTH, CLASSES, bias=False))
    return nn.Sequential(OrderedDict(features=nn.Identity(), head=head)).eval()


class Dense(nn.Module):
    """What MobileNet and DenseNet add: depthwise convolutions, ReLU6, maps side by side."""

    def __init__(self):
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(3, 24, 3, 2, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.pointwise = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(48, 40, 1)
        self.cut1, self.cut2, self.cut3 = nn.ReLU6(), nn.ReLU6(), nn.ReLU6(inplace=True)

    def forward(self, x):
        x = self.cut1(self.normalization(self.convolution(x)))
        return self.cut3(self.pointwise(torch.cat([x, self.cut2(self.depthwise(x))], dim=1)))


def dense(bias: float = 0.3) -> nn.Sequential:
    torch.manual_seed(2)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, CLASSES))
    return seeded(nn.Sequential(OrderedDict(features=nn.Sequential(Dense(), nn.ReLU()), head=head)), bias)


def preactivated() -> nn.Sequential:
    """Batch normalizations that no convolution comes before."""
    features = nn.Sequential(
        *(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    return seeded(nn.Sequential(OrderedDict(features=features, head=head)))


def classified(module: nn.Sequential) -> Classifier:
    return Classifier("tiny", module, mean=MEAN, std=STD, engine=ENGINE)


def normalized(images: torch.Tensor) -> torch.Tensor:
    return (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5):
    scale = max(float(expected.abs().max()), 1e-12)
    np.testing.assert_allclose(
        found.detach().numpy() / scale, expected.detach().numpy() / scale, rtol=0, atol=tolerance
    )


# The rules again, slowly: every layer a dense matrix.


def matrix_of(layer, entering: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(matrix, bias, input) of a layer that is affine, for one image."""
    zero = torch.zeros_like(entering)[None]
    matrix = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), zero[0], vectorize=True)
    return matrix.flatten(1), layer(zero).flatten().detach(), entering.flatten()


def held(sums: torch.Tensor, epsilon: float) -> torch.Tensor:
    return sums + torch.where(sums < 0, -epsilon, epsilon)


def by_epsilon(layer, entering, above, epsilon=1e-6):
    matrix, bias, x = matrix_of(layer, entering)
    contributions = matrix * x
    return (contributions.T @ (above.flatten() / held(contributions.sum(1) + bias, epsilon))).view_as(entering)


def by_z_plus(layer, entering, above):
    matrix, bias, x = matrix_of(layer, entering)
    contributions = (matrix * x).clamp(min=0)
    shares = above.flatten() / held(contributions.sum(1) + bias.clamp(min=0), 1e-6)
    return (contributions.T @ shares).view_as(entering)


def by_z_box(layer, entering, above):
    matrix, _, x = matrix_of(layer, entering)
    low, high = (normalized(torch.full(entering.shape, end)).flatten() for end in (0.0, 1.0))
    contributions = matrix * x - matrix.clamp(min=0) * low - matrix.clamp(max=0) * high
    return (contributions.T @ (above.flatten() / held(contributions.sum(1), 1e-6))).view_as(entering)


def by_largest(layer, entering, above):
    point = entering.clone().requires_grad_()
    return torch.autograd.grad(layer(point[None])[0], point, above)[0]


def down(layers, entering, above, epsilon, first=False):
    """Relevance below a chain of layers, of which batch normalization follows convolutions."""
    inputs, chain = [entering], []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            chain[-1] = nn.Sequential(chain[-1], layer)
            inputs.pop()
            inputs.append(chain[-1](inputs[-1][None])[0])
        else:
            chain.append(layer)
            inputs.append(layer(inputs[-1][None])[0])
    above = above(inputs[-1]) if callable(above) else above
    for layer, x in list(zip(chain, inputs, strict=False))[::-1]:
        kind = type(layer[0]) if isinstance(layer, nn.Sequential) else type(layer)
        if kind is nn.Conv2d:
            above = by_z_box(layer, x, above) if first and layer is chain[0] else by_z_plus(layer, x, above)
        elif kind is nn.Linear:
            above = by_epsilon(layer, x, above, epsilon)
        elif kind is nn.AdaptiveAvgPool2d:
            above = by_epsilon(layer, x, above)
        elif kind is nn.MaxPool2d:
            above = by_largest(layer, x, above)
        else:
            above = above.view_as(x)
    return above


def block_down(block, entering, above, epsilon):
    first = [block.convolution1, block.normalization1, block.relu1, block.convolution2, block.normalization2]
    inner = nn.Sequential(*first)(entering[None])[0]
    outer = block.shortcut(entering[None])[0]
    shares = above / held(inner + outer, 1e-6)
    straight = down(list(block.shortcut), entering, shares * outer, epsilon) if len(block.shortcut) else shares * outer
    return down(first, entering, shares * inner, epsilon) + straight


def start(target: int):
    return lambda logits: torch.zeros_like(logits).index_fill(0, torch.tensor(target), 1) * logits


@torch.no_grad()
def slow_lrp(module, image, target, epsilon, layer):
    """Relevance at the input, or behind a step of the features."""
    with torch.enable_grad():
        done = {"input": 0, "final": len(module.features)}.get(layer)
        done = int(layer.removeprefix("features.")) + 1 if done is None else done
        steps = list(module.features)[done:]
        blocks = [step for step in steps if hasattr(step, "shortcut")]
        stem = steps[: len(steps) - len(blocks)] if blocks else [*steps, *module.head]
        x = module.features[:done](normalized(image)[None])[0]
        first = {"epsilon": epsilon, "first": layer == "input"}
        if not blocks:
            return down(stem, x, start(target), **first).detach()
        inputs = [nn.Sequential(*stem)(x[None])[0]]
        for block in blocks:
            inputs.append(block(inputs[-1][None])[0])
        above = down(list(module.head), inputs[-1], start(target), epsilon)
        for block, entering in list(zip(blocks, inputs, strict=False))[::-1]:
            above = block_down(block, entering, above, epsilon)
        return down(stem, x, above, **first).detach()


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        *[(plain, layer) for layer in ("input", "features.3", "final")],
        *[(residual, layer) for layer in ("input", "features.2", "features.3", "final")],
    ],
)
@pytest.mark.parametrize("epsilon", [1e-6, 0.25])
def test_lrp_restated(network, epsilon, layer, images):
    module = network()
    pairs = zip(images, TARGETS.tolist(), strict=True)
    expected = torch.stack([slow_lrp(module, *pair, epsilon, layer) for pair in pairs])
    close(relevance.lrp(classified(network()), images, TARGETS, epsilon=epsilon, layer=layer), expected)


@torch.no_grad()
def slow_multipliers(layers, x, b, above):
    """DeepLIFT's multipliers below a chain of layers."""
    pairs = [(x, b)]
    for layer in layers:
        pairs.append(tuple(layer(point[None])[0] for point in pairs[-1]))
    for layer, (x, b), (y, r) in list(zip(layers, pairs, pairs[1:], strict=False))[::-1]:
        if isinstance(layer, nn.ReLU | nn.Tanh):
            above = above * (y - r) / (x - b)
        elif isinstance(layer, nn.MaxPool2d):
            above = slow_maximum(layer, x, b, above)
        elif hasattr(layer, "shortcut"):
            first = [layer.convolution1, layer.normalization1, layer.relu1, layer.convolution2, layer.normalization2]
            sums = [nn.Sequential(*first)(point[None])[0] + layer.shortcut(point[None])[0] for point in (x, b)]
            above = above * (y - r) / torch.where(sums[0] == sums[1], 1.0, sums[0] - sums[1])
            straight = slow_multipliers(list(layer.shortcut), x, b, above)
            above = slow_multipliers(first, x, b, above) + straight
        else:
            matrix, _, _ = matrix_of(layer, x)
            above = (matrix.T @ above.flatten()).view_as(x)
    return above


def slow_shapley(new, old):
    """What each element adds to the maximum of every coalition of others, weighted as Shapley does."""
    count = len(new)
    inside = np.array(list(np.ndindex(*[2] * count)), bool)
    best = np.where(inside, new, old).max(1).reshape([2] * count)
    sizes = inside.sum(1).reshape([2] * count)
    weights = np.array([factorial(size) * factorial(count - size - 1) / factorial(count) for size in range(count)])
    rises = [np.diff(best, axis=element).squeeze(element) for element in range(count)]
    outside = [sizes.take(0, axis=element) for element in range(count)]
    return np.array([(weights[size] * rise).sum() for size, rise in zip(outside, rises, strict=True)])


def slow_maximum(layer, x, b, above):
    """Window by window: Shapley values of the maximum, over the changes of the elements."""
    x, b = (nn.functional.pad(point, [layer.padding] * 4, value=-np.inf).double() for point in (x, b))
    found = torch.zeros_like(x)
    for channel, row, column in np.ndindex(*above.shape):
        window = np.s_[channel, row * layer.stride :, column * layer.stride :]
        old, new = (point[window][: layer.kernel_size, : layer.kernel_size].flatten().numpy() for point in (b, x))
        inside = np.isfinite(new)
        shares = np.zeros(len(new))
        changes = new[inside] - old[inside]
        shares[inside] = slow_shapley(new[inside], old[inside]) / np.where(changes == 0, 1, changes)
        size = (layer.kernel_size, layer.kernel_size)
        found[window][: size[0], : size[1]] += torch.from_numpy(shares.reshape(size)) * above[channel, row, column]
    found = found[:, layer.padding : x.shape[1] - layer.padding, layer.padding : x.shape[2] - layer.padding]
    return found.float()


@pytest.mark.parametrize("network", [plain, residual])
@pytest.mark.parametrize(("baseline", "color"), [("black", [0.0] * 3), ("mean", MEAN)])
def test_deep_lift_restated(network, baseline, color, images):
    module = network()
    found = relevance.deep_lift(classified(network()), images, TARGETS, baseline=baseline)
    b = normalized(torch.tensor(color).view(-1, 1, 1).expand(3, HEIGHT, WIDTH))
    for image, target, attributions in zip(images, TARGETS.tolist(), found, strict=True):
        one = torch.zeros(CLASSES).index_fill(0, torch.tensor(target), 1)
        x = normalized(image)
        close(attributions, (x - b) * slow_multipliers([*module.features, *module.head], x, b, one))


def captums(module, images, targets):
    # Captum looks at module types and at modules called once; it warns of its hooks.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        black = normalized(torch.zeros_like(images))
        return DeepLift(module).attribute(normalized(images), black, target=targets).detach()


def averaging() -> nn.Sequential:
    module = plain()
    module.features[3] = module.features[6] = nn.AvgPool2d(2)
    return module


def test_deep_lift_is_captum_s_without_maxima(images):
    expected = captums(averaging(), images, TARGETS)
    close(relevance.deep_lift(classified(averaging()), images, TARGETS, baseline="black"), expected, 1e-5)


def changes(classifier, images, targets, baseline="black"):
    absent = torch.tensor({"black": [0.0] * 3, "mean": MEAN}[baseline]).view(-1, 1, 1).expand_as(images)
    return (classifier.logits(images) - classifier.logits(absent)).gather(1, targets[:, None])[:, 0]


def test_captum_loses_change_in_maxima(images):
    """So the sum and the formula restated, not captum, are the witnesses there."""
    classifier = classified(plain())
    due = changes(classifier, images, TARGETS)
    close(relevance.deep_lift(classifier, images, TARGETS, baseline="black").sum((1, 2, 3)), due)
    assert (captums(plain(), images, TARGETS).sum((1, 2, 3)) - due).abs().max() > 0.01 * due.abs().max()


@pytest.mark.parametrize("network", [plain, residual, dense, preactivated])
@pytest.mark.parametrize("baseline", ["black", "mean"])
def test_deep_lift_sums_to_the_change_of_the_logit(network, baseline, images):
    classifier = classified(network())
    found = relevance.deep_lift(classifier, images, TARGETS, baseline=baseline)
    close(found.sum((1, 2, 3)), changes(classifier, images, TARGETS, baseline))


def test_a_maximum_is_shared_by_shapley_values():
    draws = np.random.default_rng(0)
    for count in (1, 2, 3, 4, 6):
        pairs = draws.integers(-2, 3, size=(2, 40, count)).astype(float)  # of whole numbers many are equal
        pairs[:, 20:] += draws.normal(size=(2, 20, count))
        found = multipliers(*map(torch.from_numpy, pairs)).numpy()
        for new, old, shares in zip(*pairs, found, strict=True):
            np.testing.assert_allclose(shares * (new - old), slow_shapley(new, old), atol=1e-12)
            assert (shares >= 0).all()
            assert (shares <= 1).all()


def test_tied_places_share_a_change_of_a_maximum_equally():
    for new, old in (([0.0] * 4, [1.0] * 4), ([0.2, 0.1, 0.3, 0.0], [1.0] * 4), ([2.0] * 4, [1.0] * 4)):
        x, r = torch.tensor([new]), torch.tensor([old])
        close(multipliers(x, r) * (x - r), (x.max() - r.max()).expand(1, 4) / 4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((2, 3), (1, 2), (0, 1), dilation=(2, 1)),
        nn.MaxPool2d(3, 1, 1, dilation=2, ceil_mode=True),
    ],
)
def test_windows_are_those_of_the_pooling(layer):
    entering = torch.randn(4, 11, 13, generator=torch.Generator().manual_seed(0)) - 3
    expected = layer(entering[None])[0]
    laid = windows(layer, entering, expected.shape[-2:], float(entering.min()))
    assert torch.equal(laid.amax(-1), expected)


def vgg_like() -> nn.Sequential:
    """Eight convolutions and five poolings, as VGG-11 has them, of few channels."""
    torch.manual_seed(5)
    widths, entering, layers = (8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 24, 24, "M"), 3, []
    for width in widths:
        layers += [nn.MaxPool2d(2)] if width == "M" else [nn.Conv2d(entering, width, 3, padding=1), nn.ReLU()]
        entering = entering if width == "M" else width
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            layer.bias.data.normal_(std=0.05)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=head)).eval()


@pytest.mark.parametrize(("dtype", "moved", "tolerance"), [("float64", 1e-15, 1e-6), ("float32", 1e-7, 1e-3)])
def test_deep_lift_does_not_hang_on_the_last_digit_of_a_baseline(dtype, moved, tolerance):
    dtype = getattr(torch, dtype)
    rescaled = Rescaled(torch.fx.symbolic_trace(vgg_like().to(dtype)))
    draws = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 64, 64, generator=draws).to(dtype)
    images[:, :, :20] = 0.3  # a part of one color
    absent = torch.tensor([-1.8, -1.7, -1.6], dtype=dtype).view(-1, 1, 1).expand_as(images)
    noise = torch.randn(absent.shape, generator=draws).to(dtype)
    maps = []
    for baseline in (absent, absent + moved, absent + moved * noise):
        referred = rescaled.reference(baseline)
        entering = images.clone().requires_grad_()
        logits = rescaled.run(entering)
        (slopes,) = torch.autograd.grad(logits[:, 0].sum(), entering)
        maps.append((images - baseline) * slopes)
        due = (logits.detach() - referred)[:, 0]
        close(maps[-1].sum((1, 2, 3)), due, 1e-3 if dtype == torch.float32 else 1e-10)
    for other in maps[1:]:
        assert (other - maps[0]).abs().max() <= tolerance * maps[0].abs().max()


# Identities.


def wide() -> nn.Sequential:
    """So many channels that every unit has a positive contribution."""
    torch.manual_seed(4)
    return seeded(small_resnet(classes=CLASSES, widths=[32, 48], blocks=2), bias=0.0)


def sides(module: nn.Sequential) -> list[str]:
    """The layers of a network at which it can be cut without parting a convolution from its normalization."""
    steps = list(module.features)
    parted = [isinstance(step, nn.BatchNorm2d) for step in steps[1:]] + [False]
    return ["input", *(f"features.{k}" for k, apart in enumerate(parted) if not apart), "final"]


@pytest.mark.parametrize("network", [lambda: plain(bias=0.0), wide, lambda: dense(bias=0.0)])
def test_lrp_without_biases_sums_to_the_logit_at_every_layer(network):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    classifier = classified(network())
    logits = classifier.logits(images).gather(1, TARGETS[:, None])[:, 0]
    for layer in sides(network()):
        found = relevance.lrp(classifier, images, TARGETS, epsilon=1e-9, layer=layer)
        close(found.sum((1, 2, 3)), logits)
        less = relevance.lrp(classifier, images, TARGETS, epsilon=1.0, layer=layer).sum((1, 2, 3))
        assert (less.abs() < logits.abs()).all()


def test_before_a_pooled_head_of_weights_alone_they_are_input_x_gradient(images):
    module = residual()
    module.head[2].bias = None
    classifier = classified(module)
    products = gradient.input_x_gradient(classifier, images, TARGETS, baseline="zero", output="logit", layer="final")
    close(relevance.lrp(classifier, images, TARGETS, epsilon=1e-9, layer="final"), products)
    integrated = path.integrated_gradients(
        *(classifier, images, TARGETS),
        **{"steps": 2, "baseline": "zero", "rule": "gauss_legendre", "sign": "both", "output": "logit"},
        layer="final",
    )
    close(integrated, products, 1e-6)
    logits = classifier.logits(images).gather(1, TARGETS[:, None])[:, :, None, None]
    held = relevance.lrp(classifier, images, TARGETS, epsilon=0.25, layer="final")
    close(held, products * logits / (logits + 0.25 * logits.sign()))


def test_guided_backpropagation_to_a_layer_that_no_relu_follows_would_be_the_gradient(images):
    classifier = classified(residual())
    for sign in ("positive", "negative", "absolute"):
        with pytest.raises(Unsupported, match="no ReLU follows its layer final"):
            gradient.guided_backprop(classifier, images, TARGETS, sign=sign, layer="final")
    inside = gradient.guided_backprop(classifier, images, TARGETS, sign="positive", layer="features.2")
    slope = gradient.gradient(classifier, images, TARGETS, sign="both", output="logit", layer="features.2")
    assert not torch.allclose(inside, slope)


def test_on_a_linear_classifier_they_are_input_x_gradient(images):
    classifier = classified(linear())
    slope = gradient.gradient(classifier, images, TARGETS, sign="both", output="logit", layer="input")
    mean = torch.tensor(MEAN).view(-1, 1, 1)
    close(relevance.lrp(classifier, images, TARGETS, epsilon=1e-9, layer="input"), (images - mean) * slope)
    close(relevance.deep_lift(classifier, images, TARGETS, baseline="mean"), (images - mean) * slope)
    close(
        relevance.deep_lift(classifier, images, TARGETS, baseline="black"),
        gradient.input_x_gradient(classifier, images, TARGETS, baseline="black", output="logit", layer="input"),
    )


def test_at_the_baseline_deep_lift_is_zero(images):
    found = relevance.deep_lift(classified(plain()), torch.zeros_like(images), TARGETS, baseline="black")
    assert torch.equal(found, torch.zeros_like(images))


class Reused(nn.Module):
    """A block that calls one ReLU and one convolution twice, adds in place and calls functions."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.first(x))
        y = self.second(x)
        y += x
        y = self.second(self.relu(y))
        return nn.functional.relu6(torch.add(y, x), inplace=True)


def test_layers_called_twice_and_functions(images):
    torch.manual_seed(1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    module = seeded(nn.Sequential(OrderedDict(features=Reused(), head=head)), bias=0.0)
    classifier = classified(module)
    logits = classifier.logits(images).gather(1, TARGETS[:, None])[:, 0]
    close(relevance.lrp(classifier, images, TARGETS, epsilon=1e-9, layer="input").sum((1, 2, 3)), logits, 1e-4)
    due = changes(classifier, images, TARGETS)
    close(relevance.deep_lift(classifier, images, TARGETS, baseline="black").sum((1, 2, 3)), due, 1e-4)


# What every method promises.


@every_method
@pytest.mark.parametrize("network", [plain, residual, wide])
def test_a_row_is_the_same_alone_and_in_any_batch_and_order(method, network):
    images = torch.rand(19, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6))
    targets = torch.arange(19) % CLASSES
    classifier = classified(network())
    whole = method(classifier, images, targets)
    assert torch.isfinite(whole).all()
    for rows in ([0], [18], [5, 16, 2, 11, 9, 10, 8], list(range(19))[::-1]):
        assert torch.equal(method(classifier, images[rows], targets[rows]), whole[rows])


@pytest.mark.parametrize(("name", "forward"), [("lrp", 1), ("lrp_inside", 1), ("deep_lift", 2)])
def test_passes_per_image_and_everything_left_alone(name, forward, images):
    classifier = classified(residual())
    cuts = [part for layer in ("final", "features.2") for part in classifier._cut(layer)]
    modules = [module for part in cuts for module in part.modules()]
    before = [value.clone() for module in modules for value in module.state_dict().values()], images.clone()
    logits = classifier.logits(images)
    classifier.passes = dict.fromkeys(classifier.passes, 0)
    METHODS[name](classifier, images, TARGETS)
    assert classifier.passes == {"forward": 3 * forward, "backward": 3, "head": 0}
    after = [value for module in modules for value in module.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before[0], after, strict=True))
    assert torch.equal(images, before[1])
    assert not images.requires_grad
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in modules)
    assert torch.equal(classifier.logits(images), logits)


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Repeated(nn.Module):
    def forward(self, x):
        return x.cumsum(2)


class Divided(nn.Module):
    def forward(self, x):
        return 1.0 / (2.0 + x)


@both_methods
@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (Branching(), "no rule is known for the step Branching"),
        (Repeated(), "no rule is known for the step cumsum"),
        (Divided(), "no rule is known for the step truediv"),
        (nn.ConstantPad2d(1, 0.5), "no rule is known for the step ConstantPad2d"),
        (nn.Sequential(nn.GroupNorm(1, 3)), "no rule is known for the step GroupNorm"),
    ],
)
def test_other_networks_are_refused_with_a_reason(method, features, reason, images):
    module = linear()
    module.features = features
    with pytest.raises(Unsupported, match=reason):
        method(classified(module), images, TARGETS)


class OfBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.normalization = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x):
        return self.normalization(x)


@both_methods
def test_a_normalization_by_the_batch_is_refused(method, images):
    module = linear()
    module.features = OfBatch()
    with pytest.raises(Unsupported, match="no rule is known for the step BatchNorm2d"):
        method(classified(module.eval()), images, TARGETS)


@both_methods
def test_logits_that_are_not_finite_are_an_error(method, images):
    module = linear()
    module.head[1].weight.data.fill_(torch.inf)
    with pytest.raises(NotFinite, match="its logits are not finite"):
        method(classified(module), images, TARGETS)


@pytest.mark.parametrize("epsilon", [0.0, -0.1, float("nan")])
def test_epsilon_is_above_zero(epsilon, images):
    with pytest.raises(UserError, match=f"lrp: the setting 'epsilon' is {epsilon}, expected above 0"):
        relevance.lrp(classified(linear()), images, TARGETS, epsilon=epsilon, layer="input")


def test_lrp_says_how_little_of_the_logit_it_keeps(images, capsys):
    """ReLU6 in the place of ReLU, whose cut loses relevance where activations go beyond 6."""
    relevance.lrp(classified(wide()), images, TARGETS, epsilon=1e-6, layer="input")
    assert "keeps" not in capsys.readouterr().err
    classifier = classified(dense())
    for _ in range(2):
        maps = relevance.lrp(classifier, images, TARGETS, epsilon=0.25, layer="input")
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("warning: classifier tiny: lrp keeps ")
    shares = kept_share(maps.sum(1), images, TARGETS, classifier)
    logits = classifier.logits(images).gather(1, TARGETS[:, None])[:, 0]
    close(shares, maps.sum((1, 2, 3)) / logits)
    assert (
        f"(median of {len(images)} maps, which keep {100 * shares.min():.2g} % to {100 * shares.max():.2g} %)" in told
    )
    assert ((shares < 0.5) | (shares > 2)).any()
