"""The stage that lets noisy samples vote: what it stores, reuses and refuses; and its scores' keys."""

import numpy as np
import pytest
import zarr

from atlas.cache import keys
from atlas.inputs import explain, row_inputs, voting
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import load
from atlas.study.study import Study
from stages import attribute, certify, score, select, tile
from tests.support import stored
from tests.support.cells import C, last_line, study
from tests.support.scores import about, read
from tests.support.study import tiny, write

__all__ = ["study"]

FAMILY = "gradient"
TEST = {"smoothings": ["noise_15"], "level": 30, "tau": [0.6], "alpha": 0.05, "correction": "bonferroni"}
FEW = {**TEST, "tau": [0.5], "alpha": 0.6, "correction": "none"}  # one vote is enough


def given(**changes):
    """The tiny study with one family and metrics of votes, its smoothing changed."""
    params = tiny()
    params["methods"] = {FAMILY: params["methods"][FAMILY]}
    smoothing = {"form": "strict", "sigma": 0.15, "levels": [50, 30, 10], "n0": 2, "n": 30}
    smoothing |= {"images": 4, "grids": 1, "tile": None, "methods": ["gradient", "input_x_gradient"]}
    params["certify"] = {"noise_15": {**smoothing, **changes}}
    test = TEST if params["certify"]["noise_15"]["n"] >= smoothing["n"] else FEW
    params["metrics"] = {
        "localization": {"pointing_game": {"tolerance": 4}},
        "certified": {"certified_important": test},
        "certified_grid": {"certified_grid_pointing_game": {**test, "nothing": "zero"}},
    }
    for picture, family in (("images", "certified"), ("grids", "certified_grid")):
        if not params["certify"]["noise_15"][picture]:
            del params["metrics"][family]
    return params


@pytest.fixture
def selected(study):
    write(study, given())
    select.main(study, C)
    tile.main(study, C)
    return study


def visit(study, params):
    """Certify a changed study; say which rows were made."""
    write(study, params)
    certify.main(study, C, FAMILY)
    return last_line(study)["computed"]


def arrays(study, method="gradient", smoothing="noise_15", group="images_3"):
    return stored.rows(study / "data/votes" / C / f"{FAMILY}.zarr", group, f"{method}/{smoothing}")


def test_votes_lie_by_smoothing_and_picture_in_two_bytes_a_pixel_and_level(selected, capsys):
    visit(selected, given())
    store = selected / "data/votes" / C / f"{FAMILY}.zarr"
    one = zarr.open_group(store / "images_3", mode="r")["counts"]
    assert (one.dtype, one.shape) == (np.uint8, (2, 4, 2, 3, 64, 64)), "two methods, four images"
    assert one.metadata.dimension_names == ("votes", "image", "samples", "level", "y", "x")
    assert one.chunks == (1, 1, 2, 3, 64, 64), "a row is a chunk"
    assert stored.attrs(store, "images_3", "gradient/noise_15")["levels"] == [50, 30, 10]
    counts = arrays(selected)["counts"]
    assert counts.nbytes == 4 * 2 * 3 * 64 * 64
    assert counts[:, 0].max() <= 2
    assert counts[:, 1].max() <= 30
    # Exactly K% of the pixels of every sample are marked.
    assert (counts.sum(axis=(1, 3, 4)) == 32 * np.array([2048, 1228, 409])).all()
    assert arrays(selected, group="grids_3")["counts"].shape == (1, 4, 2, 3, 128, 128)
    assert "2 x 3 x 64 x 64 = 24576 bytes before compression" in capsys.readouterr().out


def test_methods_that_are_not_named_have_no_votes(selected):
    assert set(visit(selected, given(methods=["gradient"], grids=0))) == {"gradient/noise_15/images"}
    assert visit(selected, given(methods=[])) == {}
    assert [one.name for one in (selected / "data/votes" / C / f"{FAMILY}.zarr").iterdir()] == ["zarr.json"]


