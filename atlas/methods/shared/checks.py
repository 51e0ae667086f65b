"""Refuse settings that make no sense, in one message."""

from atlas.study.errors import UserError


def check_at_least(function: str, setting: str, value: float | int, least: int) -> None:
    """Refuse a setting that is too small.

    Raises:
        UserError: it is.
    """
    if value < least:
        raise UserError(f"{function}: the setting '{setting}' is {value}, expected at least {least}")


def check_baseline(function: str, baseline: str, layer: str) -> None:
    """Refuse a color for a layer's baseline, and the activations `zero` for the image's.

    Raises:
        UserError: so it is.
    """
    if (baseline == "zero") == (layer == "input"):
        due = "a color" if layer == "input" else "zero"
        raise UserError(f"{function}: the setting 'baseline' is {baseline}, expected {due} at layer {layer}")
