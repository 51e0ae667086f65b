"""Make maps of images by a method: reduce what it returns to one channel, enlarge it, and provide it to metrics."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from atlas.inputs.summing import check_sum
from atlas.model.arrays import Background, Images, Maps, Seeds, Targets
from atlas.model.classifier import Classifier
from atlas.model.layers import enlarged
from atlas.study.errors import Fault
from atlas.study.schema.settings import Entry, canonical
from atlas.study.seeds import generator


def attributions_of(bound: Entry) -> str:
    """Name what entries have in common that reduce the same attributions to maps in ways of their own."""
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
    """Reduce attributions' channels as the entry says and enlarge them to the picture: the verb's part of a map."""

    def reduced(part: Tensor) -> Tensor:
        sized = part if channels == "sum" else part.abs()
        return enlarged(sized.amax(dim=1) if channels == "max_abs" else sized.sum(dim=1), side)

    maps = batched(reduced, attributions)
    return maps if reverse is None else swapped(maps, seeds, **reverse)


def swapped(maps: Tensor, seeds: list[int], *, remain: float, swap: float) -> Tensor:
    """Swap the lowest values of each map with those next to its highest: the reversed variants of Huang and Liu 2024.

    Which of the lowest changes places with which is drawn from the image's own seed.

    Args:
        maps: What is swapped.
        seeds: One per map.
        remain: Share of pixels, the highest, that stay.
        swap: Share of pixels, the lowest, that get the values of as many pixels below those that stay.

    Differs from the authors' code, in which one pixel more stays.
    """
    flat = maps.flatten(1).clone()
    stay, count = int(flat.shape[1] * remain), int(flat.shape[1] * swap)
    for row, seed in zip(flat, seeds, strict=True):
        order = row.cpu().sort(stable=True).indices
        low, high = order[:count], order[len(order) - stay - count : len(order) - stay]
        high = high[torch.randperm(count, generator=generator(seed, "reverse"))]
        row[low], row[high] = row[high], row[low]
    return flat.view_as(maps)


class Explainer:
    """Provide a family's methods to metrics that ask how maps change when the image or the classifier does.

    What one method is asked about, the others of `methods` will be: their maps are made with it, so that the family's
    common work is done once, and are held until they have been given. Images that a map was used to make are asked
    about `alone`.

    Args:
        methods: The methods that will ask, each once for the same images.
        background: Images of none of the rows.
        dtype: Of stored maps, to which maps are rounded as those are.
        call: Gives the attributions of a method (`atlas.inputs.calls.attributions`).

    Attributes:
        undefined: The methods that have given a map that is not finite.
    """

    def __init__(self, methods: Iterable[Entry], background: Background, dtype: str, call: Callable[..., Tensor]):
        self.undefined: set[str] = set()
        self._dtype, self._call = getattr(torch, dtype), call
        self._methods = {bound.name: bound for bound in methods}
        self._background = background
        self._held: list[tuple[tuple, dict[str, Maps | Exception]]] = []
        self._provided = {name: partial(self._explain, name) for name in self._methods}

    def by(self, method: str) -> Callable[..., Maps]:
        """Return the function that makes maps by one method: the same one whoever asks, so that what it gave is known.

        explain(classifier, images, targets, seeds, alone=False)
        """
        return self._provided[method]

    def _explain(
        self, method: str, classifier: Classifier, images: Images, targets: Targets, seeds: Seeds, alone: bool = False
    ) -> Maps:
        asked = (classifier, images, targets, list(seeds))
        found = self._made(*asked, [method])[method] if alone else self._take(method, asked)
        if isinstance(found, Exception):
            raise found
        if not torch.isfinite(found).all():
            self.undefined.add(method)
        return found

    def _take(self, method: str, asked: tuple) -> Maps | Exception:
        for place, (known, maps) in enumerate(self._held):
            same = all(old is new for old, new in zip(known[:3], asked[:3], strict=True)) and known[3] == asked[3]
            if same and method in maps:
                return self._given(method, place)
        # Where no map is left there are errors alone; those of images that are not asked for again would pile up.
        self._held = [held for held in self._held if any(isinstance(one, Tensor) for one in held[1].values())]
        self._held.append((asked, self._made(*asked, list(self._methods))))
        return self._given(method, -1)

    def _given(self, method: str, place: int) -> Maps | Exception:
        maps = self._held[place][1]
        if isinstance(maps[method], Exception):
            return maps[method]  # told to every metric that asks
        found = maps.pop(method)
        if not maps:
            del self._held[place]
        return found

    def _made(
        self, classifier: Classifier, images: Images, targets: Targets, seeds: Seeds, methods: list[str]
    ) -> dict[str, Maps | Exception]:
        """Make the maps of some methods, no more images at a time than the classifier's batch."""
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
                except Fault:  # nothing that is at hand may be used any more
                    raise
                except Exception as error:  # what one method cannot do is nothing to the others
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
