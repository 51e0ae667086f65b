"""Score maps in memory: any network, any metric whose inputs are available, no study."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from atlas.in_memory.explaining import call, explainer
from atlas.in_memory.functions import bound
from atlas.in_memory.given import (
    LARGEST,
    Array,
    boxes_of,
    check_targets,
    classes,
    classifier_of,
    maps_of,
    masks_of,
    pictures,
    seeds_of,
    undisturbed,
)
from atlas.inputs.returned import checked_scores
from atlas.inputs.score_plan import along
from atlas.inputs.table import whole
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported, UserError
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature

# Names of the arguments, by the input that a metric declares.
GIVEN = {
    "classifier": "module",
    "images": "images",
    "targets": "targets",
    "masks": "masks",
    "boxes": "boxes",
    "tiles": "tiles",
    "explain": "method",
}


def score(
    module: nn.Module | Classifier | None,
    images: Array | None,
    targets: Array | None,
    maps: Array,
    metric: str,
    *,
    masks: Array | None = None,
    boxes: Array | None = None,
    tiles: Array | None = None,
    method: str | None = None,
    method_settings: Mapping[str, Any] | None = None,
    background: Array | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str | torch.device | None = None,
    batch: int | None = None,
    seeds: Sequence[int] | None = None,
    **settings: Any,
) -> xr.DataArray:
    """Score maps by a metric: the same numbers that a study with these settings stores.

        scores = atlas.score(network, images, targets, maps, "deletion", pixels=224, mean=MEAN, std=STD)

    Args:
        module, images, targets: As in `atlas.explain`; None if the metric uses none of them.
        maps: (image, y, x), with the images' height and width: a tensor, an array, or what `atlas.explain` returned.
        metric: The name of a function in `atlas/metrics`, such as `deletion` or `relevance_mass`.
        masks: (image, y, x), bool: the object's pixels.
        boxes: (image, box, 4), whole numbers: x0, y0, x1, y1 in pixels, x1 and y1 one past the last; -1 for no box.
        tiles: (image, y, x), bool: for images that are grids, the target's tile.
        method, method_settings: The method that made the maps, for metrics that request further maps.
        background: As in `atlas.explain`, for that method.
        mean, std, device, batch, seeds: As in `atlas.explain`.
        settings: The metric's own settings. Missing ones are those of the default study's entry of the same name, if
            there is one.

    Returns:
        `score` over `image`, and for a curve over `fraction` or `threshold`, float32. NaN where it is undefined, as for
        a map that is not finite. Its attributes have `long_name`, `units`, which scores are `better`, `reference`, and
        the `settings`.

    Raises:
        UserError: an argument is invalid, or one that the metric needs is missing; the message is one line.
        Unsupported: the metric or the method cannot serve this network; the message says why.
    """
    entry = bound("metrics", metric, settings)
    declared = signature("metrics", entry.family, metric).inputs
    text = {"module": module, "images": images, "targets": targets, "masks": masks, "boxes": boxes, "tiles": tiles}
    _check_given(entry, declared, text | {"method": method})
    found = maps_of(maps)
    shape = tuple(found.shape)
    given: dict[str, Any] = {"maps": found, "seeds": seeds_of(seeds, len(found)), "boxes": boxes_of(boxes, len(found))}
    given |= {"masks": masks_of(masks, "masks", shape), "tiles": masks_of(tiles, "tiles", shape)}
    if images is not None:
        given["images"] = pictures(images)
        if (expected := (len(given["images"]), *given["images"].shape[2:])) != shape:
            raise UserError(f"maps: got the shape {shape}; expected {expected}, a value for each pixel of each image")
    given |= {} if targets is None else {"targets": classes(targets, len(found))}
    with undisturbed():
        classifier, place, size = None, torch.device(device or "cpu"), batch or LARGEST
        if "classifier" in declared and module is not None:
            classifier = classifier_of(module, given["images"], mean=mean, std=std, device=device, batch=batch)
            place, size = classifier.device, classifier.batch
        given = {name: value.to(place) if isinstance(value, Tensor) else value for name, value in given.items()}
        if classifier is not None and targets is not None:
            check_targets(classifier, given["images"], given["targets"])
        maker = None
        if "explain" in declared and classifier is not None:
            maker = bound("methods", str(method), method_settings or {})
            explainer(maker, classifier, background)  # raises at once if something is missing
        known = attributes("metrics", entry.family, metric)
        points = along(entry, known.get("dim"), (shape[1], shape[2]), [])
        scores = np.full((len(found), *map(len, points.values())), np.nan, "float32")
        try:
            for rows, part in _batches(given | {"classifier": classifier}, declared, size):
                scores[rows] = _scored(entry, part, maker, background, scores.shape[1:]).cpu().numpy()
        except Unsupported as reason:
            raise Unsupported(f"{metric}: {reason}") from None
    return xr.DataArray(
        scores,
        dims=("image", *points),
        coords={"image": np.arange(len(scores)), **points},
        name="score",
        attrs={**known, "family": entry.family, "metric": metric, "settings": canonical(entry.settings)},
    )


def _check_given(entry: Entry, declared: list[str], text: dict[str, Any]) -> None:
    """Check that all inputs that a metric declares are given.

    Raises:
        UserError: one is missing.
    """
    if "votes" in declared:
        raise UserError(f"{entry.name}: needs votes of noisy samples of each image, which only a study has: `certify`")
    wanted = [GIVEN[name] for one in declared if (name := whole(declared).get(one, one)) in GIVEN]
    if missing := [name for name in dict.fromkeys(wanted) if text[name] is None]:
        raise UserError(f"{entry.name}: needs {', '.join(missing)}, which is not given")


def _batches(given: dict[str, Any], declared: list[str], size: int) -> Iterator[tuple[np.ndarray, dict[str, Any]]]:
    """Yield the rows with a defined map, and their inputs: in batches, or all for a metric on the whole set."""
    defined = given["maps"].isfinite().flatten(1).all(dim=1).cpu().numpy()
    every = np.arange(len(defined))
    at_once = whole(declared)
    of_all = _of(given, every[defined]) if at_once else {}
    everything = {name: of_all[one] for name, one in at_once.items()}
    for start in [0] if at_once else range(0, len(every), size):
        rows = every[start : len(every) if at_once else start + size]
        rows = rows[defined[rows]]
        if len(rows):
            positions = np.searchsorted(every[defined], rows).tolist()
            yield rows, {**everything, **_of(given, rows), "positions": positions}


def _of(given: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return some rows of all inputs that have rows."""
    at = torch.from_numpy(rows)
    found = {name: value[at.to(value.device)] for name, value in given.items() if isinstance(value, Tensor)}
    return {**given, **found, "seeds": [given["seeds"][row] for row in rows]}


def _scored(
    entry: Entry, given: dict[str, Any], maker: Entry | None, background: Array | None, shape: tuple[int, ...]
) -> Tensor:
    """Score some rows; one by one if the method, asked for other maps, returned one that is not finite."""
    count = len(given["maps"])
    explain = None if maker is None else explainer(maker, given["classifier"], background)
    inputs = given if explain is None or maker is None else {**given, "explain": explain.by(maker.name)}
    try:
        found = checked_scores(call(entry, inputs), (count, *shape))
    except Unsupported:
        raise
    except Exception:
        if explain is None or not explain.undefined:
            raise
    if explain is None or not explain.undefined:
        return found
    if count == 1:
        return torch.full((1, *shape), torch.nan)
    alone = [_of(given, np.array([row])) | {"positions": [given["positions"][row]]} for row in range(count)]
    return torch.cat([_scored(entry, one, maker, background, shape).cpu() for one in alone])
