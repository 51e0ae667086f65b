"""Make maps of images in memory: any network, any method, no study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from atlas.in_memory.functions import bound
from atlas.in_memory.given import Array, check_targets, classes, classifier_of, pictures, seeds_of, undisturbed
from atlas.inputs.explain import Explainer
from atlas.inputs.returned import checked_attributions
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported, UserError
from atlas.study.params import find
from atlas.study.schema.settings import Entry, canonical
from atlas.study.schema.signatures import attributes, signature


def explain(
    module: nn.Module | Classifier,
    images: Array,
    targets: Array,
    method: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str | torch.device | None = None,
    batch: int | None = None,
    seeds: Sequence[int] | None = None,
    background: Array | None = None,
    **settings: Any,
) -> xr.DataArray:
    """Make a method's maps of images: the same numbers that a study with these settings stores.

        maps = atlas.explain(network, images, targets, "gradcam", layer="layer4", mean=MEAN, std=STD)

    Args:
        module: A network in evaluation mode that computes logits (image, class) of normalized images; it is copied and
            not modified. Or an `atlas.Classifier`, prepared once for many calls.
        images: (image, channel, y, x), intensities in [0, 1], not normalized: a tensor or an array.
        targets: (image), whole numbers: the class whose output is explained.
        method: The name of a function in `atlas/methods`, such as `gradcam` or `integrated_gradients`.
        mean, std: Normalization of each channel: the network gets (images − mean) / std. None: 0 and 1, the images
            themselves.
        device: Where to run, such as "cuda"; None: where the network's parameters are.
        batch: Images per pass, the last batch padded; None: the number of images, at most 32. A method that makes many
            passes of each image may be faster with more. Another size changes the last digits.
        seeds: (image), whole numbers: the seed of each image's random draws. None: made from its position. A study uses
            `atlas.study.seeds.image_seed(seed, id)`.
        background: (other, channel, y, x), images that some methods use for comparison.
        settings: The method's own settings, and `channels`: sum, abs_sum or max_abs, which reduces channels to one.
            Missing settings are those of the default study's entry of the same name, if there is one.

    Returns:
        `attribution` over `image y x`, float32: raw, signed, in no fixed range, with the images' height and width. A
        map with any value that is not finite is NaN throughout. Its attributes have `long_name`, `units`, `reference`,
        and the `settings` it was made with.

    Raises:
        UserError: an argument is invalid; the message is one line.
        Unsupported: the method cannot serve this network, or the network cannot be cut at the layer; the message says
            why.

    torch runs as it is set up in this process: threads, deterministic algorithms and TF32 are the caller's choice. A
    study sets them itself; where these differ, so do the last digits.
    """
    entry = bound("methods", method, settings)
    found = pictures(images)
    wanted = classes(targets, len(found))
    drawn = seeds_of(seeds, len(found))
    with undisturbed():
        classifier = classifier_of(module, found, mean=mean, std=std, device=device, batch=batch)
        found, wanted = found.to(classifier.device), wanted.to(classifier.device)
        check_targets(classifier, found, wanted)
        maker = explainer(entry, classifier, background).by(method)
        try:
            maps = maker(classifier, found, wanted, drawn, alone=True)
        except Unsupported as reason:
            raise Unsupported(f"{method}: {reason}") from None
        maps[~maps.isfinite().flatten(1).all(dim=1)] = torch.nan
    known = attributes("methods", entry.family, entry.function)
    return xr.DataArray(
        maps.cpu().numpy(),
        dims=("image", "y", "x"),
        coords={"image": np.arange(len(maps)), "target": ("image", wanted.cpu().numpy())},
        name="attribution",
        attrs={
            **known,
            "family": entry.family,
            "method": method,
            "settings": canonical({**entry.settings, **entry.options}),
        },
    )


def explainer(entry: Entry, classifier: Classifier, background: Array | None) -> Explainer:
    """Return an explainer that makes maps by one method.

    Raises:
        UserError: the method needs background images, and there are none.
    """
    if background is None and "background" in signature("methods", entry.family, entry.function).inputs:
        raise UserError(f"{entry.name}: needs background, images (other, channel, y, x) with which it compares")
    none = torch.empty(0, len(classifier.mean), 1, 1)
    others = none if background is None else pictures(background, "background")
    return Explainer([entry], others.to(classifier.device), "float32", called)


def call(entry: Entry, given: dict[str, Any]) -> Any:
    """Call the function of an entry with the inputs that it declares."""
    names = signature(entry.kind, entry.family, entry.function).inputs
    return find(entry.kind, entry.family, entry.function)(*(given[name] for name in names), **entry.settings)


def called(entry: Entry, given: dict[str, Any]) -> Tensor:
    """Call a method, and check that it returns attributions."""
    return checked_attributions(call(entry, given), given["images"])
