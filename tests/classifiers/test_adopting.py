"""Weights that others have trained: what is checked of them, what the card says, and what is made anew with others."""

import hashlib
import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file, save_file

from atlas.classifiers import adopting, training
from atlas.inputs import calls
from atlas.inputs.audit.building import building
from atlas.inputs.splits import split
from atlas.model import loading
from atlas.model.comparing import check_no_sigmoids
from atlas.networks.residual import small_resnet
from atlas.study.errors import UserError
from atlas.study.params import entries, load
from atlas.study.study import Study
from stages import collect, predict, prepare
from tests.support.study import tiny, write

C = "resnet_vanilla"
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def network(classes=10, seed=0):
    torch.manual_seed(seed)
    made = small_resnet(classes=classes, widths=[4, 4, 8], blocks=1)
    for name, buffer in made.named_buffers():
        if "num" not in name:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    house = tmp_path_factory.mktemp("adopt")
    write(house, tiny())
    collect.main(house, "shapes")
    return house


@pytest.fixture
def house(collected, tmp_path):
    return shutil.copytree(collected, tmp_path / "house")


def given(house, state, *, name="data/raw/net.pth", preprocess=True, **weights):
    """Save weights, and say so in params.yaml."""
    file = house / name
    file.parent.mkdir(parents=True, exist_ok=True)
    (save_file if file.suffix == ".safetensors" else torch.save)(state, file)
    params = tiny()
    entry = params["classifiers"][C]
    del entry["train"]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry["weights"] = {"file": name, "sha256": sha256, **weights}
    if preprocess:
        entry["preprocess"] = {"mean": MEAN, "std": STD}
    write(house, params)
    return params


def card_of(house):
    return json.loads((house / "data/classifiers" / C / "card.json").read_text())


def accuracy(house, model, mean=MEAN, std=STD, top=1):
    """The share of the held-out images that have their label among the highest logits, spelled out anew."""
    store = zarr.open_group(house / "data/datasets/shapes.zarr", mode="r")
    test = store["split"][:] == "test"
    images = (store["pixels"][:][test] / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(images).float()).numpy()
    labels = store["label"][:][test]
    order = np.argsort(-logits, axis=1)[:, :top]
    return (order == labels[:, None]).any(axis=1).mean()


def test_the_card_says_where_weights_are_from_and_how_good_they_are(house, capsys):
    given(house, network().state_dict())
    before = (house / "data/raw/net.pth").read_bytes()
    prepare.main(house, C)
    card = card_of(house)
    digest = hashlib.sha256(before).hexdigest()
    assert card["source"] == {
        "file": "data/raw/net.pth", "tag": None, "sha256": digest, "entry": None, "rename": None, "accuracy": None,
    }  # fmt: skip
    assert (card["mean"], card["std"], card["preprocess"]) == (MEAN, STD, "params.yaml")
    assert not {"recipe", "trained_on", "seed"} & set(card)
    assert card["evaluated_on"] == 120
    assert card["accuracy"] == pytest.approx(accuracy(house, network()))
    assert card["top5"] == pytest.approx(accuracy(house, network(), top=5))
    assert card["form"]["difference"] < 1e-4
    stored = load_file(house / "data/classifiers" / C / "weights.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in network().state_dict().items())
    assert (house / "data/raw/net.pth").read_bytes() == before
    assert "guessing among 10 classes" in card["warning"]
    assert f"WARNING: classifier {C}: {card['warning']}" in capsys.readouterr().err


def test_what_was_adopted_predicts_as_it_did_where_it_was_trained(house):
    given(house, network().state_dict())
    prepare.main(house, C)
    predict.main(house, C)
    store = zarr.open_group(house / "data/predictions" / f"{C}.zarr", mode="r")
    pixels = split(Study(house), "shapes", "test").pixels() / 255
    images = torch.from_numpy((pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))).float()
    with torch.no_grad():
        expected = network().eval()(images).softmax(1).numpy()
    np.testing.assert_allclose(store["top_probability"][:, 0], expected.max(axis=1), atol=1e-5)


