"""Call a function that makes a network, and report in one line why it failed."""

from collections.abc import Callable
from typing import Any

from torch import nn

from atlas.study.errors import UserError


def construct(prefix: str, function: Callable[..., Any], settings: dict[str, Any]) -> nn.Module:
    """Call something that makes a network, with settings by keyword.

    Raises:
        UserError: it does not take them, fails, or returns no network; the message begins with `prefix`.
    """
    try:
        network = function(**settings)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise UserError(f"{prefix} settings = {settings}: it raises {type(error).__name__}: {text:.300}") from None
    if not isinstance(network, nn.Module):
        raise UserError(f"{prefix} it gives a {type(network).__name__}, expected a torch.nn.Module")
    return network
