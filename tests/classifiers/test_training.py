"""Training: the same weights twice, attacks inside their ball, a card in which nothing varies."""

import json
import shutil
import tracemalloc
from functools import partial
from itertools import permutations, product

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from atlas.cache.stores import write as write_store
from atlas.classifiers import training
from atlas.classifiers.augmentation import augmented, check_recipe
from atlas.datasets.shapes import shapes
from atlas.inputs import splits
from atlas.model import attacks
from atlas.model.classifier import Classifier
from atlas.model.runtime import start
from atlas.networks.residual import Residual, small_resnet
from atlas.study.errors import UserError
from atlas.study.seeds import generator
from atlas.study.study import Study
from stages import collect, prepare
from tests.support.study import tiny, write

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 16}
RECIPE = {
    "epochs": 2,
    "batch": 8,
    "learning_rate": 0.05,
    "weight_decay": 5e-4,
    "shift": 2,
    "mirror": True,
    "exchanged": [0, 1, 2],
    "adversarial_start": 0.5,
}
ADVERSARY = {"norm": "l2", "epsilon": 1.0, "steps": 1, "step_size": 1.0}
BALLS = [("l2", 1.5, 0.5), ("linf", 0.05, 0.02)]


@pytest.fixture(scope="module")
def data():
    settings = {"side": [0.4, 0.6], "pair": 0.1, "pair_side": [0.3, 0.4], "large": 0.1, "large_side": [0.76, 0.9]}
    drawn = shapes(train=24, test=0, size=32, seed=0, turn=30, cuts=3, chroma=0.7, texture=0.2, grain=0.02, **settings)
    samples = list(drawn.pictures)
    pixels = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return pixels, torch.tensor([sample.label for sample in samples])


def trained(data, seed=0, **changes):
    start(ENGINE)
    torch.manual_seed(0)
    network = small_resnet(classes=10, widths=[8, 8], blocks=1)
    mean, std = training.moments([data[0].numpy()], "shapes")
    training.fit(
        network, data[0].numpy().__getitem__, data[1], seed, mean, std, **{**RECIPE, "adversary": None, **changes}
    )
    return network, mean, std


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("adversary", [None, ADVERSARY], ids=["plain", "adversarial"])
def test_two_trainings_give_the_same_weights(data, adversary):
    first, second = (trained(data, adversary=adversary)[0] for _ in range(2))
    assert equal(first, second)
    assert not first.training


def test_seed_and_adversary_change_the_weights(data):
    plain = trained(data)[0]
    assert not equal(plain, trained(data, seed=1)[0])
    assert not equal(plain, trained(data, adversary=ADVERSARY)[0])


def test_an_adversary_that_begins_after_the_end_changes_nothing(data):
    assert equal(trained(data)[0], trained(data, adversary=ADVERSARY, adversarial_start=1.0)[0])


def test_a_misspelt_setting_of_the_adversary_is_an_error(data):
    with pytest.raises(TypeError, match="stepsize"):
        trained(data, adversary={**ADVERSARY, "stepsize": 1.0})


def test_training_lowers_the_loss(data):
    network, mean, std = trained(data, epochs=12)
    torch.manual_seed(0)
    fresh = small_resnet(classes=10, widths=[8, 8], blocks=1)
    images = data[0].float().div(255)
    losses = []
    for one in (fresh, network):
        classifier = Classifier("tiny", one, mean=mean, std=std, engine=ENGINE)
        losses.append(nn.functional.cross_entropy(classifier.logits(images), data[1]))
    assert losses[1] < losses[0]


@pytest.mark.parametrize(("norm", "epsilon", "step_size"), BALLS)
def test_attacks_stay_in_the_ball_and_in_the_range_and_raise_the_loss(data, norm, epsilon, step_size):
    network, mean, std = trained(data)
    classifier = Classifier("tiny", network, mean=mean, std=std, engine=ENGINE)
    images, targets = data[0].float().div(255), data[1]
    settings = {"norm": norm, "epsilon": epsilon, "steps": 5, "step_size": step_size}
    before = images.clone()
    attacked = attacks.attack(
        partial(classifier.gradient, output="loss"), images, targets, generator(0, "test"), **settings
    )
    change = (attacked - images).flatten(1)
    radius = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
    assert radius.max() <= epsilon * (1 + 1e-5)
    assert radius.min() > 0.5 * epsilon
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert torch.equal(images, before)
    losses = [nn.functional.cross_entropy(classifier.logits(x), targets, reduction="none") for x in (images, attacked)]
    assert (losses[1] > losses[0]).float().mean() > 0.9


