"""The stages before the maps: what they keep, what they refuse, and how they say it."""

import shutil

import numpy as np
import pytest
import yaml
import zarr
from safetensors.torch import save_file

from atlas.cache.rows import RowStore
from atlas.cache.stacks import places
from atlas.inputs import calls
from atlas.inputs.cell_runner import Cell
from atlas.inputs.row_inputs import tile_masks
from atlas.networks.residual import small_resnet
from atlas.study.errors import UserError
from atlas.study.params import load
from atlas.study.study import Study
from stages import attribute, correlate, predict, score, select, tile
from tests.support import stored
from tests.support.cells import C, last_line, mapped, study
from tests.support.scores import about, read
from tests.support.study import ROOT, tiny, write

__all__ = ["mapped", "study"]


def change(study, **rules) -> None:
    params = tiny()
    for name, value in rules.items():
        for section in ("images", "grids"):
            if name in params["classifiers"][C][section] and (name != "count" or section == "images"):
                params["classifiers"][C][section][name] = value
    write(study, params)


def ids(study) -> list[str]:
    return zarr.open_group(study / "data/images" / f"{C}.zarr/images", mode="r")["image"][:].tolist()


def test_collect_keeps_pixels_masks_boxes_and_splits(collected):
    store = zarr.open_group(collected / "data/datasets/shapes.zarr", mode="r")
    assert store["pixels"].shape == (184, 3, 64, 64)
    assert store["pixels"].dtype == "uint8"
    assert store["mask"].dtype == "bool"
    assert (store["split"][:] == "test").sum() == 120
    boxes, masks = store["boxes"][:], store["mask"][:]
    one = int(np.flatnonzero((boxes[:, :, 0] >= 0).sum(axis=1) == 1)[0])
    ys, xs = np.nonzero(masks[one])
    assert boxes[one, 0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_predictions_are_probabilities(collected):
    store = zarr.open_group(collected / "data/predictions" / f"{C}.zarr", mode="r")
    assert store["probability"].shape == (120,)
    top = store["top_probability"][:]
    assert (np.diff(top, axis=1) <= 0).all()
    hit = store["top_class"][:, 0] == store["label"][:]
    np.testing.assert_array_equal(top[hit, 0], store["probability"][:][hit])


def test_selected_images_pass_every_rule(study):
    change(study, boxes_exactly=1, box_area_at_most=0.3, count=10)
    select.main(study, C)
    group = zarr.open_group(study / "data/images" / f"{C}.zarr/images", mode="r")
    boxes = group["boxes"][:]
    assert ((boxes[:, :, 0] >= 0).sum(axis=1) == 1).all()
    x0, y0, x1, y1 = boxes[:, 0].T
    assert ((x1 - x0) * (y1 - y0) <= 0.3 * 64 * 64).all()
    assert group["target"][:].tolist() == group["label"][:].tolist()


def test_two_boxes_are_selected_where_asked(study):
    change(study, boxes_exactly=2, box_area_at_most=1.0, count=3)
    select.main(study, C)
    boxes = zarr.open_group(study / "data/images" / f"{C}.zarr/images", mode="r")["boxes"][:]
    assert ((boxes[:, :, 0] >= 0).sum(axis=1) == 2).all()


def test_a_larger_count_has_the_smaller_one_as_its_prefix(study):
    change(study, count=5)
    select.main(study, C)
    few = ids(study)
    change(study, count=20)
    select.main(study, C)
    assert ids(study)[:5] == few
    assert len(set(ids(study))) == 20


def background(study, kind: str = "images") -> zarr.Group:
    return zarr.open_group(study / "data" / kind / f"{C}.zarr/background", mode="r")


def test_background_images_are_held_out_and_evaluated_nowhere(study):
    change(study, count=20, background=30)
    select.main(study, C)
    names = background(study)["image"][:].tolist()
    candidates = zarr.open_group(study / "data/images" / f"{C}.zarr/candidates", mode="r")["image"][:].tolist()
    assert len(set(names)) == 30
    assert not set(names) & set(candidates + ids(study))
    store = zarr.open_group(study / "data/datasets/shapes.zarr", mode="r")
    known = store["image"][:].tolist()
    assert {store["split"][:][known.index(name)] for name in names} == {"test"}
    np.testing.assert_array_equal(background(study)["pixels"][3], store["pixels"][known.index(names[3])])
    change(study, count=25, background=30)
    select.main(study, C)
    assert background(study)["image"][:].tolist() == names
    change(study, count=20, background=31)
    select.main(study, C)
    assert background(study)["image"][:30].tolist() == names


def test_a_grids_background_is_made_of_the_background_images(study):
    select.main(study, C)
    tile.main(study, C)
    one, four = background(study)["pixels"][:], background(study, "grids")["pixels"][:]
    assert four.shape == (8, 3, 128, 128)
    for corner, (y, x) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64)]):
        np.testing.assert_array_equal(four[6][:, y : y + 64, x : x + 64], one[(6 + corner) % 8])


