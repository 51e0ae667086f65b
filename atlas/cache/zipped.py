"""Zip files whose bytes depend on their content alone: the results as one Zarr store, and tables for papers."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import xarray as xr
import zarr
from zarr.storage import ZipStore

from atlas.cache.stores import UNREADABLE
from atlas.study.errors import UserError

RESULTS = Path("data", "results", "results.zarr.zip")


def write(file: Path, members: Mapping[str, Path | bytes]) -> None:
    """Write files or bytes, by name, uncompressed and sorted, so that equal content gives equal bytes everywhere."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(members.items()):
            about = zipfile.ZipInfo(name)  # of 1980
            about.create_system, about.external_attr = 3, 0o100644 << 16
            if isinstance(content, bytes):
                archive.writestr(about, content)
                continue
            about.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(about, "w") as target:
                shutil.copyfileobj(source, target)


def tables(file: Path) -> list[str]:
    """Return the names of the tables in a zipped store.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return sorted(zarr.open_group(ZipStore(file, mode="r"), mode="r").group_keys())
    except UNREADABLE as error:
        raise unreadable(file, error) from None


def read(file: Path, name: str) -> xr.Dataset:
    """Read a table of a zipped store into memory.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return xr.open_zarr(ZipStore(file, mode="r"), group=name, chunks=None).load()
    except UNREADABLE as error:
        raise unreadable(file, error) from None


def unreadable(file: Path, error: Exception) -> UserError:
    """Return the error for results that are missing or damaged."""
    return UserError(f"{file}: cannot be read ({error}); run stages.aggregate again")
