"""Results and tables for papers are zip files that depend on their content alone."""

import os
import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr
from zarr.storage import ZipStore

from atlas.cache import zipped
from atlas.results import stores
from atlas.study.errors import UserError

LABELS = {"classifier": ["one", "two"], "method": ["a", "b", "c"]}


def made() -> dict[str, xr.Dataset]:
    values = np.arange(6.0).reshape(2, 3)
    values[1, 2] = np.nan
    summary = xr.Dataset({"mean": (tuple(LABELS), values)}, LABELS, {"bootstrap": {"level": 0.95}})
    return {"summary": summary, "cost": xr.Dataset({"passes": ("method", [1, 2, 3])}, {"method": LABELS["method"]})}


@pytest.fixture
def tables() -> dict[str, xr.Dataset]:
    return made()


@pytest.fixture
def file(tables, tmp_path):
    stores.write(tables, tmp_path / "results.zarr.zip")
    assert [one.name for one in tmp_path.iterdir()] == ["results.zarr.zip"]
    return tmp_path / "results.zarr.zip"


def test_equal_content_gives_equal_bytes(tmp_path):
    found = []
    for number, names in enumerate(("ab", "ba")):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
            (folder / name).chmod((0o600, 0o755)[number])
            os.utime(folder / name, (number * 1e9,) * 2)
        zipped.write(tmp_path / f"{number}.zip", {name: folder / name for name in names} | {"c": b"c"})
        found.append((tmp_path / f"{number}.zip").read_bytes())
    assert found[0] == found[1]
    with zipfile.ZipFile(tmp_path / "0.zip") as archive:
        assert [archive.read(name) for name in archive.namelist()] == [b"a", b"b", b"c"]
        assert {one.compress_type for one in archive.infolist()} == {zipfile.ZIP_STORED}


def test_tables_open_without_a_warning(tables, file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(ZipStore(file), engine="zarr")
        assert set(tree.children) == set(tables)
        for name, table in tables.items():
            opened = xr.open_zarr(ZipStore(file), group=name)
            xr.testing.assert_identical(opened.load(), table)
            xr.testing.assert_identical(tree[name].to_dataset().load(), table)
            xr.testing.assert_identical(zipped.read(file, name), table)
    assert zipped.tables(file) == ["cost", "summary"]


def test_equal_tables_give_equal_bytes(file, tmp_path):
    (tmp_path / "again").mkdir()
    stores.write(dict(reversed(made().items())), tmp_path / "again" / file.name)
    assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "no table"])
def test_what_cannot_be_read_is_one_line(file, damage):
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[:-50])
    elif damage == "changed":
        with zipfile.ZipFile(file) as archive:
            at = archive.getinfo("summary/mean/c/0/0").header_offset
        file.write_bytes(data[: at + 60] + bytes(8) + data[at + 68 :])
    with pytest.raises(
        UserError, match=r"results\.zarr\.zip: cannot be read .*; run stages\.aggregate again"
    ) as raised:
        zipped.read(file, "summary" if damage != "no table" else "sumary")
    assert "\n" not in str(raised.value)
