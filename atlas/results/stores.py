"""Write tables of results as Zarr stores."""

from pathlib import Path

import numpy as np
import xarray as xr

from atlas.cache.stores import COMPRESSORS


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a table as a store."""
    encoding = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "UO":
            dataset[name] = variable.astype(np.dtypes.StringDType())
            continue
        # The scores on one classifier, by all methods and metrics, are read together.
        sizes = tuple(1 if dim == "classifier" else size for dim, size in variable.sizes.items())
        encoding[name] = {"chunks": sizes, "compressors": COMPRESSORS} if variable.ndim else {}
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
