"""Provide the inputs that each metric declares: a method's maps, rows of the whole set, and the method itself."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from atlas.cache.stacks import Place, place, read_rows
from atlas.inputs import calls, row_inputs
from atlas.inputs.audit import reads
from atlas.inputs.certification import Votes
from atlas.inputs.row_inputs import Inputs
from atlas.inputs.table import whole
from atlas.model.lazy_images import LazyImages
from atlas.study.schema.settings import Entry
from atlas.study.schema.smoothing import Smoothing

if TYPE_CHECKING:
    from torch import Tensor

    from atlas.inputs.explain import Explainer
    from atlas.study.study import Study


def of_whole_set(declared: list[str]) -> bool:
    """Return whether a metric looks at all rows that it scores, so that it needs them in one call."""
    return bool(whole(declared))


class MetricInputs:
    """The inputs of metrics for one family's methods, batch by batch.

    Args:
        study: The study.
        classifier: The classifier that the maps explain.
        methods: The family's methods, by name.
        seen: The rows that maps were made of.
        wanted: The rows to score, by metric and method.
        declared: The inputs that each metric declares.
        engine: Device and batch.
        dtype: The dtype of stored maps.
        smoothings: For each metric, the smoothings whose votes it declares.
    """

    def __init__(
        self,
        study: "Study",
        classifier: str,
        methods: dict[str, Entry],
        seen: Inputs,
        wanted: dict[tuple[int, str], np.ndarray],
        declared: dict[int, list[str]],
        engine: dict[str, Any],
        dtype: str,
        smoothings: dict[int, list[Smoothing]],
    ):
        self._methods, self._seen, self._wanted, self._asks, self._engine = methods, seen, wanted, declared, engine
        self._maps = {
            name: place(study.path("maps", classifier, bound.family), seen.group, name, "maps")
            for name, bound in methods.items()
        }
        self._dtype, self._smoothings = dtype, smoothings
        self._votes_at = partial(study.path, "votes", classifier)
        self._provided: dict[tuple, Explainer] = {}
        self._begins: int | None = None
        # A method's metrics run one after another: those on all images, then those on fewer.
        self._own: Callable[[str, bytes], Tensor] = lru_cache(maxsize=4)(self._taken)
        self._cast: Callable[[str, str, bytes], Votes] = lru_cache(maxsize=8)(self._counted)
        self._whole: Callable[[bytes], dict[str, Any]] = lru_cache(maxsize=2)(self._rows)
        self._all_maps: Callable[[str, bytes], Tensor] = lru_cache(maxsize=1)(self._taken)

    def provide(
        self, metric: int, method: str, count: int, positions: np.ndarray, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Add to a batch's inputs those that a metric declares of a method.

        Args:
            metric: The metric's index.
            method: The method whose maps are scored.
            count: How many of the first rows the metric scores; from a whole set, rows with an undefined map are left
                out.
            positions: The rows in this batch.
            given: The batch's inputs.
        """
        declared = self._asks[metric]
        provided = dict(given)
        if "maps" in declared:
            provided["maps"] = self._own(method, positions.tobytes())
        if "votes" in declared:
            provided["votes"] = [
                self._cast(method, smoothing.name, positions.tobytes()) for smoothing in self._smoothings[metric]
            ]
        if "explain" in declared and "explain" not in given:
            provided["explain"] = self._explain(metric, positions, given).by(method)
        if of_whole_set(declared) or "positions" in declared:
            rows = self._defined(method, count)
            provided |= {"positions": np.searchsorted(rows, positions).tolist()} if "positions" in declared else {}
            for name, one in whole(declared).items():
                known = rows.tobytes()
                provided[name] = self._all_maps(method, known) if one == "maps" else self._whole(known)[one]
        return provided

    def alone(
        self, metric: int, method: str, count: int, row: int, given: dict[str, Any]
    ) -> tuple[dict[str, Any], "Explainer"]:
        """Provide the inputs that a metric declares for one row, and an explainer that has made no map yet.

        Args:
            metric, method, count: As in `provide`.
            row: The row's position.
            given: Its inputs, made for this call.
        """
        from atlas.inputs.explain import Explainer

        explain = Explainer([self._methods[method]], given["background"], self._dtype, calls.attributions)
        given = {**given, "explain": explain.by(method)}
        return self.provide(metric, method, count, np.array([row]), given), explain

    def gave_undefined(self, method: str) -> bool:
        """Return whether a method, asked for maps of this batch, has returned one that is not finite."""
        return any(method in explain.undefined for explain in self._provided.values())

    def _explain(self, metric: int, positions: np.ndarray, given: dict[str, Any]) -> "Explainer":
        """Provide the methods that metrics ask for maps of the same rows, which are then made together.

        Metrics that score the same methods get the same object, so that they share the maps.
        """
        from atlas.inputs.explain import Explainer

        size = self._engine["batch"]
        begins = -1 if of_whole_set(self._asks[metric]) else int(positions[0]) // size * size
        if begins != self._begins:
            self._provided, self._begins = {}, begins
        asking = []
        for name in self._methods:
            of = self._wanted.get((metric, name), np.empty(0, int))
            part = of if begins < 0 else of[(of >= begins) & (of < begins + size)]
            asking += [name] if np.array_equal(part, positions) else []
        kind = positions.tobytes(), *asking
        if kind not in self._provided:
            methods = [self._methods[name] for name in asking]
            self._provided[kind] = Explainer(methods, given["background"], self._dtype, calls.attributions)
        return self._provided[kind]

    def _defined(self, method: str, count: int) -> np.ndarray:
        every = np.arange(count)
        maps = self._all_maps(method, every.tobytes())
        return every[maps.isfinite().flatten(1).all(dim=1).cpu().numpy()]

    def _rows(self, rows: bytes) -> dict[str, Any]:
        """Provide the inputs of a whole set: its images are read when they are sliced."""
        seen, positions, device = self._seen, np.frombuffer(rows, int), self._engine["device"]

        def images(start: int, stop: int) -> "Tensor":
            with reads.paused():
                return row_inputs.intensities(seen.pixels[seen.picture[positions[start:stop]]], device)

        found = row_inputs.tensors(seen, positions, device, ("targets",))
        return {**found, "images": LazyImages((len(positions), *seen.pixels.shape[1:]), images)}

    def _counted(self, method: str, smoothing: str, rows: bytes) -> Votes:
        found = next(one for listed in self._smoothings.values() for one in listed if one.name == smoothing)
        store = self._votes_at(self._methods[method].family)
        where = place(store, *found.stored_as(method, self._seen.group), "votes")
        return counted(where, found.settings, self._seen, np.frombuffer(rows, int))

    def _taken(self, method: str, rows: bytes) -> "Tensor":
        return taken(self._maps[method], self._seen, np.frombuffer(rows, int), self._engine["device"])


