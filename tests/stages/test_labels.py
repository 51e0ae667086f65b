"""Several labels an image, each by a sigmoid: a row is of one label, read as two classes with the logits 0 and z."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from torch import nn

from atlas.inputs.audit.building import building
from atlas.model.attacks import accuracy
from atlas.model.comparing import compared
from atlas.model.loading import build
from atlas.model.outputs import selected
from atlas.report.images.gallery import Predicted
from atlas.report.sections.inputs import predicted
from atlas.report.template import environment
from atlas.share import open_maps
from atlas.statistics.units import units
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import find, load
from atlas.study.schema.signatures import signature
from atlas.study.seeds import generator
from atlas.study.study import Study
from stages import aggregate, attribute, collect, predict, prepare, score, select, tile
from tests.support.every import EVERY
from tests.support.metrics import (
    FAMILIES,
    HEIGHT,
    MEAN,
    SLOW,
    STD,
    WIDTH,
    call,
    make_classifier,
    make_inputs,
    network,
)
from tests.support.reference import stability as slow
from tests.support.scores import read
from tests.support.study import tiny, write

LABEL = 2  # of four


def of_several():
    """A classifier of four labels."""
    return make_classifier(selected(network(), "sigmoids"))


def of_two():
    """The classifier of one of them and its absence: a softmax over the logits 0 and z."""
    made = network()
    head, alone = made.head[2], nn.Linear(8, 2)
    with torch.no_grad():
        alone.weight.copy_(torch.stack([torch.zeros(8), head.weight[LABEL]]))
        alone.bias.copy_(torch.stack([torch.zeros(()), head.bias[LABEL]]))
    made.head[2] = alone
    return make_classifier(made)


@pytest.fixture
def images():
    return torch.rand(6, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))


def test_a_probability_is_the_sigmoid_of_its_logit(images):
    several, two = of_several(), of_two()
    logits = several.logits(images)
    assert torch.equal(several.probabilities(images), logits.sigmoid())
    torch.testing.assert_close(several.probabilities(images)[:, LABEL], two.probabilities(images)[:, 1])
    targets = torch.full((6,), LABEL)
    assert torch.equal(several.task.right(logits, targets), logits[:, LABEL] >= 0)
    about = {"mean": [0.5] * 3, "std": [0.25] * 3, "engine": several._engine}
    assert compared("any", selected(network(), "sigmoids"), images, **about)["runs"] == "fast"


@pytest.mark.parametrize("output", ["logit", "probability", "loss"])
def test_what_is_explained_is_of_the_label_alone(images, output):
    several, two = of_several(), of_two()
    found = several.gradient(images, torch.full((6,), LABEL), output)
    due = two.gradient(images, torch.ones(6, dtype=torch.long), output)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bound", EVERY, ids=lambda one: one.name)
def test_every_method_explains_the_label_as_one_of_two_classes(bound):
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    found = []
    for classifier, target in ((of_several(), LABEL), (of_two(), 1)):
        inputs = {
            "classifier": classifier,
            "images": images,
            "targets": torch.full((3,), target),
            "seeds": [11, 12, 13],
            "background": images.flip(0, 3),
        }
        asked = signature("methods", bound.family, bound.function).inputs
        try:
            method = find("methods", bound.family, bound.function)
            found.append(method(*(inputs[name] for name in asked), **bound.settings))
        except Unsupported as reason:
            found.append(str(reason))
    if isinstance(found[0], str):
        assert found[0] == found[1]
    else:
        torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


NOISY = {"samples": 4, "noise": "uniform", "scale": 0.4}
SETTINGS = {
    "coherency": {"fill": "mean"},
    "adcc": {"fill": "mean"},
    "max_sensitivity": NOISY,
    "relative_input_stability": {**NOISY, "floor": 0.01},
    "relative_representation_stability": {**NOISY, "floor": 0.01, "layer": "final"},
    "relative_input_stability_quantus": {"samples": 2, "low": 0.02, "high": 0.2},
    **{name: settings for name, (settings, _) in SLOW.items()},
}
# Asked of all logits, not of the target's: of another class, of new weights, of the distance of logits, of all images.
# Each has a test of its own below.
APART = ("random_logit", "model_randomization", "relative_output_stability", "sufficiency")
JUDGED = [
    (family, name)
    for family, names in FAMILIES.items()
    for name in names
    if "classifier" in signature("metrics", family, name).inputs and name in SETTINGS and name not in APART
]


@pytest.mark.parametrize(("family", "name"), JUDGED, ids=[name for _, name in JUDGED])
def test_every_metric_judges_the_label_as_one_of_two_classes(family, name):
    inputs, found = make_inputs(12), []
    for classifier, target in ((of_several(), LABEL), (of_two(), 1)):
        targets = torch.full((12,), target)
        given = {**inputs, "classifier": classifier, "targets": targets, "all_targets": targets}
        found.append(call(family, name, SETTINGS[name], given))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4, equal_nan=True)
    assert not found[0].isnan().all()


def by_hand(net, image, target):
    """Return the map of one image by a bare network: the gradient of the label's sigmoid, its channels summed."""
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
    image = image.clone().requires_grad_()
    net(((image - mean) / std)[None])[0, target].sigmoid().backward()
    return image.grad.abs().sum(dim=0)


