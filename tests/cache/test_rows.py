"""The store of keyed rows: what it takes from memos, what it journals, what it assembles."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from dvc.utils.serialize._yaml import dumps_yaml

from atlas.cache import keys
from atlas.cache.fingerprint import modules
from atlas.cache.memos import Memos
from atlas.cache.rows import RowStore
from atlas.cache.stacks import Stack, alone, place, stack
from atlas.cache.stores import array, begin, group_at
from atlas.cache.tables import Field, Table
from atlas.study import unedited
from atlas.study.errors import UserError

SIDE = 40


def table(names: list[str], name: str = "method/images") -> Table:
    made = np.frombuffer(b"".join(keys.digest(name) for name in names), "uint8").reshape(-1, keys.SIZE)
    coords = {"image": (("image",), np.array(names))}
    return Table(name, ("image",), made, {"attribution": Field(("y", "x"), (SIDE, SIDE), "float32")}, coords)


def value(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).normal(size=(SIDE, SIDE)).astype("float32")


def stacked(of: Table, method: str = "method") -> list[Stack]:
    """How the maps of one method lie in an output."""
    return [stack("images", "method", {method: of}, of.coords)]


def visit(study, names, *, shard_rows=5, finish=True, limit=None, method="method"):
    """Do what a verb does; give how many rows were computed."""
    output = study / "data" / "maps" / "cell"
    with RowStore(study, "attribute@cell", output, shard_rows) as rows:
        due = table(names, f"{method}/images")
        missing = rows.missing(due)[:limit]
        for part in (missing[at : at + 7] for at in range(0, len(missing), 7)):
            rows.put(due, part, {"attribution": np.stack([value(names[i]) for i in part])})
        if finish:
            rows.finish(stacked(due, method), {"": {}})
        return len(missing)


def files(study):
    return under(study / "data" / "maps" / "cell")


def under(root):
    return {str(one.relative_to(root)): one.read_bytes() for one in sorted(root.rglob("*")) if one.is_file()}


reading = Memos.read
NAMES = [f"image_{i:03}" for i in range(103)]


@pytest.mark.parametrize("shard_rows", [5, 25, 64])
def test_every_row_comes_out_whatever_the_shards(tmp_path, shard_rows):
    assert visit(tmp_path, NAMES, shard_rows=shard_rows) == 103
    made = xr.open_zarr(tmp_path / "data/maps/cell", group="images", consolidated=False)
    assert made.attribution.dims == ("method", "image", "y", "x")
    assert list(made.image.values) == NAMES
    found = made.attribution.sel({"method": "method"}).values
    np.testing.assert_array_equal(found, np.stack([value(name) for name in NAMES]))


def test_nothing_is_computed_twice_and_equal_runs_give_equal_bytes(tmp_path):
    visit(tmp_path, NAMES)
    before = files(tmp_path)
    shutil.rmtree(tmp_path / "data")  # as DVC does before a command
    assert visit(tmp_path, NAMES) == 0
    assert files(tmp_path) == before
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / ".atlas")
    assert visit(tmp_path, NAMES) == 103
    assert files(tmp_path) == before


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(tmp_path):
    visit(tmp_path / "whole", NAMES)
    for done in (20, 50, 30):
        visit(tmp_path / "broken", NAMES, finish=False, limit=done)
    assert not (tmp_path / "broken" / "data").exists()
    assert visit(tmp_path / "broken", NAMES) == 3
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_more_images_compute_the_added_ones_and_touch_no_full_shard(tmp_path):
    visit(tmp_path, NAMES[:20])
    before = files(tmp_path)
    assert visit(tmp_path, NAMES[:33]) == 13
    after = files(tmp_path)
    shards = [name for name in before if "attribution/c/" in name]
    assert len(shards) == 4
    assert all(after[name] == before[name] for name in shards)


def test_a_whole_shard_is_taken_as_a_file(tmp_path, monkeypatch):
    visit(tmp_path, NAMES[:18])
    visit(tmp_path, NAMES[:33], finish=False)
    read = []
    monkeypatch.setattr(Memos, "read", lambda self, keys, fields: read.extend(keys) or reading(self, keys, fields))
    monkeypatch.setattr(Memos, "intact", lambda self, keys, fields: [True] * len(keys))
    visit(tmp_path, NAMES[:33])
    assert len(read) == 18  # the first three shards of five were copied, the others put together
    monkeypatch.undo()
    visit(tmp_path / "at_once", NAMES[:33])
    assert files(tmp_path) == files(tmp_path / "at_once")


@pytest.mark.parametrize("count", [13, 15])
def test_a_shard_with_more_rows_than_are_due_is_no_whole_one(tmp_path, count):
    visit(tmp_path, NAMES[:20])
    assert visit(tmp_path, NAMES[:count]) == 0
    visit(tmp_path / "at_once", NAMES[:count])
    assert files(tmp_path) == files(tmp_path / "at_once")


def test_a_shard_of_another_size_is_no_whole_one(tmp_path):
    visit(tmp_path, NAMES[:20], shard_rows=10)
    assert visit(tmp_path, NAMES[:20], shard_rows=5) == 0
    visit(tmp_path / "at_once", NAMES[:20], shard_rows=5)
    assert files(tmp_path) == files(tmp_path / "at_once")


def test_rows_that_began_elsewhere_come_out_alike(tmp_path):
    for names in (NAMES[5:20], NAMES[3:18]):  # at a shard, and not at one
        moved, fresh = tmp_path / "moved" / names[0], tmp_path / "fresh" / names[0]
        visit(moved, NAMES[:20])
        assert visit(moved, names) == 0
        visit(fresh, names)
        assert files(moved) == files(fresh)


def test_grids_are_taken_as_files_too(tmp_path):
    due = table(NAMES[:12])
    labels = {"grid": (("grid",), np.arange(6)), "tile": (("tile",), np.arange(2))}
    tiles = due._replace(dims=("grid", "tile"), keys=due.keys.reshape(6, 2, keys.SIZE), coords=labels)
    output = tmp_path / "data" / "maps" / "cell"
    made = []
    for _ in range(2):
        with RowStore(tmp_path, "attribute@cell", output, 4) as rows:
            missing = rows.missing(tiles)
            if len(missing):
                rows.put(tiles, missing, {"attribution": np.stack([value(NAMES[i]) for i in missing])})
            rows.finish([stack("grids", "method", {"method": tiles}, tiles.coords)], {"": {}})
        made.append(files(tmp_path))
    assert made[0] == made[1]
    opened = zarr.open_group(output / "grids", mode="r")
    np.testing.assert_array_equal(opened["attribution"][0, 3, 1], value(NAMES[7]))


def test_small_tables_share_a_shard_and_large_ones_have_their_own(tmp_path):
    for count, shards in ((20, 1), (103, 3)):
        made = {name: table([f"{name} {one}" for one in NAMES[:count]], name) for name in "abc"}
        labels = {"image": (("image",), np.array(NAMES[:count]))}
        made = {name: one._replace(coords=labels) for name, one in made.items()}
        output = tmp_path / f"{count}"
        for _ in range(2):
            with RowStore(tmp_path, f"attribute@{count}", output, 128) as rows:
                for name, one in made.items():
                    missing = rows.missing(one)
                    if len(missing):
                        rows.put(one, missing, {"attribution": np.stack([value(f"{name} {i}") for i in missing])})
                rows.finish([stack("images", "method", made, labels)], {"": {}})
            assert rows.computed in (3 * count, 0)
        found = zarr.open_group(output / "images", mode="r")["attribution"]
        assert found.chunks == (1, 1, SIDE, SIDE), "a map is a chunk, and a range of a file"
        files = [one for one in (output / "images/attribution/c").rglob("*") if one.is_file()]
        assert len(files) == shards
        for at, name in enumerate("abc"):
            np.testing.assert_array_equal(found[at], np.stack([value(f"{name} {i}") for i in range(count)]))


def test_ten_more_images_change_what_is_new_and_no_more(tmp_path):
    """What a push uploads: files whose content is not in the remote yet."""
    before: set[bytes] = set()
    uploaded = []
    for count in (150, 160):
        made = {name: table([f"{name} {one}" for one in range(count)], name) for name in "abc"}
        labels = {"image": (("image",), np.arange(1000, 1000 + count))}
        made = {name: one._replace(coords=labels) for name, one in made.items()}
        with RowStore(tmp_path, "attribute@cell", tmp_path / "cell", 50) as rows:
            for name, one in made.items():
                missing = rows.missing(one)
                rows.put(one, missing, {"attribution": np.stack([value(f"{name} {i}") for i in missing])})
            rows.finish([stack("images", "method", made, labels)], {"": {}})
        data = set(under(tmp_path / "cell").values())
        uploaded.append((len(data - before), sum(map(len, data - before))))
        before = data
    (_, whole), (files, added) = uploaded
    assert files == 3 + 5, "a shard of each method; keys, labels, and what describes the three arrays"
    assert added < whole * 10 / 150 * 1.25


def test_order_and_names_cost_nothing(tmp_path):
    visit(tmp_path, NAMES[:20])
    assert visit(tmp_path, NAMES[:20][::-1]) == 0
    assert visit(tmp_path, NAMES[5:10], method="renamed") == 0


def test_rows_computed_as_nan_are_no_missing_rows(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "value", lambda name: np.full((SIDE, SIDE), np.nan, "float32"))
    visit(tmp_path, NAMES[:7])
    assert visit(tmp_path, NAMES[:7]) == 0


def test_a_torn_journal_file_is_no_row(tmp_path):
    visit(tmp_path, NAMES[:14], finish=False)
    torn = sorted((tmp_path / ".atlas/cells/attribute@cell/journal").glob("*.npz"))[0]
    torn.write_bytes(torn.read_bytes()[:-2000])
    assert visit(tmp_path, NAMES[:14]) == 7


def test_a_changed_byte_in_a_memo_costs_its_rows_and_no_more(tmp_path):
    visit(tmp_path, NAMES[:20])
    good = files(tmp_path)
    shutil.rmtree(tmp_path / "data")
    shard = tmp_path / ".atlas/cells/attribute@cell/output/images/attribution/c/0/1/0/0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    assert visit(tmp_path, NAMES[:20]) == 1
    assert files(tmp_path) == good


def test_a_row_whose_key_was_never_asked_for_is_not_in_the_output(tmp_path):
    visit(tmp_path, NAMES[:20])
    visit(tmp_path, NAMES[3:6])
    opened = zarr.open_group(tmp_path / "data/maps/cell/images", mode="r")
    assert opened["attribution"].shape[:2] == (1, 3)


@pytest.mark.parametrize("spell", [json.dumps, dumps_yaml])
def test_the_recorded_output_is_read_from_dvcs_cache(tmp_path, spell):
    visit(tmp_path, NAMES[:20])
    output = tmp_path / "data/maps/cell"
    cache = tmp_path / ".dvc/cache/files/md5"
    listing = []
    for number, (name, data) in enumerate(files(tmp_path).items()):
        md5 = f"{number:032x}"
        (cache / md5[:2]).mkdir(parents=True, exist_ok=True)
        (cache / md5[:2] / md5[2:]).write_bytes(data)
        listing.append({"md5": md5, "relpath": name})
    (cache / "ff").mkdir()
    (cache / "ff" / ("0" * 30 + ".dir")).write_text(json.dumps(listing))
    mine, other = (
        {"path": "data/maps/cell", "md5": "ff" + "0" * 30 + ".dir"},
        {"path": "data/maps/cells", "md5": "e.dir"},
    )
    stages = {"attribute@cell": {"outs": [mine]}, "attribute@cells": {"outs": [other]}}
    (tmp_path / "dvc.lock").write_text(spell({"schema": "2.0", "stages": stages}))
    before = files(tmp_path)
    shutil.rmtree(tmp_path / ".atlas")
    shutil.rmtree(output)
    assert visit(tmp_path, NAMES[:20]) == 0
    assert files(tmp_path) == before


def test_an_output_is_never_half_there(tmp_path, monkeypatch):
    visit(tmp_path, NAMES[:20])
    before = files(tmp_path)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("atlas.cache.rows.place", dies)
    with pytest.raises(KeyboardInterrupt):
        visit(tmp_path, NAMES[:40])
    assert files(tmp_path) == before
    monkeypatch.undo()
    assert visit(tmp_path, NAMES[:40]) == 0


def test_a_flipped_byte_in_an_output_is_told_and_not_read_as_data(tmp_path):
    visit(tmp_path, NAMES[:5])
    shard = tmp_path / "data/maps/cell/images/attribution/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.unlink()
    shard.write_bytes(bytes(data))
    opened = zarr.open_group(tmp_path / "data/maps/cell/images", mode="r")
    with pytest.raises(ValueError, match="checksum do not match"):
        opened["attribution"][:]


@pytest.mark.parametrize(
    ("values", "lead"),
    [
        (np.arange(6, dtype="uint8").reshape(2, 3), 1),
        (np.array([[1, np.nan], [3, 4]], "float32"), 2),
        (np.zeros((0, 3), "float32"), 1),
        (np.zeros((3, 4), bool), 1),
        (np.array(["a", "", "gr\u00fc\u00df"]), 1),
        (np.ones((3, 40, 40), "float32"), 1),
    ],
)
def test_small_arrays_are_spelled_as_zarr_writes_them(tmp_path, values, lead):
    dims, attrs = tuple("abc"[: values.ndim]), {"units": "1", "of": [1, {"b": None}]}
    group = group_at(tmp_path / "group", {})
    for name, one in (("first", values), ("other", values[::-1]), ("again", values)):
        array(group, name, one, dims, attrs, lead=lead)
        held = one.astype(np.dtypes.StringDType()) if one.dtype.kind == "U" else one
        begin(group, "due", held.shape, held.dtype, dims, attrs, lead=lead)[...] = held
        made, due = (under(tmp_path / "group" / place) for place in (name, "due"))
        assert made == due
        shutil.rmtree(tmp_path / "group" / "due")


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.zarr: the maps cannot be read"):
        place(tmp_path / "gone.zarr", "images", "gone", "maps")


def test_a_visit_logs_one_line(tmp_path):
    with RowStore(tmp_path, "attribute@cell", tmp_path / "data" / "maps" / "cell", 5) as rows:
        due = table(NAMES[:3])
        rows.missing(due)
        rows.put(due, np.array([0, 1, 2]), {"attribution": np.stack([value(name) for name in NAMES[:3]])})
        rows.finish([alone(due)], {})
        rows.log({"method": {"forward": 3, "backward": 0}})
    (line,) = (tmp_path / ".atlas/log.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert 20 < told["peak_mb"] < 20000
    assert (told["cell"], told["rows_wanted"], told["rows_reused"], told["rows_computed"]) == (
        "attribute@cell",
        3,
        0,
        3,
    )
    assert told["passes"] == {"method": {"forward": 3, "backward": 0}}


def test_a_damaged_memo_blocks_nothing(tmp_path):
    visit(tmp_path, NAMES[:5])
    (tmp_path / ".atlas/cells/attribute@cell/output/images/zarr.json").write_text("{")
    assert visit(tmp_path, NAMES[:5]) == 5


def test_an_output_set_aside_when_the_process_died_is_a_memo(tmp_path):
    visit(tmp_path, NAMES[:5])
    scratch = tmp_path / ".atlas/cells/attribute@cell"
    (scratch / "output").rename(scratch / ".output.0.partial")
    assert visit(tmp_path, NAMES[:5]) == 0
    assert not (scratch / ".output.0.partial").exists()


def test_nothing_is_journaled_once_the_code_was_edited(tmp_path, monkeypatch):
    file = modules.file("atlas.cache.rows")
    monkeypatch.setitem(unedited.READ, file, unedited.Read((0, 0, 0, 0), b"another", unedited.plain))
    with pytest.raises(UserError, match=r"atlas/cache/rows\.py was edited while this was running"):
        visit(tmp_path, NAMES[:5])


def test_an_output_that_lost_files_is_not_put_in_place(tmp_path, monkeypatch):
    """While it was assembled, and while it was put in place."""
    visit(tmp_path, NAMES[:20], finish=False)
    draft = RowStore.draft

    def lossy(self, tables, groups, root):
        draft(self, tables, groups, root)
        shutil.rmtree(root / "images/attribution/c/0/1")

    monkeypatch.setattr(RowStore, "draft", lossy)
    with pytest.raises(UserError, match="rows of it are not there; nothing is lost"):
        visit(tmp_path, NAMES[:20])
    monkeypatch.undo()
    monkeypatch.setattr("atlas.cache.stores._link", lambda source, target: None)
    with pytest.raises(UserError, match="files of it were deleted while it was put in place; nothing is lost"):
        visit(tmp_path, NAMES[:20])
    monkeypatch.undo()
    assert not (tmp_path / "data/maps/cell").exists()
    assert visit(tmp_path, NAMES[:20]) == 0
