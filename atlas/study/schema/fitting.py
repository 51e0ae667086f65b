"""Check how a dataset's pictures are brought to one size: the `fit` of its entry."""

from typing import Any

from atlas.study.errors import UserError
from atlas.study.schema.settings import check, mapping
from atlas.study.schema.signatures import signature_in

TRANSFORMS = "atlas/datasets/shared/transforms"


def fitting(given: object, where: str) -> dict[str, Any] | None:
    """Check the settings of `fit`; null leaves pictures unchanged.

    If it names a library's weights, `{family: torchvision, name: resnet50, tag: IMAGENET1K_V2}`, their preprocessing
    (`atlas.datasets.shared.transforms`) is looked up by `collect` only, since importing the library takes seconds.

    Raises:
        UserError: a setting is unknown, missing or out of range, or contradicts another.
    """
    if given is None:
        return None
    stated = mapping(given, where)
    if of_weights(stated):
        taken = signature_in(TRANSFORMS, "transform")
        return check(given, taken.types, where, f"transform of {TRANSFORMS}.py")
    taken = signature_in("atlas/datasets/shared/fit", "fitted")
    asked = {**taken.defaults, **stated}
    fit = check(asked, taken.types, where, "fitted of atlas/datasets/shared/fit.py")
    size, resize = fit["size"], fit["resize"]
    if fit["mode"] == "squash" and resize is not None:
        raise UserError(f"params.yaml: {where}: resize = {resize}: expected with mode 'crop' alone")
    sides = size if isinstance(size, list) else [size]
    if fit["mode"] == "crop" and (resize is None or resize < max(sides)):
        expected = "expected the shorter side before the crop, at least as long as the crop"
        raise UserError(f"params.yaml: {where}: resize = {resize}, size = {size}: {expected}")
    return fit


def of_weights(fit: dict[str, Any] | None) -> bool:
    """Return whether a dataset's `fit` names weights whose own preprocessing is used."""
    return not {"family", "name", "tag"}.isdisjoint(fit or {})