def test_tiles_of_a_grid_share_its_noise(selected, monkeypatch):
    drawn = []
    noised = voting.noised
    monkeypatch.setattr(voting, "noised", lambda *args: drawn.append(noised(*args)) or drawn[-1])
    visit(selected, given(images=0, grids=1, n0=1, n=1))
    samples = np.concatenate([one.numpy() for one in drawn])
    assert (samples[0] == samples[2]).all()
    assert (samples[1] == samples[3]).all()
    assert (samples[0] != samples[1]).any()


def test_103_images_come_out_alike_whatever_the_shards(selected, monkeypatch):
    seen = row_inputs.images(Study(selected), C)
    few = np.random.default_rng(0).integers(256, size=(103, 3, 16, 16), dtype=np.uint8)
    ids = [f"image_{i:03}" for i in range(103)]
    many = seen._replace(
        lead=(103,),
        coords={"image": (("image",), np.array(ids))},
        pixels=few,
        picture=np.arange(103),
        ids=ids,
        arrays={"targets": np.arange(103) % 8},
        pictures=[keys.digest(one.tobytes()) for one in few],
    )
    monkeypatch.setattr(row_inputs, "images", lambda *_: many)
    params = given(images=103, grids=0, n0=1, n=2, methods=["gradient"])
    params["engine"]["batch"] = 16
    by_shards = {}
    for shard_rows in (5, 25, 64):
        params["stores"]["shard_rows"] = shard_rows
        assert visit(selected, params) == {"gradient/noise_15/images": 103}
        by_shards[shard_rows] = arrays(selected)
        (selected / ".atlas").rename(selected / f"of_{shard_rows}")
    found = by_shards[5]
    assert found["counts"].shape == (103, 2, 3, 16, 16)
    assert len({row.tobytes() for row in found["counts"]}) == 103
    for others in by_shards.values():
        for name in ("counts", "tied", "key", "image"):
            np.testing.assert_array_equal(others[name], found[name])
    # Alone, each image has the votes it has among others.
    rows = [0, 41, 102]
    alone = many._replace(
        lead=(3,),
        coords={"image": (("image",), np.array(ids)[rows])},
        pixels=few[rows],
        picture=np.arange(3),
        ids=[ids[row] for row in rows],
        arrays={"targets": (np.arange(103) % 8)[rows]},
        pictures=[many.pictures[row] for row in rows],
    )
    monkeypatch.setattr(row_inputs, "images", lambda *_: alone)
    assert visit(selected, {**params, "certify": given(images=3, grids=0, n0=1, n=2)["certify"]}) != {}
    again = arrays(selected)
    for name in ("counts", "tied", "key"):
        np.testing.assert_array_equal(again[name], found[name][rows])


