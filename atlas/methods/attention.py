"""Methods that follow a transformer's attention from the class token back to the patches.

Wₗ is the attention of block l: each row belongs to a token and holds how much it takes from every token. Maps have the
size of the grid of patches.
"""

import torch
from torch import Tensor

from atlas.methods.shared.attention import attended, identity
from atlas.model.arrays import Images, LayerAttributions, Targets
from atlas.model.classifier import Classifier

ATTRS = {
    "rollout": {
        "long_name": "Attention rollout",
        "units": "share",
        "reference": "abnar2020quantifying",
    },
    "gradient_rollout": {
        "long_name": "Gradient-weighted attention",
        "units": "logit",
        "reference": "chefer2021generic",
    },
}


def rollout(classifier: Classifier, images: Images) -> LayerAttributions:
    """Multiply the attention of all blocks.

        R = Âₗ … Â₂ Â₁,    Â = ½ (mean over heads of W) + ½ I

    The map is the class token's row of R at the patches: the share that came from each patch.

    Returns:
        Maps of at least 0; together with the class token's own share they sum to 1. The same for every class.

    Raises:
        Unsupported: the network has no attention or no class token, or cannot be traced.
    """
    graph = classifier.graph("input")

    def propagate(normalized: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits, blocks = attended(graph, normalized)
        total = identity(blocks[0][:, 0])
        for weights in blocks:
            total = (weights.mean(1) + identity(weights[:, 0])) / 2 @ total
        return logits, total[:, 0, :, None]

    return classifier.propagated(propagate, images, layer="input", forward=1, backward=0, token=True)


def gradient_rollout(classifier: Classifier, images: Images, targets: Targets) -> LayerAttributions:
    """Add up the attention of all blocks, as far as it raises the target's logit.

        R ← R + W̄ R from R = I, block by block,    W̄ = mean over heads of ReLU(W · ∂f/∂W)

    The map is the class token's row of R at the patches.

    Returns:
        Maps of at least 0.

    Raises:
        Unsupported: the network has no attention or no class token, or cannot be traced.

    Differs from the paper: none, for a network with self-attention only.
    """
    graph = classifier.graph("input")

    def propagate(normalized: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        logits, blocks = attended(graph, normalized.detach().requires_grad_())
        slopes = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), blocks)
        total = identity(blocks[0][:, 0])
        for weights, slope in zip(blocks, slopes, strict=True):
            total = total + (weights.detach() * slope).relu().mean(1) @ total
        return logits.detach(), total[:, 0, :, None]

    return classifier.propagated(propagate, images, targets, layer="input", forward=1, backward=1, token=True)
