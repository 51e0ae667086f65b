"""Batch normalization is folded only where that changes no number, and a network that it would change runs as built."""

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from atlas.cache import keys
from atlas.inputs.audit.building import building
from atlas.model import comparing, loading
from atlas.model.classifier import Classifier
from atlas.model.comparing import compared
from atlas.networks.residual import small_resnet
from atlas.study.errors import Unsupported, UserError
from atlas.study.study import Study

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


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.sign()

    @staticmethod
    def backward(context, gradient):
        return gradient


class Gated(nn.Module):
    """A network whose gradients are not those of what it computes: a gate lets none through, or other ones."""

    def __init__(self, gate):
        super().__init__()
        self.conv, self.last, self.gate = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), gate

    def forward(self, x):
        y = self.conv(x)
        return self.last((y.relu() * self.gate(y)).mean((2, 3)))


def without(y):
    with torch.no_grad():
        return torch.sigmoid(5 * y)


GATES = {
    "a block": without,
    "decorated": torch.no_grad()(lambda y: torch.sigmoid(5 * y)),
    "a backward of its own": lambda y: 1 + Straight.apply(y),
}


@pytest.mark.parametrize("kind", GATES)
def test_a_network_whose_gradients_its_fast_form_changes_runs_as_it_was_built(kind, images):
    network = Gated(GATES[kind]).eval()
    found = compared("odd", network, images, **ABOUT)
    assert found["runs"] == "plain"
    assert found["difference"] < 1e-5
    assert found["gradient_difference"] > comparing.TOLERANCE
    assert compared("odd", Gated(torch.sigmoid).eval(), images, **ABOUT)["runs"] == "fast"


def test_gradients_are_compared_in_batches_of_the_engines_size(images):
    sizes = []

    def seen(y):
        if torch.is_grad_enabled():
            sizes.append(len(y))
        return y.relu()

    compared("odd", Gated(seen).eval(), images, **{**ABOUT, "engine": {**ENGINE, "batch": 2}})
    assert max(sizes) == 2


def test_a_card_says_that_gradients_differ_and_a_warning_tells(tmp_path, monkeypatch, capsys):
    form = {"runs": "plain", "difference": 1e-7, "tolerance": 1e-3, "images": 8}
    for difference, told in ((0.25, "differ by 0.2 of the largest"), (None, "cannot be compared with its own")):
        saved(tmp_path, monkeypatch, Twice, form={**form, "gradient_difference": difference})
        assert loading.load(tmp_path, "odd", {"family": "residual"}, ENGINE, building).plain
        assert f"the gradients of its fast form {told} (tolerance 0.001)" in capsys.readouterr().err


def test_a_unit_that_rounding_turns_on_makes_no_network_plain(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 5)).eval()
    own = Classifier.gradient

    def rounded(self, images, targets, output):
        found = own(self, images, targets, output)
        found[0, 0, 0, 0] += 0.1 * found.abs().max() * (not self.plain and self._dtype == torch.float32)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "gradient", rounded)
        found = compared("odd", network, images, **ABOUT)
    assert found["runs"] == "fast"
    assert found["gradient_difference"] < 1e-5


class Unsteady(nn.Module):
    """A network whose logits of an image are not its alone."""

    def __init__(self, alter):
        super().__init__()
        self.conv, self.last, self.alter, self.calls = nn.Conv2d(3, 6, 3), nn.Linear(6, 5), alter, 0
        self.norm = nn.BatchNorm2d(6)
        self.batch_norm = nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x):
        self.calls += 1
        return self.last(self.alter(self, self.conv(x)).mean((2, 3)))


UNSTEADY = {
    "statistics of the batch": lambda self, y: self.batch_norm(y),
    "the mean of the batch": lambda self, y: y - y.mean(0),
    "training": lambda self, y: self.norm.train()(y),
    "a count of calls": lambda self, y: y * self.calls,
    "dropout": lambda self, y: nn.functional.dropout(y, 0.5),
    "a condition on the batch": lambda self, y: y if len(y) > 1 else 2 * y,
}


@pytest.mark.parametrize("kind", UNSTEADY)
def test_logits_that_are_not_an_images_alone_are_refused(kind, images):
    told = "classifier odd: an image's logits depend on the other images of its batch, or on earlier calls"
    with pytest.raises(UserError, match=told) as raised:
        compared("odd", Unsteady(UNSTEADY[kind]).eval(), images, **ABOUT)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("alter", [lambda self, y: y.mul_(2), lambda self, y: y * (1 + 1e-5 * (len(y) > 1))])
def test_steps_in_place_and_rounding_are_not_refused(alter, images):
    assert compared("odd", Unsteady(alter).eval(), images, **ABOUT)["runs"] == "fast"


def test_a_network_that_changes_its_input_in_place_is_not_refused(images):
    class Changing(Unsteady):
        def forward(self, x):
            return super().forward(x.mul_(2))

    assert compared("odd", Changing(lambda self, y: y).eval(), images, **ABOUT)["runs"] == "fast"


def test_images_that_a_network_does_not_take_are_told_in_one_line(images):
    told = r"classifier odd: its network does not take images of 1 x 12 x 12 \(channel, y, x\): Runtime"
    about = {**ABOUT, "mean": [0.5], "std": [0.5]}
    with pytest.raises(UserError, match=told) as raised:
        compared("odd", networks(nn.Conv2d(3, 3, 3)), images[:, :1], **about)
    assert "\n" not in str(raised.value)


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
        found.append(keys.classifier(Study(tmp_path, params), "odd"))
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
        r"its network gives one logit an image, .* of a logit z `output: sigmoid` makes two",
    ),
    "no class": (lambda found: found[:, 0], r"its network gives \(4,\) for 4 images"),
    "a softmax": (lambda found: found.softmax(1), r"at least 0 and sum to 1 .* leave out the softmax"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_logits_is_told_in_one_line(kind, images):
    wrap, told = WRONG[kind]
    network = networks(nn.Conv2d(3, 3, 3), Wrapped(wrap))
    with pytest.raises(UserError, match=told) as raised:
        compared("odd", network, images, **ABOUT)
    assert "\n" not in str(raised.value)
    assert "classifier odd" in str(raised.value)
    if kind not in ("a softmax", "one logit"):
        with pytest.raises(UserError, match=told):
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
    features, bypass = classifier.features(images, "final")
    torch.testing.assert_close(classifier.head(features, bypass, "final"), expected)


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
    with pytest.raises(UserError, match=told) as raised:
        loading.load(tmp_path, "odd", network, ENGINE, building)
    assert "\n" not in str(raised.value)
    assert f"{tmp_path}/card.json" in str(raised.value)


@pytest.mark.parametrize("kept", [0, 5, 100, 2000])
def test_truncated_weights_are_told_in_one_line(tmp_path, kept):
    network = small(tmp_path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="cut off or damaged") as raised:
        loading.load(tmp_path, "odd", network, ENGINE, building)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_missing_weights_and_those_of_another_network_are_told_in_one_line(tmp_path):
    network = small(tmp_path)
    with pytest.raises(UserError, match=r"not the weights of classifiers\.odd\.network") as raised:
        loading.load(tmp_path, "odd", {**network, "widths": [8, 8]}, ENGINE, building)
    assert "\n" not in str(raised.value)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"weights.safetensors: cannot be read"):
        loading.load(tmp_path, "odd", network, ENGINE, building)