def test_a_normalizer_in_the_file_is_taken_where_params_yaml_says_nothing(house):
    state = {"mean": torch.tensor(MEAN), "std": torch.tensor(STD)}
    state |= {f"model.{name}": value for name, value in network().state_dict().items()}
    given(house, state, name="data/raw/net.safetensors", preprocess=False)
    prepare.main(house, C)
    card = card_of(house)
    assert card["mean"] == pytest.approx(MEAN)
    assert card["std"] == pytest.approx(STD)
    assert card["preprocess"] == "the weights"


@pytest.mark.parametrize(("mean", "unused"), [([0.25, 0.5, 0.75], True), (MEAN, False)])
def test_a_normalizer_in_the_file_that_is_not_used_is_told_each_time(house, capsys, mean, unused):
    state = {"mean": torch.tensor(mean), "std": torch.tensor(STD)}
    state |= {f"model.{name}": value for name, value in network().state_dict().items()}
    params = given(house, state)
    for count in (12, 3):
        params["classifiers"][C]["images"] = {"count": count}
        write(house, params)
        prepare.main(house, C)
        card = card_of(house)
        assert (card["mean"], card["std"], card["preprocess"]) == (MEAN, STD, "params.yaml")
        told = [line for line in capsys.readouterr().err.splitlines() if "normalization" in line]
        if not unused:
            assert ("unused_preprocess" in card, told) == (False, [])
            continue
        assert card["unused_preprocess"] == {"mean": mean, "std": pytest.approx(STD)}
        numbers = "mean = [0.25, 0.5, 0.75], std = [0.2, 0.3, 0.4]"
        rest = f"not the normalization that comes with the weights: {numbers}"
        assert told == [f"warning: classifier {C}: `preprocess` of params.yaml is used, {rest}"]


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        (MEAN, [0.0, 0.25, 0.5], r"std = \[0.0, 0.25, 0.5\]: expected finite numbers above 0"),
        (MEAN, [float("nan")] * 3, r"std = \[nan, nan, nan\]: expected finite numbers above 0"),
        ([float("nan")] * 3, STD, r"mean = \[nan, nan, nan\]: expected the mean of intensities of 0 to 1"),
        ([127.5] * 3, STD, r"mean = \[127.5, 127.5, 127.5\]: expected the mean of intensities of 0 to 1"),
    ],
)
def test_a_normalizer_in_the_file_that_cannot_be_is_told_in_one_line(house, mean, std, told):
    state = {"mean": torch.tensor(mean), "std": torch.tensor(std)}
    state |= {f"model.{name}": value for name, value in network().state_dict().items()}
    given(house, state, preprocess=False)
    with pytest.raises(UserError, match=rf"data/raw/net.pth: its own normalization: {told}") as problem:
        prepare.main(house, C)
    assert "\n" not in str(problem.value)


DRAWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        STATE

    def forward(self, x):
        return self.last(self.conv(x).relu().mean((2, 3)) * self.scale)
