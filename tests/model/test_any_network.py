"""Any network, as its library or its user built it: the classifier gives its own numbers, whole and cut anywhere."""

import re
import sys
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import swin_transformer

from atlas.cache import keys
from atlas.cache.fingerprint import called, packages
from atlas.inputs.audit.building import building
from atlas.methods import attention, cam, relevance
from atlas.methods.gradient import guided_backprop
from atlas.model.classifier import Classifier
from atlas.model.comparing import compared
from atlas.model.loading import build
from atlas.model.runtime import start
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import bound_network

CLASSES = 5
ENGINE = {"device": "cpu", "precision": "float64", "threads": 1, "batch": 3}


@pytest.fixture(scope="module", autouse=True)
def _started():
    start(ENGINE)


def as_if_trained(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Statistics of batches, and no bias, scale or head that is 0 or 1, so that every layer tells."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() < 5000:
                parameter += 0.1 * torch.randn_like(parameter)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None
        network.train()(torch.randn(2, *shape))
    return network.double().eval()


def images_of(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(5)).double()


def classified(network: nn.Module, channels: int = 3, **about: object) -> Classifier:
    about = {"mean": [0.5] * channels, "std": [0.25] * channels, "engine": ENGINE, **about}
    return Classifier("any", network, **about)


def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    return network((images - 0.5) / 0.25)


def own(network: nn.Module, images: Tensor, targets: Tensor, path: str | None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a module's activations and the gradient of the targets' logits by them, by a hook on the network."""
    held: list[Tensor] = []
    given = images.clone().requires_grad_()

    def hold(layer: nn.Module, entering: tuple, leaving: Tensor) -> Tensor:
        held.append(leaving)
        return leaving.clone()  # what follows may work in place

    hook = network.get_submodule(path).register_forward_hook(hold) if path else None
    logits = logits_of(network, given)
    if hook:
        hook.remove()
    at = held[0] if path else given
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), at)
    return logits.detach(), at.detach(), gradient


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def check(classifier: Classifier, network: nn.Module, images: Tensor, layer: str, path: str, laid_out=None) -> None:
    """Check a layer against the module of that path: activations as `laid_out`, gradients, and what follows."""
    laid_out = laid_out or (lambda activations: activations)
    targets = torch.arange(len(images))
    logits, activations, gradient = own(network, images, targets, path)
    features, bypass = classifier.features(images, layer)
    close(features, laid_out(activations))
    close(classifier.head(features, bypass, layer), logits)
    both = classifier.features_and_gradients(images, targets, layer, "logit")
    close(both[0], features)
    close(both[1], laid_out(gradient))
    close(classifier.head_gradient(features, bypass, targets, layer, "logit"), both[1])


def tokens(bypass: int, grid: tuple[int, int]):
    return lambda activations: activations[:, bypass:].mT.unflatten(2, grid)


def last(activations: Tensor) -> Tensor:
    return activations.permute(0, 3, 1, 2)


# Of torchvision: the module whose output `final` is, another inside a block, and how their activations are laid out.
NETWORKS = {
    "resnet18": ("layer4", None, "layer3.1.conv1", None),
    "densenet121": (None, None, "features.denseblock4.denselayer16.conv1", None),
    "mobilenet_v3_small": ("features", None, "features.5.block.2.fc1", None),
    "convnext_tiny": ("features", None, "features.5.2.block.3", last),
    "swin_t": ("permute", None, "features.5.1", last),
    "vit": (
        "encoder.layers.encoder_layer_2",
        tokens(1, (4, 4)),
        "encoder.layers.encoder_layer_1.mlp.0",
        tokens(1, (4, 4)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_torchvision(name):
    if name == "vit":  # as vit_b_16, smaller
        network = models.VisionTransformer(64, 16, 4, 4, 64, 128, num_classes=CLASSES)
        nn.init.normal_(network.heads.head.weight, std=0.1)
    else:
        network = models.get_model(name, weights=None, num_classes=CLASSES)
    network = as_if_trained(network, (3, 64, 64))
    images = images_of((3, 64, 64))
    classifier = classified(network)
    targets = torch.arange(2)
    logits, _, gradient = own(network, images, targets, None)
    close(classifier.logits(images), logits)
    close(classifier.gradient(images, targets, "logit"), gradient)
    final, laid_out, inside, inside_laid_out = NETWORKS[name]
    check(classifier, network, images, inside, inside, inside_laid_out)
    if final is not None:
        check(classifier, network, images, "final", final, laid_out)
    else:  # behind the last module comes a function
        features, bypass = classifier.features(images, "final")
        close(features, network.features((images - 0.5) / 0.25).relu())
        close(classifier.head(features, bypass, "final"), logits)
    graph = classifier.graph("input")
    kinds = {type(layer) for layer in graph.modules()}
    assert nn.MultiheadAttention not in kinds
    assert not [node for node in graph.graph.nodes if node.op == "call_function" and "relu" in node.target.__name__]


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    ("name", "side", "final", "laid_out"),
    [
        ("deit_tiny_distilled_patch16_224", 64, "blocks.10", tokens(2, (4, 4))),
        ("vit_tiny_patch16_dinov3_qkvb", 64, "blocks.10", tokens(5, (4, 4))),
        ("repvgg_a0", 64, "stages", None),
        ("tf_efficientnet_lite0", 64, "bn2", None),
        ("swin_tiny_patch4_window7_224", 64, "norm", last),
    ],
)
def test_networks_of_timm(name, side, final, laid_out):
    sized = {"img_size": side} if "patch" in name else {}
    network = build({"family": "timm", "name": name, "settings": sized}, classes=CLASSES, watch=building)
    network = as_if_trained(network, (3, side, side))
    images, classifier = images_of((3, side, side)), classified(network)
    logits, _, gradient = own(network, images, torch.arange(2), None)
    close(classifier.logits(images), logits)
    close(classifier.gradient(images, torch.arange(2), "logit"), gradient)
    check(classifier, network, images, "final", final, laid_out)


class Stubborn(nn.Module):
    """A network that looks at its numbers, so that no trace knows what it does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.relu, self.last = nn.ReLU(inplace=True), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.relu(self.first(x))
        if x.mean() > 1e9:
            x = -x
        x = self.second(x)
        x += x.mean((1, 2, 3), keepdim=True)
        return self.last(nn.functional.relu(x, inplace=True).mean((2, 3)))


@pytest.mark.parametrize("plain", [False, True])
def test_a_network_that_cannot_be_traced_is_cut_by_hooks(plain):
    network, images = as_if_trained(Stubborn(), (3, 16, 24)), images_of((3, 16, 24))
    classifier = classified(network, plain=plain)
    logits, _, gradient = own(network, images, torch.arange(2), None)
    close(classifier.logits(images), logits)
    close(classifier.gradient(images, torch.arange(2), "logit"), gradient)
    check(classifier, network, images, "first", "first")
    check(classifier, network, images, "final", "second")
    with pytest.raises(Unsupported, match="so that not every layer can be found"):
        classifier.graph("final")
    with (
        pytest.raises(Unsupported, match="so that not every ReLU can be found"),
        classifier.rectified("positive", "input"),
    ):
        pass
    with pytest.raises(
        Unsupported, match=r"no layer 'third' to be cut at; .* in the network: first, second, relu, last"
    ):
        classifier.features(images, "third")


class Watching(models.VisionTransformer):
    """A transformer that looks at its numbers, so that no trace knows what it does."""

    def forward(self, x):
        found = super().forward(x)
        return -found if found.mean() > 1e9 else found


class Averaging(nn.Module):
    """Attention by a function, normalized keys, tokens of patches alone that are averaged, and numbers looked at."""

    def __init__(self, paired=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.blocks = nn.ModuleList(Block(paired) for _ in range(3))
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x)
        if x.mean() > 1e9:
            x = -x
        x = x.flatten(2).mT
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return self.last(self.norm(x).mean(1))


class Block(nn.Module):
    def __init__(self, paired):
        super().__init__()
        self.paired, self.norm, self.of_keys = paired, nn.LayerNorm(8), nn.LayerNorm(4)
        self.three, self.mixed, self.softmax = nn.Linear(8, 24), nn.Linear(8, 8), nn.Softmax(dim=-1)

    def forward(self, x):
        query, key, value = self.three(self.norm(x)).unflatten(-1, (3, 2, 4)).transpose(1, 3).unbind(2)
        weights = self.softmax(query @ self.of_keys(key).mT)
        x = x + self.mixed((weights @ value).transpose(1, 2).flatten(2))
        return (x, weights) if self.paired else x


UNTRACED = {
    "vit": (lambda: Watching(64, 16, 4, 4, 64, 128, num_classes=CLASSES), "encoder.layers.encoder_layer_2", 1, (4, 4)),
    "vit, as built": (
        lambda: models.VisionTransformer(64, 16, 4, 4, 64, 128, num_classes=CLASSES),
        "encoder.layers.encoder_layer_2",
        1,
        (4, 4),
    ),
    "averaging": (Averaging, "blocks.1", 0, (8, 8)),
}


@pytest.mark.parametrize("kind", UNTRACED)
def test_the_last_tokens_of_a_network_that_is_not_traced(kind):
    make, final, bypass, grid = UNTRACED[kind]
    network = make()
    if isinstance(network, models.VisionTransformer):
        nn.init.normal_(network.heads.head.weight, std=0.1)
    network = as_if_trained(network, (3, 64, 64))
    classifier = classified(network, plain=kind == "vit, as built")
    check(classifier, network, images_of((3, 64, 64)), "final", final, tokens(bypass, grid))


def test_where_the_last_tokens_are_in_no_module_the_candidates_are_told():
    classifier = classified(as_if_trained(Averaging(paired=True), (3, 64, 64)))
    with pytest.raises(Unsupported, match=r"name one in place of 'final'; .*, blocks.2.norm, .*, norm$"):
        classifier.features(images_of((3, 64, 64)), "final")


@pytest.mark.parametrize("side", [(64, 96), (40, 56), (16, 20)])
def test_attention_within_windows_is_spelled_out(side):
    """Windows of 4 x 4 that fit, that are filled, and that hold all there is."""
    settings = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4], "num_classes": CLASSES}
    network = as_if_trained(models.SwinTransformer(patch_size=[4, 4], **settings), (3, *side))
    images, targets, classifier = images_of((3, *side)), torch.arange(2), classified(network)
    logits, _, gradient = own(network, images, targets, None)
    close(classifier.logits(images), logits)
    close(classifier.gradient(images, targets, "logit"), gradient)
    check(classifier, network, images, "final", "permute")
    check(classifier, network, images, "features.1.1", "features.1.1", last)
    found = relevance.deep_lift(classifier, images, targets, baseline="black").flatten(1).sum(1)
    changes = (logits - classifier.logits(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    close(found, changes)
    assert relevance.lrp(classifier, images, targets, epsilon=0.25, layer="input").isfinite().all()
    with pytest.raises(Unsupported, match=r"its attention is not among all tokens, .* but within windows"):
        attention.rollout(classifier, images)


def test_attention_within_windows_by_cosines_is_fused():
    settings = {"embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": [4, 4], "num_classes": CLASSES}
    about = {"block": swin_transformer.SwinTransformerBlockV2, "downsample_layer": swin_transformer.PatchMergingV2}
    network = models.SwinTransformer(patch_size=[4, 4], **settings, **about).double()
    images, classifier = images_of((3, 32, 32)), classified(network)
    told = r"its attention is fused \(shifted_window_attention\)"
    with pytest.raises(Unsupported, match=told + ", and no rule is known for it"):
        relevance.lrp(classifier, images, torch.arange(2), epsilon=0.25, layer="input")
    with pytest.raises(Unsupported, match=told + ", and no rule is known for it"):
        relevance.deep_lift(classifier, images, torch.arange(2), baseline="black")
    with pytest.raises(Unsupported, match=told + ", so that its weights cannot be read"):
        attention.rollout(classifier, images)


def test_the_last_layer_is_found_by_images_of_a_size_that_only_they_have():
    """Whichever method comes first."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 9, CLASSES)
    network, images, targets = nn.Sequential(*layers).double(), images_of((3, 18, 13)), torch.arange(2)
    with pytest.raises(Unsupported, match="needs a head of global average pooling and one linear layer"):
        cam.cam(classified(network), images, targets, rectified=False, layer="final")
    assert relevance.lrp(classified(network), images, targets, epsilon=0.25, layer="final").shape == (2, 4, 14, 9)
    with pytest.raises(Unsupported, match="no ReLU follows its layer final"):
        guided_backprop(classified(network), images, targets, sign="positive", layer="final")


class Steps(nn.Module):
    """Padding, functions and a reused layer in place, and a head without modules."""

    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, stride=2)
        self.bn, self.act = nn.BatchNorm2d(6), nn.ReLU6(inplace=True)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.act(self.bn(self.conv(self.pad(x))))
        y = self.again(x)
        y += x
        y = self.act(nn.functional.silu(y, inplace=True))
        return self.last(y.mean([2, 3]).view(x.size(0), -1))


def test_functions_steps_in_place_and_reused_layers():
    network, images = as_if_trained(Steps(), (3, 16, 24)), images_of((3, 16, 24))
    classifier = classified(network)
    logits, _, gradient = own(network, images, torch.arange(2), None)
    close(classifier.logits(images), logits)
    close(classifier.gradient(images, torch.arange(2), "logit"), gradient)
    for layer in ("pad", "conv", "bn", "again"):
        check(classifier, network, images, layer, layer)
    features, _ = classifier.features(images, "final")
    assert features.shape == (2, 6, 8, 12)
    assert features.max() <= 6
    close(classifier.head_weights("final"), network.last.weight)
    with pytest.raises(Unsupported, match="its layer 'act' is run 2 times for an image, expected once"):
        classifier.features(images, "act")
    with pytest.raises(Unsupported, match="other values pass by its layer again"):
        classifier.graph("again")
    with classifier.rectified("positive", "input"):
        assert not torch.equal(classifier.gradient(images, torch.arange(2), "logit"), gradient)


class Towers(nn.Module):
    """Two ways that meet only when they are pooled."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.last(torch.cat([self.left(x).relu().mean((2, 3)), self.right(x).relu().amax((2, 3))], dim=1))


def test_where_the_last_layer_is_not_one_the_candidates_are_told():
    classifier, images = classified(Towers().double()), images_of((3, 16, 16))
    with pytest.raises(Unsupported, match=r"name one in place of 'final'; .* at the end: left, right"):
        classifier.features(images, "final")
    assert classifier.features(images, "left")[0].shape == (2, 4, 14, 14)


BESIDE = "from torch import nn\n\ndef step(entering, leaving):\n    return nn.Conv2d(entering, leaving, 3, padding=1)\n"
FILE = """
import torch
from torch import nn
from parts import step


class Radar(nn.Module):
    def __init__(self, *, channels, classes):
        super().__init__()
        self.steps = nn.Sequential(step(channels, 8), nn.ReLU(), nn.MaxPool2d(4), step(8, 8), nn.ReLU())
        self.last = nn.Linear(8 * 24 * 40, classes)

    def forward(self, x):
        return self.last(torch.flatten(self.steps(x), 1))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "parts.py").write_text(BESIDE)
    (tmp_path / "radar.py").write_text(FILE)
    return tmp_path / "radar.py"


def entry(file: Path, name: str = "Radar", **settings: object) -> dict:
    settings = settings or {"channels": 4, "classes": CLASSES}
    return {"family": "module", "call": f"{file}:{name}", "settings": settings}


def test_a_module_of_a_users_own_file_of_four_channels(file):
    before = set(sys.modules)
    network = build(entry(file), classes=CLASSES, watch=building)
    assert not {"radar", "parts"} & (set(sys.modules) - before)
    network = as_if_trained(network, (4, 96, 160))
    images, classifier = images_of((4, 96, 160)), classified(network, channels=4)
    close(classifier.logits(images), logits_of(network, images))
    check(classifier, network, images, "final", "steps.4")
    assert classifier.features(images, "final")[0].shape == (2, 8, 24, 40)
    relative = {**entry(file), "call": "radar.py:Radar"}
    assert isinstance(build(relative, classes=CLASSES, watch=building, root=file.parent), nn.Module)


WRONG = [
    ({"call": "radar"}, "expected 'package.module:Name', or 'path/to/file.py:Name'"),
    ({"call": "nowhere.py:Radar"}, "there is no file nowhere.py"),
    ({"call": "no_such_package:Radar"}, "the module no_such_package cannot be imported"),
    ({"call": "FILE:Sonar"}, "radar has no 'Sonar'; it has: step, Radar"),
    ({"call": "FILE:torch.pi"}, "'torch.pi' is a float, expected a class or a function"),
    ({"call": "FILE:step", "settings": {"entering": 1}}, r"it raises TypeError: step\(\) missing 1 required"),
    (
        {"call": "FILE:Radar", "settings": {"channel": 1}},
        "it raises TypeError: .*unexpected keyword argument 'channel'",
    ),
    ({"call": "FILE:torch.zeros", "settings": {"size": [1]}}, "it gives a Tensor, expected a torch.nn.Module"),
    ({"call": 7}, "'call' = 7: expected str, got int"),
    ({"call": "FILE:Radar", "widths": 3}, "unknown setting 'widths' = 3"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_a_wrong_call_is_told_in_one_line(file, given, told):
    given = {"family": "module", **given}
    if isinstance(given["call"], str):
        given["call"] = given["call"].replace("FILE", str(file))
    with pytest.raises(UserError, match=told) as raised:
        build(given, classes=CLASSES, watch=building)
    assert "\n" not in str(raised.value)


class Parts(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.conv, self.last, self.wrap = nn.Conv2d(3, 6, 3), nn.Linear(6, CLASSES), wrap

    def forward(self, x):
        return self.wrap(self.last(self.conv(x).relu().mean((2, 3))))


OUTPUTS = {
    "a tuple": (lambda z: (z, z.sum()), 0, lambda z: z),
    "a dictionary": (lambda z: {"aux": z.sum(), "logits": z}, "logits", lambda z: z),
    "both": (lambda z: {"out": (z, z)}, ["out", 1], lambda z: z),
    "one logit": (lambda z: z[:, :1], "sigmoid", lambda z: torch.stack([-z[:, 0], z[:, 0]], 1) / 2),
    "one number": (lambda z: (z[:, 2],), [0, "sigmoid"], lambda z: torch.stack([-z[:, 2], z[:, 2]], 1) / 2),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_entry_says_which_output_is_meant(kind, monkeypatch):
    from atlas.model import loading

    wrap, output, expected = OUTPUTS[kind]
    torch.manual_seed(0)
    made = Parts(wrap).double()
    monkeypatch.setattr(loading, "find", lambda *which: lambda **settings: made)
    network = build({"family": "module", "call": "x.py:y", "output": output}, classes=CLASSES, watch=building).eval()
    images = images_of((3, 12, 12))
    z = made.last(made.conv((images - 0.5) / 0.25).relu().mean((2, 3)))
    classifier = classified(network)
    close(classifier.logits(images), expected(z).detach())
    assert list(network.state_dict()) == list(Parts(wrap).state_dict())
    found = compared("any", network.float(), images.float(), mean=[0.5] * 3, std=[0.25] * 3, engine=ENGINE)
    assert found["runs"] == "fast"


def test_of_one_logit_both_classes_can_be_explained(monkeypatch):
    from atlas.model import loading

    torch.manual_seed(0)
    made = Parts(lambda z: z[:, :1]).double()
    monkeypatch.setattr(loading, "find", lambda *which: lambda **settings: made)
    entry = {"family": "module", "call": "x.py:y", "output": "sigmoid"}
    classifier, images = classified(build(entry, classes=2, watch=building).eval()), images_of((3, 12, 12))
    seen = images.clone().requires_grad_()
    made.last(made.conv((seen - 0.5) / 0.25).relu().mean((2, 3)))[:, 0].sum().backward()
    for target, share in ((0, -0.5), (1, 0.5)):
        found = classifier.gradient(images, torch.full((len(images),), target), "logit")
        close(found, share * seen.grad)
    close(classifier.probabilities(images)[:, 1], classifier.logits(images).diff(dim=1)[:, 0].sigmoid())


def test_logarithms_of_probabilities_are_no_logits():
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "engine": ENGINE}
    network = Parts(lambda z: z.log_softmax(1)).eval()
    with pytest.raises(UserError, match=r"expected logits: leave out the log_softmax at the network's end$"):
        compared("any", network, images_of((3, 12, 12)).float(), **about)


def test_an_output_that_is_not_there_is_told(monkeypatch):
    from atlas.model import loading

    monkeypatch.setattr(loading, "find", lambda *which: lambda **settings: Parts(lambda z: {"logits": z}))
    for output, told in (("logit", "output = 'logit': .* gives a dict of \\['logits'\\]"), (0, "output = 0: ")):
        network = build({"family": "module", "call": "x.py:y", "output": output}, classes=CLASSES, watch=building)
        with pytest.raises(UserError, match=told):
            network(torch.rand(2, 3, 12, 12))
    with pytest.raises(
        UserError, match=r"its network gives a dict; .*: `output` of its network's entry .*, of 'logits'"
    ):
        classified(Parts(lambda z: {"logits": z}).double()).logits(images_of((3, 12, 12)))


@pytest.mark.parametrize("wrap", [lambda z: z[:, :2], lambda z: z[:1, :2], lambda z: z[:, :1].T])
def test_a_sigmoid_of_several_logits_an_image_is_told(wrap, monkeypatch):
    from atlas.model import loading

    made = Parts(wrap).double()
    monkeypatch.setattr(loading, "find", lambda *which: lambda **settings: made)
    network = build({"family": "module", "call": "x.py:y", "output": "sigmoid"}, classes=2, watch=building).eval()
    with pytest.raises(UserError, match=r"output = 'sigmoid': .* for 2 images, expected one logit an image$"):
        network(torch.rand(2, 3, 12, 12).double())


@pytest.mark.parametrize("plain", [False, True])
def test_logits_have_a_row_for_every_image(plain):
    folded = classified(Parts(lambda z: z[:, :4].reshape(-1, 2)).double(), plain=plain)
    with pytest.raises(UserError, match=r"its network gives \(6, 2\) for 3 images; expected one tensor of logits"):
        folded.logits(images_of((3, 12, 12)))
    scalar = classified(Parts(lambda z: z.sum()).double(), plain=plain)
    with pytest.raises(UserError, match=r"its network gives \(\) for 3 images; expected one tensor of logits"):
        scalar.logits(images_of((3, 12, 12)))


FEATURES = {
    "pooled": (nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "flat": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity()),
    "open": (),
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("kind", FEATURES)
def test_features_that_end_without_rows_and_columns_are_not_final(kind, plain):
    torch.manual_seed(0)
    steps = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), *FEATURES[kind]]
    at = {"pooled": 3, "flat": 4, "open": 2}[kind]
    head = [nn.Linear(6, CLASSES)] if kind != "open" else [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)]
    if kind == "pooled":
        head = [nn.Flatten(), *head]
    parts = OrderedDict(features=nn.Sequential(*steps[:at]), head=nn.Sequential(*head))
    network = nn.Sequential(parts).double()
    check(classified(network, plain=plain), network, images_of((3, 16, 24)), "final", "features.1")


def test_features_are_final_where_the_head_has_rows_and_columns_too():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    network = nn.Sequential(OrderedDict(features=nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), head=head)).double()
    check(classified(network), network, images_of((3, 16, 24)), "final", "features")


@pytest.mark.parametrize("plain", [False, True])
def test_why_a_network_takes_no_images_of_noise_is_told(plain):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7, CLASSES)).double()
    with pytest.raises(
        Unsupported, match=r"no images of noise \(of 3 x 512 x 512, RuntimeError: .*shapes [^%]*\)$"
    ) as raised:
        classified(network, plain=plain).features(images_of((3, 16, 16)), "final")
    assert "\n" not in str(raised.value)


def test_of_a_long_head_the_last_steps_are_told():
    steps = [nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *(nn.Tanh() for _ in range(5))]
    short = nn.Sequential(*steps, nn.Linear(6, CLASSES)).double()
    long = nn.Sequential(*steps, nn.Tanh(), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    with pytest.raises(Unsupported, match=r"this one has AdaptiveAvgPool2d, Flatten, (Tanh, ){5}Linear$"):
        classified(short).head_weights("0")
    with pytest.raises(Unsupported, match=r"this one has 10 steps, at the end: (Tanh, ){7}Linear$"):
        classified(long).head_weights("0")


def test_a_name_that_torchvision_has_not_is_told():
    with pytest.raises(UserError, match=re.escape("torchvision has no such network; near it: resnet1")):
        build({"family": "torchvision", "name": "resnet19"}, classes=CLASSES, watch=building)
    with pytest.raises(
        UserError, match=r"torchvision: name = 'resnet18': settings = .*unexpected keyword argument 'width'"
    ):
        build({"family": "torchvision", "name": "resnet18", "settings": {"width": 2}}, classes=CLASSES, watch=building)


def keyed(given: dict, study: Path) -> bytes:
    return keys.digest(called.content(bound_network(given, "network").settings, study))


def test_a_key_holds_the_bytes_of_a_file_and_of_what_it_imports_beside_it(file):
    given = {**entry(file), "call": "radar.py:Radar"}
    first = keyed(given, file.parent)
    assert keyed(entry(file), Path()) != keys.digest([])
    (file.parent / "other.py").write_text("a = 1\n")
    assert keyed(given, file.parent) == first
    (file.parent / "parts.py").write_text(BESIDE.replace("padding=1", "padding=2"))
    second = keyed(given, file.parent)
    assert second != first
    file.write_text(FILE.replace("MaxPool2d", "AvgPool2d"))
    assert keyed(given, file.parent) not in (first, second)


def test_a_key_holds_the_versions_of_a_package_and_of_what_it_requires():
    given = {"family": "module", "call": "torchvision.models:resnet18"}
    found = called.content(bound_network(given, "network").settings, Path())
    assert {"torch", "torchvision", "pillow"} <= set(found)
    assert found["torchvision"] == packages.version("torchvision")
    plain = bound_network({"family": "torchvision", "name": "resnet18"}, "network")
    assert called.content(plain.settings, Path()) == {"python": packages.version("python")}


def test_a_file_may_read_what_its_key_holds_and_nothing_else(file):
    file.write_text(FILE + "\nfrom pathlib import Path\nHERE = Path(__file__).parent / 'parts.py'\nHERE.read_text()\n")
    assert build(entry(file), classes=CLASSES, watch=building)
    (file.parent / "widths.txt").write_text("8")
    file.write_text(FILE + "\nfrom pathlib import Path\n(Path(__file__).parent / 'widths.txt').read_text()\n")
    with pytest.raises(UserError, match=r"reads .*widths.txt, which its key does not hold"):
        build(entry(file), classes=CLASSES, watch=building)


HUB = "dependencies = ['torch']\nfrom parts import step\n\ndef one(**settings):\n    return step(**settings)\n"


def test_a_folder_of_pytorch_hub(file):
    (file.parent / "hubconf.py").write_text(HUB)
    given = {"family": "torch_hub", "folder": file.parent.name, "name": "one"}
    given["settings"] = {"entering": 3, "leaving": 4}
    assert isinstance(build(given, classes=CLASSES, watch=building, root=file.parent.parent), nn.Conv2d)
    with pytest.raises(UserError, match="hubconf has no 'two'; it has: step, one"):
        build({**given, "name": "two"}, classes=CLASSES, watch=building, root=file.parent.parent)
    first = keyed(given, file.parent.parent)
    (file.parent / "parts.py").write_text(BESIDE.replace("padding=1", "padding=2"))
    assert keyed(given, file.parent.parent) != first


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_a_network_of_transformers_is_built_from_its_configuration(tmp_path):
    from transformers import ResNetConfig

    ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic").save_pretrained(tmp_path)
    given = {"family": "huggingface", "folder": tmp_path.name, "output": "logits"}
    network = build(given, classes=CLASSES, watch=building, root=tmp_path.parent)
    network, images = as_if_trained(network, (3, 32, 32)), images_of((3, 32, 32))
    classifier = classified(network)
    close(classifier.logits(images), logits_of(network, images))
    features, bypass = classifier.features(images, "final")
    assert features.shape == (2, 16, 4, 4)
    close(classifier.head(features, bypass, "final"), logits_of(network, images))
    first = keyed(given, tmp_path.parent)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text().replace("16", "24"))
    assert keyed(given, tmp_path.parent) != first
    with pytest.raises(UserError, match=r"there is no file config.json in it"):
        build({**given, "folder": "nowhere"}, classes=CLASSES, watch=building, root=tmp_path)
