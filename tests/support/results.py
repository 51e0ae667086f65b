"""Open and exchange the tables of results."""

import shutil
from pathlib import Path

import xarray as xr
import zarr
from zarr.storage import ZipStore

from atlas.cache import zipped
from atlas.cache.zipped import RESULTS


def opened(study: Path, name: str = "summary") -> xr.Dataset:
    """Open a table of a study's results, lazily."""
    return xr.open_zarr(ZipStore(study / RESULTS, mode="r"), group=name, chunks=None)


def names(study: Path) -> set[str]:
    return set(zarr.open_group(ZipStore(study / RESULTS, mode="r"), mode="r").group_keys())


def packed(folder: Path, file: Path) -> None:
    """Zip a folder, a Zarr store, and delete it."""
    zipped.write(file, {one.relative_to(folder).as_posix(): one for one in folder.rglob("*") if one.is_file()})
    shutil.rmtree(folder)