def test_an_interrupted_run_goes_on_and_ends_alike(selected, monkeypatch):
    params = given(grids=0)
    visit(selected, params)
    whole = arrays(selected)
    (selected / ".atlas").rename(selected / "gone")
    votes, calls = voting.votes, []

    def stopping(*args, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return votes(*args, **settings)

    monkeypatch.setattr(voting, "votes", stopping)
    with pytest.raises(KeyboardInterrupt):
        visit(selected, params)
    monkeypatch.undo()
    assert sum(visit(selected, params).values()) == 6, "of 2 methods and 4 images one image was journaled"
    assert all((arrays(selected)[name] == whole[name]).all() for name in whole)


def test_more_images_and_methods_take_the_votes_that_are_added(selected):
    first = visit(selected, given(images=3, grids=1, methods=["gradient"]))
    assert first == {"gradient/noise_15/images": 3, "gradient/noise_15/grids": 4}
    more = visit(selected, given(images=4, grids=1))
    assert more == {
        "gradient/noise_15/images": 1,
        "input_x_gradient/noise_15/images": 4,
        "input_x_gradient/noise_15/grids": 4,
    }
    params = given(grids=1)
    params["certify"]["noise_25"] = {**params["certify"]["noise_15"], "sigma": 0.25, "grids": 0}
    assert set(visit(selected, params)) == {f"{name}/noise_25/images" for name in params["methods"][FAMILY]}


@pytest.mark.parametrize(
    "change",
    [{"sigma": 0.16}, {"levels": [50, 30]}, {"n0": 3}, {"n": 31}, {"form": "strict_rectified"}],
)
def test_whatever_the_votes_depend_on_takes_them_again(selected, change):
    visit(selected, given(grids=0))
    assert sum(visit(selected, given(grids=0, **change)).values()) == 8


def test_the_classifier_the_seed_and_the_engine_are_in_the_key(selected):
    params = given(grids=0)
    visit(selected, params)
    for section, value in (("seed", 1), ("engine", {**params["engine"], "batch": 4})):
        assert sum(visit(selected, {**params, section: value}).values()) == 8, section
    weights = selected / "data/classifiers" / C / "weights.safetensors"
    visit(selected, params)
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    assert sum(visit(selected, params).values()) == 8


def test_one_methods_setting_takes_its_votes_alone(selected):
    params = given(grids=0)
    visit(selected, params)
    params["methods"][FAMILY]["gradient"]["channels"] = "max_abs"
    assert visit(selected, params) == {"gradient/noise_15/images": 4}


def test_a_smoothings_name_is_nothing_to_its_votes(selected):
    params = given(grids=0)
    visit(selected, params)
    params["certify"]["renamed"] = params["certify"].pop("noise_15")
    params["metrics"] = {"localization": params["metrics"]["localization"]}
    assert visit(selected, params) == {}


def scored(study, params):
    write(study, params)
    attribute.main(study, C, FAMILY)
    certify.main(study, C, FAMILY)
    score.main(study, C, FAMILY)
    return last_line(study)["computed"]


def test_the_test_is_the_metrics_and_makes_no_votes_again(selected):
    params = given()
    made = scored(selected, params)
    assert made == {"pointing_game": 24, "certified_important": 8, "certified_grid_pointing_game": 8}
    params["metrics"]["certified"]["certified_important"] = {**TEST, "tau": [0.6, 0.75], "alpha": 0.1, "level": 10}
    assert visit(selected, params) == {}
    assert scored(selected, params) == {"certified_important": 8}
    params["metrics"]["certified"]["certified_important"]["level"] = 50
    assert scored(selected, params) == {}, "which level is read off changes no score"


def test_a_method_that_one_of_two_smoothings_does_not_certify_has_no_score_and_a_reason(selected):
    params = given(grids=0)
    params["certify"]["noise_25"] = {**params["certify"]["noise_15"], "sigma": 0.25, "methods": ["input_x_gradient"]}
    params["metrics"]["certified"]["certified_important"] = {**TEST, "smoothings": ["noise_15", "noise_25"]}
    assert scored(selected, params) == {"pointing_game": 24, "certified_important": 4}
    store = selected / "data/scores" / C / f"{FAMILY}.zarr"
    scores = read(store, "certified_important")
    assert scores["method"].tolist() == ["gradient", "input_x_gradient"]
    assert about(store, "certified_important")["unsupported"] == {
        "gradient": "the smoothing noise_25 does not certify it"
    }
    assert np.isnan(scores["score"][0]).all()
    assert np.isfinite(scores["score"][1]).all()
    params["certify"]["noise_15"]["methods"] = ["input_x_gradient"]
    scored(selected, params)
    scores = read(store, "certified_important")
    assert scores["method"].tolist() == ["input_x_gradient"], "what no smoothing certifies was not asked for"


def test_other_votes_are_scored_again(selected):
    params = given()
    scored(selected, params)
    params["certify"]["noise_15"]["sigma"] = 0.3
    assert scored(selected, params) == {"certified_important": 8, "certified_grid_pointing_game": 8}


def test_equal_votes_of_another_noise_are_not_taken_for_them(selected, monkeypatch):
    """Counts that happen to be equal say another thing at another sigma: the radius."""
    blank = {"counts0": np.zeros((1, 3, 64, 64), "uint8"), "tied": np.zeros((1, 3), "uint16")}
    equal = {**blank, "counts": blank["counts0"]}

    def nothing(classifier, images, targets, seeds, explain, passes, **settings):
        return {name: {key: np.repeat(value, len(images), axis=0) for key, value in equal.items()} for name in explain}

    monkeypatch.setattr(voting, "votes", nothing)
    params = given(grids=0)
    scored(selected, params)
    params["certify"]["noise_15"]["sigma"] = 0.3
    assert scored(selected, params) == {"certified_important": 8}


def test_scores_stand_by_radius_and_level_and_one_tile_where_asked(selected):
    params = given()
    params["metrics"]["certified_grid"]["corner"] = {
        **TEST,
        "function": "certified_grid_pointing_game",
        "nothing": "zero",
        "tile": 0,
    }
    params["metrics"]["certified"]["certified_deletion"] = {**TEST, "tau": [0.6, 0.75], "baseline": "black"}
    scored(selected, params)
    names = ("certified_important", "certified_deletion", "corner", "certified_grid_pointing_game")
    found = {name: read(selected / "data/scores" / C / f"{FAMILY}.zarr", name) for name in names}
    assert found["certified_important"]["score"].shape == (2, 4, 1, 3)
    assert found["certified_important"]["level"].tolist() == [50, 30, 10]
    np.testing.assert_allclose(found["certified_deletion"]["radius"], [0.0380021, 0.1011735], atol=1e-6)
    assert found["certified_deletion"]["level"].tolist() == [0, 10, 30, 50]
    corner, every = (found[name]["score"] for name in ("corner", "certified_grid_pointing_game"))
    assert corner.shape == (2, 1, 4, 1, 3)
    np.testing.assert_array_equal(corner[:, :, 0], every[:, :, 0])
    assert np.isnan(corner[:, :, 1:]).all()
    assert not found["corner"]["key"][:, :, 1:].any(), "the other tiles were not asked for"


def test_a_method_that_cannot_serve_says_why_and_leaves_the_other(selected, monkeypatch):
    maps = explain.Explainer._maps

    def refusing(self, bound, given, made):
        if bound.name == "gradient":
            raise Unsupported("cannot be differentiated")
        return maps(self, bound, given, made)

    monkeypatch.setattr(explain.Explainer, "_maps", refusing)
    assert visit(selected, given(grids=0)) == {"input_x_gradient/noise_15/images": 4}
    known = stored.attrs(selected / "data/votes" / C / f"{FAMILY}.zarr", "images_3", "gradient/noise_15")
    assert known["unsupported"] == "cannot be differentiated"
    params = given(grids=0)
    assert scored(selected, params) == {"pointing_game": 24, "certified_important": 4}
    store = selected / "data/scores" / C / f"{FAMILY}.zarr"
    scores = read(store, "certified_important")
    assert about(store, "certified_important")["unsupported"] == {"gradient": "cannot be differentiated"}
    assert np.isnan(scores["score"][0]).all()


def test_a_method_that_fails_is_named_and_leaves_the_other(selected, monkeypatch):
    maps = explain.Explainer._maps

    def failing(self, bound, given, made):
        if bound.name == "gradient":
            raise ValueError("no map")
        return maps(self, bound, given, made)

    with monkeypatch.context() as broken:
        broken.setattr(explain.Explainer, "_maps", failing)
        told = r"certify@resnet_vanilla-gradient: the votes on these methods failed, those on all others are kept: "
        told += r"gradient \(noise_15\): ValueError: no map \(images test_\d+"
        with pytest.raises(UserError, match=told):
            visit(selected, given(grids=0))
    assert not (selected / "data/votes").exists()
    assert last_line(selected)["computed"] == {"input_x_gradient/noise_15/images": 4}
    assert visit(selected, given(grids=0)) == {"gradient/noise_15/images": 4}
    assert len(arrays(selected)["counts"]) == len(arrays(selected, "input_x_gradient")["counts"]) == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sigma": 0.0}, "certify.noise_15: 'sigma' = 0.0: expected more than 0"),
        ({"n": 256}, "certify.noise_15: n = 256: expected 1 to 255 noisy samples"),
        ({"n0": 0}, "certify.noise_15: n0 = 0: expected 1 to 255 noisy samples"),
        ({"levels": [10, 30]}, r"certify.noise_15: levels = \[10, 30\]: expected falling whole percentages"),
        ({"levels": [100, 30]}, r"'levels' = \[100, 30\]: expected each at least 1 and at most 99"),
        ({"methods": ["grad"]}, "certify.noise_15: methods names grad, which is no method"),
        ({"form": "lax"}, "certify.noise_15: 'form' = 'lax'"),
    ],
)
def test_a_senseless_smoothing_is_refused(selected, change, told):
    write(selected, given(**change))
    with pytest.raises(UserError, match=told):
        load(selected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"smoothings": []}, "certified_important: smoothings = .*; there are: noise_15"),
        ({"smoothings": ["noise_99"]}, "expected names of the section certify; there are: noise_15"),
        ({"level": 20}, r"level = 20: expected the one to rank by, of \[50, 30, 10\]"),
        ({"tile": 0}, "tile = 0, but certified_important does not score grids"),
    ],
)
def test_a_metric_of_votes_names_what_there_is(selected, change, told):
    params = given()
    params["metrics"]["certified"]["certified_important"] = {**TEST, **change}
    write(selected, params)
    with pytest.raises(UserError, match=told):
        load(selected)