def keyed(study, **entries) -> dict[str, list[bytes]]:
    """The keys of some methods' rows, by method and kind of picture."""
    params = load(study)
    params["methods"] = {}
    for name, given in entries.items():
        own = {setting: value for setting, value in given.items() if setting != "family"}
        params["methods"].setdefault(given["family"], {})[name] = own
    plans = [plan for family in params["methods"] for plan in attribute.plan(Cell(Study(study, params), C, family))]
    return {plan.table.name: plan.table.keys.reshape(-1, 16).tolist() for plan in plans}


EXPECTED = {"family": "path", "function": "expected_gradients", "samples": 2, "output": "logit", "channels": "sum"}
PLAIN = {"family": "control", "function": "center", "sigma": 0.3, "channels": "sum"}


def test_background_images_are_in_the_keys_of_what_asks_for_them(study):
    select.main(study, C)
    tile.main(study, C)
    before = keyed(study, a=EXPECTED, b=PLAIN)
    for kind in ("images", "grids"):
        store = zarr.open_group(study / "data" / kind / f"{C}.zarr/background", mode="r+")
        store["pixels"][5, 0, 0, 0] ^= 1
        after = keyed(study, a=EXPECTED, b=PLAIN)
        changed = {path for path in before if not any(one in after[path] for one in before[path])}
        assert changed == {f"a/{kind}"}
        assert all(before[path] == after[path] for path in set(before) - changed)
        before = after


def test_a_reversed_map_has_the_shares_and_the_images_seed_in_its_key(study):
    select.main(study, C)
    tile.main(study, C)
    reverse = {"remain": 0.1, "swap": 0.2}
    given = {
        "plain": PLAIN,
        "turned": {**PLAIN, "reverse": reverse},
        "other": {**PLAIN, "reverse": {**reverse, "swap": 0.3}},
    }
    first = keyed(study, **given)
    params = tiny()
    params["seed"] = 1
    write(study, params)
    again = keyed(study, **given)
    assert first["plain/images"] == again["plain/images"]
    keys = [first[f"{name}/images"][0] for name in given] + [again["turned/images"][0]]
    assert len(set(map(tuple, keys))) == 4


def test_the_target_may_be_the_prediction(study):
    change(study, target="prediction", count=30)
    select.main(study, C)
    group = zarr.open_group(study / "data/images" / f"{C}.zarr/images", mode="r")
    assert group["target"][:].tolist() != group["label"][:].tolist()


def test_a_count_larger_than_what_the_rules_leave(study):
    change(study, count=1000)
    with pytest.raises(UserError) as problem:
        select.main(study, C)
    message = str(problem.value)
    assert message.startswith(
        "params.yaml: classifiers.resnet_vanilla.images: count = 1000, but 120 held-out images, of "
    )
    assert "with 1 box(es)" in message


def test_a_classifier_that_is_none(study):
    change(study, correct_by=["resnet_vanila"])
    with pytest.raises(
        UserError, match="correct_by names 'resnet_vanila', which is no classifier; known: resnet_vanilla"
    ):
        select.main(study, C)


