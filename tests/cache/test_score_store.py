"""Stores of scores: metrics with the same rows share arrays, and each is found again as it was."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr

from atlas.cache.rows import RowStore
from atlas.cache.score_store import Place, find, stacked
from atlas.cache.tables import Field, Table
from atlas.study.errors import UserError
from tests.support.scores import read

METHODS = ["one", "two"]
REFUSED = {"two": "it has no layers"}


def table(metric: str, images: int = 4, *, methods: list[str] = METHODS, points: int = 0, refused=None) -> Table:
    """A metric's table, with a key of its own for each row but the last, which there is not."""
    rng = np.random.default_rng(list(metric.encode()))
    keys = rng.integers(1, 256, (len(methods), images, 16), "uint8")
    keys[-1:, -1] = 0
    coords = {
        "method": (("method",), np.array(methods, np.dtypes.StringDType())),
        "image": (("image",), np.array([f"image_{number}" for number in range(images)], np.dtypes.StringDType())),
        "target": (("image",), np.arange(images)),
    }
    coords |= {"fraction": (("fraction",), np.linspace(0, 1, points))} if points else {}
    field = Field(("fraction",) if points else (), (points,) if points else (), "float32", {"long_name": metric})
    attrs = {"unsupported": {}} | ({"unsupported": REFUSED, "refused": {"ab": refused}} if refused else {})
    return Table(metric, ("method", "image"), keys, {"score": field}, coords, attrs)


TABLES = [
    table("deletion", points=3),
    table("sparseness"),
    table("mae", refused="it has no layers"),
    table("sufficiency", images=2),
    table("insertion", points=3),
    table("irof", points=5),
    table("infidelity", methods=["one"]),
]
GROUPS = {
    "image_fraction": ["deletion", "insertion"],
    "image": ["sparseness", "mae"],
    "image_2": ["sufficiency"],
    "image_fraction_2": ["irof"],
    "image_3": ["infidelity"],
}


def scores(one: Table) -> np.ndarray:
    """What is journaled as the scores of a table's rows."""
    rng = np.random.default_rng(list(one.group.encode()))
    return rng.normal(size=(*one.keys.shape[:-1], *one.fields["score"].shape)).astype("float32")


@pytest.fixture
def store(tmp_path):
    """A store of scores as a cell leaves it."""
    output = tmp_path / "cam.zarr"
    with RowStore(tmp_path, "score@net-cam", output, 4) as rows:
        for one in TABLES:
            missing = rows.missing(one)
            values = scores(one).reshape(-1, *one.fields["score"].shape)
            rows.put(one, missing, {"score": values[missing]})
        rows.finish(stacked(TABLES), {"": {"family": "cam", "absent": {"pointing_game": "there are no boxes"}}})
    return output


def test_metrics_with_the_same_dimensions_and_labels_are_stacked_in_their_order():
    assert {one.group: one.coords["metric"][1].tolist() for one in stacked(TABLES)} == GROUPS
    for one in stacked(TABLES):
        assert one.dims == ("metric", "method", "image")
        assert list(one.attrs["metrics"]) == GROUPS[one.group]
        of = [next(table for table in TABLES if table.group == name) for name in GROUPS[one.group]]
        np.testing.assert_array_equal(one.keys, np.stack([table.keys for table in of]))


def test_labels_that_differ_in_one_value_are_not_shared():
    other = table("mae")
    other.coords["target"] = (("image",), np.array([0, 1, 2, 9]))
    assert [one.group for one in stacked([table("sparseness"), other])] == ["image", "image_2"]


def test_each_metric_is_found_with_its_values_labels_and_attributes(store):
    for one in TABLES:
        found = read(store, one.group)
        asked = one.keys.any(axis=-1)
        np.testing.assert_array_equal(found["score"][asked], scores(one)[asked])
        assert np.isnan(found["score"][~asked]).all()
        np.testing.assert_array_equal(found["key"], one.keys)
        for name, (_, labels) in one.coords.items():
            np.testing.assert_array_equal(found[name], labels)
        attrs = find(store).places[one.group].attrs
        assert attrs == {"long_name": one.group, "unsupported": one.attrs["unsupported"]}
    assert find(store).places["pointing_game"] == Place("", 0, {"absent": "there are no boxes"})


def test_a_metric_more_or_in_another_place_makes_no_row_anew(tmp_path, store):
    more = [table("wsl"), *TABLES[::-1]]
    with RowStore(tmp_path, "score@net-cam", store, 4) as rows:
        assert {one.group: len(rows.missing(one)) for one in more if len(rows.missing(one))} == {"wsl": 7}
        assert rows.refusal(b"") is None
        rows.put(more[0], rows.missing(more[0]), {"score": np.zeros(7, "float32")})
        rows.finish(stacked(more), {"": {"family": "cam", "absent": {}}})
    for one in TABLES:
        asked = one.keys.any(axis=-1)
        np.testing.assert_array_equal(read(store, one.group)["score"][asked], scores(one)[asked])


def test_a_damaged_group_costs_its_metrics_and_no_other(tmp_path, store):
    for place in (store, tmp_path / ".atlas/cells/score@net-cam/output"):
        for chunk in (place / "image/score/c").rglob("0"):
            if chunk.is_file():
                content = bytearray(chunk.read_bytes())
                content[-6] ^= 1
                chunk.unlink()  # the two are links to one file
                chunk.write_bytes(content)
    with RowStore(tmp_path, "score@net-cam", store, 4) as rows:
        assert [one.group for one in TABLES if len(rows.missing(one))] == GROUPS["image"]


def test_it_has_few_files_however_many_metrics(tmp_path):
    few, many = ([table(f"metric_{number}") for number in range(count)] for count in (2, 40))
    made = {}
    for name, tables in (("few", few), ("many", many)):
        with RowStore(tmp_path, name, tmp_path / f"{name}.zarr", 4) as rows:
            for one in tables:
                rows.put(one, rows.missing(one), {"score": np.zeros(7, "float32")})
            rows.finish(stacked(tables), {"": {"family": "cam", "absent": {}}})
        made[name] = sum(file.is_file() for file in (tmp_path / f"{name}.zarr").rglob("*"))
    assert made == {"few": 17 - 1, "many": 17 - 1}


def test_it_opens_as_a_tree_of_labelled_arrays(store):
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == set(GROUPS)
        scores_of = tree["image"]["score"].sel({"metric": "mae", "method": "one"})
        assert scores_of.dims == ("image",)
        assert tree["image"]["target"].values.tolist() == [0, 1, 2, 3]
    about = json.loads((store / "zarr.json").read_text())["attributes"]
    assert about == {"family": "cam", "absent": {"pointing_game": "there are no boxes"}}


def test_a_store_that_is_not_there_or_broken_is_named(tmp_path, store):
    with pytest.raises(UserError, match=r"none\.zarr: no scores can be read .*; run stages\.score again"):
        find(tmp_path / "none.zarr")
    (store / "image" / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"cam\.zarr: no scores can be read .*; run stages\.score again"):
        find(store)
    group = zarr.open_group(store, mode="r+")
    group.attrs.clear()
    with pytest.raises(UserError, match=r"cam\.zarr: no scores can be read"):
        find(store)
