"""Stores of scores: metrics of the same pictures share arrays, and each is found again as it was."""

import json

import numpy as np
import pytest
import xarray as xr
import zarr

from atlas.cache.rows import RowStore
from atlas.cache.score_store import find, stacked
from atlas.cache.stacks import Stack
from atlas.cache.tables import Field, Table
from atlas.study.errors import UserError
from tests.support.scores import about, read

METHODS = ["one", "two"]
REFUSED = {"two": "it has no layers"}
IMAGES = 4
ROWS = {
    "image": (("image",), np.array([f"image_{number}" for number in range(IMAGES)], np.dtypes.StringDType())),
    "target": (("image",), np.arange(IMAGES)[::-1]),
    "picture": (("image",), np.arange(IMAGES) // 2),
}


def table(metric: str, images: int = IMAGES, *, methods: list[str] = METHODS, points: int = 0, refused=None) -> Table:
    """A metric's table, with a key of its own for each row but the last, which there is not."""
    rng = np.random.default_rng(list(metric.encode()))
    keys = rng.integers(1, 256, (len(methods), images, 16), "uint8")
    keys[-1:, -1] = 0
    coords = {"method": (("method",), np.array(methods, np.dtypes.StringDType()))}
    coords |= {name: (dims, labels[:images]) for name, (dims, labels) in ROWS.items()}
    along = {"fraction": np.linspace(0, 1, points).tolist()} if points else {}
    field = Field(tuple(along), (points,) if points else (), "float32", {"long_name": "score"})
    attrs = {"better": metric, "unsupported": {}, "methods": methods, "count": images, "along": along}
    attrs |= {"unsupported": REFUSED, "refused": {"ab": refused}} if refused else {}
    return Table(metric, ("method", "image"), keys, {"score": field}, coords, attrs)


TABLES = [
    table("deletion", points=3),
    table("sparseness"),
    table("mae", refused="it has no layers"),
    table("sufficiency", images=2),
    table("insertion", points=3),
    table("irof", points=5),
    table("infidelity", methods=["two"]),
]


def scores(one: Table) -> np.ndarray:
    """What is journaled as the scores of a table's rows."""
    rng = np.random.default_rng(list(one.name.encode()))
    return rng.normal(size=(*one.keys.shape[:-1], *one.fields["score"].shape)).astype("float32")


def laid_out(tables: list[Table]) -> list[Stack]:
    return [stacked("images", tables, METHODS, ROWS)]


def visit(folder, store, tables: list[Table], absent: dict[str, str]) -> None:
    with RowStore(folder, "score@net-cam", store, 4) as rows:
        for one in tables:
            missing = rows.missing(one)
            values = scores(one).reshape(-1, *one.fields["score"].shape)
            if len(missing):
                rows.put(one, missing, {"score": values[missing]})
        rows.finish(laid_out(tables), {"": {"family": "cam", "absent": absent}})


@pytest.fixture
def store(tmp_path):
    """A store of scores as a cell leaves it."""
    output = tmp_path / "cam.zarr"
    visit(tmp_path, output, TABLES, {"pointing_game": "there are no boxes"})
    return output


def test_each_metric_is_found_with_its_values_labels_and_attributes(store):
    for one in TABLES:
        found = read(store, one.name)
        asked = one.keys.any(axis=-1)
        np.testing.assert_array_equal(found["score"][asked], scores(one)[asked])
        assert np.isnan(found["score"][~asked]).all()
        np.testing.assert_array_equal(found["key"], one.keys)
        for name, (_, labels) in one.coords.items():
            if name != "target":
                np.testing.assert_array_equal(found[name], labels)
        for name, points in one.attrs["along"].items():
            assert found[name].tolist() == points
        assert about(store, one.name) == {"better": one.name, "unsupported": one.attrs["unsupported"]}
    assert find(store).absent == {"pointing_game": "there are no boxes"}


def test_a_metric_more_or_in_another_place_makes_no_row_anew(tmp_path, store):
    more = [table("wsl"), *TABLES[::-1]]
    with RowStore(tmp_path, "score@net-cam", store, 4) as rows:
        assert {one.name: len(rows.missing(one)) for one in more if len(rows.missing(one))} == {"wsl": 7}
        assert rows.refusal(b"") is None
    visit(tmp_path, store, more, {})
    for one in TABLES:
        asked = one.keys.any(axis=-1)
        np.testing.assert_array_equal(read(store, one.name)["score"][asked], scores(one)[asked])


def test_metrics_with_the_same_keys_are_each_found(tmp_path):
    """Two entries of equal settings share rows, whichever of them asks for more."""
    few, every = table("mae", images=2), table("mae")
    alike = [every._replace(name="one"), few._replace(name="two", keys=every.keys[:, :2])]
    curve = table("mae", points=3)
    visit(tmp_path, tmp_path / "cam.zarr", [every], {})
    with RowStore(tmp_path, "score@net-cam", tmp_path / "cam.zarr", 4) as rows:
        assert [len(rows.missing(one)) for one in alike] == [0, 0]
        rows.finish(laid_out(alike), {"": {"family": "cam", "absent": {}}})
        assert len(rows.missing(curve)) == 7, "values of another shape are not taken for them"
    with RowStore(tmp_path, "score@net-cam", tmp_path / "cam.zarr", 4) as rows:
        assert [len(rows.missing(one)) for one in alike] == [0, 0]
    for name, images in (("one", 4), ("two", 2)):
        asked = every.keys[:, :images].any(axis=-1)
        np.testing.assert_array_equal(
            read(tmp_path / "cam.zarr", name)["score"][asked], scores(every)[:, :images][asked]
        )


def test_a_damaged_array_costs_its_rows_and_is_read_once(tmp_path, store, monkeypatch):
    for place in (store, tmp_path / ".atlas/cells/score@net-cam/output"):
        (chunk,) = (one for one in (place / "images/score/c").rglob("0") if one.is_file())
        content = bytearray(chunk.read_bytes())
        content[-6] ^= 1
        chunk.unlink()  # the two are links to one file
        chunk.write_bytes(content)
    with RowStore(tmp_path, "score@net-cam", store, 4) as rows:
        assert [one.name for one in TABLES if len(rows.missing(one))] == [one.name for one in TABLES]
        read_at = []
        reading = zarr.Array.__getitem__
        monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, at: read_at.append(self.path) or reading(self, at))
        rows.missing(TABLES[0])
    assert read_at.count("score") <= 1


