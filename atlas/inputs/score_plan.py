"""Plan the scores to compute: their keys, from what is known of maps and votes, and the table that holds them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from atlas.cache import keys
from atlas.cache.stacks import Place, keys_of
from atlas.cache.stores import array_of, read
from atlas.cache.tables import Coords, Field, Table, digests_of
from atlas.inputs import row_inputs
from atlas.inputs.certification import UNDEFINED
from atlas.inputs.row_inputs import Inputs
from atlas.inputs.table import whole
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature
from atlas.study.schema.smoothing import Smoothing, radius, stored

if TYPE_CHECKING:
    from atlas.study.study import Study


class StoredRows(NamedTuple):
    """The keys and digests of one method's maps, or of the votes on them, or why there are none."""

    keys: np.ndarray
    digests: np.ndarray
    refused: str | None
    undefined: np.ndarray  # which rows are undefined


def absent(study: "Study", classifier: str) -> dict[str, str]:
    """Return why metrics have no scores, by name: the classifier lacks an input that they declare."""
    found = {}
    for listed in study.metrics.values():
        for metric in listed.values():
            declared = signature("metrics", metric.family, metric.function).inputs
            if reason := row_inputs.missing_input(study, classifier, declared):
                found[metric.name] = reason
    return found


def stored_rows(place: Place, seen: Inputs, kind: str, pictures: int) -> StoredRows:
    """Read the keys and digests of one method's maps or votes on the first pictures.

    Raises:
        UserError: they are missing, or belong to other pictures.
    """
    keys, digests = keys_of(place)
    if keys.shape[1:-1] != seen.lead[1:] or len(keys) < pictures or (kind == "maps" and len(keys) > pictures):
        expected = (pictures, *seen.lead[1:])
        raise UserError(f"{place.folder}: has {keys.shape[:-1]} {kind}, expected {expected}; run the stage again")
    undefined = (digests[:pictures] == undefined_row(place.folder, kind)).all(axis=-1)
    return StoredRows(keys[:pictures], digests[:pictures], place.attrs.get("unsupported"), undefined.reshape(-1))


def undefined_row(folder: Path, kind: str) -> np.ndarray:
    """Return the digest of an undefined map, or of undefined votes, of a stored group; no other row has it."""
    store = read(folder, f"the {kind}")
    if kind == "maps":
        about = array_of(store, "attribution")
        return digests_of({"attribution": np.full((1, *about.shape[-2:]), np.nan, about.dtype)}, 1)[0]
    counts, tied = (array_of(store, name) for name in ("counts", "tied"))
    none = np.zeros((1, *counts.shape[-4:]), counts.dtype)
    return digests_of({"counts": none, "tied": np.full((1, tied.shape[-1]), UNDEFINED, tied.dtype)}, 1)[0]


def methods(metric: Entry, smoothings: list[Smoothing], listed: list[str]) -> list[str]:
    """Return the methods that a metric scores: those not excluded and, if it scores votes, with votes."""
    certified = {name for smoothing in smoothings for name in smoothing.methods} if smoothings else set(listed)
    return [name for name in listed if name in certified and name not in metric.options["exclude"]]


def count(metric: Entry, seen: Inputs, smoothings: list[Smoothing]) -> int:
    """Return how many pictures a metric scores.

    Raises:
        UserError: `count` is larger than their number.
    """
    there = min([seen.lead[0], *(smoothing.pictures[seen.group] for smoothing in smoothings)])
    asked = metric.options["count"] or there
    if asked > there:
        where = f"params.yaml: metrics.{metric.family}.{metric.name}: count = {asked}"
        voted = " with votes" if smoothings else ""
        raise UserError(f"{where}: there are {there} {seen.group}{voted}; expected at most that, or null for all")
    return asked


def rows(
    metric: Entry, shared: bytes, seen: Inputs, declared: list[str], smoothings: list[Smoothing]
) -> list[bytes | None]:
    """Digest what each row that a metric scores depends on, except maps and votes; None for rows that it does not
    score.

    Raises:
        UserError: `tile` is a tile that grids do not have.
    """
    inner, tile = int(np.prod(seen.lead[1:], dtype=int)), metric.options["tile"]
    if tile is not None and tile >= inner:
        where = f"params.yaml: metrics.{metric.family}.{metric.name}: tile = {tile}"
        raise UserError(f"{where}: grids have the tiles 0 to {inner - 1}")
    known = row_inputs.digests(seen, declared)[: count(metric, seen, smoothings) * inner]
    return [keys.digest(shared, row) if tile in (None, i % inner) else None for i, row in enumerate(known)]


