"""Lend metrics what they name: a method's maps, rows of the whole set, and the method itself."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from atlas.cache.stores import read, values
from atlas.inputs import calls, evidence
from atlas.inputs.certification import Votes
from atlas.inputs.evidence import Evidence
from atlas.study.params import path
from atlas.study.schema.settings import Entry
from atlas.study.schema.smoothing import Smoothing

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.inputs.explain import Explain

# What metrics may name of all rows that are judged, not of a batch's alone.
WHOLE = ("all_images", "all_targets", "all_seeds")


def of_whole_set(asks: list[str]) -> bool:
    """Say whether a metric looks at all rows that it judges, so that it is to be given them at once."""
    return any(name in asks for name in (*WHOLE, "all_maps"))


class Lender:
    """Give metrics evidence of one family's methods, batch by batch.

    Args:
        study: The folder of params.yaml.
        classifier: Whose maps.
        methods: Of the family.
        seen: The rows that maps were made of.
        wanted: Which of these rows are to be scored, by metric and method.
        asks: The evidence that each metric names.
        engine: Device and batch.
        dtype: Of stored maps.
        ways: The smoothings whose votes each metric names.
    """

    def __init__(
        self,
        study: Path,
        classifier: str,
        methods: dict[str, Entry],
        seen: Evidence,
        wanted: dict[tuple[int, str], np.ndarray],
        asks: dict[int, list[str]],
        engine: dict[str, Any],
        dtype: str,
        ways: dict[int, list[Smoothing]],
    ):
        self._methods, self._seen, self._wanted, self._asks, self._engine = methods, seen, wanted, asks, engine
        stores = {name: path(study, "maps", classifier, bound.family, name) for name, bound in methods.items()}
        self._maps = {name: read(store / seen.group, f"the maps of {name}") for name, store in stores.items()}
        self._dtype, self._ways = dtype, ways
        self._votes_at = partial(path, study, "votes", classifier)
        self._lent: dict[tuple, Explain] = {}
        self._begins: int | None = None
        # A method's metrics follow one another: those on all images, those on fewer.
        self._own: Callable[[str, bytes], Tensor] = lru_cache(maxsize=4)(self._taken)
        self._cast: Callable[[str, str, bytes], Votes] = lru_cache(maxsize=8)(self._counted)
        self._whole: Callable[[bytes], dict[str, Any]] = lru_cache(maxsize=2)(self._rows)
        self._all_maps: Callable[[str, bytes], Tensor] = lru_cache(maxsize=1)(self._taken)

    def lend(
        self, metric: int, method: str, count: int, positions: np.ndarray, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Add to a batch's evidence what a metric names of a method.

        Args:
            metric: Which one.
            method: Whose maps are judged.
            count: The first rows, which the metric judges; of a whole set those are left out whose map is undefined.
            positions: Those of them in this batch.
            given: Evidence of the batch.
        """
        asks = self._asks[metric]
        lent = dict(given)
        if "maps" in asks:
            lent["maps"] = self._own(method, positions.tobytes())
        if "votes" in asks:
            lent["votes"] = [self._cast(method, way.name, positions.tobytes()) for way in self._ways[metric]]
        if "explain" in asks and "explain" not in given:
            lent["explain"] = self._explain(metric, positions, given).by(method)
        if of_whole_set(asks) or "positions" in asks:
            rows = self._defined(method, count)
            lent |= {"positions": np.searchsorted(rows, positions).tolist()} if "positions" in asks else {}
            lent |= {"all_maps": self._all_maps(method, rows.tobytes())} if "all_maps" in asks else {}
            lent |= self._whole(rows.tobytes()) if any(name in asks for name in WHOLE) else {}
        return lent

    def alone(
        self, metric: int, method: str, count: int, row: int, given: dict[str, Any]
    ) -> tuple[dict[str, Any], "Explain"]:
        """Lend what a metric names of one row, and a method of which nothing has been asked yet.

        Args:
            metric, method, count: As of `lend`.
            row: Which one.
            given: Its evidence, made for it.
        """
        from atlas.inputs.explain import Explain

        explain = Explain([self._methods[method]], given["background"], self._dtype, calls.attributions)
        given = {**given, "explain": explain.by(method)}
        return self.lend(metric, method, count, np.array([row]), given), explain

    def gave_undefined(self, method: str) -> bool:
        """Say whether a method, asked for maps of the batch at hand, has given one that is not finite."""
        return any(method in explain.undefined for explain in self._lent.values())

    def _explain(self, metric: int, positions: np.ndarray, given: dict[str, Any]) -> "Explain":
        """Lend the methods that the metric will ask about the same rows: they are made together.

        Metrics that judge the same methods are lent the same ones, so that they can share what these give.
        """
        from atlas.inputs.explain import Explain

        size = self._engine["batch"]
        begins = -1 if of_whole_set(self._asks[metric]) else int(positions[0]) // size * size
        if begins != self._begins:
            self._lent, self._begins = {}, begins
        asking = []
        for name in self._methods:
            of = self._wanted.get((metric, name), np.empty(0, int))
            part = of if begins < 0 else of[(of >= begins) & (of < begins + size)]
            asking += [name] if np.array_equal(part, positions) else []
        kind = positions.tobytes(), *asking
        if kind not in self._lent:
            methods = [self._methods[name] for name in asking]
            self._lent[kind] = Explain(methods, given["background"], self._dtype, calls.attributions)
        return self._lent[kind]

    def _defined(self, method: str, count: int) -> np.ndarray:
        every = np.arange(count)
        maps = self._all_maps(method, every.tobytes())
        return every[maps.isfinite().flatten(1).all(dim=1).cpu().numpy()]

    def _rows(self, rows: bytes) -> dict[str, Any]:
        whole = evidence.tensors(self._seen, np.frombuffer(rows, int), self._engine["device"])
        return {name: whole[name.removeprefix("all_")] for name in WHOLE}

    def _counted(self, method: str, smoothing: str, rows: bytes) -> Votes:
        way = next(way for ways in self._ways.values() for way in ways if way.name == smoothing)
        where = self._votes_at(self._methods[method].family, method) / smoothing / self._seen.group
        return counted(read(where, f"the votes on {method}"), way.settings, self._seen, np.frombuffer(rows, int))

    def _taken(self, method: str, rows: bytes) -> "Tensor":
        return taken(self._maps[method], self._seen, np.frombuffer(rows, int), self._engine["device"])


