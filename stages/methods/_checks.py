"""Refuse settings that make no sense, in one message."""

from stages.problem import Problem


def check_at_least(function: str, setting: str, value: float | int, least: int) -> None:
    """Refuse a setting that is too small.

    Raises:
        Problem: it is.
    """
    if value < least:
        raise Problem(f"{function}: the setting '{setting}' is {value}, expected at least {least}")
