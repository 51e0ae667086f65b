"""Open what a study made, labelled and lazy: `open_maps("resnet_robust", "gradcam")`, `open_results()`.

If the data is not present, `atlas pull` fetches it from the study's remote. What is opened, or a part of it, can be
written with `to_zarr` and `to_netcdf`; attributes other than text or a number are JSON text.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import xarray as xr
from zarr.storage import ZipStore

from atlas.cache import score_store, zipped
from atlas.cache.stacks import place
from atlas.study.errors import UserError
from atlas.study.study import Study


def open_maps(
    classifier: str, method: str, *, on: Literal["images", "grids"] = "images", study: Study | Path | str = "."
) -> xr.DataArray:
    """Open the maps of a method; only the rows that are accessed are read.

    Args:
        classifier: A key of `classifiers` of params.yaml.
        method: A name of one of the families of `methods`.
        on: The evaluation images, or the grids.
        study: The study, or the folder of its params.yaml.

    Returns:
        `attribution` over `image y x` or `grid tile y x`, raw and signed. Rows of a method that cannot serve the
        classifier are NaN and the attribute `unsupported` says why.

    Raises:
        UserError: there is no such classifier or method, or the maps are not present.
    """
    study = _study(study)
    _check_known(study, ("classifier", classifier, study.params["classifiers"]), ("method", method, study.all_methods))
    store = study.path("maps", classifier, study.all_methods[method].family)
    if on == "grids" and study.classifier(classifier)["grids"] is None:
        raise UserError(f"{study.file}: classifiers.{classifier}.grids is null: there are no maps of grids")
    _check_present(study.folder, store)
    stored = place(store, on, method, "maps")
    maps = _opened(study.folder, store, on, method=stored.at)["attribution"]
    return maps.assign_attrs({name: _plain(value) for name, value in stored.attrs.items()})


def open_scores(classifier: str, metric: str, *, study: Study | Path | str = ".") -> xr.DataArray:
    """Open the scores of all methods by a metric; only those that are accessed are read.

    Args:
        classifier: A key of `classifiers` of params.yaml.
        metric: A name of one of the families of `metrics`.
        study: The study, or the folder of its params.yaml.

    Returns:
        `score` over `method image` or `method grid tile`, and for a curve over its axis, such as `fraction`. NaN where
        a score is undefined; the attribute `unsupported`, JSON, says why methods have no scores.

    Raises:
        UserError: there is no such classifier or metric, or its scores do not exist or are not present.
    """
    study = _study(study)
    known = sorted(study.all_metrics)
    _check_known(study, ("classifier", classifier, study.params["classifiers"]), ("metric", metric, known))
    opened = [_scores(study, classifier, family, metric) for family in study.methods]
    message = {name: reason for _, unsupported in opened for name, reason in unsupported.items()}
    some = [scores for scores, _ in opened if scores.sizes["method"]] or [opened[0][0]]
    scores = xr.concat(some, "method", coords="minimal", compat="override", join="exact", combine_attrs="override")
    # Families have different numbers of methods; Zarr is written in equal chunks.
    return scores.chunk({"method": 1}).assign_attrs(unsupported=json.dumps(message))


def open_results(name: str = "summary", *, study: Study | Path | str = ".") -> xr.Dataset:
    """Open one of the results, a group of `data/results/results.zarr.zip`.

    `data/results/<name>.parquet` is the same for pandas, with a row per cell.

    Args:
        name: `summary`, `scores`, `curves`, `certified`, `contrasts`, `agreement`, `precision`, `controls`,
            `comparison` or `cost`.
        study: The study, or the folder of its params.yaml.

    Raises:
        UserError: there is no such result.
    """
    folder = study.folder if isinstance(study, Study) else Path(study)
    _check_present(folder, file := folder / zipped.RESULTS)
    if name not in (known := zipped.tables(file)):
        raise UserError(f"{file} has no table '{name}'; it has: {', '.join(known)}")
    return _opened(folder, file, name)


def _scores(study: Study, classifier: str, family: str, metric: str) -> tuple[xr.DataArray, dict[str, str]]:
    """Return the scores of a family's methods, and the reasons of those that have none."""
    store = study.path("scores", classifier, family)
    _check_present(study.folder, store)
    _, places, absent = score_store.find(store)
    if metric in absent:
        raise UserError(f"there are no scores of {classifier} by {metric}: {absent[metric]}")
    if metric not in places:
        raise UserError(f"{store}: there are no scores by {metric}; run stages.score again")
    stored = places[metric]
    scores = _opened(study.folder, stored.folder, None, metric=slice(*stored.span))["score"].drop_vars("metric")
    attrs = {name: _plain(value) for name, value in score_store.known(stored).items()}
    along = stored.attrs["along"]
    scores = scores.sel({"method": stored.attrs["methods"]}).isel({scores.dims[2]: slice(stored.attrs["count"])})
    values = scores.transpose(..., "metric").data.reshape(*scores.shape[1:], *map(len, along.values()))
    labelled = scores.isel(metric=0).coords.assign({dim: (dim, points) for dim, points in along.items()})
    scores = xr.DataArray(values, labelled, [*scores.dims[1:], *along], "score")
    return scores.assign_attrs(attrs), stored.attrs["unsupported"]


def _study(given: Study | Path | str) -> Study:
    return given if isinstance(given, Study) else Study(given)


def _check_known(study: Study, *named: tuple[str, str, Iterable[str]]) -> None:
    for kind, name, known in named:
        if name not in known:
            raise UserError(f"{study.file} names no {kind} '{name}'; it names: {', '.join(known)}")


def _opened(study: Path, store: Path, group: str | None, **part: int | slice) -> xr.Dataset:
    """Open a store, or the part at some indices of dimensions, so that it can be written again as Zarr and as netCDF.

    Its layout on disk is discarded: shards of many chunks, which Dask cannot write in parallel. Along a dimension with
    chunks of several rows all become one, since a part that begins within a chunk could not be written.
    """
    _check_present(study, store)
    source = ZipStore(store, mode="r") if store.is_file() else store
    opened = xr.open_zarr(source, group=group, consolidated=False).isel(part, drop=True).drop_encoding()
    for name, variable in [*opened.variables.items()]:
        sizes = dict(zip(variable.dims, variable.chunks or (), strict=False))
        if several := {dim: -1 for dim, along in sizes.items() if len(along) > 1 and along[0] > 1}:
            opened[name] = opened[name].chunk(several)
    for variable in [opened, *opened.variables.values()]:
        variable.attrs = {name: _plain(value) for name, value in variable.attrs.items()}
    for variable in opened.variables.values():
        if variable.dtype == "float16":  # netCDF has no float16
            variable.encoding["dtype"] = "float32"
    return opened


def _check_present(study: Path, store: Path) -> None:
    if not store.exists():
        of = "" if study.resolve() == Path.cwd() else f" --study {study}"
        made, brought = f"`atlas reproduce{of}`", f"`atlas pull{of}`"
        raise UserError(f"{store} is not here: {brought} brings it from the study's remote, {made} makes it")


def _plain(value: object) -> str | int | float:
    """Return an attribute as netCDF can store it: everything but text and numbers as JSON."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)