"""
NOT_HELD = {
    "a buffer": ('self.register_buffer("scale", torch.randn(8), persistent=False)', True),
    "a tensor": ("self.scale = torch.randn(8)", True),
    "layers in a list": ("self.layers = [nn.Linear(8, 1)]; self.scale = self.layers[0].weight.detach()", True),
    "a buffer that is held": ('self.register_buffer("scale", torch.randn(8))', False),
    "a constant": ("self.scale = torch.arange(8.0)", False),
}


@pytest.mark.parametrize("case", NOT_HELD)
def test_a_network_that_its_weights_do_not_hold_is_refused(house, case):
    state, refused = NOT_HELD[case]
    (house / "data/raw").mkdir(parents=True)
    (house / "data/raw/own.py").write_text(DRAWN.replace("STATE", state))
    made = {"__name__": "own"}
    exec((house / "data/raw/own.py").read_text(), made)
    params = given(house, made["Net"]().state_dict())
    params["classifiers"][C]["network"] = {"family": "module", "call": "data/raw/own.py:Net", "settings": {}}
    write(house, params)
    if not refused:
        prepare.main(house, C)
        return
    told = f"classifier {C}: its logits depend on numbers drawn when it is built, which its weights do not hold: make"
    with pytest.raises(UserError, match=told):
        prepare.main(house, C)
    assert not (house / "data/classifiers" / C).exists()


def test_images_of_other_channels_than_a_network_takes_are_told_in_one_line(house, monkeypatch):
    monkeypatch.setattr(adopting, "build", lambda *_, **__: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)))
    given(house, torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)).state_dict())
    told = rf"classifier {C}: its network does not take images of 3 x \d+ x \d+ \(channel, y, x\): RuntimeError: .*"
    with pytest.raises(UserError, match=told) as problem:
        prepare.main(house, C)
    assert "\n" not in str(problem.value)


def test_an_accuracy_far_below_the_sources_own_is_told(house):
    given(house, network().state_dict(), accuracy=0.76)
    prepare.main(house, C)
    assert "and the source of its weights says 76.0%: check its network, preprocess and" in card_of(house)["warning"]


@pytest.mark.parametrize(
    ("right", "images", "classes", "claimed", "doubted"),
    [
        (18, 20, 1000, 0.75, False),
        (15, 20, 1000, 0.99, True),
        (13, 20, 1000, 0.76, False),  # twenty images do not tell
        (700, 1000, 1000, 0.76, False),  # less than 10 points
        (600, 1000, 1000, 0.76, True),
        (1, 100, 10, None, True),
        (40, 100, 10, None, False),
        (7, 10, 2, None, True),
        (3, 3, 2, None, False),  # all of them: no more could be right
    ],
)
def test_what_gives_reason_to_doubt(right, images, classes, claimed, doubted):
    source = {"accuracy": claimed}
    card = {"evaluated_on": images, "accuracy": right / images, "classes": ["c"] * classes, "source": source}
    assert (prepare.doubt(card) is not None) is doubted


FAULTS = {
    "a digest of another file": (
        {"sha256": "0" * 64}, r"classifiers.resnet_vanilla.weights.sha256 = 0+, but that of .*net.pth is [0-9a-f]{64}",
    ),
    "no digest": ({"sha256": None}, r"weights.sha256 is missing; that of .*data/raw/net.pth is: [0-9a-f]{64}$"),
    "no file": ({"file": "data/raw/nowhere.pth"}, r"nowhere.pth: cannot be read \(No such file or directory\)"),
    "among what is deleted": (
        {"name": "data/classifiers/resnet_vanilla/net.pth"},
        r"weights.file = 'data/classifiers/.*': lies among what the stages make and delete; expected another",
    ),
    "no preprocessing": (
        {"preprocess": False}, "preprocess is missing, and the weights do not say how images are normalized; expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_not_adopted_leaves_everything_as_it_was(house, case):
    changes, told = FAULTS[case]
    given(house, network().state_dict(), **changes)
    before = {file: file.read_bytes() for file in (house / "data").rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=told) as problem:
        prepare.main(house, C)
    assert "\n" not in str(problem.value)
    assert before == {file: file.read_bytes() for file in (house / "data").rglob("*") if file.is_file()}


def test_a_network_of_other_classes(house):
    given(house, network(classes=7).state_dict())
    told = (
        r"net.pth: not the weights of classifiers.resnet_vanilla.network for the 10 classes of the dataset shapes: .*"
    )
    with pytest.raises(UserError, match=told + r"head\.2\.weight is \(7, 8\), expected \(10, 8\)"):
        prepare.main(house, C)


def test_a_network_whose_number_of_logits_is_its_own(house, monkeypatch):
    monkeypatch.setattr(adopting, "build", lambda *_, **__: network(classes=7))
    given(house, network(classes=7).state_dict())
    with pytest.raises(
        UserError, match="its network gives 7 logits, but the dataset shapes has 10 classes; expected one"
    ):
        prepare.main(house, C)


def test_outputs_by_sigmoid_are_told(house, monkeypatch):
    monkeypatch.setattr(adopting, "build", lambda *_, **__: Sigmoids(network()))
    given(house, {f"network.{name}": value for name, value in network().state_dict().items()})
    with pytest.raises(UserError, match=r"all from 0 to 1, .* leave out the sigmoid at the network's end$") as problem:
        prepare.main(house, C)
    assert "\n" not in str(problem.value)


class Sigmoids(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).sigmoid()


def test_outputs_that_may_be_logits_pass():
    within = torch.rand(8, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match="its outputs for 8 images are all from 0 to 1"):
        check_no_sigmoids("odd", within)
    check_no_sigmoids("odd", within[:2])  # too few to tell
    for other in (-0.01, 1.01):
        beside = within.clone()
        beside[5, 2] = other
        check_no_sigmoids("odd", beside)
    check_no_sigmoids("odd", torch.stack([-within[:, 0], within[:, 0]], 1))  # of z = 2 x, as `output: sigmoid` makes
    with pytest.raises(UserError, match="its outputs for 8 images are all from 0 to 1"):
        check_no_sigmoids("odd", torch.stack([-within[:, 0], within[:, 0]], 1) / 2)


@pytest.mark.parametrize(
    ("preprocess", "told"),
    [
        ({"mean": [0.5], "std": [0.5]}, "preprocess: mean and std of 1 and 1 channels, but the images have 3"),
        ({"mean": MEAN, "std": [0.0, 1.0, 1.0]}, r"'std' = \[0.0, 1.0, 1.0\]: expected each more than 0"),
        ({"mean": MEAN}, "the setting 'std' is missing"),
        (
            {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]},
            r"resnet_vanilla.preprocess: mean = \[123.7, .*: expected the mean of intensities of 0 to 1; of 0 to 255",
        ),
    ],
)
def test_a_preprocessing_that_does_not_suit(house, preprocess, told):
    params = given(house, network().state_dict())
    params["classifiers"][C]["preprocess"] = preprocess
    write(house, params)
    with pytest.raises(UserError, match=told):
        prepare.main(house, C)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": None}, "resnet_vanilla: expected exactly one of train and weights, got neither"),
        ({"weights": {"file": "a.pth"}}, "expected exactly one of train and weights, got train and weights"),
        ({"train": None, "weights": {}}, "weights = {}: expected a mapping of names, got an empty one"),
        ({"train": None, "weights": {"sha256": "0" * 64}}, "weights: expected exactly one of file and tag, got none"),
        ({"train": None, "weights": {"file": "a", "tag": "b"}}, "exactly one of file and tag, got file and tag"),
        (
            {"train": None, "weights": {"file": "a", "sha": "b"}},
            "weights: unknown setting 'sha' = 'b'. Accepted by adop",
        ),
        ({"train": None, "weights": {"file": "a", "sha256": "xyz"}}, "sha256 = 'xyz': expected 64 hexadecimal digits"),
        (
            {"train": None, "weights": {"file": "a", "accuracy": 76}},
            "'accuracy' = 76.0: expected at least 0 and at mos",
        ),
        (
            {"preprocess": {"mean": MEAN, "std": STD}},
            "preprocess = .*: a classifier trained here is normalized by statist",
        ),
    ],
)
def test_what_an_entry_must_not_say(tmp_path, changes, told):
    params = tiny()
    params["classifiers"][C] |= changes
    write(tmp_path, params)
    with pytest.raises(UserError, match=told):
        load(tmp_path)


OWN = """
from pathlib import Path
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 10)

    def forward(self, images):
        {}
        return self.last(images.mean((2, 3)))