@pytest.mark.parametrize(("norm", "epsilon", "step_size"), BALLS)
def test_on_a_linear_loss_the_attack_ends_where_the_ball_does(norm, epsilon, step_size):
    """Ascent on w · x: the closed form is ε w / |w| in L2 and ε sign(w) in Linf, far from the ends of the range."""
    images = torch.full((2, 3, 8, 8), 0.5)
    weights = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = {"norm": norm, "epsilon": epsilon, "steps": 60, "step_size": step_size}
    ascent = attacks.attack(lambda *_: weights, images, torch.zeros(2).long(), generator(0, "test"), **settings)
    length = weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = epsilon * (weights / length if norm == "l2" else weights.sign())
    torch.testing.assert_close(ascent - images, expected, atol=2e-3, rtol=0)


def test_augmentation_moves_and_mirrors_pixels_and_invents_none(data):
    """Without a shift every image keeps its values: channels, rows and columns only change places."""
    pixels = data[0]
    images = augmented(pixels, generator(0, "test"), shift=0, mirror=True, exchanged=[0, 1, 2])
    sorted_values = [values.flatten(1).sort(dim=1).values for values in (images, pixels.float().div(255))]
    assert torch.equal(*sorted_values)
    assert not torch.equal(images, pixels.float().div(255))
    shifted = [augmented(pixels, generator(0, "test"), shift=4, mirror=True, exchanged=[0, 1, 2]) for _ in range(2)]
    assert shifted[0].shape == pixels.shape
    assert torch.equal(*shifted)


@pytest.mark.parametrize("side", [(7, 9), (9, 7), (8, 8)])
@pytest.mark.parametrize(("channels", "exchanged"), [(1, []), (3, [2, 0]), (4, [0, 1, 2]), (4, [])])
def test_augmentation_of_any_sides_and_channels(side, channels, exchanged):
    """Every pixel of an augmented image is that of one place of the image, found by rules spelled out anew."""
    pixels = torch.randint(0, 256, (40, channels, *side), generator=torch.Generator().manual_seed(0)).byte()
    images = augmented(pixels, generator(0, "test"), shift=2, mirror=True, exchanged=exchanged)
    assert images.shape == pixels.shape
    seen = set()
    for one, given in zip(images.mul(255).round().byte().numpy(), pixels.numpy(), strict=True):
        padded = np.pad(given, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        found = set()
        for down, right, mirrored, order in product(range(5), range(5), (False, True), permutations(exchanged)):
            moved = padded[:, down : down + side[0], right : right + side[1]][:, :, :: -1 if mirrored else 1].copy()
            moved[exchanged] = moved[list(order)]
            if (moved == one).all():
                found.add((down, right, mirrored, order))
        assert len(found) == 1
        seen |= found
    assert {mirrored for _, _, mirrored, _ in seen} == {False, True}
    assert len({order for *_, order in seen}) == len(list(permutations(exchanged)))
    assert len({(down, right) for down, right, *_ in seen}) > 15


def test_no_augmentation_leaves_images_as_they_are(data):
    plain = augmented(data[0], generator(0, "test"), shift=0, mirror=False, exchanged=[])
    assert torch.equal(plain, data[0].float().div(255))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch": 25}, "batch = 25, but there are 24 training images"),
        ({"shift": 32}, "shift = 32; expected less than 32, the images' lesser side"),
        ({"exchanged": [0, 3]}, r"exchanged = \[0, 3\]; expected different channels of the images, 0 to 2, or \[\]"),
        ({"exchanged": [1, 1]}, r"exchanged = \[1, 1\]; expected different channels"),
        ({"exchanged": [-1, 1]}, r"exchanged = \[-1, 1\]; expected different channels"),
    ],
)
def test_a_recipe_that_the_images_do_not_suit(changes, told):
    with pytest.raises(UserError, match=f"params.yaml: classifiers.c.train: {told}"):
        check_recipe({**RECIPE, **changes}, (24, 3, 32, 48), "classifiers.c.train")


@pytest.mark.parametrize("channels", [1, 4])
def test_training_on_images_that_are_not_square_nor_of_three_channels(channels):
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, channels, 12, 20), generator=draws).byte().numpy()
    features, head = nn.Conv2d(channels, 2, 3), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    recipe = {**RECIPE, "exchanged": [], "adversary": ADVERSARY}
    moments = training.moments([pixels], "shapes")
    training.fit(nn.Sequential(features, head), pixels.__getitem__, torch.arange(16) % 2, 0, *moments, **recipe)
    assert features.weight.isfinite().all()


def test_a_channel_that_is_the_same_everywhere():
    pixels = torch.randint(0, 256, (4, 4, 6, 8)).byte()
    pixels[:, 3] = 255
    with pytest.raises(
        UserError, match="dataset shapes: channel 3 has the value 255 in all pixels of all training images; expected"
    ):
        training.moments([pixels.numpy()], "shapes")