def keyed(
    maps: StoredRows, votes: list[StoredRows], rows: list[bytes | None], declared: list[str], seen: Inputs
) -> tuple[np.ndarray, str | None]:
    """Return the keys of the scores of one method's maps, and the reason if the method cannot serve the classifier.

    If a metric makes maps anew, the score's key includes the map's key, which covers what maps depend on; if it looks
    at the maps of a whole set, or makes those anew, the key includes the digests or keys of all of them.

    Args:
        maps, votes: Their keys and digests.
        rows: The digests of each row's inputs, None for a row that is not scored. Rows without a map are not scored
            either, if the metric scores maps.
        declared: The inputs that the metric declares.
        seen: The pictures.
    """
    number = len(rows)
    shape = (-1, *seen.lead[1:], keys.SIZE)
    refused = next((one.refused for one in (maps, *votes) if one.refused is not None), None)
    if refused is not None:
        return np.zeros((number, keys.SIZE), "uint8").reshape(shape), refused
    made_by, digests = (known.reshape(-1, keys.SIZE) for known in (maps.keys, maps.digests))
    cast = [one.digests.reshape(-1, keys.SIZE) for one in votes]
    common = _of_whole(seen, declared, number)
    common += digests[:number].tobytes() if "maps" in whole(declared).values() else b""
    common += made_by[:number].tobytes() if common and "explain" in declared else b""
    found = bytearray()
    unmapped = np.zeros(number, bool) if votes and "maps" not in declared else ~np.any(made_by[:number], axis=1)
    for i, row in enumerate(rows):
        if row is None or unmapped[i]:
            found += bytes(keys.SIZE)
            continue
        parts: list[object] = [row]
        parts += [] if votes and "maps" not in declared else [digests[i].tobytes()]
        parts += [one[i].tobytes() for one in cast]
        parts += [made_by[i].tobytes()] if "explain" in declared else []
        parts += [i] if "positions" in declared else []  # two rows of a set may have the same map
        found += keys.digest(*parts, *([common] if common else []))
    return np.frombuffer(bytes(found), "uint8").reshape(shape), None


def undefined(maps: StoredRows, votes: list[StoredRows], declared: list[str], rows: int) -> np.ndarray:
    """Return which of the first rows have no score because their map or votes are undefined.

    Args:
        maps, votes: The keys and digests of one method's maps, and of the votes on them.
        declared: The inputs that the metric declares.
        rows: How many rows the metric scores.
    """
    scored = [*votes, *([] if votes and "maps" not in declared else [maps])]
    masks = [one.undefined[:rows] for one in scored if one.refused is None]
    return np.logical_or.reduce(masks) if masks else np.zeros(rows, bool)


def table(
    metric: Entry,
    seen: Inputs,
    smoothings: list[Smoothing],
    found: dict[str, tuple[np.ndarray, str | None]],
) -> Table:
    """Return the table of the scores of one metric for all methods.

    Raises:
        UserError: the metric's family does not say which scores are better.
    """
    known = dict(attributes("metrics", metric.family, metric.function))
    if known.get("better") not in ("higher", "lower"):
        where = f"atlas/metrics/{metric.family}.py: ATTRS['{metric.function}']['better']"
        raise UserError(
            f"{where} must be 'higher' or 'lower', not {known.get('better')!r}: scores are to be ranked by it"
        )
    scored = count(metric, seen, smoothings)
    of_methods = [table_keys for table_keys, _ in found.values()]
    stacked = np.stack(of_methods) if found else np.zeros((0, scored, *seen.lead[1:], keys.SIZE), "uint8")
    points = along(metric, known.get("dim"), seen.side, smoothings)
    coords: Coords = {"method": (("method",), np.array(list(found), dtype=np.dtypes.StringDType()))}
    for name, (dims, labels) in seen.coords.items():
        coords[name] = (dims, labels[:scored] if dims[0] == seen.dims[0] else labels)
    attrs: dict[str, Any] = {**known, "family": metric.family, "settings": canonical(metric.settings)}
    if smoothings:
        voted = {smoothing.name: smoothing.settings for smoothing in smoothings}
        attrs |= {"settings": canonical({**metric.settings, **voted}), "level": metric.options["level"]}
    attrs |= {"unsupported": {name: reason for name, (_, reason) in found.items() if reason is not None}}
    attrs |= {"methods": list(found), "count": scored, "along": {dim: at.tolist() for dim, at in points.items()}}
    field = Field(tuple(points), tuple(map(len, points.values())), "float32", {"long_name": "score"})
    return Table(metric.name, ("method", *seen.dims), stacked, {"score": field}, coords, attrs)


def _of_whole(seen: Inputs, declared: list[str], rows: int) -> bytes:
    """Digest the whole-set inputs that a metric declares, over all rows that it scores."""
    named = [name for name in whole(declared).values() if name != "maps"]
    return keys.digest(*row_inputs.digests(seen, named)[:rows]) if named else b""


def along(metric: Entry, dim: str | None, side: tuple[int, int], smoothings: list[Smoothing]) -> dict[str, np.ndarray]:
    """Return the coordinates of a metric's values per image: points of a curve, thresholds, radii and levels."""
    set_to, pixels = metric.settings, side[0] * side[1]
    if smoothings:
        radii = [stored(radius(smoothing.settings["sigma"], tau)) for smoothing in smoothings for tau in set_to["tau"]]
        levels = smoothings[0].settings["levels"]
        levels = [0, *levels[::-1]] if dim == "removed" else levels
        return {"radius": np.array(radii), "level": np.array(levels)}
    points = {
        # The share of pixels that are changed after each step; the last step may be smaller.
        "pixels": lambda: np.minimum(np.arange(0, pixels + set_to["pixels"], set_to["pixels"]), pixels) / pixels,
        "levels": lambda: np.arange(set_to["levels"]) / set_to["levels"],
        "parts": lambda: np.arange(set_to["parts"] + 1) / set_to["parts"],
        "thresholds": lambda: np.arange(set_to["thresholds"]) / set_to["thresholds"],
    }
    return {dim: next(make() for name, make in points.items() if name in set_to)} if dim else {}
