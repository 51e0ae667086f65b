"""The classifier: the network's own numbers, whatever the batch, with every pass counted."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from atlas.model.batch_cache import shared
from atlas.model.classifier import Classifier
from atlas.model.outputs import NotFinite
from atlas.model.runtime import start
from atlas.networks.residual import small_resnet
from atlas.study.errors import Unsupported, UserError
from tests.support.reference.networks import First, Tokens

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 8}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture(scope="module")
def network():
    start(ENGINE)
    torch.manual_seed(0)
    network = small_resnet(classes=5, widths=[8, 8, 16], blocks=1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics of a trained network are not 0 and 1
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def classifier(network):
    return Classifier("tiny", network, mean=MEAN, std=STD, engine=ENGINE)


@pytest.fixture(scope="module")
def images():
    return torch.rand(20, 3, 24, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def targets():
    return torch.arange(20) % 5


def guided(classifier, images, targets):
    with classifier.rectified("positive", "input"):
        return classifier.gradient(images, targets, "logit")


def plain(network, images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return network((images - mean) / std)


def test_logits_are_the_networks(classifier, network, images):
    with torch.no_grad():
        expected = plain(network, images)
    torch.testing.assert_close(classifier.logits(images), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(classifier.probabilities(images), expected.softmax(1), atol=1e-5, rtol=1e-4)


def test_batch_normalization_is_folded(classifier):
    assert not [layer for layer in classifier.graph("input").modules() if isinstance(layer, nn.BatchNorm2d)]


def test_gradients_are_by_intensity(classifier, network, images, targets):
    given = images.clone().requires_grad_()
    logits = plain(network, given)
    (expected,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), given, retain_graph=True)
    torch.testing.assert_close(classifier.gradient(images, targets, "logit"), expected, atol=1e-4, rtol=1e-3)
    (expected,) = torch.autograd.grad(logits.softmax(1).gather(1, targets[:, None]).sum(), given, retain_graph=True)
    torch.testing.assert_close(classifier.gradient(images, targets, "probability"), expected, atol=1e-5, rtol=1e-3)
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(logits, targets, reduction="sum"), given)
    torch.testing.assert_close(classifier.gradient(images, targets, "loss"), expected, atol=1e-4, rtol=1e-3)


LAYERS = ["input", "final", "features.0", "features.3", "features.4", "features.4.convolution1", "head.0"]


def test_activations_of_a_layer_and_gradients_by_them(classifier, network, images, targets):
    for layer in LAYERS:
        held = []
        step = network if layer == "input" else network.get_submodule("features" if layer == "final" else layer)
        hook = (
            network.register_forward_pre_hook(lambda _, given, held=held: held.append(given[0].requires_grad_()))
            if layer == "input"
            else step.register_forward_hook(lambda *seen, held=held: held.append(seen[2].requires_grad_()))
        )
        logits = plain(network, images)
        hook.remove()
        (expected,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), held[0])
        features, gradients = classifier.features_and_gradients(images, targets, layer, "logit")
        torch.testing.assert_close(gradients, expected, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(features, classifier.features(images, layer)[0])
        torch.testing.assert_close(features, held[0].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_what_follows_a_layer_makes_the_logits(classifier, images, targets, layer):
    features, bypass = classifier.features(images, layer)
    assert bypass.shape[1] == (8 * 6 * 8 if "convolution" in layer else 0)  # the shortcut passes by
    torch.testing.assert_close(
        classifier.head(features, bypass, layer), classifier.logits(images), atol=1e-5, rtol=1e-4
    )
    for output in ("logit", "probability", "loss"):
        _, expected = classifier.features_and_gradients(images, targets, layer, output)
        assert torch.equal(classifier.head_gradient(features, bypass, targets, layer, output), expected)


def test_features_before_global_average_pooling_have_the_last_layers_weights(classifier, images, targets):
    features, gradients = classifier.features_and_gradients(images, targets, "final", "logit")
    weights = classifier.head_weights("final")[targets] / features[0, 0].numel()
    torch.testing.assert_close(gradients, weights[:, :, None, None].expand_as(gradients), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        ("features.9", "no layer 'features.9' to be cut at; there are: input, final, and in 'features': features.0, "),
        ("last", "there are: input, final, and in the network: features, head"),
        ("features.2.0", "there are: input, final, and in 'features.2': none"),
    ],
)
def test_a_layer_where_the_network_cannot_be_cut_is_told(classifier, images, layer, told):
    with pytest.raises(Unsupported, match=told):
        classifier.features(images, layer)


def transformer() -> nn.Sequential:
    torch.manual_seed(1)
    mix = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
    features = nn.Sequential(OrderedDict(tokens=Tokens()))
    network = nn.Sequential(OrderedDict(features=features, head=nn.Sequential(mix, First(), nn.Linear(6, 5))))
    network.grid = (6, 8)
    return network.eval()


def test_tokens_are_laid_out_as_a_grid(images, targets):
    network = transformer()
    classifier = Classifier("tokens", network, mean=MEAN, std=STD, engine=ENGINE)
    features, bypass = classifier.features(images, "final")
    assert features.shape == (20, 6, 6, 8)
    assert bypass.shape == (20, 6)
    normalized = (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    torch.testing.assert_close(features, network.features.tokens.patches(normalized), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(classifier.head(features, bypass, "final"), classifier.logits(images))
    _, gradients = classifier.features_and_gradients(images, targets, "final", "logit")
    assert torch.equal(classifier.head_gradient(features, bypass, targets, "final", "logit"), gradients)
    moved = features.clone()
    moved[:, :, 2, 5] += 1e-2 * gradients[:, :, 2, 5]
    rise = (classifier.head(moved, bypass, "final") - classifier.logits(images)).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(rise, 1e-2 * (gradients[:, :, 2, 5] ** 2).sum(1), atol=1e-6, rtol=2e-2)
    normal, none = classifier.features(images, "input")
    assert normal.shape == images.shape
    torch.testing.assert_close(classifier.head(normal, none, "input"), classifier.logits(images))


def test_activations_without_rows_and_columns_are_told(classifier, images):
    with pytest.raises(Unsupported, match="its layer gives 1 dimensions, and no rows and columns"):
        classifier.features(images, "head.1")


RELUS = [
    *(nn.functional.relu, torch.relu, lambda x: x.relu(), nn.functional.relu6),
    *(
        lambda x: x.clamp(min=0),
        lambda x: torch.clamp(x, 0),
        lambda x: torch.clamp_min(x, 0.0),
        lambda x: x.clamp_min(0),
    ),
]


@pytest.mark.parametrize("relu", RELUS)
def test_a_relu_that_is_no_module_is_guided_too(images, targets, relu):
    class Functional(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.first, self.second = layers[0], layers[2]

        def forward(self, x):
            return relu(self.second(relu(self.first(x))))

    torch.manual_seed(0)
    own = nn.ReLU6 if relu is nn.functional.relu6 else nn.ReLU
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), own(), nn.Conv2d(4, 8, 3), own())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    modular, functional = (
        Classifier("one", nn.Sequential(OrderedDict(features=part, head=head)), mean=MEAN, std=STD, engine=ENGINE)
        for part in (layers, Functional(layers))
    )
    found = guided(functional, images, targets)
    assert torch.equal(found, guided(modular, images, targets))
    assert not torch.equal(found, functional.gradient(images, targets, "logit"))


def test_guided_hooks_are_gone_afterwards(classifier, images, targets):
    before = classifier.gradient(images, targets, "logit")
    assert not torch.equal(guided(classifier, images, targets), before)
    assert torch.equal(classifier.gradient(images, targets, "logit"), before)


@pytest.mark.parametrize("layer", ["input", "features.3"])
def test_relus_after_a_layer_are_guided_wherever_the_network_was_cut_before(
    network, classifier, images, targets, layer
):
    classifier.features(images, "features.4")
    with classifier.rectified("positive", layer):
        found = classifier.features_and_gradients(images, targets, layer, "logit")[1]
    fresh = Classifier("fresh", network, mean=MEAN, std=STD, engine=ENGINE)
    with fresh.rectified("positive", layer):
        assert torch.equal(fresh.features_and_gradients(images, targets, layer, "logit")[1], found)
    assert not torch.equal(fresh.features_and_gradients(images, targets, layer, "logit")[1], found)


CALLS = {
    "logits": lambda classifier, images, _: classifier.logits(images),
    "gradient": lambda *given: given[0].gradient(*given[1:], "logit"),
    "probability": lambda *given: given[0].gradient(*given[1:], "probability"),
    "guided": guided,
    "features": lambda classifier, images, _: classifier.features(images, "features.3"),
    "both": lambda *given: given[0].features_and_gradients(*given[1:], "final", "logit"),
    "head": lambda classifier, images, _: classifier.head(*classifier.features(images, "final"), "final"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_row_is_the_same_in_any_batch(classifier, images, targets, call):
    def run(rows):
        found = call(classifier, images[rows], targets[rows])
        return found if isinstance(found, tuple) else (found,)

    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    whole, mixed = run(torch.arange(20)), run(order)
    for row in (0, 7, 19):
        alone = run(torch.tensor([row]))
        place = int((order == row).nonzero())
        for one, all_, other in zip(alone, whole, mixed, strict=True):
            assert torch.equal(one[0], all_[row])
            assert torch.equal(one[0], other[place])


def test_passes_are_counted_without_padding(classifier, images, targets):
    classifier.logits(images)
    classifier.gradient(images[:3], targets[:3], "logit")
    classifier.head(*classifier.features(images[:2], "final"), "final")
    classifier.head_gradient(*classifier.features(images[:2], "final"), targets[:2], "final", "logit")
    classifier.head(*classifier.features(images[:1], "input"), "input")
    assert classifier.passes == {"forward": 20 + 3 + 2 + 2 + 1, "backward": 3 + 2, "head": 2 + 2}


def test_nothing_of_the_network_or_the_images_changes(network, classifier, images, targets):
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    before = images.clone()
    guided(classifier, images, targets)
    classifier.features_and_gradients(images, targets, "features.3", "logit")
    assert torch.equal(images, before)
    assert images.grad is None
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_bfloat16_is_near_float32(network, images):
    exact = Classifier("exact", network, mean=MEAN, std=STD, engine=ENGINE)
    rough = Classifier("rough", network, mean=MEAN, std=STD, engine={**ENGINE, "precision": "bfloat16"})
    logits = rough.logits(images)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact.logits(images))
    torch.testing.assert_close(logits, exact.logits(images), atol=0.1, rtol=0.1)


def test_a_head_that_is_not_pooling_and_one_layer_has_no_weights_of_features():
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    network = nn.Sequential(OrderedDict(features=nn.Conv2d(3, 4, 8), head=head))
    classifier = Classifier("deep", network, mean=MEAN, std=STD, engine=ENGINE)
    with pytest.raises(Unsupported, match="global average pooling and one linear layer; this one has Flatten, Linear"):
        classifier.head_weights("final")


def test_a_network_that_gives_nan_is_named(images):
    network = small_resnet(classes=2, widths=[4], blocks=1)
    network.head[2].weight.data.fill_(float("nan"))
    classifier = Classifier("broken", network, mean=MEAN, std=STD, engine=ENGINE)
    with pytest.raises(NotFinite, match="classifier broken: its logits are not finite"):
        classifier.logits(images)


def test_a_device_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"engine\.device = cuda, but torch sees no CUDA device"):
        start({**ENGINE, "device": "cuda"})


def test_shared_work_is_done_once_for_the_same_tensors():
    calls = []

    @shared
    def work(images, number):
        calls.append(number)
        return images * number

    a, b = torch.ones(2), torch.ones(2)
    assert work(a, 2) is work(a, 2)
    work(b, 2)
    work(b, 3)
    work(a, 2)
    assert calls == [2, 2, 3, 2]


def test_shared_work_of_settings_that_take_turns_is_held_as_often_as_asked():
    made = []

    @shared(calls=2)
    def work(images, number):
        made.append(number)
        return images * number

    images = torch.ones(2)
    for number in (1, 2, 1, 2, 3, 2, 1):
        work(images, number)
    assert made == [1, 2, 3, 1]
