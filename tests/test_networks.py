"""torchvision's networks as chains: torchvision's numbers, whole and traced; the parts the kernel and methods need."""

import inspect
import re
from collections import OrderedDict
from copy import deepcopy
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from stages.cache import source
from stages.model.classifier import Classifier, Unsupported
from stages.model.folding import folded
from stages.networks._attention import transformer
from stages.networks.torchvision import torchvision
from stages.study import params
from stages.study.problem import Problem

CLASSES, SIDE = 5, 64
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 2}
NAMES = get_args(inspect.signature(torchvision).parameters["name"].annotation)
MORE = {
    "googlenet": {"aux_logits": False, "init_weights": True, "transform_input": False},
    "vit_b_16": {"image_size": SIDE},
}
POOLED = {
    *("googlenet", "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "densenet121", "densenet161"),
    *("mobilenet_v2", "efficientnet_b0"),
}
# Ours to torchvision's; all other names are torchvision's behind `features.` or `head.`.
RENAMED = {
    r"^features\.layers\.": "encoder.layers.encoder_layer_",
    r"^head\.layer_": "encoder.layers.encoder_layer_",
    r"^features\.tokens\.pos": "encoder.pos",
    r"^features\.tokens\.": "",
    r"^head\.norm\.": "encoder.ln.",
    r"^head\.head\.": "heads.head.",
    r"in_proj\.": "in_proj_",
    r"mlp\.2\.": "mlp.3.",
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


def images(count: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def ours(name: str) -> nn.Sequential:
    torch.manual_seed(3)
    return torchvision(classes=CLASSES, name=name, side=SIDE if name == "vit_b_16" else None)


def theirs(name: str) -> nn.Module:
    torch.manual_seed(3)
    return models.get_model(name, weights=None, num_classes=CLASSES, **MORE.get(name, {}))


def as_if_trained(network: nn.Module) -> nn.Module:
    """Statistics of batches, and no bias, scale or head that is 0 or 1, so that every layer tells."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() < 5000:
                parameter += 0.1 * torch.randn_like(parameter)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # the statistics of the one batch that follows
        network.train()(images())
    return network.eval()


def renamed(state: dict[str, Tensor], known: set[str]) -> dict[str, Tensor]:
    """Give our weights torchvision's names."""
    result = {}
    for name, tensor in state.items():
        for pattern, replacement in RENAMED.items() if "class_token" in known else ():
            name = re.sub(pattern, replacement, name)
        result[name if name in known else name.split(".", 1)[1]] = tensor
    return result


@pytest.fixture(scope="module", params=NAMES)
def both(request) -> tuple[str, nn.Sequential, nn.Module]:
    """A network of ours and torchvision's own, with the same weights."""
    mine = as_if_trained(ours(request.param))
    with torch.device("meta"):
        own = theirs(request.param)
    own.load_state_dict(renamed(mine.state_dict(), set(own.state_dict())), assign=True)
    return request.param, mine, own.eval()


@torch.no_grad()
def test_logits_are_torchvisions(both):
    name, network, own = both
    expected, logits = own(images()), network.head(network.features(images()))
    assert (expected[0] - expected[1]).abs().min() > 1e-4 * expected.abs().max()  # they tell images apart
    if name == "vit_b_16":
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(logits, expected)


@torch.no_grad()
def test_both_parts_are_traced_with_every_relu_a_layer(both):
    _, network, _ = both
    # Folding changes the last digits, which an untrained network of many layers makes large: compare more digits.
    folds = any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    value = images().double() if folds else images()
    for part in (network.features, network.head):
        slow = deepcopy(part).double() if folds else part
        fast = folded(slow)
        assert isinstance(fast, torch.fx.GraphModule)
        assert not [name for name, _ in fast.named_modules() if re.match(r"relu_\d", name)], "a ReLU was a function"
        following = slow(value)
        torch.testing.assert_close(fast(value), following, rtol=0, atol=1e-9 * following.abs().max().item())
        value = following


def test_no_activation_is_in_place(both):
    _, network, _ = both
    assert not [name for name, layer in network.named_modules() if getattr(layer, "inplace", False)]


def test_head_weights_are_found_where_the_head_is_pooling_and_a_linear_layer(both):
    name, network, _ = both
    parts = OrderedDict(features=nn.Sequential(), head=network.head)
    classifier = Classifier(name, nn.Sequential(parts), mean=[0.0] * 3, std=[1.0] * 3, engine=ENGINE)
    if name in POOLED:
        assert torch.equal(classifier.head_weights("final"), list(network.head.modules())[-1].weight)
    else:
        with pytest.raises(Unsupported, match="needs a head of global average pooling and one linear layer"):
            classifier.head_weights("final")


PATHS = {
    "alexnet": ["features.12", "head.avgpool", "head.flatten", "head.classifier.6"],
    "vgg16": ["features.30", "head.avgpool", "head.flatten", "head.classifier.6"],
    "googlenet": ["features.conv1.relu", "features.inception5b", "head.avgpool", "head.dropout", "head.fc"],
    "resnet50": ["features.bn1", "features.layer4.2", "head.avgpool", "head.flatten", "head.fc"],
    "densenet121": ["features.transition3.conv", "features.norm5", "features.relu5", "head.classifier"],
    "mobilenet_v2": ["features.18.2", "head.avgpool", "head.flatten", "head.classifier.1"],
    "efficientnet_b0": ["features.7.0", "features.8.2", "head.avgpool", "head.flatten", "head.classifier.1"],
    "convnext_tiny": ["features.7.2", "head.avgpool", "head.classifier.0", "head.classifier.2"],
    "vit_b_16": ["features.reduce", "features.tokens", "features.layers.10", "head.layer_11", "head.norm", "head.head"],
}


@pytest.mark.parametrize("name", PATHS)
def test_layers_lie_on_a_chain_of_torchvisions_names(name):
    with torch.device("meta"):
        network = ours(name)
    for path in PATHS[name]:
        assert isinstance(network.get_submodule(path), nn.Module)
        steps = path.split(".")
        for end in range(len(steps)):
            assert isinstance(network.get_submodule(".".join(steps[:end])), nn.Sequential), path


@pytest.mark.parametrize("name", ["googlenet", "resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0"])
def test_a_seed_gives_the_weights_it_gives_torchvision(name):
    expected = theirs(name).state_dict()
    weights = renamed(ours(name).state_dict(), set(expected))
    assert set(weights) == set(expected)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def tiny() -> tuple[nn.Sequential, models.VisionTransformer]:
    torch.manual_seed(3)
    own = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    nn.init.normal_(own.heads.head.weight)
    for parameter in own.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return transformer(own.eval()).eval().requires_grad_(False), own


def test_a_transformer_meets_in_tokens_of_a_grid():
    network, own = tiny()
    assert network.grid == (4, 4)
    tokens = network.features(images(side=32))
    assert tokens.shape == (2, 1 + 4 * 4, 32)
    torch.testing.assert_close(network.head(tokens), own(images(side=32)), atol=1e-5, rtol=1e-5)
    with torch.device("meta"):
        assert torchvision(classes=CLASSES, name="vit_b_16", side=96).grid == (6, 6)


def test_patch_tokens_still_reach_the_logits_from_the_features():
    network, _ = tiny()
    tokens = network.features(images(side=32)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(tokens)[:, 0].sum(), tokens)
    assert (gradient.abs().amax(-1) > 0).all()


@torch.no_grad()
def test_a_traced_graph_has_the_weights_of_attention():
    network, own = tiny()
    graph = torch.fx.symbolic_trace(nn.Sequential(folded(network.features), folded(network.head)))
    seen = []
    for layer in graph.modules():
        if isinstance(layer, nn.Softmax):
            layer.register_forward_hook(lambda layer, given, weights: seen.append(weights))
    graph(images(side=32))
    tokens = torch.cat([own.class_token.expand(2, -1, -1), own._process_input(images(side=32))], dim=1)
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
    network, _ = tiny()
    larger = images(side=32 * times)
    smaller = larger.unflatten(3, (32, times)).unflatten(2, (32, times)).mean((3, 5))
    for each in (network, torch.fx.symbolic_trace(nn.Sequential(folded(network.features), folded(network.head)))):
        torch.testing.assert_close(each(larger), each(smaller), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(48, 48), (32, 64), (64, 32), (16, 16)])
def test_a_transformer_says_which_images_it_accepts(size):
    network, _ = tiny()
    for part in (network.features, folded(network.features)):
        with pytest.raises(Problem, match=rf"an image is {size[0]} x {size[1]} pixels; .* accepts 32 x 32, and n"):
            part(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("resnet18", 64, "the setting 'side' is 64, expected null: resnet18 takes images of any size; only vit_b_16"),
        ("vit_b_16", None, "the setting 'side' is null, expected a multiple of 16 for vit_b_16"),
        ("vit_b_16", 100, "the setting 'side' is 100, expected a multiple of 16 for vit_b_16"),
        ("vit_b_16", 0, "the setting 'side' is 0, expected a multiple of 16 for vit_b_16"),
    ],
)
def test_a_side_is_for_vit_alone(name, side, message):
    with torch.device("meta"), pytest.raises(Problem, match=re.escape(message)):
        torchvision(classes=CLASSES, name=name, side=side)


def test_an_entry_of_params_is_bound_and_keyed():
    def bound(**network: object) -> params.Entry:
        return params.network({"classifiers": {"a": {"network": {"family": "torchvision", **network}}}}, "a")

    entry = bound(name="resnet18", side=None)
    assert (entry.family, entry.function) == ("torchvision", "torchvision")
    assert entry.settings == {"classes": 1, "name": "resnet18", "side": None}
    found = source.reach(("stages.networks.torchvision", "torchvision"))
    assert {"torch", "torchvision"} <= found.packages
    assert not found.whole
    assert {("stages.networks._attention", name) for name in ("Attention", "reduced")} <= set(found.texts)
    for network in ({"name": "resnet19", "side": None}, {"name": "resnet18", "side": "64"}, {"name": "resnet18"}):
        with pytest.raises(Problem, match=r"classifiers\.a\.network"):
            bound(**network)


def test_every_network_has_its_reference():
    cited = re.findall(r"\w+: ([a-z]+\d{4}\w+)", torchvision.__doc__)
    assert len(cited) == 10
    known = (Path(__file__).parent.parent / "REFERENCES.bib").read_text()
    assert not [key for key in cited if f"{{{key}," not in known]
