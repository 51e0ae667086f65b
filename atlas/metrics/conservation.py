"""How much of the output that a map distributes arrives in it."""

import torch

from atlas.metrics.shared.outputs import clean_logits, output_of
from atlas.metrics.shared.rows import by_row, finite
from atlas.model.arrays import Images, Maps, Scores, Targets
from atlas.model.classifier import Classifier

ATTRS = {
    "kept_share": {
        "long_name": "share of the logit that the map sums to",
        "units": "1",
        "reference": "bach2015pixelwise",
        "better": "higher",
        "role": "diagnostic",
    },
}


def kept_share(maps: Maps, images: Images, targets: Targets, classifier: Classifier) -> Scores:
    """Measure the share of the target's logit that a map sums to.

        Σ a / f(x)

    Relevance is conserved if it is 1, as intended in LRP (Bach et al. 2015). LRP loses relevance of convolutions
    without positive contributions, relevance that activations cut off, and relevance of biases: a map that keeps little
    of the logit distributes little of it. For a method of differences, the sum is f(x) − f(b) instead.

    Returns:
        Any number; 1 is all of the logit. It is meaningful for entries whose `channels` are summed, at the layer
        `input`: a layer's map is enlarged.

    Undefined where the logit is 0, or the map is not finite.
    """
    logits = output_of(classifier, clean_logits(classifier, images), targets, "logit").double().cpu()
    shares = by_row(lambda one: one.double().sum(), maps).cpu() / logits
    return torch.where(finite(maps).cpu() & (logits != 0), shares, torch.nan).float()
