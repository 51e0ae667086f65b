"""Image classification networks of transformers, with random weights."""

from pathlib import Path

from torch import nn

from atlas.networks.shared.construct import construct
from atlas.study.errors import UserError


def huggingface(*, classes: int, folder: str, settings: dict) -> nn.Module:
    """Build the network that the `config.json` of a folder describes; nothing is downloaded, and no code in it is run.

    Its output has the logits under the key `logits`, so the entry needs `output: logits`.

    Args:
        classes: Number of logits.
        folder: The folder, relative to the study.
        settings: Values that replace those of the configuration file.

    Raises:
        UserError: transformers is not installed, or the folder describes no image classification network.
    """
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError:
        raise UserError("huggingface: the package transformers is not installed") from None
    prefix = f"huggingface: folder = {folder!r}"
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{prefix}: there is no file config.json in it")

    def network(**settings: object) -> nn.Module:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)
        return AutoModelForImageClassification.from_config(found, trust_remote_code=False)

    return construct(f"{prefix}:", network, {**settings, "num_labels": classes})
