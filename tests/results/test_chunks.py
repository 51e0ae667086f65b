"""Arrays read chunk by chunk: the values that Zarr reads, and nothing in place of what is damaged."""

from pathlib import Path

import numpy as np
import pytest

from atlas.cache.stores import COMPRESSORS, UNREADABLE, array, group_at
from atlas.results import chunks

RNG = np.random.default_rng(0)
VALUES = {
    "small": RNG.normal(size=(3, 5)).astype("float32"),
    "long": RNG.normal(size=(3, 2000)),  # a row is a chunk in a shard, which is left to Zarr
    "keys": RNG.integers(256, size=(3, 5, 16)).astype("uint8"),
    "none": np.zeros((0, 5), "float32"),
    "words": np.array(["one", "zwölf", ""], np.dtypes.StringDType()),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    group = group_at(tmp_path / "store", {})
    for name, values in VALUES.items():
        array(group, name, values, tuple("abc"[: values.ndim]), {"units": name})
    layout = {"shape": (7, 5), "chunks": (3, 2), "dtype": "int32", "compressors": COMPRESSORS}
    group.create_array("uneven", dimension_names=("a", "b"), **layout)[...] = np.arange(35).reshape(7, 5)
    return tmp_path / "store"


@pytest.mark.parametrize("name", VALUES)
def test_an_array_is_as_it_was_written(folder, name):
    found = chunks.read(folder / name)
    assert found.values.shape == VALUES[name].shape
    assert found.values.tolist() == VALUES[name].tolist()
    assert name == "words" or found.values.dtype == VALUES[name].dtype
    assert (found.dims, found.attrs) == (tuple("abc"[: VALUES[name].ndim]), {"units": name})


def test_chunks_at_the_end_are_cut_to_the_array(folder):
    np.testing.assert_array_equal(chunks.read(folder / "uneven").values, np.arange(35).reshape(7, 5))


def test_what_is_missing_or_damaged_is_never_a_value(folder):
    chunk = folder / "small" / "c" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[-8] ^= 1
    chunk.write_bytes(data)
    with pytest.raises(UNREADABLE, match="checksum"):
        chunks.read(folder / "small")
    chunk.unlink()
    with pytest.raises(UNREADABLE):
        chunks.read(folder / "small")
