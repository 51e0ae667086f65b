"""Stacks under stress: what is fetched, what a damaged or absent file costs, and what a killed process leaves."""

import os
import shutil
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import zarr

from atlas.cache import keys, stores
from atlas.cache.memos import Memos
from atlas.cache.rows import RowStore
from atlas.cache.stacks import Stack, stack
from atlas.cache.tables import Coords, Field, Table

SIDE = 40  # of maps: each has 6400 bytes, and a chunk of its own
IMAGES = [f"image_{number}" for number in range(12)]
CELL = "attribute@net-cam"


def maps(method: str, images: list[str]) -> Table:
    made = b"".join(keys.digest(method, image) for image in images)
    coords: Coords = {"image": (("image",), np.array(images, np.dtypes.StringDType()))}
    fields = {"attribution": Field(("y", "x"), (SIDE, SIDE), "float32")}
    return Table(method, ("image",), np.frombuffer(made, "uint8").reshape(-1, keys.SIZE), fields, coords)


def curve(metric: str, points: int, images: list[str]) -> Table:
    one = maps(metric, images)
    field = Field(("fraction",) * (points > 1), (points,) * (points > 1), "float32")
    return one._replace(fields={"score": field})


def values(one: Table, *, undefined: bool = False) -> dict[str, np.ndarray]:
    ((name, field),) = one.fields.items()
    rng = np.random.default_rng(list(one.keys[0].tobytes()))
    found = rng.normal(size=(*one.keys.shape[:-1], *field.shape)).astype("float32")
    return {name: np.full_like(found, np.nan) if undefined else found}


def stacked(tables: list[Table], images: list[str], *, spread: bool = False) -> list[Stack]:
    coords: Coords = {"image": (("image",), np.array(images, np.dtypes.StringDType()))}
    dim = "metric" if spread else "method"
    return [stack("images", dim, {one.name: one for one in tables}, coords, spread=spread)]


def visit(folder: Path, tables: list[Table], images: list[str], shard_rows: int = 5, **kinds: bool) -> int:
    """Make an output as a verb does; return how many rows were computed."""
    with RowStore(folder, CELL, folder / "cam.zarr", shard_rows) as rows:
        for one in tables:
            missing = rows.missing(one)
            if len(missing):
                made = values(one, undefined=kinds.get("undefined", False))
                rows.put(one, missing, {name: found[missing] for name, found in made.items()})
        rows.finish(stacked(tables, images, spread=kinds.get("spread", False)), {"": {}})
        return rows.computed


def under(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root)): one.read_bytes() for one in sorted(root.rglob("*")) if one.is_file()}


def links(output: Path, place: Path) -> Path:
    """Lay an output out as links to files of a cache, as one that is recorded."""
    shutil.copytree(output, place.with_name("objects"))
    shutil.copytree(output, place, copy_function=lambda source, target: None)
    for name in under(output):
        (place / name).symlink_to(place.with_name("objects") / name)
    return place


@pytest.mark.parametrize("images", [1, 3, 12])
def test_a_shard_of_several_tables_has_no_room_for_rows_that_there_are_not(tmp_path, images):
    """A shard lists all chunks that it has room for: a few small maps took a megabyte."""
    tables = [maps(name, IMAGES[:images]) for name in "abc"]
    visit(tmp_path, tables, IMAGES[:images], 1024)
    (shard,) = (one for one in (tmp_path / "cam.zarr/images/attribution/c").rglob("*") if one.is_file())
    assert shard.stat().st_size < 1.1 * 3 * images * SIDE * SIDE * 4
    found = zarr.open_group(tmp_path / "cam.zarr/images", mode="r")["attribution"]
    for at, one in enumerate(tables):
        np.testing.assert_array_equal(found[at], values(one)["attribution"])


@pytest.mark.parametrize("names", ["bc", "ab", "xabc", "abcx", "acb", "cxba"])
def test_a_method_more_or_less_or_elsewhere_gives_the_bytes_of_a_fresh_run(tmp_path, names):
    for shard_rows in (5, 1024):
        place, fresh = tmp_path / f"{shard_rows}", tmp_path / f"{shard_rows}_fresh"
        visit(place, [maps(name, IMAGES) for name in "abc"], IMAGES, shard_rows)
        assert visit(place, [maps(name, IMAGES) for name in names], IMAGES, shard_rows) == 12 * ("x" in names)
        visit(fresh, [maps(name, IMAGES) for name in names], IMAGES, shard_rows)
        assert under(place / "cam.zarr") == under(fresh / "cam.zarr")


def test_methods_with_equal_settings_and_different_counts_are_each_whole(tmp_path):
    """They have the same keys; a row is found once, and stands under each that asks for it."""
    every = maps("a", IMAGES)
    few = every._replace(name="few", keys=np.where(np.arange(12)[:, None] < 7, every.keys, 0).astype("uint8"))
    for order in ([every, few], [few, every]):
        folder = tmp_path / order[0].name
        assert visit(folder, order, IMAGES) == 12
        assert visit(folder, order[::-1], IMAGES) == 0
        group = zarr.open_group(folder / "cam.zarr/images", mode="r")
        for name, found, known in zip(group["method"][:], group["attribution"][:], group["key"][:], strict=True):
            count = 7 if name == "few" else 12
            np.testing.assert_array_equal(found[:count], values(every)["attribution"][:count])
            assert np.isnan(found[count:]).all()
            assert known[..., : keys.SIZE].any(axis=-1).tolist() == [at < count for at in range(12)]