def test_grids_are_of_distinct_classes_and_use_no_image_twice(study):
    select.main(study, C)
    tile.main(study, C)
    group = zarr.open_group(study / "data/grids" / f"{C}.zarr/grids", mode="r")
    members, targets = group["member"][:], group["target"][:]
    assert all(len(set(row)) == 4 for row in targets.tolist())
    assert len(set(members.ravel().tolist())) == members.size
    assert group["pixels"].shape == (3, 3, 128, 128)
    store = zarr.open_group(study / "data/datasets/shapes.zarr", mode="r")
    for corner, (y, x) in enumerate([(0, 0), (0, 64), (64, 0), (64, 64)]):
        at = store["image"][:].tolist().index(members[0, corner])
        np.testing.assert_array_equal(group["pixels"][0][:, y : y + 64, x : x + 64], store["pixels"][at])
        assert store["label"][at] == targets[0, corner]


def test_more_grids_have_the_fewer_as_their_prefix():
    labels = np.random.default_rng(0).integers(0, 6, 80)
    rules = {"tiles_per_side": 2, "confidence_at_least": 0.0}
    few, many = (tile.members(labels, np.ones(80), count=count, **rules) for count in (3, 9))
    np.testing.assert_array_equal(many[:3], few)


def test_no_tile_of_grids_has_more_of_a_class_than_another():
    """Images of a class that there are most of wait, and would all come to the first tile."""
    rules = {"tiles_per_side": 2, "confidence_at_least": 0.0, "count": 32}
    labels = np.where(np.arange(400) % 4 == 0, np.arange(400) % 12, 1)
    labels = labels[np.random.default_rng(0).permutation(400)]
    classes = labels[tile.members(labels, np.ones(400), **rules)]
    number = (classes == 1).sum(axis=0)
    assert number.sum() == 32
    assert number.max() - number.min() <= 2


def test_grids_that_cannot_be_filled(study):
    select.main(study, C)
    params = tiny()
    params["classifiers"][C]["grids"]["confidence_at_least"] = 0.999
    write(study, params)
    with pytest.raises(UserError) as problem:
        tile.main(study, C)
    message = str(problem.value)
    assert message.startswith(
        "params.yaml: classifiers.resnet_vanilla.grids: count = 3, but after 0 grids no 4 images of "
    )
    assert "with confidence at least 0.999" in message


def test_tiles_cover_the_grid_once():
    masks = tile_masks((6, 8), 4)
    assert (masks.sum(axis=0) == 1).all()
    assert masks[1][:3, 4:].all()


def test_a_missing_dataset(study):
    shutil.rmtree(study / "data/datasets")
    with pytest.raises(UserError, match=r"data/datasets/shapes\.zarr: the dataset shapes cannot be read"):
        select.main(study, C)


def test_weights_of_another_network(study):
    params = tiny()
    params["classifiers"][C]["network"]["widths"] = [4, 4, 4]
    write(study, params)
    with pytest.raises(
        UserError, match=r"weights\.safetensors: not the weights of classifiers\.resnet_vanilla\.network"
    ):
        predict.main(study, C)


def test_a_network_that_gives_nan_stops_its_cell_and_names_the_images(study):
    select.main(study, C)
    tile.main(study, C)
    network = small_resnet(classes=10, widths=[4, 4, 8], blocks=1)
    network.head[2].weight.data.fill_(float("nan"))
    save_file(network.state_dict(), study / "data/classifiers" / C / "weights.safetensors")
    with pytest.raises(
        UserError,
        match=r"attribute@resnet_vanilla-gradient: .*: gradient: .*logits are not finite.*\(images test_\d+, ",
    ):
        attribute.main(study, C, "gradient")
    assert not (study / "data/maps").exists()


