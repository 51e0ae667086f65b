"""Plan which scores there are to be: their keys, from what is known of maps and votes, and the table they stand in."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from atlas.cache import keys
from atlas.cache.stores import read
from atlas.cache.tables import Field, Table, digests_of, keys_of
from atlas.inputs import row_inputs
from atlas.inputs.certification import UNDEFINED
from atlas.inputs.row_inputs import Inputs
from atlas.inputs.table import whole
from atlas.study.errors import UserError
from atlas.study.params import entries
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature
from atlas.study.schema.smoothing import Smoothing, radius, stored


class Made(NamedTuple):
    """What is known of one method's maps, or of the votes on them: their keys and digests, or why there are none."""

    keys: np.ndarray
    digests: np.ndarray
    refused: str | None
    undefined: np.ndarray  # which are


def absent(study: Path, params: dict, classifier: str) -> dict[str, dict[str, str]]:
    """Return, by name, why metrics have no scores whose declared inputs the classifier lacks."""
    found = {}
    for listed in entries(params, "metrics").values():
        for metric in listed.values():
            asks = signature("metrics", metric.family, metric.function).inputs
            if reason := row_inputs.lacking(study, classifier, asks):
                found[metric.name] = {"absent": reason}
    return found


def made(store: Path, group: str, seen: Inputs, kind: str, pictures: int) -> Made:
    """Read what is known of one method's maps or votes, which are of the first pictures.

    Raises:
        UserError: they are not there, or are of other pictures.
    """
    what = f"the {kind} of {store.stem}"
    found = keys_of(store, group, what)
    lead = found[0].shape[:-1]
    if lead != (due := (pictures, *seen.lead[1:])):
        raise UserError(f"{store}/{group}: has {lead} {kind}, {due} are due; make it again")
    opened = read(store / group, what)
    undefined = (found[1] == undefined_row(opened, kind)).all(axis=-1)
    return Made(*found, opened.attrs.get("unsupported"), undefined.reshape(-1))


def undefined_row(store: zarr.Group, kind: str) -> np.ndarray:
    """Return the digest of a map that is undefined, or of such votes: no other row has it."""
    if kind == "maps":
        about = store["attribution"]
        return digests_of({"attribution": np.full((1, *about.shape[-2:]), np.nan, about.dtype)}, 1)[0]
    counts = {name: np.zeros((1, *store[name].shape[-3:]), store[name].dtype) for name in ("first", "rest")}
    tied = np.full((1, store["tied"].shape[-1]), UNDEFINED, store["tied"].dtype)
    return digests_of({**counts, "tied": tied}, 1)[0]


def methods(metric: Entry, smoothings: list[Smoothing], listed: list[str]) -> list[str]:
    """Return which methods a metric judges: all but those excluded, and where it judges votes those that have some."""
    certified = {name for smoothing in smoothings for name in smoothing.methods} if smoothings else set(listed)
    return [name for name in listed if name in certified and name not in metric.options["exclude"]]


def count(metric: Entry, seen: Inputs, smoothings: list[Smoothing]) -> int:
    """Return how many pictures a metric judges.

    Raises:
        UserError: it is to judge more than there are.
    """
    there = min([seen.lead[0], *(smoothing.pictures[seen.group] for smoothing in smoothings)])
    asked = metric.options["count"] or there
    if asked > there:
        where = f"params.yaml: metrics.{metric.family}.{metric.name}: count = {asked}"
        voted = " with votes" if smoothings else ""
        raise UserError(f"{where}: there are {there} {seen.group}{voted}; expected at most that, or null for all")
    return asked


def rows(
    metric: Entry, shared: bytes, seen: Inputs, asks: list[str], smoothings: list[Smoothing]
) -> list[bytes | None]:
    """Digest what each row that a metric judges depends on, but for maps and votes; None where it judges no row.

    Raises:
        UserError: it is to judge a tile that grids do not have.
    """
    inner, tile = int(np.prod(seen.lead[1:], dtype=int)), metric.options["tile"]
    if tile is not None and tile >= inner:
        where = f"params.yaml: metrics.{metric.family}.{metric.name}: tile = {tile}"
        raise UserError(f"{where}: grids have the tiles 0 to {inner - 1}")
    known = row_inputs.digests(seen, asks)[: count(metric, seen, smoothings) * inner]
    return [keys.digest(shared, row) if tile in (None, i % inner) else None for i, row in enumerate(known)]


