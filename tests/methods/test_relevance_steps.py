"""LRP and DeepLIFT on what real networks are made of: gates, padding, writing in place, constants."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from atlas.methods import relevance
from atlas.model import runtime
from atlas.model.classifier import Classifier

CHANNELS, SIDE, CLASSES = 4, 8, 5
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
ENGINE = {"device": "cpu", "precision": "float64", "threads": 1, "batch": 3}
TARGETS = torch.tensor([4, 2, 0])


@pytest.fixture(autouse=True)
def _one_thread():
    runtime.start(ENGINE)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


class Step(nn.Module):
    """One step of a network's forward, as a function of its features and of a convolution of them."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.stem, self.convolution = nn.Conv2d(3, CHANNELS, 3), nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.scale, self.normalization = nn.Parameter(torch.rand(CHANNELS, 1, 1)), nn.LayerNorm(CHANNELS)
        self.batch, self.gelu = nn.BatchNorm2d(CHANNELS), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.function(x, self.convolution(x), self)


def shuffled(x: Tensor, y: Tensor, own: nn.Module) -> Tensor:
    batch, channels, height, width = x.size()
    one, other = torch.cat([x, y.relu()], dim=1).chunk(2, dim=1)
    return (one + other).view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(x.shape)


def added_in_place(x: Tensor, y: Tensor, own: nn.Module) -> Tensor:
    x += y
    return functional.relu(x, inplace=True) * 2.0


def squeezed(x: Tensor, y: Tensor, own: nn.Module) -> Tensor:
    return functional.hardsigmoid(functional.adaptive_avg_pool2d(y, 1)) * x


def attended(x: Tensor, y: Tensor, own: nn.Module) -> Tensor:
    tokens = own.normalization(x.flatten(2).transpose(1, 2))
    keys = y.flatten(2).transpose(1, 2)
    return functional.scaled_dot_product_attention(tokens, keys, tokens).mT.unflatten(2, x.shape[2:])


STEPS = {
    "flatten and view": lambda x, y, own: torch.flatten(y.relu(), 1).view(x.size(0), -1)[:, :, None, None],
    "mean": lambda x, y, own: y.relu().mean((2, 3), keepdim=True),
    "pad": lambda x, y, own: functional.pad(y.relu(), (1, 2, 0, 1)),
    "reflected": lambda x, y, own: functional.pad(y.relu(), (1, 2, 0, 1), mode="reflect"),
    "silu": lambda x, y, own: functional.silu(y, inplace=True),
    "hardswish": lambda x, y, own: functional.hardswish(y),
    "gelu": lambda x, y, own: own.gelu(y),
    "relu6 twice": lambda x, y, own: functional.relu6(functional.relu6(8 * y) - 3.0),
    "pooled": lambda x, y, own: functional.max_pool2d(y, 3, stride=2, padding=1),
    "squeeze and excitation": squeezed,
    "two factors": lambda x, y, own: x * y,
    "square": lambda x, y, own: y * y,
    "constants": lambda x, y, own: (own.scale * y - 0.3) / 2.0 + own.scale,
    "shuffled": shuffled,
    "in place": added_in_place,
    "batch normalization": lambda x, y, own: own.batch(y.relu()),
    "layer normalization": lambda x, y, own: own.normalization(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "attention": attended,
    "stochastic depth": lambda x, y, own: x + functional.dropout(y.relu(), 0.5, own.training),
}


def classified(features: nn.Module, head: nn.Module | None = None) -> Classifier:
    head = head or nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.LazyLinear(CLASSES))
    network = nn.Sequential(OrderedDict(features=features, head=head))
    torch.manual_seed(9)
    network.float().eval()(torch.rand(2, 3, SIDE, SIDE))
    return Classifier("tiny", network.double(), mean=MEAN, std=STD, engine=ENGINE)


@pytest.fixture(params=STEPS)
def network(request) -> Step:
    torch.manual_seed(6)
    made = Step(STEPS[request.param])
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -0.6, 0.6)
    made.batch.running_mean.uniform_(-0.3, 0.3)
    made.batch.running_var.uniform_(0.5, 2.0)
    return made


def target_of(logits: Tensor) -> Tensor:
    return logits.gather(1, TARGETS[:, None])[:, 0]


def test_deep_lift_sums_to_the_change_of_the_logit(network, images):
    classifier = classified(network)
    found = relevance.deep_lift(classifier, images, TARGETS, baseline="black")
    change = target_of(classifier.logits(images) - classifier.logits(torch.zeros_like(images)))
    assert change.abs().min() > 1e-6
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=1e-6, atol=1e-9)


def test_the_network_that_is_explained_is_the_one_that_was_built(network, images):
    classifier = classified(network)
    built = classifier._network
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(images), built(classifier.normalized(images)))
    for method in (
        lambda: relevance.lrp(classifier, images, TARGETS, epsilon=0.1, layer="input"),
        lambda: relevance.deep_lift(classifier, images, TARGETS, baseline="mean"),
    ):
        found = method()
        assert torch.isfinite(found).all()
        assert (found.flatten(1).std(1) > 0).all()


