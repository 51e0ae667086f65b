"""A network of a repository of PyTorch Hub that lies in a folder."""

from torch import nn

from atlas.networks.shared.called import called


def torch_hub(*, classes: int, folder: str, name: str, settings: dict) -> nn.Module:
    """Call an entry point of the folder's `hubconf.py`.

    Args:
        classes: Of the dataset; that the network has so many logits is checked when it is first run.
        folder: Relative to the study; nothing is downloaded.
        name: Of the entry point.
        settings: Passed by keyword.

    Raises:
        UserError: there is no such folder or entry point, it does not take the settings, or it gives no network.
    """
    return called("torch_hub", f"{folder}/hubconf.py:{name}", settings)