"""


READING = "images = images * float(Path(__file__).with_name('scale.txt').read_text())"


def of_own(house, line):
    """Have the classifier be a network of the user's own: in what `forward` runs is a line more."""
    torch.manual_seed(0)
    last = torch.nn.Linear(3, 10)
    params = given(house, {f"last.{name}": value for name, value in last.state_dict().items()})
    params["classifiers"][C]["network"] = {"family": "module", "call": "data/raw/net.py:Net"}
    write(house, params)
    (house / "data/raw/net.py").write_text(OWN.format(line))
    (house / "data/raw/scale.txt").write_text("2")


def test_a_file_that_no_key_holds_is_not_read_while_the_network_runs(house):
    of_own(house, READING)
    told = (
        r"reads .*scale.txt, which its key does not hold: have .*net.py take what is in it as a setting of its network"
    )
    with pytest.raises(UserError, match=told) as raised:
        prepare.main(house, C)
    assert "FILES" not in str(raised.value)
    of_own(house, "images = images * len(Path(__file__).read_text())")
    prepare.main(house, C)


def test_a_network_that_is_trained_here_reads_nothing_else_either(house, monkeypatch):
    """That is told before it is trained."""
    done = []
    monkeypatch.setattr(training, "fit", lambda *_, **__: done.append("fit"))
    for line, passes in ((READING, False), ("images = images * len(Path(__file__).read_text())", True)):
        of_own(house, line)
        params = tiny()
        params["classifiers"][C]["network"] = {"family": "module", "call": "data/raw/net.py:Net"}
        write(house, params)
        with (
            pytest.raises(UserError, match=r"reads .*scale.txt, .*have .*net.py take") if not passes else nullcontext()
        ):
            prepare.main(house, C)
        assert done == (["fit"] if passes else [])