def test_it_has_few_files_however_many_metrics(tmp_path):
    few, many = ([table(f"metric_{number}") for number in range(count)] for count in (2, 40))
    made = {}
    for name, tables in (("few", few), ("many", many)):
        visit(tmp_path / name, tmp_path / f"{name}.zarr", tables, {})
        made[name] = sum(file.is_file() for file in (tmp_path / f"{name}.zarr").rglob("*"))
    assert made == {"few": 14, "many": 14}


def test_it_opens_as_a_tree_of_labelled_arrays(store):
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == {"images"}
        scores_of = tree["images"]["score"].sel({"metric": "mae", "method": "one"})
        assert scores_of.dims == ("image",)
        assert tree["images"]["score"].sel({"metric": "irof", "method": "one"}).sizes == {"metric": 5, "image": IMAGES}
    known = json.loads((store / "zarr.json").read_text())["attributes"]
    assert known == {"family": "cam", "absent": {"pointing_game": "there are no boxes"}}


def test_a_store_that_is_not_there_or_broken_is_named(tmp_path, store):
    with pytest.raises(UserError, match=r"none\.zarr: no scores can be read .*; run stages\.score again"):
        find(tmp_path / "none.zarr")
    (store / "images" / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"cam\.zarr: the scores cannot be read"):
        find(store)
    group = zarr.open_group(store, mode="r+")
    group.attrs.clear()
    with pytest.raises(UserError, match=r"cam\.zarr: no scores can be read"):
        find(store)