def taken(maps: zarr.Group, seen: Evidence, positions: np.ndarray, device: str) -> "Tensor":
    """Read some rows' maps onto a device, in float32 whatever they are stored in."""
    return tensor(_rows_of(maps, "attribution", seen, positions), device)


def counted(store: zarr.Group, way: dict[str, Any], seen: Evidence, positions: np.ndarray) -> Votes:
    """Read some rows' votes."""
    found = {name: _rows_of(store, name, seen, positions) for name in ("first", "rest", "tied")}
    cast = {"firsts": way["first"], "draws": way["rest"], **{name: way[name] for name in ("sigma", "levels", "form")}}
    return Votes(**found, **cast)


def _rows_of(store: zarr.Group, name: str, seen: Evidence, positions: np.ndarray) -> np.ndarray:
    inner = int(np.prod(seen.lead[1:], dtype=int))
    low, high = int(positions.min()) // inner, int(positions.max()) // inner + 1
    block = values(store, name, slice(low, high))
    return block.reshape(-1, *block.shape[len(seen.lead) :])[positions - low * inner]


def tensor(maps: np.ndarray, device: str) -> "Tensor":
    """Give maps to a metric: in float32, whatever they are stored in."""
    import torch

    return torch.from_numpy(maps.astype("float32")).to(device)
