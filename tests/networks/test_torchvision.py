"""torchvision's networks as torchvision builds them; how they are cut, and how their attention is read."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from atlas.cache.fingerprint import source
from atlas.inputs.audit.building import building
from atlas.model import loading
from atlas.model.classifier import Classifier
from atlas.networks.shared.adapted import sized
from atlas.networks.torchvision import torchvision
from atlas.study import params
from atlas.study.errors import Unsupported, UserError

CLASSES = 5
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 2}
ABOUT = {"mean": [0.0] * 3, "std": [1.0] * 3, "engine": ENGINE}
MORE = {"googlenet": {"aux_logits": False, "init_weights": True, "transform_input": False}}
POOLED = ("googlenet", "resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "swin_t", "mnasnet0_5")
NOT_POOLED = ("alexnet", "squeezenet1_1", "convnext_tiny", "mobilenet_v3_small")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def images(count: int = 2, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def ours(name: str, side: int | None = None) -> nn.Module:
    torch.manual_seed(3)
    return torchvision(classes=CLASSES, name=name, side=side, settings={})


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "densenet121", "shufflenet_v2_x0_5"])
def test_a_network_is_torchvisions_own_with_its_names_and_weights(name):
    network = ours(name)
    torch.manual_seed(3)
    expected = models.get_model(name, weights=None, num_classes=CLASSES, **MORE.get(name, {}))
    assert type(network) is type(expected)
    weights = network.state_dict()
    assert list(weights) == list(expected.state_dict())
    assert all(torch.equal(weights[key], value) for key, value in expected.state_dict().items())


def test_settings_are_passed_on():
    with torch.device("meta"):
        network = torchvision(
            classes=CLASSES, name="resnet18", side=None, settings={"replace_stride_with_dilation": None}
        )
        assert isinstance(network, models.ResNet)
        transforming = torchvision(classes=2, name="googlenet", side=None, settings={"transform_input": True})
    assert transforming.transform_input
    assert transforming.aux1 is None


@pytest.mark.parametrize("name", POOLED + NOT_POOLED)
def test_head_weights_are_found_where_pooling_and_a_linear_layer_are_the_head(name):
    network = ours(name).eval()
    classifier = Classifier(name, network, **ABOUT)
    if name in POOLED:
        linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
        assert torch.equal(classifier.head_weights("final"), linear.weight)
    else:
        with pytest.raises(Unsupported, match="needs a head of global average pooling and one linear layer"):
            classifier.head_weights("final")


def tiny() -> models.VisionTransformer:
    torch.manual_seed(3)
    own = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    nn.init.normal_(own.heads.head.weight)
    for parameter in own.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return own.eval().requires_grad_(False)


def test_a_transformer_meets_before_its_last_block():
    own = tiny()
    classifier = Classifier("tiny", own, **ABOUT)
    held = []
    own.encoder.layers[1].register_forward_hook(lambda *seen: held.append(seen[2]))
    own(images())
    features, bypass = classifier.features(images(), "final")
    torch.testing.assert_close(features, held[0][:, 1:].mT.unflatten(2, (4, 4)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(bypass, held[0][:, 0], atol=1e-5, rtol=1e-5)
    _, gradient = classifier.features_and_gradients(images(), torch.tensor([0, 1]), "final", "logit")
    assert (gradient.abs().amax(1) > 0).all()


@torch.no_grad()
def test_a_traced_graph_has_the_weights_of_attention():
    own = tiny()
    graph = Classifier("tiny", own, **ABOUT).graph("input")
    seen = []
    for layer in graph.modules():
        if isinstance(layer, nn.Softmax):
            layer.register_forward_hook(lambda layer, given, weights: seen.append(weights))
    graph(images())
    tokens = torch.cat([own.class_token.expand(2, -1, -1), own._process_input(images())], dim=1)
    tokens = tokens + own.encoder.pos_embedding
    assert len(seen) == len(own.encoder.layers)
    for weights, block in zip(seen, own.encoder.layers, strict=True):
        given = block.ln_1(tokens)
        _, expected = block.self_attention(given, given, given, need_weights=True, average_attn_weights=False)
        assert expected.std() > 0.01  # heads that attend to all alike would tell nothing
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 17))
        tokens = block(tokens)


@pytest.mark.parametrize("times", [2, 3])
def test_a_transformer_sees_larger_images_averaged(times):
    own = sized(tiny(), 32)
    larger = images(side=32 * times)
    smaller = larger.unflatten(3, (32, times)).unflatten(2, (32, times)).mean((3, 5))
    torch.testing.assert_close(own(larger), tiny()(smaller), atol=1e-5, rtol=1e-5)
    classifier = Classifier("tiny", own, **ABOUT)
    torch.testing.assert_close(classifier.logits(larger), classifier.logits(smaller), atol=1e-5, rtol=1e-5)
    assert classifier.features(larger, "final")[0].shape == (2, 32, 4, 4)
    assert list(own.state_dict()) == list(tiny().state_dict())


@pytest.mark.parametrize("size", [(48, 48), (32, 64), (64, 32), (16, 16)])
def test_a_transformer_says_which_images_it_accepts(size):
    own = sized(tiny(), 32)
    for run in (own, Classifier("tiny", own, **ABOUT).logits):
        with pytest.raises(UserError, match=rf"an image is {size[0]} x {size[1]} pixels; .* accepts 32 x 32, and n"):
            run(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        (
            "resnet18",
            64,
            "the setting 'side' is 64, expected null for resnet18: only vision transformers (vit) take it",
        ),
        (
            "maxvit_t",
            64,
            "the setting 'side' is 64, expected null for maxvit_t: only vision transformers (vit) take it",
        ),
        ("vit_b_16", None, "the setting 'side' is null, expected a multiple of 16 for vit_b_16"),
        ("vit_l_32", 100, "the setting 'side' is 100, expected a multiple of 32 for vit_l_32"),
        ("vit_b_16", 0, "the setting 'side' is 0, expected a multiple of 16 for vit_b_16"),
        ("resnet19", None, "the setting 'name' is 'resnet19': torchvision has no such network; near it: resnet1"),
        ("raft_small", None, "the setting 'name' is 'raft_small': torchvision has no such network"),
    ],
)
def test_names_and_sides_that_do_not_fit_are_told(name, side, message):
    with torch.device("meta"), pytest.raises(UserError, match=re.escape(message)):
        torchvision(classes=CLASSES, name=name, side=side, settings={})


def bound(**network: object) -> params.Entry:
    return params.network({"classifiers": {"a": {"network": {"family": "torchvision", **network}}}}, "a")


def test_an_entry_of_params_is_bound_and_keyed():
    entry = bound(name="resnet18")
    assert (entry.family, entry.function) == ("torchvision", "torchvision")
    assert entry.settings == {"classes": 1, "name": "resnet18", "settings": {}, "side": None}
    assert bound(name="resnet18", output=0).settings == {**entry.settings, "output": 0}
    found = source.reach(("atlas.networks.torchvision", "torchvision"))
    assert {"torch", "torchvision"} <= found.packages
    assert not found.whole
    assert ("atlas.model.resizing", "reduced") in found.texts
    for network in ({"name": 18}, {"name": "resnet18", "side": "64"}, {"side": None}, {"name": "a", "output": 0.5}):
        with pytest.raises(UserError, match=r"classifiers\.a\.network"):
            bound(**network)


def test_what_an_entry_leaves_out_is_filled_in():
    with torch.device("meta"):
        made = loading.build({"family": "torchvision", "name": "resnet18"}, classes=7, watch=building)
    assert made.fc.out_features == 7


def test_every_network_has_its_reference():
    cited = re.findall(r"\w+: ([a-z]+\d{4}\w+)", torchvision.__doc__)
    assert len(cited) == 10
    known = (Path(__file__).parents[2] / "REFERENCES.bib").read_text()
    assert not [key for key in cited if f"{{{key}," not in known]
