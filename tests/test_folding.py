"""Batch normalization is folded only where that changes no number, and a network that it would change runs as built."""

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stages.cache import keys
from stages.inputs.building import building
from stages.model import comparing, loading
from stages.model.classifier import Classifier
from stages.model.comparing import compared
from stages.networks.residual import small_resnet
from stages.study.problem import Problem, Unsupported

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 4}
ABOUT = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "engine": ENGINE}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Twice(nn.Module):
    """One convolution, called twice, of which one call is normalized."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.bn(self.conv(x)).relu() + self.conv(x)


class Both(Twice):
    """One output of a convolution, used as it is and normalized."""

    def forward(self, x):
        once = self.conv(x)
        return self.bn(once).relu() + once


class Pair(Twice):
    """Two normalizations of one convolution's output."""

    def __init__(self):
        super().__init__()
        self.other = nn.BatchNorm2d(3)

    def forward(self, x):
        once = self.conv(x)
        return self.bn(once).relu() + self.other(once)


class Shared(Twice):
    """Two convolutions behind which the same normalization comes."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.bn(self.conv(x)) + self.bn(self.other(x)).relu()


class Tied(Twice):
    """A convolution whose weights are used as such as well."""

    def forward(self, x):
        return self.bn(self.conv(x)).relu() + nn.functional.conv2d(x, self.conv.weight, padding=1)


class Alias(Twice):
    """One convolution under two names."""

    def __init__(self):
        super().__init__()
        self.again = self.conv

    def forward(self, x):
        return self.bn(self.conv(x)).relu() + self.again(x)


class SharedWeight(Twice):
    """Two convolutions over the same weights."""

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 3, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x):
        return self.bn(self.conv(x)).relu() + self.other(x)


class Named(Twice):
    """A layer under the name that a ReLU would get."""

    def __init__(self):
        super().__init__()
        for number in range(8):
            self.add_module(f"relu_{number}", nn.Conv2d(3, 3, 1))

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        for number in range(8):
            x = getattr(self, f"relu_{number}")(x)
        return x


class Tokens(nn.Module):
    """A linear layer over tokens, normalized by place: as many places as features."""

    def __init__(self):
        super().__init__()
        self.linear, self.bn = nn.Linear(144, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.bn(self.linear(x.flatten(2)))[:, :, :, None]


class InPlace(Twice):
    """A ReLU in place, whose input is used again."""

    def forward(self, x):
        x = self.conv(x)
        y = nn.functional.relu(x, inplace=True)
        return x + self.bn(y)


class Own(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return super().forward(x) ** 2


def normalized_by_weight():
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, padding=1))
    convolution.parametrizations.weight.original0.data.mul_(3)
    return nn.Sequential(convolution, nn.BatchNorm2d(3))


def hooked():
    convolution = nn.Conv2d(3, 3, 3, padding=1)
    convolution.register_forward_hook(lambda *seen: 2 * seen[2])
    return nn.Sequential(convolution, nn.BatchNorm2d(3))


def networks(features: nn.Module, head: nn.Module | None = None) -> nn.Sequential:
    head = head or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
    network = nn.Sequential(OrderedDict(features=nn.Sequential(features), head=head))
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            layer.weight.data.uniform_(0.5, 2)
            layer.bias.data.normal_()
    return network.eval()


SOUND = {
    "called twice": Twice,
    "output used twice": Both,
    "two normalizations": Pair,
    "one normalization of two": Shared,
    "weights used as such": Tied,
    "two names": Alias,
    "shared weights": SharedWeight,
    "names like relu_3": Named,
    "tokens": lambda: nn.Sequential(Tokens()),
    "a subclass": lambda: nn.Sequential(Own(3, 3, 3), nn.BatchNorm2d(3)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 3), nn.BatchNorm2d(3)),
    "weight normalization": normalized_by_weight,
    "a hook": hooked,
    "chain": lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
    "linear": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Unflatten(1, (3, 1, 1))
    ),
}
FOLDED = ("chain", "linear", "names like relu_3", "weights used as such", "shared weights")


@pytest.mark.parametrize("kind", SOUND)
def test_folding_changes_no_number(kind, images):
    network = networks(SOUND[kind]())
    classifier = Classifier("odd", network, **ABOUT)
    with torch.no_grad():
        expected = network((images - classifier.mean.view(-1, 1, 1)) / classifier.std.view(-1, 1, 1))
    torch.testing.assert_close(classifier.logits(images), expected, atol=1e-5, rtol=1e-5)
    left = [
        layer for layer in classifier.graph("input").modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d)
    ]
    assert bool(left) == (kind not in FOLDED)
    found = compared("odd", network, images, **ABOUT)
    assert found["runs"] == "fast"
    assert found["difference"] < 1e-5


def test_a_network_that_its_fast_form_changes_runs_as_it_was_built(images):
    network = networks(InPlace())
    found = compared("odd", network, images, **ABOUT)
    assert found["runs"] == "plain"
    assert found["difference"] > comparing.TOLERANCE
    classifier = Classifier("odd", network, **ABOUT, plain=True)
    with torch.no_grad():
        expected = network((images - classifier.mean.view(-1, 1, 1)) / classifier.std.view(-1, 1, 1))
    torch.testing.assert_close(classifier.logits(images), expected)
    targets = torch.arange(4)
    features, gradients = classifier.features_and_gradients(images, targets, "input", "logit")
    std = classifier.std.view(-1, 1, 1)
    torch.testing.assert_close(gradients, classifier.gradient(images, targets, "logit") * std)
    assert torch.equal(classifier.head(features, torch.empty(4, 0), "input"), classifier.logits(images))
    with pytest.raises(Unsupported, match="runs as it was built, untraced"):
        classifier.graph("input")


def saved(folder, monkeypatch, network, **card):
    monkeypatch.setattr(loading, "build", lambda *_, **__: networks(network()))
    torch.manual_seed(0)
    made = networks(network())
    save_file(made.state_dict(), folder / "weights.safetensors")
    known = {"classes": list("abcde"), "mean": ABOUT["mean"], "std": ABOUT["std"], **card}
    (folder / "card.json").write_text(json.dumps(known))
    return made


def test_a_card_says_which_form_runs_and_a_warning_tells(tmp_path, monkeypatch, capsys, images):
    network = saved(tmp_path, monkeypatch, InPlace)
    classifier = loading.load(tmp_path, "odd", {"family": "residual"}, ENGINE, building)
    told = capsys.readouterr().err
    assert told.startswith("warning: classifier odd: the logits of its fast form differ by 0.")
    assert told.count("\n") == 1
    mean, std = (getattr(classifier, name).view(-1, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(images), network((images - mean) / std))
    form = {"runs": "fast", "difference": 0.0, "tolerance": 1e-3, "images": 8}
    saved(tmp_path, monkeypatch, Twice, form=form)
    monkeypatch.setattr(loading, "compared", None)  # what the card says is not found again
    assert not loading.load(tmp_path, "odd", {"family": "residual"}, ENGINE, building).plain
    assert capsys.readouterr().err == ""
    saved(tmp_path, monkeypatch, Twice, form={**form, "runs": "plain", "difference": None})
    assert loading.load(tmp_path, "odd", {"family": "residual"}, ENGINE, building).plain
    assert "its fast form are not finite" in capsys.readouterr().err


def test_the_form_is_in_the_keys_of_rows(tmp_path, monkeypatch):
    params = {
        "classifiers": {
            "odd": {"network": {"family": "residual", "function": "small_resnet", "widths": [4], "blocks": 1}}
        }
    }
    folder = tmp_path / "data/classifiers/odd"
    folder.mkdir(parents=True)
    found = []
    for runs in ("fast", "plain"):
        saved(folder, monkeypatch, Twice, form={"runs": runs, "difference": 0.0, "tolerance": 1e-3, "images": 8})
        found.append(keys.classifier(tmp_path, params, "odd"))
    assert found[0] != found[1]


class Wrapped(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.linear, self.wrap = nn.Linear(3, 5), wrap

    def forward(self, features):
        return self.wrap(self.linear(features.mean((2, 3))))


WRONG = {
    "a tuple": (lambda found: (found, found), r"its network gives a tuple; expected one tensor of logits"),
    "a dictionary": (lambda found: {"logits": found}, r"its network gives a dict; expected one tensor of logits"),
    "one logit": (
        lambda found: found[:, :1],
        r"its network gives one logit an image, .* of a logit z the two are 0 and z",
    ),
    "no class": (lambda found: found[:, 0], r"its network gives \(4,\) for 4 images"),
    "a softmax": (lambda found: found.softmax(1), r"at least 0 and sum to 1 .* leave out the softmax"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_logits_is_told_in_one_line(kind, images):
    wrap, told = WRONG[kind]
    network = networks(nn.Conv2d(3, 3, 3), Wrapped(wrap))
    with pytest.raises(Problem, match=told) as raised:
        compared("odd", network, images, **ABOUT)
    assert "\n" not in str(raised.value)
    assert "classifier odd" in str(raised.value)
    if kind not in ("a softmax", "one logit"):
        with pytest.raises(Problem, match=told):
            Classifier("odd", network, **ABOUT).logits(images)


def test_a_forward_of_a_networks_own_is_what_runs(images):
    class Halved(nn.Sequential):
        def forward(self, x):
            return super().forward(x) / 2

    network = Halved(OrderedDict(networks(nn.Conv2d(3, 3, 3)).named_children())).eval()
    assert compared("odd", network, images, **ABOUT)["runs"] == "fast"
    classifier = Classifier("odd", network, **ABOUT)
    with torch.no_grad():
        expected = network((images - classifier.mean.view(-1, 1, 1)) / classifier.std.view(-1, 1, 1))
    torch.testing.assert_close(classifier.logits(images), expected)
    features, beside = classifier.features(images, "final")
    torch.testing.assert_close(classifier.head(features, beside, "final"), expected)


def small(folder):
    network = small_resnet(classes=5, widths=[4, 4], blocks=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    card = {"classes": list("abcde"), "mean": ABOUT["mean"], "std": ABOUT["std"]}
    (folder / "card.json").write_text(json.dumps(card))
    return {"family": "residual", "function": "small_resnet", "widths": [4, 4], "blocks": 1}


def cards():
    good = {"classes": list("abcde"), "mean": [0.5] * 3, "std": [0.2] * 3}
    yield "cannot be read", "{"
    yield "cannot be read", ""
    yield "expected a mapping with 'classes'", "[]"
    yield "expected a mapping with 'classes'", json.dumps({**good, "classes": 5})
    yield "one finite number for each channel, got None", json.dumps({"classes": list("abcde")})
    yield "one finite number", json.dumps({**good, "std": [0.2] * 2})
    yield "one finite number", json.dumps({**good, "mean": ["0"] * 3})
    yield "one finite number", json.dumps({**good, "mean": [float("nan")] * 3})
    yield "expected numbers above 0", json.dumps({**good, "std": [0.2, 0, 0.2]})


@pytest.mark.parametrize(("told", "text"), list(cards()))
def test_a_broken_card_is_told_in_one_line(tmp_path, told, text):
    network = small(tmp_path)
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(Problem, match=told) as raised:
        loading.load(tmp_path, "odd", network, ENGINE, building)
    assert "\n" not in str(raised.value)
    assert f"{tmp_path}/card.json" in str(raised.value)


@pytest.mark.parametrize("kept", [0, 5, 100, 2000])
def test_truncated_weights_are_told_in_one_line(tmp_path, kept):
    network = small(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Problem, match="cut off or damaged") as raised:
        loading.load(tmp_path, "odd", network, ENGINE, building)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_missing_weights_and_those_of_another_network_are_told_in_one_line(tmp_path):
    network = small(tmp_path)
    with pytest.raises(Problem, match=r"not the weights of classifiers\.odd\.network") as raised:
        loading.load(tmp_path, "odd", {**network, "widths": [8, 8]}, ENGINE, building)
    assert "\n" not in str(raised.value)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(Problem, match=r"weights.safetensors: cannot be read"):
        loading.load(tmp_path, "odd", network, ENGINE, building)