def test_of_maps_only_the_shards_asked_for_are_fetched(tmp_path):
    tables = [maps(name, IMAGES) for name in "abc"]
    for shard_rows, expected in ((5, {"c/1/0/0/0", "c/1/2/0/0"}), (1024, {"c/0/0/0/0"})):
        folder = tmp_path / str(shard_rows)
        visit(folder, tables, IMAGES, shard_rows)
        place = links(folder / "cam.zarr", folder / "recorded")
        shutil.rmtree(folder / "objects/images/attribution/c")
        memos = Memos()
        memos.add_output(place)
        absent = memos.absent([tables[1].keys[at].tobytes() for at in (0, 3, 11)], tables[1].fields)
        assert {str(one.relative_to(place / "images/attribution")) for one in absent} == expected


def test_of_scores_only_the_chunks_asked_for_are_fetched_and_are_enough(tmp_path, monkeypatch):
    """A chunk holds places of several metrics, and a curve lies in several chunks."""
    monkeypatch.setattr(stores, "SMALL_BYTES", 4 * len(IMAGES) * 4)  # four places a chunk
    stores._draft.cache_clear()
    stores._files.cache_clear()
    tables = [curve(name, points, IMAGES) for name, points in (("a", 3), ("b", 1), ("c", 6), ("d", 1), ("e", 2))]
    visit(tmp_path, tables, IMAGES, spread=True)
    place = links(tmp_path / "cam.zarr", tmp_path / "recorded")
    chunks = tmp_path / "objects/images/score/c"
    assert sorted(one.name for one in chunks.iterdir()) == ["0", "1", "2", "3"]
    for one, expected in zip(tables, ({"0"}, {"0"}, {"1", "2"}, {"2"}, {"2", "3"}), strict=True):
        aside = chunks.rename(tmp_path / "aside")
        memos = Memos()
        memos.add_output(place)
        asked = [key.tobytes() for key in one.keys]
        assert memos.intact(asked, one.fields) == [False] * 12
        absent = memos.absent(asked, one.fields)
        assert {file.parent.name for file in absent} == expected
        for file in absent:
            target = Path(os.readlink(file))
            target.parent.mkdir(parents=True)
            shutil.copyfile(aside / target.relative_to(chunks), target)
        memos.forget_arrays()
        assert memos.intact(asked, one.fields) == [True] * 12
        np.testing.assert_array_equal(memos.read(asked, one.fields)[0]["score"], values(one)["score"])
        shutil.rmtree(chunks)
        aside.rename(chunks)
    stores._draft.cache_clear()
    stores._files.cache_clear()


def test_a_shard_of_undefined_maps_that_is_not_in_the_cache_is_made_again(tmp_path):
    """Absent rows are read as missing values, which undefined maps are: they match, and there is no file to copy."""
    visit(tmp_path, [maps("a", IMAGES)], IMAGES, undefined=True)
    before = under(tmp_path / "cam.zarr")
    shutil.rmtree(tmp_path / "cam.zarr")
    (tmp_path / f".atlas/cells/{CELL}/output/images/attribution/c/0/1/0/0").unlink()
    visit(tmp_path, [maps("a", IMAGES)], IMAGES, undefined=True)
    assert under(tmp_path / "cam.zarr") == before


@pytest.mark.parametrize("name", ["zarr.json", "key/zarr.json", "score/zarr.json", "key/c/0/0/0", "score/c/0/0"])
def test_a_changed_byte_gives_no_wrong_row_and_no_traceback(tmp_path, name):
    tables = [curve("a", 3, IMAGES[:3]), curve("b", 1, IMAGES[:3])]
    visit(tmp_path, tables, IMAGES[:3], spread=True)
    file = tmp_path / f".atlas/cells/{CELL}/output/images" / name
    good = file.read_bytes()
    file.unlink()  # a link to the file of the output
    places = [at for at, byte in enumerate(good) if name.endswith("/0") or byte not in b' \n{}[]:,"']
    for at in places[:: max(1, len(places) // 12)]:
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        memos = Memos()
        memos.add_output(file.parents[len(Path(name).parts)])
        for one in tables:
            asked = [key.tobytes() for key in one.keys]
            memos.absent(asked, one.fields)
            held = [place for place, intact in enumerate(memos.intact(asked, one.fields)) if intact]
            if held:
                found = memos.read([asked[place] for place in held], one.fields)[0]["score"]
                np.testing.assert_array_equal(found, values(one)["score"][held])


STEPS = [
    "atlas.cache.assembly.group_at",
    "atlas.cache.assembly.array",
    "atlas.cache.assembly.begin",
    "atlas.cache.assembly.copy_shard",
    "atlas.cache.memos.Memos.read",
    "atlas.cache.rows.check",
    "atlas.cache.rows.replace",
    "atlas.cache.stores.placed",
    "atlas.cache.stores._link",
    "atlas.cache.rows.place",
]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_while_it_assembles_loses_no_row(tmp_path, monkeypatch, step, number):
    """At a call of a step: the output is the old one or the new one or none, and nothing is computed again."""
    old, new = ([maps(name, IMAGES) for name in names] for names in ("a", "xa"))
    visit(tmp_path / "fresh", new, IMAGES)
    visit(tmp_path, old, IMAGES)
    whole, before = under(tmp_path / "fresh/cam.zarr"), under(tmp_path / "cam.zarr")
    with RowStore(tmp_path, CELL, tmp_path / "cam.zarr", 5) as rows:
        rows.put(new[0], np.arange(12), values(new[0]))
    original, calls = resolve_name(step), []

    def dies(*given, **named):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return original(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(step, dies)
        try:
            assert visit(tmp_path, new, IMAGES) == 0
        except KeyboardInterrupt:
            assert under(tmp_path / "cam.zarr") in ({}, before, whole)
    assert calls, "the step is one of assembling"
    assert visit(tmp_path, new, IMAGES) == 0
    assert under(tmp_path / "cam.zarr") == whole