def test_fewer_images_than_a_batch(study, tmp_path):
    params = tiny()
    params["classifiers"]["resnet_vanilla"]["train"]["batch"] = 65
    house = shutil.copytree(study, tmp_path / "house")
    write(house, params)
    with pytest.raises(
        UserError, match=r"classifiers.resnet_vanilla.train: batch = 65, but there are 64 training images"
    ):
        prepare.main(house, "resnet_vanilla")


def test_moments_are_those_of_the_intensities(data):
    pixels = data[0].numpy()
    mean, std = training.moments([pixels], "shapes")
    values = pixels / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3), ddof=1), rtol=1e-13)
    for size in (1, 7):
        assert training.moments((pixels[at : at + size] for at in range(0, len(pixels), size)), "shapes") == (mean, std)


@pytest.fixture
def large(tmp_path):
    """A training split of 300 images of noise, 8 MB of pixels, among held-out images."""
    draw = np.random.default_rng(0)
    arrays = {
        "pixels": (("image", "channel", "y", "x"), draw.integers(0, 256, (400, 3, 96, 96)).astype("uint8")),
        "label": (("image",), draw.integers(0, 3, 400)),
        "split": (("image",), np.array(["train", "train", "test", "train"] * 100)),
    }
    write_store(tmp_path / "data/datasets/large.zarr", {"": arrays}, {"classes": ["a", "b", "c"]})
    return splits.split(Study(tmp_path, {}), "large", "train")


def test_training_holds_as_many_images_as_are_allowed_and_gives_the_same_weights(large, monkeypatch):
    """What Python and NumPy hold at most is counted: few of 300 images, or none."""
    network = {"family": "residual", "function": "small_resnet", "widths": [2], "blocks": 1}
    recipe = {**RECIPE, "epochs": 1, "batch": 20, "adversary": None}
    params = {"seed": 0, "engine": ENGINE, "classifiers": {"c": {"network": network, "train": recipe}}}
    each = int(np.prod(large.shape))
    monkeypatch.setattr(splits, "READ_BYTES", 8 * each)
    monkeypatch.setattr(training, "compared", lambda *_, **about: None)  # it looks at one image
    expected = training.trained(Study(".", params), "c", large)
    for held in (40, 0):
        monkeypatch.setattr(splits, "CACHED_BYTES", held * each)
        tracemalloc.start()
        try:
            assert training.trained(Study(".", params), "c", large) == expected
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert held * each < peak < (held + 120) * each


@pytest.mark.parametrize("held", [0, 5, 17, 300])
def test_images_that_are_held_and_those_that_are_read_come_in_the_order_asked(large, monkeypatch, held):
    monkeypatch.setattr(splits, "CACHED_BYTES", held * int(np.prod(large.shape)) + 1)
    pixels, cached = large.pixels(), large.cached()
    for positions in (np.array([16, 299, 4, 5, 16, 17]), np.array([3, 1]), np.arange(100, 110)):
        np.testing.assert_array_equal(cached(positions), pixels[positions])


def test_judged_counts_what_a_perfect_and_a_constant_classifier_get_right(data):
    """A network that always says class 3 is right where the label is 3, attacked or not."""
    network = small_resnet(classes=10, widths=[8, 8], blocks=1)
    nn.init.zeros_(network.head[2].weight)
    network.head[2].bias.data = torch.eye(10)[3]
    constant = Classifier("constant", network, mean=[0.5] * 3, std=[0.2] * 3, engine=ENGINE)
    settings = {"norm": "linf", "epsilon": 0.03, "steps": 1, "step_size": 0.03}
    parts = [(pixels, labels) for pixels, labels in zip(data[0].split(7), data[1].split(7), strict=True)]
    card = attacks.accuracy(constant, parts) | attacks.attacked(constant, *data, 0, count=12, **settings)
    assert card["accuracy"] == pytest.approx(float((data[1] == 3).double().mean()))
    assert card["adversarial_accuracy"] == pytest.approx(float((data[1][:12] == 3).double().mean()))
    assert (card["evaluated_on"], card["attacked"], card["adversary"]) == (24, 12, settings)


