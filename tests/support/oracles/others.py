"""The packages that witness one method each: SHAP, LIME, zennit, scikit-image."""

from unittest.mock import patch

import numpy as np
import torch
from lime.lime_image import LimeImageExplainer
from skimage.color import rgb2gray
from skimage.feature import canny as edges
from skimage.segmentation import slic
from torch import Tensor, nn
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, SpecialFirstLayerMapComposite, layer_map_base
from zennit.rules import Epsilon, ZBox, ZPlus
from zennit.torchvision import ResNetCanonizer
from zennit.types import Convolution

from atlas.study import seeds as draws
from tests.support.oracles.cases import Case, color, normalized, precision


def expected_gradients(case: Case, *, samples: int, output: str) -> Tensor:
    """SHAP's GradientExplainer, with the methods' draws for its own."""
    import shap  # which takes its time, and warns

    found = []
    for row in case.rows():
        target, whole = int(row.targets), case.whole(output)
        explained = row.whole(lambda logits, whole=whole, target=target: whole.output(logits)[:, target : target + 1])
        generators = [draws.rng(row.seeds[0], "background", sample) for sample in range(samples)]
        drawn = [(generator.integers(len(case.background)), generator.random()) for generator in generators]
        starts, shares = (iter(part) for part in zip(*drawn, strict=True))
        explainer = shap.GradientExplainer(explained, case.background)
        with (
            patch.object(np.random, "choice", lambda count, starts=starts: int(next(starts))),
            patch.object(np.random, "uniform", lambda shares=shares: float(next(shares))),
        ):
            values = explainer.shap_values(row.images.clone(), nsamples=samples, rseed=0)
        found.append(torch.from_numpy(np.asarray(values)).reshape(row.images.shape))
    return torch.cat(found)


class _Drawn(np.random.RandomState):
    """Gives the methods' draws for LIME's own."""

    def __init__(self, shown: np.ndarray):
        super().__init__(0)
        self.shown = shown

    def randint(self, low: int, high: int, size: int) -> np.ndarray:
        assert (low, high, size) == (0, 2, self.shown.size)
        return self.shown.ravel().astype(int)


def lime(
    case: Case, *, samples: int, superpixels: int, compactness: float, sigma: float, width: float, fill: str
) -> Tensor:
    """LimeImageExplainer: its masks of the image, its distances and its regression, on the method's superpixels."""
    found = torch.zeros_like(case.images[:, :1])
    whole = case.whole("probability")

    def probabilities(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return whole(torch.from_numpy(images).movedim(-1, 1)).double().numpy()

    for number, row in enumerate(case.rows()):
        image = row.images[0].movedim(0, -1).numpy()
        segments = slic(image, n_segments=superpixels, compactness=compactness, sigma=sigma, start_label=0)
        shown = draws.rng(row.seeds[0], "lime").random((samples, segments.max() + 1)) < 0.5
        explainer = LimeImageExplainer(kernel_width=width, random_state=_Drawn(shown))
        settings = {"labels": row.targets.tolist(), "top_labels": None, "num_samples": samples, "random_seed": 0}
        hidden = {"hide_color": color(fill).view(3).numpy(), "segmentation_fn": lambda _, segments=segments: segments}
        explanation = explainer.explain_instance(image, probabilities, **settings, **hidden)
        for segment, coefficient in explanation.local_exp[int(row.targets)]:
            found[number, 0, torch.from_numpy(segments == segment)] = float(coefficient)
    return found


def lrp(case: Case, *, epsilon: float, layer: str) -> Tensor:
    """A composite of zennit with its own canonizers; of a layer: of what follows it, as a network of its own."""
    rules = [*layer_map_base(), (Convolution, ZPlus()), (nn.Linear, Epsilon(epsilon))]
    canonizers = [ResNetCanonizer()] if case.name.startswith("resnet") else [SequentialMergeBatchNorm()]
    settings = {"layer_map": rules, "canonizers": canonizers}
    if layer == "input":
        low, high = (normalized(torch.full((1, 3, 1, 1), end)).to(precision(case.network)) for end in (0.0, 1.0))
        composite = SpecialFirstLayerMapComposite(first_map=[(Convolution, ZBox(low, high))], **settings)
        network, entering = case.plain(), case.normalized().requires_grad_()
    else:
        composite = LayerMapComposite(**settings)
        network, entering = case.halves(layer)[1], case.features(layer).requires_grad_()
    with composite.context(network):
        logits = network(entering)
        top = torch.zeros_like(logits).scatter(1, case.targets[:, None], logits.gather(1, case.targets[:, None]))
        (found,) = torch.autograd.grad(logits, entering, top.detach())
    return found


def canny(case: Case, *, sigma: float) -> Tensor:
    return torch.stack([torch.from_numpy(edges(gray.numpy(), sigma=sigma)) for (gray,) in intensity(case)])[:, None]


def intensity(case: Case) -> Tensor:
    return torch.from_numpy(rgb2gray(case.images.movedim(1, -1).numpy()))[:, None]