def test_what_a_key_holds_is_read_by_the_network_of_a_method_s_call(house):
    of_own(house, "images = images * len(Path(__file__).read_text())")
    prepare.main(house, C)
    folder, params = house / "data/classifiers" / C, load(house)
    found = loading.load(folder, C, params["classifiers"][C]["network"], params["engine"], building)
    images = torch.rand(2, 3, 32, 32)
    given = {"classifier": found, "images": images, "targets": torch.tensor([0, 1])}
    gradient = entries(params, "methods")["gradient"]["gradient"]
    assert calls.attributions(gradient, given).shape == images.shape
    # What is read while a network is traced is a constant from then on.
    (house / "data/raw/net.py").write_text(OWN.format(f"if images.sum() > 0: {READING}"))
    found = loading.load(folder, C, params["classifiers"][C]["network"], params["engine"], building)
    with pytest.raises(
        UserError, match=r"gradient reads .*scale.txt, .*: have .*net.py take what is in it as"
    ) as raised:
        calls.attributions(gradient, {**given, "classifier": found})
    assert "FILES" not in str(raised.value)


@pytest.fixture
def known(house, tmp_path, monkeypatch):
    """A house whose classifier DVC's cache holds; what is adopted and evaluated from now on is listed."""
    params = given(house, network().state_dict())
    prepare.main(house, C)
    kept = shutil.copytree(house / "data/classifiers" / C, tmp_path / "kept")
    monkeypatch.setattr(prepare, "recorded", lambda *_: kept)
    done, own, evaluated = [], adopting.adopt, prepare.evaluated
    monkeypatch.setattr(adopting, "adopt", lambda *given: done.append("adopt") or own(*given))
    monkeypatch.setattr(prepare, "evaluated", lambda *given: done.append("evaluated") or evaluated(*given))
    return house, params, done


def test_what_did_not_change_is_not_read_again_even_if_the_file_is_gone(known):
    house, params, done = known
    params["classifiers"][C]["images"] = {"count": 3}
    params["classifiers"][C]["grids"] = None
    write(house, params)
    (house / "data/raw/net.pth").unlink()
    prepare.main(house, C)
    assert done == []


def test_another_file_or_another_preprocessing_is_adopted_and_evaluated(known):
    house, params, done = known
    params["classifiers"][C]["preprocess"] = {"mean": MEAN, "std": [0.5, 0.5, 0.5]}
    write(house, params)
    prepare.main(house, C)
    assert done == ["adopt", "evaluated"]
    done.clear()
    given(house, network(seed=1).state_dict())
    prepare.main(house, C)
    assert done == ["adopt", "evaluated"]
    assert card_of(house)["accuracy"] == pytest.approx(accuracy(house, network(seed=1)))