def keyed(
    maps: Made, votes: list[Made], rows: list[bytes | None], asks: list[str], seen: Inputs
) -> tuple[np.ndarray, str | None]:
    """Key the scores of one method's maps; where there are none, because the method cannot, give its reason.

    The key of a score that makes maps anew has that of the map in it, which says what maps depend on; where the maps
    of a whole set are looked at, or made anew, it has those of all of them.

    Args:
        maps, votes: What is known of them.
        rows: What the inputs of each row says, None where a row is not to be. Neither is one without a map, where
            maps are judged.
        asks: The inputs that the metric names.
        seen: The pictures.
    """
    number = len(rows)
    shape = (-1, *seen.lead[1:], keys.SIZE)
    refused = next((one.refused for one in (maps, *votes) if one.refused is not None), None)
    if refused is not None:
        return np.zeros((number, keys.SIZE), "uint8").reshape(shape), refused
    made_by, digests = (known.reshape(-1, keys.SIZE) for known in (maps.keys, maps.digests))
    cast = [one.digests.reshape(-1, keys.SIZE) for one in votes]
    common = _of_whole(seen, asks, number)
    common += digests[:number].tobytes() if "maps" in whole(asks).values() else b""
    common += made_by[:number].tobytes() if common and "explain" in asks else b""
    found = bytearray()
    unmapped = np.zeros(number, bool) if votes and "maps" not in asks else ~made_by[:number].any(axis=1)
    for i, row in enumerate(rows):
        if row is None or unmapped[i]:
            found += bytes(keys.SIZE)
            continue
        parts: list[object] = [row]
        parts += [] if votes and "maps" not in asks else [digests[i].tobytes()]
        parts += [one[i].tobytes() for one in cast]
        parts += [made_by[i].tobytes()] if "explain" in asks else []
        parts += [i] if "positions" in asks else []  # two of a set may have the same map
        found += keys.digest(*parts, *([common] if common else []))
    return np.frombuffer(bytes(found), "uint8").reshape(shape), None


def undefined(maps: Made, votes: list[Made], asks: list[str], rows: int) -> np.ndarray:
    """Return which of the first rows have no score, as what is judged of them is undefined.

    Args:
        maps, votes: What is known of one method.
        asks: The inputs that the metric names.
        rows: How many it judges.
    """
    judged = [*votes, *([] if votes and "maps" not in asks else [maps])]
    masks = [one.undefined[:rows] for one in judged if one.refused is None]
    return np.logical_or.reduce(masks) if masks else np.zeros(rows, bool)


def table(
    metric: Entry,
    seen: Inputs,
    smoothings: list[Smoothing],
    found: dict[str, tuple[np.ndarray, str | None]],
) -> Table:
    """Lay out the scores of one metric by all methods.

    Raises:
        UserError: its family does not say which scores are better.
    """
    known = dict(attributes("metrics", metric.family, metric.function))
    if known.get("better") not in ("higher", "lower"):
        where = f"atlas/metrics/{metric.family}.py: ATTRS['{metric.function}']['better']"
        raise UserError(
            f"{where} must be 'higher' or 'lower', not {known.get('better')!r}: scores are to be ranked by it"
        )
    judged = count(metric, seen, smoothings)
    of_methods = [table_keys for table_keys, _ in found.values()]
    stacked = np.stack(of_methods) if found else np.zeros((0, judged, *seen.lead[1:], keys.SIZE), "uint8")
    points = along(metric, known.get("dim"), seen.side, smoothings)
    coords = {"method": (("method",), np.array(list(found), dtype=np.dtypes.StringDType()))}
    for name, (dims, labels) in seen.coords.items():
        coords[name] = (dims, labels[:judged] if dims[0] == seen.dims[0] else labels)
    coords |= {dim: ((dim,), values) for dim, values in points.items()}
    attrs = {**known, "family": metric.family, "settings": canonical(metric.settings)}
    if smoothings:
        voted = {smoothing.name: smoothing.settings for smoothing in smoothings}
        attrs |= {"settings": canonical({**metric.settings, **voted}), "level": metric.options["level"]}
    field = Field(tuple(points), tuple(map(len, points.values())), "float32", attrs)
    unsupported = {name: reason for name, (_, reason) in found.items() if reason is not None}
    return Table(metric.name, ("method", *seen.dims), stacked, {"score": field}, coords, {"unsupported": unsupported})


def _of_whole(seen: Inputs, asks: list[str], rows: int) -> bytes:
    """Digest what a metric names of all rows that it judges."""
    named = [name for name in whole(asks).values() if name != "maps"]
    return keys.digest(*row_inputs.digests(seen, named)[:rows]) if named else b""


def along(metric: Entry, dim: str | None, side: tuple[int, int], smoothings: list[Smoothing]) -> dict[str, np.ndarray]:
    """Return the coordinates of what a metric stores beside the image: a curve's points, thresholds, radii and
    levels."""
    set_to, pixels = metric.settings, side[0] * side[1]
    if smoothings:
        radii = [stored(radius(smoothing.settings["sigma"], tau)) for smoothing in smoothings for tau in set_to["tau"]]
        levels = smoothings[0].settings["levels"]
        levels = [0, *levels[::-1]] if dim == "removed" else levels
        return {"radius": np.array(radii), "level": np.array(levels)}
    points = {
        # The share of pixels that are changed at each step, the last one shorter.
        "pixels": lambda: np.minimum(np.arange(0, pixels + set_to["pixels"], set_to["pixels"]), pixels) / pixels,
        "levels": lambda: np.arange(set_to["levels"]) / set_to["levels"],
        "parts": lambda: np.arange(set_to["parts"] + 1) / set_to["parts"],
        "thresholds": lambda: np.arange(set_to["thresholds"]) / set_to["thresholds"],
    }
    return {dim: next(make() for name, make in points.items() if name in set_to)} if dim else {}
