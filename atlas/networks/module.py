"""A network made by a class or a function of an installed package, or of a user's own file."""

from torch import nn

from atlas.networks.shared.called import called


def module(*, classes: int, call: str, settings: dict) -> nn.Module:
    """Call a function or class that makes a network.

    Args:
        classes: Number of classes of the dataset; that the network has as many logits is checked when it is first run.
        call: 'package.module:Name.attribute', or 'path/to/file.py:Name', the path relative to the study.
        settings: Passed by keyword.

    Raises:
        UserError: there is no such module or attribute, it does not take the settings, or it returns no network.
    """
    return called("module", call, settings)