def test_a_corrupt_store_of_maps_is_named(mapped):
    (mapped / "data/maps" / C / "control.zarr/images/key/zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"control\.zarr/images/key: uniform cannot be read"):
        score.main(mapped, C, "control")


@pytest.mark.parametrize("told", ["of no use", "an infinite score"])
def test_a_metric_that_fails_loses_no_other_metrics_rows(mapped, monkeypatch, told):
    find = calls.find

    def broken(kind, family, function):
        def fails(maps, *_, **__):
            if told == "of no use":
                raise ValueError(told)
            return maps[:, 0, 0] / 0

        return fails if function == "relevance_rank" else find(kind, family, function)

    monkeypatch.setattr(calls, "find", broken)
    with pytest.raises(
        UserError,
        match=rf"these metrics failed, the rows of all others are kept: relevance_rank \(uniform\): ValueError: {told}",
    ):
        score.main(mapped, C, "control")
    monkeypatch.undo()
    score.main(mapped, C, "control")
    assert last_line(mapped)["computed"] == {"relevance_rank": 24}


def test_a_metric_that_cannot_serve_is_recorded_with_its_reason(mapped, monkeypatch):
    from atlas.study.errors import Unsupported

    find = calls.find

    def refusing(kind, family, function):
        def refuses(*_, **__):
            raise Unsupported("its network has no layers")

        return refuses if function == "relevance_rank" else find(kind, family, function)

    monkeypatch.setattr(calls, "find", refusing)
    score.main(mapped, C, "control")
    monkeypatch.undo()
    store = mapped / "data/scores" / C / "control.zarr"
    assert about(store, "relevance_rank")["unsupported"] == dict.fromkeys(
        ["uniform", "center"], "its network has no layers"
    )
    assert np.isnan(read(store, "relevance_rank")["score"]).all()
    assert np.isfinite(read(store, "pointing_game")["score"]).any()
    score.main(mapped, C, "control")
    assert last_line(mapped)["rows_computed"] == 0


def test_a_method_that_cannot_serve_is_recorded_with_its_reason(study, monkeypatch):
    from atlas.study.errors import Unsupported

    select.main(study, C)
    tile.main(study, C)
    find = calls.find

    def refusing(kind, family, function):
        def refuses(*_, **__):
            raise Unsupported("it has no edges")

        return refuses if function == "center" else find(kind, family, function)

    monkeypatch.setattr(calls, "find", refusing)
    attribute.main(study, C, "control")
    monkeypatch.undo()
    known = stored.attrs(study / "data/maps" / C / "control.zarr", "images", "center")
    assert known["unsupported"] == "it has no edges"
    attribute.main(study, C, "control")
    assert last_line(study)["rows_computed"] == 0
    score.main(study, C, "control")
    store = study / "data/scores" / C / "control.zarr"
    scores = read(store, "pointing_game")
    assert about(store, "pointing_game")["unsupported"] == {"center": "it has no edges"}
    assert np.isnan(scores["score"][1]).all()
    assert np.isfinite(scores["score"][0]).all()


def test_rules_of_correctness_and_confidence():
    labels = np.array([0, 1, 2, 3])
    boxes = np.tile([[0, 0, 4, 4]], (4, 1, 1))
    right = {"top_class": labels[:, None], "probability": np.array([0.9, 0.9, 0.2, 0.9])}
    wrong = {"top_class": np.array([[0], [0], [2], [3]]), "probability": np.array([0.9, 0.3, 0.9, 0.9])}
    rules = {"boxes_exactly": None, "box_area_at_most": 1.0, "count": 1, "background": 1, "target": "label"}

    def passing(correct_by, least, reserved=()):
        known = {"a": right, "b": wrong}
        given = {"correct_by": correct_by, "confidence_at_least": least}
        return select.eligible(labels, boxes, (8, 8), known, np.array(reserved, int), **rules, **given)[0].tolist()

    assert passing([], 0.5) == [0, 1, 2, 3]
    assert passing(["a"], 0.0) == [0, 1, 2, 3]
    assert passing(["a"], 0.5) == [0, 1, 3]
    assert passing(["a", "b"], 0.0) == [0, 2, 3]
    assert passing(["a", "b"], 0.5) == [0, 3]
    assert passing(["a"], 0.5, reserved=[3]) == [0, 1]


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()  # it may be a link
    file.write_bytes(bytes(data))


def test_a_flipped_byte_of_a_map_is_told_with_its_store(mapped):
    flip(stored.shard(mapped / "data/maps" / C / "control.zarr", "images", "center", "attribution"))
    with pytest.raises(UserError, match=r"control\.zarr/images/attribution: center cannot be read .*make it again"):
        score.main(mapped, C, "control")


@pytest.mark.parametrize(
    ("store", "array", "verb"),
    [
        ("datasets/shapes", "pixels", predict),
        ("datasets/shapes", "boxes", select),
        (f"predictions/{C}", "probability", select),
        (f"images/{C}", "candidates/confidence", tile),
    ],
)
def test_a_flipped_byte_is_told_with_its_array(mapped, store, array, verb):
    place = mapped / "data" / f"{store}.zarr" / array
    for file in place.glob("c/**/*"):
        if file.is_file():
            flip(file)
    with pytest.raises(UserError, match=rf"{store}\.zarr/{array}: cannot be read .*make it again"):
        verb.main(mapped, C)


def test_a_metric_on_more_images_than_there_are(mapped):
    params = tiny()
    params["metrics"]["localization"]["pointing_game"]["count"] = 13
    write(mapped, params)
    with pytest.raises(UserError, match=r"pointing_game: count = 13: there are 12 images; expected at most that"):
        score.main(mapped, C, "control")


def test_correlation_refuses_maps_of_other_images(mapped):
    params = only_control(mapped)
    correlate.main(mapped, C)
    params["classifiers"][C]["images"]["count"] += 1
    write(mapped, params)
    select.main(mapped, C)
    with pytest.raises(UserError, match=r"control\.zarr/images: has \d+ maps, expected \d+; run stages.attribute"):
        correlate.main(mapped, C)


def only_control(study) -> dict:
    params = tiny()
    params["methods"] = {"control": params["methods"]["control"]}
    write(study, params)
    return params


def maps_of(study, family: str) -> dict[str, np.ndarray]:
    store = study / "data/maps" / C / f"{family}.zarr"
    return {
        f"{name}/{group}": stored.rows(store, group, name)["attribution"]
        for group, listed in places(store, "the maps").items()
        for name in listed
    }


def listed(family: str) -> dict:
    """The default study's entries of a family, at small counts."""
    few = {"samples": 2, "steps": 3, "masks": 5, "window": 32, "stride": 32}
    default = yaml.safe_load((ROOT / "params.yaml").read_text())["methods"][family]
    return {
        name: {setting: few.get(setting, value) for setting, value in given.items()} for name, given in default.items()
    }


@pytest.mark.parametrize("family", yaml.safe_load((ROOT / "params.yaml").read_text())["methods"])
def test_whatever_is_listed_is_resumed_where_it_stopped(study, family, monkeypatch):
    params = tiny()
    params["methods"] = {family: listed(family)}
    write(study, params)
    select.main(study, C)
    tile.main(study, C)
    stopping, puts = RowStore.put, []

    def put(rows, table, *given):
        puts.append(table.name)
        if len(puts) == len(params["methods"][family]) + 2:
            raise KeyboardInterrupt
        stopping(rows, table, *given)

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "put", put)
        with pytest.raises(KeyboardInterrupt):
            attribute.main(study, C, family)
    attribute.main(study, C, family)
    line = last_line(study)
    assert 0 < line["rows_computed"] < line["rows_wanted"]
    resumed = maps_of(study, family)
    shutil.rmtree(study / "data/maps")
    shutil.rmtree(study / ".atlas")
    attribute.main(study, C, family)
    assert last_line(study)["rows_computed"] == line["rows_wanted"]
    whole = maps_of(study, family)
    assert len(whole) == 2 * len(params["methods"][family])
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_entries_that_reduce_the_same_attributions_take_their_passes_once(study):
    """A reversed map, and one of other channels, is had from the base method's own passes."""
    base = {"function": "guided_backprop", "sign": "positive", "layer": "input", "channels": "abs_sum"}
    others = {"turned": {**base, "reverse": {"remain": 0.1, "swap": 0.2}}, "signed": {**base, "channels": "sum"}}
    params = tiny()
    params["methods"] = {"gradient": {"base": base, **others, "negative": {**base, "sign": "negative"}}}
    write(study, params)
    select.main(study, C)
    tile.main(study, C)
    attribute.main(study, C, "gradient")
    rows = 12 + 4 * 3
    once, none = {"forward": rows, "backward": rows, "head": 0}, {"forward": 0, "backward": 0, "head": 0}
    assert last_line(study)["passes"] == {"base": once, "turned": none, "signed": none, "negative": once}
    found = maps_of(study, "gradient")
    assert not np.array_equal(found["base/images"], found["turned/images"])
    assert np.array_equal(np.sort(found["base/images"].ravel()), np.sort(found["turned/images"].ravel()))
    assert (found["signed/images"] < 0).any()
