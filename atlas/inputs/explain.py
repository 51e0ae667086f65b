"""Make maps of images by a method: reduce its attributions to one channel, enlarge them, and provide it to metrics."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from atlas.inputs.summing import check_sum
from atlas.model.arrays import Background, Images, Maps, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.model.layers import enlarged
from atlas.model.lazy_images import LazyImages
from atlas.study.errors import Fault
from atlas.study.schema.settings import Entry, canonical
from atlas.study.seeds import generator


def attributions_of(bound: Entry) -> str:
    """Return the key of an entry's attributions; entries that differ only in how these become maps share it."""
    return canonical([bound.function, bound.settings])


def mapped(
    attributions: Tensor,
    batched: Callable,
    side: tuple[int, int],
    seeds: list[int],
    *,
    channels: str,
    reverse: dict[str, float] | None,
) -> Tensor:
    """Reduce attributions' channels as the entry says and enlarge to the image size: the stage's part of a map."""

    def reduced(part: Tensor) -> Tensor:
        sized = part if channels == "sum" else part.abs()
        return enlarged(sized.amax(dim=1) if channels == "max_abs" else sized.sum(dim=1), side)

    maps = batched(reduced, attributions)
    return maps if reverse is None else swapped(maps, seeds, **reverse)


def swapped(maps: Tensor, seeds: list[int], *, remain: float, swap: float) -> Tensor:
    """Swap the lowest values of each map with those just below its highest: Huang and Liu's reversed variants (2024).

    Which of the lowest values goes to which place is drawn from the image's own seed.

    Args:
        maps: The maps to change.
        seeds: One per map.
        remain: Share of pixels, the highest, that stay in place.
        swap: Share of pixels, the lowest, that exchange values with as many pixels just below those that stay.

    Differs from the authors' code, which keeps one pixel more in place.
    """
    flat = maps.flatten(1).clone()
    stay, count = int(flat.shape[1] * remain), int(flat.shape[1] * swap)
    for row, seed in zip(flat, seeds, strict=True):
        order = row.cpu().sort(stable=True).indices
        low, high = order[:count], order[len(order) - stay - count : len(order) - stay]
        high = high[torch.randperm(count, generator=generator(seed, "reverse"))]
        row[low], row[high] = row[high], row[low]
    return flat.view_as(maps)


Asked = tuple[Classifier, Images | LazyImages, Targets, Seeds]


class Explainer:
    """Provide a family's methods to metrics that ask how maps change when the image or the classifier changes.

    When one method is asked for maps, those of all other `methods` are made with it, so that the family's common work
    is done once, and are cached until each has been requested. For images that were made from a map, and so concern one
    method only, set `alone`.

    Args:
        methods: The methods that will be asked, each once for the same images.
        background: The background images; none of them is evaluated.
        dtype: The dtype of stored maps, to which maps are rounded like those.
        call: Returns the attributions of a method (`atlas.inputs.calls.attributions`).

    Attributes:
        undefined: The methods that have returned a map that is not finite.
    """

    def __init__(self, methods: Iterable[Entry], background: Background, dtype: str, call: Callable[..., Tensor]):
        self.undefined: set[str] = set()
        self._dtype, self._call = getattr(torch, dtype), call
        self._methods = {bound.name: bound for bound in methods}
        self._background = background
        self._cached: list[tuple[Asked, dict[str, Maps | Exception]]] = []
        self._provided = {name: partial(self._explain, name) for name in self._methods}

    def by(self, method: str) -> Callable[..., Maps]:
        """Return the function that makes maps by one method: the same object each time, so that caches recognize it.

        explain(classifier, images, targets, seeds, alone=False)
        """
        return self._provided[method]

    def _explain(
        self,
        method: str,
        classifier: Classifier,
        images: Images | LazyImages,
        targets: Targets,
        seeds: Seeds,
        alone: bool = False,
    ) -> Maps:
        asked = (classifier, images, targets, list(seeds))
        found = self._computed(*asked, [method])[method] if alone else self._take(method, asked)
        if isinstance(found, Exception):
            raise found
        if not torch.isfinite(found).all():
            self.undefined.add(method)
        return found

    def _take(self, method: str, asked: Asked) -> Maps | Exception:
        for place, (known, maps) in enumerate(self._cached):
            same = all(old is new for old, new in zip(known[:3], asked[:3], strict=True)) and known[3] == asked[3]
            if same and method in maps:
                return self._given(method, place)
        # Entries without maps hold only errors; for images that are not asked for again these would pile up.
        self._cached = [entry for entry in self._cached if any(isinstance(one, Tensor) for one in entry[1].values())]
        self._cached.append((asked, self._computed(*asked, list(self._methods))))
        return self._given(method, -1)

    def _given(self, method: str, place: int) -> Maps | Exception:
        maps = self._cached[place][1]
        if isinstance(maps[method], Exception):
            return maps[method]  # raised for every metric that asks
        found = maps.pop(method)
        if not maps:
            del self._cached[place]
        return found

    def _computed(
        self,
        classifier: Classifier,
        images: Images | LazyImages,
        targets: Targets,
        seeds: Seeds,
        methods: list[str],
    ) -> dict[str, Maps | Exception]:
        """Make the maps of some methods, at most the classifier's batch of images at a time."""
        parts: dict[str, list[Maps]] = {name: [] for name in methods}
        failed: dict[str, Maps | Exception] = {}
        for start in range(0, len(images), classifier.batch):
            part = slice(start, start + classifier.batch)
            given = {
                "classifier": classifier,
                "images": images[part],
                "targets": targets[part],
                "seeds": seeds[part],
                "background": self._background,
            }
            made: dict[str, Tensor] = {}
            for name in methods:
                try:
                    maps = self._maps(self._methods[name], given, made)
                except Fault:  # no object of this call may be used any more
                    raise
                except Exception as error:  # a failure of one method does not affect the others
                    failed[name] = error
                else:
                    parts[name].append(maps)
        return {name: torch.cat(maps) for name, maps in parts.items() if name not in failed} | failed

    def _maps(self, bound: Entry, given: dict, made: dict[str, Tensor]) -> Maps:
        known = attributions_of(bound)
        if known not in made:
            made[known] = self._call(bound, given)
        check_sum(bound, made[known], given, self._call)
        side = tuple(given["images"].shape[-2:])
        reduction = {name: bound.options[name] for name in ("channels", "reverse")}
        maps = mapped(made[known], given["classifier"].batched, side, given["seeds"], **reduction)
        return maps.to(self._dtype).float()
