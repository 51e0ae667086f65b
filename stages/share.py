"""Open what a study made, labelled and lazy: `open_maps("resnet_robust", "gradcam")`, `open_results()`.

Where the data is not here yet, `dvc pull` brings it from the study's remote.
"""

from pathlib import Path
from typing import Literal

import xarray as xr

from stages.study.params import entries, load, path
from stages.study.problem import Problem


def open_maps(
    classifier: str, method: str, *, on: Literal["images", "grids"] = "images", study: Path | str = "."
) -> xr.DataArray:
    """Open the maps of a method; only the rows that are asked for are read.

    Args:
        classifier: A key of `classifiers` of params.yaml.
        method: A name of one of the families of `methods`.
        on: The evaluation images, or the grids.
        study: The folder of params.yaml.

    Returns:
        `attribution` over `image y x` or `grid tile y x`, raw and signed. Rows of a method that cannot serve the
        classifier are NaN and the attribute `unsupported` says why.

    Raises:
        Problem: no such classifier or method, or the maps are not here.
    """
    params = load(Path(study))
    families = {name: family for family, listed in entries(params, "methods").items() for name in listed}
    for kind, name, known in (("classifier", classifier, params["classifiers"]), ("method", method, families)):
        if name not in known:
            raise Problem(f"{Path(study) / 'params.yaml'} names no {kind} '{name}'; it names: {', '.join(known)}")
    store = path(Path(study), "maps", classifier, families[method], method)
    opened = _opened(store, on)
    maps = opened["attribution"]
    if "unsupported" in opened.attrs:
        maps.attrs["unsupported"] = opened.attrs["unsupported"]
    return maps


def open_results(name: str = "summary", *, study: Path | str = ".") -> xr.Dataset:
    """Open one of the results; a twin for pandas, with a row for each cell, is `data/results/<name>.parquet`.

    Args:
        name: `summary`, `scores`, `curves`, `certified`, `contrasts`, `agreement`, `precision`, `controls`,
            `comparison` or `cost`.
        study: The folder of params.yaml.

    Raises:
        Problem: there is no such result here.
    """
    return _opened(Path(study) / "data" / "results" / f"{name}.zarr", None)


def _opened(store: Path, group: str | None) -> xr.Dataset:
    if not store.is_dir():
        raise Problem(f"{store} is not here: make it with `dvc repro`, or bring it with `dvc pull`")
    return xr.open_zarr(store, group=group, consolidated=False)