def test_networks_end_at_an_eighth_and_share_no_relu():
    network = small_resnet(classes=10, widths=[16, 32, 48], blocks=2).eval()
    assert [name for name, _ in network.named_children()] == ["features", "head"]
    assert network.features(torch.zeros(1, 3, 64, 64)).shape == (1, 48, 8, 8)
    blocks = [layer for layer in network.modules() if isinstance(layer, Residual)]
    assert len(blocks) == 6
    relus = [layer for layer in network.modules() if isinstance(layer, nn.ReLU)]
    assert len(relus) == 1 + 2 * len(blocks)
    assert not any(relu.inplace for relu in relus)
    hits = []
    for relu in relus:
        relu.register_forward_hook(lambda layer, *_: hits.append(id(layer)))
    network(torch.zeros(1, 3, 64, 64))
    assert sorted(hits) == sorted(map(id, relus))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    house = tmp_path_factory.mktemp("train")
    write(house, tiny())
    collect.main(house, "shapes")
    return house


fit = training.fit


def first_classifier(study):
    return next(iter(yaml.safe_load((study / "params.yaml").read_text())["classifiers"]))


def test_nothing_on_the_card_or_in_the_folder_varies(study):
    name = first_classifier(study)
    folder = study / "data" / "classifiers" / name
    runs = []
    for _ in range(2):
        prepare.main(study, name)
        runs.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert runs[0] == runs[1]
    assert set(runs[0]) == {"card.json", "weights.safetensors"}
    card = json.loads(runs[0]["card.json"])
    assert {"name", "dataset", "classes", "network", "recipe", "image", "mean", "std"} < set(card)
    assert {"accuracy", "adversarial_accuracy", "adversary", "trained_on", "evaluated_on", "attacked"} < set(card)
    assert not [file for file in folder.parent.iterdir() if file.name.startswith(".")]


@pytest.fixture
def known(study, tmp_path, monkeypatch):
    """A house, and its classifier as DVC's cache holds it; what is trained and evaluated from now on is listed."""
    house = shutil.copytree(study, tmp_path / "house")
    name = first_classifier(house)
    prepare.main(house, name)
    known = shutil.copytree(house / "data/classifiers" / name, tmp_path / "known")
    monkeypatch.setattr(prepare, "recorded", lambda *_: known)
    done = []
    monkeypatch.setattr(training, "fit", lambda *given, **recipe: done.append("fit") or fit(*given, **recipe))
    evaluated = prepare.evaluated
    monkeypatch.setattr(prepare, "evaluated", lambda *given: done.append("evaluated") or evaluated(*given))
    return house, known, done


def card_of(house):
    return json.loads((house / "data/classifiers" / first_classifier(house) / "card.json").read_text())


def test_only_what_weights_depend_on_trains_them_again(known):
    house, before, done = known
    name, params = first_classifier(house), tiny()
    params["robustness_eval"]["count"] = 7
    write(house, params)
    prepare.main(house, name)
    assert done == ["evaluated"]
    assert card_of(house)["attacked"] == 7
    weights = "weights.safetensors"
    assert (house / "data/classifiers" / name / weights).read_bytes() == (before / weights).read_bytes()
    params["classifiers"][name]["train"]["learning_rate"] = 0.3
    write(house, params)
    prepare.main(house, name)
    assert done == ["evaluated", "fit", "evaluated"]


def test_other_rules_for_images_and_grids_train_and_evaluate_nothing(known):
    house, before, done = known
    name, params = first_classifier(house), tiny()
    params["classifiers"][name]["images"] = {"count": 3}
    params["classifiers"][name]["grids"] = None
    write(house, params)
    prepare.main(house, name)
    assert done == []
    assert {file.name: file.read_bytes() for file in (house / "data/classifiers" / name).iterdir()} == {
        file.name: file.read_bytes() for file in before.iterdir()
    }


def test_without_a_judge_no_classifier_is_attacked(study, tmp_path):
    house = shutil.copytree(study, tmp_path / "house")
    write(house, {**tiny(), "robustness_eval": None})
    prepare.main(house, first_classifier(house))
    card = card_of(house)
    assert {"evaluated_on", "accuracy", "top5"} <= set(card)
    assert not {"attacked", "adversarial_accuracy", "adversary"} & set(card)


def test_damaged_weights_are_not_taken(study, tmp_path):
    name = first_classifier(study)
    prepare.main(study, name)
    known = shutil.copytree(study / "data/classifiers" / name, tmp_path / "known")
    assert prepare.intact(known) is not None
    assert prepare.intact(tmp_path / "nowhere") is None
    data = bytearray((known / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (known / "weights.safetensors").write_bytes(bytes(data))
    assert prepare.intact(known) is None


def test_a_dataset_without_a_held_out_split_is_refused(tmp_path):
    params = tiny()
    params["datasets"]["shapes"]["test"] = 0
    write(tmp_path, params)
    collect.main(tmp_path, "shapes")
    with pytest.raises(UserError, match="classifiers are evaluated on the split test, which has no image"):
        prepare.main(tmp_path, first_classifier(tmp_path))
