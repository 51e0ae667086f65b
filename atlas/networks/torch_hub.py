"""A network of a PyTorch Hub repository in a local folder."""

from torch import nn

from atlas.networks.shared.called import called


def torch_hub(*, classes: int, folder: str, name: str, settings: dict) -> nn.Module:
    """Call an entry point of the folder's `hubconf.py`.

    Args:
        classes: Number of classes of the dataset; that the network has as many logits is checked when it is first run.
        folder: The folder, relative to the study; nothing is downloaded.
        name: The name of the entry point.
        settings: Passed by keyword.

    Raises:
        UserError: there is no such folder or entry point, it does not take the settings, or it returns no network.
    """
    return called("torch_hub", f"{folder}/hubconf.py:{name}", settings)