def test_a_metric_of_maps_has_no_smoothing(selected):
    params = given()
    params["metrics"]["localization"]["pointing_game"]["smoothings"] = ["noise_15"]
    write(selected, params)
    with pytest.raises(UserError, match="pointing_game: smoothings and level are of metrics of votes"):
        load(selected)


@pytest.mark.parametrize(
    ("family", "name", "change", "told"),
    [
        (
            "certified",
            "certified_important",
            {"tau": [0.4]},
            r"'tau' = \[0.4\]: expected each at least 0.5 and less than 1",
        ),
        ("certified", "certified_important", {"tau": [0.7, 0.7]}, "have the same radius; expected each radius once"),
        ("certified", "certified_important", {"count": 5}, "count = 5: there are 4 images with votes"),
        ("certified_grid", "certified_grid_pointing_game", {"tile": 4}, "tile = 4: grids have the tiles 0 to 3"),
    ],
)
def test_what_a_metric_of_votes_cannot_judge_is_told(selected, family, name, change, told):
    params = given(n0=1, n=1)
    params["metrics"][family][name] = {**params["metrics"][family][name], **change}
    with pytest.raises(UserError, match=told):
        scored(selected, params)


def test_votes_that_can_certify_nothing_are_told_where_the_size_of_images_is_known_by_the_images_alone(
    selected, monkeypatch
):
    params = given(grids=0)
    params["metrics"]["certified"]["certified_important"] = {**TEST, "tau": [0.75]}
    monkeypatch.setattr("atlas.study.params.side", lambda *_: None)
    with pytest.raises(UserError, match=r"tau = 0\.75: on \w+ no pixel can be certified, not by all 30 votes .* 4096"):
        scored(selected, params)


def test_more_images_than_there_are_cannot_be_certified(selected):
    with pytest.raises(UserError, match=r"certify\.noise_15\.images = 99: there are 12 images; expected at most that"):
        visit(selected, given(images=99))


def test_rows_are_voted_on_in_full_batches():
    assert certify.at_a_time(samples=110, batch=64) == 4
    assert certify.at_a_time(samples=64, batch=64) == 1
    for samples in range(1, 130):
        rows = certify.at_a_time(samples, 32)
        assert rows * samples >= 0.95 * 32 * -(-rows * samples // 32)
