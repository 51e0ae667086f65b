"""A network that a class or a function makes: of an installed package, or of a file of the user's own."""

from torch import nn

from atlas.networks.shared.called import called


def module(*, classes: int, call: str, settings: dict) -> nn.Module:
    """Call what makes a network.

    Args:
        classes: Of the dataset; that the network has so many logits is checked when it is first run.
        call: 'package.module:Name.attribute', or 'path/to/file.py:Name', the path relative to the study.
        settings: Passed by keyword.

    Raises:
        UserError: there is no such module or attribute, it does not take the settings, or it gives no network.
    """
    return called("module", call, settings)