def taken(maps: Place, seen: Inputs, positions: np.ndarray, device: str) -> "Tensor":
    """Read some rows' maps onto a device, in float32 whatever the stored dtype."""
    return tensor(_rows_of(maps, "attribution", seen, positions), device)


def counted(votes: Place, settings: dict[str, Any], seen: Inputs, positions: np.ndarray) -> Votes:
    """Read some rows' votes."""
    counts, tied = (_rows_of(votes, name, seen, positions) for name in ("counts", "tied"))
    cast = {name: settings[name] for name in ("n0", "n", "sigma", "levels", "form")}
    return Votes(counts[:, 0], counts[:, 1], tied, **cast)


def _rows_of(place: Place, name: str, seen: Inputs, positions: np.ndarray) -> np.ndarray:
    inner = int(np.prod(seen.lead[1:], dtype=int))
    low, high = int(positions.min()) // inner, int(positions.max()) // inner + 1
    block = read_rows(place, name, slice(low, high))
    return block.reshape(-1, *block.shape[len(seen.lead) :])[positions - low * inner]


def tensor(maps: np.ndarray, device: str) -> "Tensor":
    """Convert maps for a metric: float32, whatever the stored dtype."""
    import torch

    return torch.from_numpy(maps.astype("float32")).to(device)