def by_gradient(classifier, images, targets, seeds, alone=False):
    return classifier.gradient(images, targets, "probability").abs().sum(dim=1)


class Alone:
    """One image and label, on the bare network: `logits` are all of them, `agrees` is about the label alone."""

    std = np.float32(STD)

    def __init__(self, target):
        self.net, self.target = network().eval(), target

    def map(self, image, seed):
        return by_hand(self.net, torch.from_numpy(np.float32(image)), self.target).numpy()

    def logits(self, image):
        mean, std = (torch.tensor(one).view(3, 1, 1) for one in (MEAN, STD))
        return self.net(((torch.from_numpy(np.float32(image)) - mean) / std)[None])[0].detach().numpy()


def relative_output(one, image, seed, witness, samples, noise, scale, floor):
    """Return the largest relative change of the map per change of all logits, where the label stays as it is."""
    clean, found = witness.logits(image), []
    for noisy in slow.noisy_samples(image, seed, witness.std, samples, noise, -scale, scale):
        logits = witness.logits(noisy)
        if (logits[witness.target] >= 0) == (clean[witness.target] >= 0):
            found.append(slow.change(one, witness.map(noisy, seed), floor) / slow.norm(clean - logits))
    return max(found, default=np.nan)


@pytest.fixture
def labelled():
    """Nine images with a label each, and their maps."""
    inputs = make_inputs(rows=9)
    targets = torch.arange(9) % 4
    given = {**inputs, "classifier": of_several(), "targets": targets, "explain": by_gradient}
    return {**given, "maps": by_gradient(given["classifier"], inputs["images"], targets, inputs["seeds"])}


def test_output_stability_is_by_all_logits_where_the_label_stays(labelled):
    """The formula in loops: another label may come or go."""
    settings = {"samples": 6, "noise": "uniform", "scale": 1.5, "floor": 0.05}
    scores = call("stability", "relative_output_stability", settings, labelled)
    rows, of_largest = [], []
    for row in range(9):
        witness = Alone(int(labelled["targets"][row]))
        given = (
            labelled["maps"][row].numpy(),
            labelled["images"][row].numpy(),
            labelled["seeds"][row],
            witness,
        )
        rows.append(relative_output(*given, **settings))
        of_largest.append(slow.relative_output_stability(*given, **settings))
    torch.testing.assert_close(scores, torch.tensor(rows).float(), rtol=5e-4, atol=1e-6, equal_nan=True)
    assert np.isfinite(rows).sum() > 5
    assert not np.allclose(rows, of_largest, rtol=1e-2, equal_nan=True)


@pytest.mark.parametrize("order", ["cascading", "independent"])
def test_a_redrawn_network_is_read_by_sigmoids_too(labelled, order):
    """The formula in loops."""
    settings = {"parts": 2, "order": order, "similarity": "spearman", "seed": 4}
    curves = call("randomization", "model_randomization", settings, labelled)
    last, first = ["features.2", "head.2"], ["features.0"]
    nets = [network().eval(), redrawn(last), redrawn([*last, *first] if order == "cascading" else first)]
    for row in range(9):
        given = labelled["images"][row], int(labelled["targets"][row])
        maps = [by_hand(net, *given) for net in nets]
        expected = [slow.spearman(labelled["maps"][row].numpy(), one.numpy()) for one in maps]
        torch.testing.assert_close(curves[row], torch.tensor(expected).float(), rtol=0, atol=2e-3)
    assert (curves[:, 1:] < 0.99).all()


def redrawn(names):
    """Return the bare network with new parameters in some of its modules."""
    made = network().eval()
    for name in names:
        torch.manual_seed(generator(4, f"parameters of {name}").initial_seed())
        made.get_submodule(name).reset_parameters()
    return made


