"""Inputs of many images is read a few at a time, and is what it would be were it all held."""

import weakref

import numpy as np
import pytest
import torch

from atlas.cache.stores import values, write
from atlas.inputs import row_inputs
from atlas.model.batch_cache import shared
from atlas.study.study import Study

COUNT, SIDE = 12, (6, 8)


@pytest.fixture
def study(tmp_path):
    draw = np.random.default_rng(0)
    rows = ("image", "channel", "y", "x")
    images = {
        "image": (("image",), np.array([f"photo_{n}" for n in range(COUNT)])),
        "pixels": (rows, draw.integers(0, 256, (COUNT, 3, *SIDE)).astype("uint8")),
        "mask": (("image", "y", "x"), draw.random((COUNT, *SIDE)) < 0.5),
        "boxes": (("image", "box", "corner"), draw.integers(0, 6, (COUNT, 2, 4))),
        "target": (("image",), np.arange(COUNT) % 3),
    }
    background = {"image": (("image",), np.array(["b"])), "pixels": (rows, np.ones((1, 3, *SIDE), "uint8"))}
    write(tmp_path / "data/images/net.zarr", {"images": images, "background": background}, {"known": True})
    grids = {
        "grid": (("grid",), np.array(["g0", "g1", "g2"])),
        "pixels": (("grid", *rows[1:]), draw.integers(0, 256, (3, 3, *SIDE)).astype("uint8")),
        "target": (("grid", "tile"), np.arange(12).reshape(3, 4) % 5),
    }
    write(tmp_path / "data/grids/net.zarr", {"grids": grids, "background": background}, {})
    return Study(tmp_path, {"seed": 0})


def held(seen: row_inputs.Inputs) -> row_inputs.Inputs:
    """The same inputs, all of it in memory."""
    arrays = {name: rows[np.arange(len(seen.ids))] for name, rows in seen.arrays.items()}
    return seen._replace(arrays=arrays, pixels=seen.pixels[np.arange(len(seen.pixels))])


@pytest.mark.parametrize("gather", [row_inputs.images, row_inputs.grids])
@pytest.mark.parametrize("read", [1, 5, 64])
def test_what_is_read_is_what_would_be_held(study, monkeypatch, gather, read):
    whole = held(gather(study, "net"))
    monkeypatch.setattr(row_inputs, "READ", read)
    seen = gather(study, "net")
    assert seen.pictures == whole.pictures
    assert seen.side == whole.side == SIDE
    names = ["images", "masks", "boxes", "tiles", "targets", "seeds", "background"]
    assert row_inputs.digests(seen, names) == row_inputs.digests(whole, names)
    for positions in (np.array([7, 2, 3]), np.arange(COUNT)):
        one, other = (row_inputs.tensors(known, positions, "cpu") for known in (seen, whole))
        assert one.keys() == other.keys()
        assert one["seeds"] == other["seeds"]
        assert all(torch.equal(one[name], other[name]) for name in one if name != "seeds")


def test_tiles_are_those_of_their_rows(study):
    tiles = row_inputs.tensors(row_inputs.grids(study, "net"), np.array([0, 5, 11]), "cpu")["tiles"]
    for tile, mask in zip((0, 1, 3), tiles, strict=True):
        assert torch.equal(mask, torch.from_numpy(row_inputs.tile_masks(SIDE, 4)[tile]))


@pytest.mark.parametrize("gather", [row_inputs.images, row_inputs.grids])
def test_no_more_is_read_than_a_batch_needs(study, monkeypatch, gather):
    asked: list[tuple[str, int]] = []

    def told(store, name, rows=slice(None)):
        found = values(store, name, rows)
        asked.append((name, len(found)))
        return found

    monkeypatch.setattr(row_inputs, "values", told)
    monkeypatch.setattr(row_inputs, "READ", 3)
    seen = gather(study, "net")
    row_inputs.digests(seen, ["images", "masks", "tiles"])
    batches = list(row_inputs.batches({"gradient": np.arange(COUNT)}, 4, seen, "cpu"))
    assert len(batches) == 3
    assert max(count for name, count in asked if name in ("pixels", "mask")) <= 4


def test_a_whole_set_has_what_is_asked_for(study, monkeypatch):
    """Not its pixels and masks, which a metric of a whole set may slice."""
    asked = []
    monkeypatch.setattr(row_inputs, "values", lambda *given: asked.append(given[1]) or values(*given))
    seen = row_inputs.images(study, "net")
    asked.clear()
    whole = {"one": ["all_maps", "all_images", "targets", "positions"], "other": ["classifier"]}
    (first, rows, given), *rest = row_inputs.batches(
        dict.fromkeys([*whole, "third"], np.arange(COUNT)), 4, seen, "cpu", whole
    )
    assert (first, len(rows), {*given}) == ("one", COUNT, {"targets", "seeds", "background"})
    assert [(name, len(rows)) for name, rows, _ in rest] == [("other", COUNT), *[("third", 4)] * 3]
    assert "images" in rest[-1][2]
    asked.clear()
    next(row_inputs.batches({"one": np.arange(COUNT)}, 4, seen, "cpu", {"one": whole["one"]}))
    assert not {"pixels", "mask"} & set(asked)


def test_what_is_remembered_of_a_batch_is_held_as_long_as_it_lasts(study):
    seen, alive, made = row_inputs.images(study, "net"), weakref.WeakSet(), []

    @shared(calls=9)
    def work(images):
        made.append(images.clone())
        alive.add(made[-1])
        return made.pop()

    wanted = {"gradient": np.arange(COUNT), "cam": np.arange(COUNT), "lrp": np.arange(5)}
    for _, _, given in row_inputs.batches(wanted, 4, seen, "cpu"):
        first = work(given["images"])
        assert work(given["images"]) is first
        assert len(alive) <= 2  # the method judged on fewer images has a batch of its own
        del first
    assert len(alive) == 1
