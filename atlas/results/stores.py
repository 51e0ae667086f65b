"""Write tables of results as one zipped Zarr store."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.errors import ZarrUserWarning

from atlas.cache import zipped
from atlas.cache.stores import COMPRESSORS


def write(tables: dict[str, xr.Dataset], file: Path) -> None:
    """Write tables into a zipped store, each as a group of its own; equal tables give equal bytes."""
    folder = file.with_suffix("")
    zarr.create_group(folder, zarr_format=3)
    for group, dataset in tables.items():
        encoding = {}
        for name, variable in dataset.variables.items():
            if variable.dtype.kind in "UO":
                dataset[name] = variable.astype(np.dtypes.StringDType())
                continue
            # The scores on one classifier, by all methods and metrics, are read together.
            sizes = tuple(1 if dim == "classifier" else size for dim, size in variable.sizes.items())
            encoding[name] = {"chunks": sizes, "compressors": COMPRESSORS} if variable.ndim else {}
        dataset.to_zarr(folder, group=group, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    with warnings.catch_warnings():
        # All descriptions in one: not in Zarr's specification yet, and read by zarr and xarray without a warning.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(folder, zarr_format=3)
    zipped.write(file, {one.relative_to(folder).as_posix(): one for one in folder.rglob("*") if one.is_file()})
    shutil.rmtree(folder)
