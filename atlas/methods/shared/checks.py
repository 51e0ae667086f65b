"""Reject invalid settings, in one message."""

from atlas.study.errors import UserError


def check_at_least(function: str, setting: str, value: float | int, least: int) -> None:
    """Reject a setting that is too small.

    Raises:
        UserError: it is too small.
    """
    if value < least:
        raise UserError(f"{function}: the setting '{setting}' is {value}, expected at least {least}")


def check_baseline(function: str, baseline: str, layer: str) -> None:
    """Reject a color as a layer's baseline, and the activations `zero` as the image's.

    Raises:
        UserError: the baseline does not fit the layer.
    """
    if (baseline == "zero") == (layer == "input"):
        expected = "a color" if layer == "input" else "zero"
        raise UserError(f"{function}: the setting 'baseline' is {baseline}, expected {expected} at layer {layer}")