@pytest.mark.parametrize("step", ["squeeze and excitation", "attention", "batch normalization"])
def test_bfloat16(step, images):
    torch.manual_seed(6)
    whole = classified(Step(STEPS[step]))
    half = whole.altered(lambda network: None, precision="bfloat16")
    for method in (
        lambda classifier: relevance.lrp(classifier, images, TARGETS, epsilon=1.0, layer="input"),
        lambda classifier: relevance.deep_lift(classifier, images, TARGETS, baseline="black"),
    ):
        found, expected = method(half).double(), method(whole)
        assert float((found - expected).norm() / expected.norm()) < 0.1


def lrp(classifier: Classifier, images: Tensor) -> Tensor:
    return relevance.lrp(classifier, images, TARGETS, epsilon=1e-9, layer="input")


def linear() -> nn.Sequential:
    torch.manual_seed(8)
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES, bias=False))


class Gated(nn.Module):
    def __init__(self, first: bool):
        super().__init__()
        self.squeeze, self.first = nn.Conv2d(3, 3, 1), first

    def forward(self, x: Tensor) -> Tensor:
        gate = self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid().expand(-1, -1, SIDE, SIDE)
        return gate * x if self.first else x * gate


@pytest.mark.parametrize("first", [True, False])
def test_a_gate_gets_nothing_and_what_it_lets_through_all(first, images):
    classifier = classified(Gated(first), linear())
    network = classifier._network
    with torch.no_grad():
        through = network.features(classifier.normalized(images))
    weights = network.head[1].weight[TARGETS].view_as(through)
    torch.testing.assert_close(lrp(classifier, images), through * weights)


def test_two_factors_get_half_each(images):
    """Of x · y, both linear in the image, as of any product of two that are no gate."""

    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] * x[:, 1:2]

    classifier = classified(Product(), linear())
    network, given = classifier._network, classifier.normalized(images)
    part = network.features(given) * network.head[1].weight[TARGETS].view(3, 1, SIDE, SIDE)
    found = lrp(classifier, images)
    torch.testing.assert_close(found[:, :2], (part / 2).expand(-1, 2, -1, -1), rtol=1e-3, atol=1e-6)
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("functional_one", [True, False])
def test_padding_before_a_convolution_is_the_convolution_s_own(functional_one, images):
    """Of the first convolution too: what is padded is neither black nor white."""

    class Padded(nn.Module):
        def __init__(self, padded: bool):
            super().__init__()
            torch.manual_seed(3)
            self.padded, self.pad = padded, nn.ZeroPad2d(1)
            self.one, self.other = (nn.Conv2d(three, 4, 3, padding=int(not padded)) for three in (3, 4))

        def forward(self, x: Tensor) -> Tensor:
            for convolution in (self.one, self.other):
                if self.padded:
                    x = functional.pad(x, (1, 1, 1, 1)) if functional_one else self.pad(x)
                x = convolution(x).relu()
            return x

    expected, found = (lrp(classified(Padded(padded), linear()), images) for padded in (False, True))
    torch.testing.assert_close(found, expected)


def test_a_batch_normalization_that_is_not_folded_is_a_convolution_of_one_pixel(images):
    torch.manual_seed(3)
    normalization = nn.BatchNorm2d(4)
    for part in (normalization.weight.data, normalization.bias.data, normalization.running_mean):
        part.uniform_(-0.5, 0.5)
    normalization.running_var.uniform_(0.5, 2.0)
    like = nn.Conv2d(4, 4, 1, groups=4)
    scale = normalization.weight.data / (normalization.running_var + normalization.eps).sqrt()
    like.weight.data = scale.view(4, 1, 1, 1)
    like.bias.data = normalization.bias.data - scale * normalization.running_mean
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    normalization.eval()
    expected, found = (
        lrp(classified(nn.Sequential(stem, each, nn.ReLU()), linear().eval()), images) for each in (like, normalization)
    )
    torch.testing.assert_close(found, expected)


def test_a_normalizer_inside_the_network_is_the_classifier_s_own(images):
    """The box of the first convolution's rule goes through it."""

    class Normalizer(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
            self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.convolution((x - self.mean) / self.std).relu()

    inside = Normalizer()
    outside = classified(nn.Sequential(inside.convolution, nn.ReLU()), linear())
    whole = nn.Sequential(OrderedDict(features=inside, head=outside._network.head)).double()
    same = Classifier("tiny", whole, mean=[0.0] * 3, std=[1.0] * 3, engine=ENGINE)
    torch.testing.assert_close(lrp(same, images), lrp(outside, images))


def test_options_of_a_forward_are_what_they_are_by_default(images):
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, CLASSES)

        def forward(self, x: Tensor, mask: Tensor | None = None, pooled: bool = True, *, scale: float = 2.0) -> Tensor:
            x = self.convolution(x if mask is None else x * mask).relu() * scale
            return self.head(x.mean((2, 3))) if pooled else x

    classifier = Classifier("optional", Optional().double(), mean=MEAN, std=STD, engine=ENGINE)
    found = relevance.deep_lift(classifier, images, TARGETS, baseline="black")
    change = target_of(classifier.logits(images) - classifier.logits(torch.zeros_like(images)))
    torch.testing.assert_close(found.sum((1, 2, 3)), change, rtol=1e-6, atol=1e-9)