def test_no_class_is_that_of_an_image_of_several_labels():
    inputs = {**make_inputs(12), "classifier": of_several()}
    with pytest.raises(Unsupported, match=r"^its images may have several labels: whether two are of the same class"):
        call("faithfulness_regions", "sufficiency", {"threshold": 0.6}, inputs)


def test_there_is_no_other_class_for_an_image_of_several_labels():
    inputs = {**make_inputs(12), "classifier": of_several()}
    with pytest.raises(Unsupported, match=r"another label may be one that the image has too$"):
        call("randomization", "random_logit", SETTINGS.get("random_logit", {"similarity": "spearman"}), inputs)


def test_accuracy_is_the_share_of_labels_that_are_found():
    several, pixels = of_several(), torch.randint(256, (40, 3, HEIGHT, WIDTH), generator=torch.manual_seed(1))
    labels = torch.arange(40) % 4
    found = accuracy(several, [(pixels[:25], labels[:25]), (pixels[25:], labels[25:])])
    logits = several.logits(pixels / 255)
    due = (logits.gather(1, labels[:, None]) >= 0).float().mean().item()
    assert 0 < due < 1
    assert found["accuracy"] == pytest.approx(due)
    assert "top5" not in found
    assert found["accuracy"] != pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_sigmoids_come_last(monkeypatch):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, images):
            return {"logits": self.inner(images)}

    from atlas.model import loading

    monkeypatch.setattr(loading, "find", lambda *which: lambda **settings: Wrapped())
    entry = {"family": "module", "call": "x.py:y", "output": ["logits", "sigmoids"]}
    classifier = make_classifier(build(entry, classes=4, watch=building))
    assert classifier.task.several
    assert classifier.altered(lambda network: None).task.several
    entry["output"] = ["sigmoids", "logits"]
    with pytest.raises(UserError, match=r"^params\.yaml: network\.output = .*: expected 'sigmoids' last$"):
        build(entry, classes=4, watch=building)


NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, classes)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)))
"""
CLASSES = ["cat", "dog", "owl"]


@pytest.fixture
def study(tmp_path):
    """A study of ten pictures, each with two of three labels, and of a network that gives several."""
    raw = tmp_path / "data/raw/photos"
    raw.mkdir(parents=True)
    draws, rows = np.random.default_rng(0), ["id,path,label"]
    for number in range(10):
        Image.fromarray(draws.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(raw / f"{number}.png")
        both = [CLASSES[number % 3], CLASSES[(number + 1) % 3]]
        rows += [f"{number}/{label},{number}.png,{label}" for label in both]
    (raw / "labels.csv").write_text("\n".join(rows) + "\n")
    (raw / "names.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "net.py").write_text(NET)
    own: dict = {}
    exec(NET, own)
    torch.manual_seed(0)
    net = own["Net"](classes=3)
    images = torch.stack([torch.from_numpy(np.array(Image.open(raw / f"{n}.png"))) for n in range(10)])
    images = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        net.head.weight *= 20
        net.head.bias -= net(images).mean(0)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    params = tiny()
    params["datasets"] = {
        "photos": {"family": "table", "path": "data/raw/photos", "file": "labels.csv", "classes": "names.txt"}
    }
    params["classifiers"] = {
        "net": {
            "dataset": "photos",
            "network": {"family": "module", "call": "net.py:Net", "settings": {"classes": 3}, "output": "sigmoids"},
            "weights": {"file": "net.pth", "sha256": hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()},
            "preprocess": {"mean": [0.5] * 3, "std": [0.25] * 3},
            "images": {"correct_by": ["net"], "background": 2},
        }
    }
    methods = {"gradient": {"sign": "both", "output": "probability", "layer": "input", "channels": "sum"}}
    params["methods"] = {"gradient": methods}
    params["metrics"] = {"faithfulness": {"deletion": {"pixels": 64, "baseline": "black", "relative": False}}}
    return tmp_path, params, net.eval(), images


def test_a_study_of_several_labels(study):
    """A row a label, from the table to the scores; a label is right where its probability is at least a half."""
    study, params, net, images = study
    write(study, params)
    collect.main(study, "photos")
    for stage in (prepare, predict, select, tile):
        stage.main(study, "net")
    attribute.main(study, "net", "gradient")
    score.main(study, "net", "gradient")
    predictions = zarr.open_group(study / "data/predictions/net.zarr", mode="r")
    ids, labels = predictions["image"][:].tolist(), predictions["label"][:]
    assert ids[:4] == ["0/cat", "0/dog", "1/dog", "1/owl"]
    pictures = torch.tensor([int(one.partition("/")[0]) for one in ids])
    due = net(images)[pictures].sigmoid()[torch.arange(20), torch.from_numpy(labels)].detach().numpy()
    assert predictions.attrs["several"] is True
    np.testing.assert_allclose(predictions["probability"][:], due, atol=1e-5)
    assert predicted(Study(study), "net", ids[:1])[ids[0]].several
    right = due >= 0.5
    assert 0 < right.sum() < 20
    card = json.loads((study / "data/classifiers/net/card.json").read_text())
    assert card["accuracy"] == pytest.approx(right.mean())
    assert "warning" not in card
    chosen = zarr.open_group(study / "data/images/net.zarr/images", mode="r")
    background = zarr.open_group(study / "data/images/net.zarr/background", mode="r")["image"][:].tolist()
    reserved = {one.partition("/")[0] for one in background}  # as are other labels of these pictures
    due = {one for one, good in zip(ids, right, strict=True) if good and one.partition("/")[0] not in reserved}
    assert len(background) == 2
    assert set(chosen["image"][:].tolist()) == due
    numbers = {one: at for at, one in enumerate(dict.fromkeys(one.partition("/")[0] for one in chosen["image"][:]))}
    numbered = [numbers[one.partition("/")[0]] for one in chosen["image"][:]]
    assert 1 < len(numbers) < len(numbered)
    assert chosen["picture"][:].tolist() == numbered
    found, _, _ = aggregate.read_scores(Study(study))
    assert found[0].scores["picture"].values.tolist() == numbered
    assert len(units(found[0].scores.isel(fraction=0))) == len(numbers)
    maps = open_maps("net", "gradient", study=study)
    row = ids.index(maps.image.values[0])
    seen = images[pictures[row]][None].requires_grad_()
    net(seen)[0, labels[row]].sigmoid().backward()
    torch.testing.assert_close(torch.tensor(maps.values[0]), seen.grad[0].sum(0) / 0.25, rtol=1e-3, atol=1e-6)
    scores = read(study / "data/scores/net/gradient.zarr", "deletion")
    assert np.isfinite(scores["score"]).all()


def test_the_report_says_which_label_is_below_a_half():
    """Another label may be more probable: that is no mistake."""
    panel = {"classifier": "net", "image": "0/cat", "target": "cat", "fine": False, "tiles": [], "channels": 3}
    told = []
    for cat in (0.6, 0.4):
        said = Predicted("cat", cat, [("dog", 0.9), ("cat", cat)], several=True)
        panels = [{**panel, "picture": SimpleNamespace(width=8, height=8), "predicted": said}]
        page = environment().get_template("gallery.html.j2")
        text = page.render(panels=panels, enlarged=lambda _: "", ramps=["", ""], brightest="")
        assert "not the label" not in text
        told.append("below a half" in text)
    assert told == [False, True]


REFUSED = {
    "grids": (
        {"grids": {"tiles_per_side": 2, "confidence_at_least": 0.5, "count": 2}},
        r"net\.grids: its network's output = 'sigmoids' gives several labels per image; expected null: a tile may also",
    ),
    "the prediction": (
        {"images": {"target": "prediction"}},
        r"net\.images\.target = 'prediction': .* expected 'label': a row is of one label$",
    ),
    "training": (
        {"weights": None, "preprocess": None},
        r"net\.train: .*, which are not trained here; expected weights$",
    ),
}


@pytest.mark.parametrize(("changed", "told"), REFUSED.values(), ids=REFUSED)
def test_what_needs_one_class_an_image_is_refused(study, changed, told):
    study, params, *_ = study
    if "weights" in changed:
        changed = {**changed, "train": tiny()["classifiers"]["resnet_vanilla"]["train"]}
    params["classifiers"]["net"].update(changed)
    write(study, params)
    with pytest.raises(UserError, match=rf"^params\.yaml: classifiers\.{told}"):
        load(study)


def test_a_picture_has_one_row_for_each_id(study):
    """Without ids of their own two labels of a picture are a mistake."""
    study, params, *_ = study
    table = study / "data/raw/photos/labels.csv"
    table.write_text("\n".join(line.partition(",")[2] for line in table.read_text().splitlines()))
    write(study, params)
    with pytest.raises(UserError, match=r"line 3: label = 'dog'; a row above says 'cat' of the same path"):
        collect.main(study, "photos")
