"""pytorch-grad-cam's side of the comparisons: maps of a layer's size, before its scaling to [0, 1] and enlargement."""

from unittest.mock import patch

import numpy as np
import pytorch_grad_cam as package
import torch
from pytorch_grad_cam import base_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor, nn

from tests.support.oracles.cases import Case


class _PlusPlus(package.GradCAMPlusPlus):
    """Its 1e-6 in the denominator outweighs small gradients: Grad-CAM++ of g · c and A / c has the same shares."""

    def get_cam_weights(self, image, layer, target, activations: np.ndarray, grads: np.ndarray) -> np.ndarray:
        scale = 2.0**20 / np.abs(grads).max()
        return super().get_cam_weights(image, layer, target, activations / scale, grads * scale) / scale


def gradcam(case: Case, *, layer: str) -> Tensor:
    return _map(package.GradCAM, case, layer)


def gradcam_pp(case: Case, *, form: str, layer: str) -> Tensor:
    assert form == "paper"
    return _map(_PlusPlus, case, layer)


def hirescam(case: Case, *, layer: str) -> Tensor:
    return _map(package.HiResCAM, case, layer)


def xgradcam(case: Case, *, layer: str) -> Tensor:
    return _map(package.XGradCAM, case, layer)


def layercam(case: Case, *, layer: str) -> Tensor:
    return _map(package.LayerCAM, case, layer)


def eigencam(case: Case, *, layer: str) -> Tensor:
    """EigenCAM's projection, whose sign is arbitrary, and the package's correction of it in SegEigenCAM."""
    with patch("pytorch_grad_cam.eigen_cam.get_2d_projection", get_2d_projection_with_sign_correction):
        return _map(package.EigenCAM, case, layer)


def scorecam(case: Case, *, order: str, fill: str, layer: str) -> Tensor:
    """It enlarges with aligned corners; here it is made not to."""
    assert (order, fill) == ("enlarge_first", "mean")
    with patch.object(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(size=size, mode="bilinear")):
        return _map(package.ScoreCAM, case, layer)


def ablation_cam(case: Case, *, divisor: str, layer: str) -> Tensor:
    """Wrong where the least activation is not 0, for which it writes −10⁷."""
    assert divisor == "logit"
    assert case.features(layer).min() == 0
    return _map(package.AblationCAM, case, layer)


def shown(kind: type[base_cam.BaseCAM], case: Case, layer: str) -> Tensor:
    """What the package gives its users: scaled, enlarged by OpenCV, and scaled again."""
    plain = case.plain()
    targets = [ClassifierOutputTarget(target) for target in case.targets.tolist()]
    with kind(model=plain, target_layers=[plain.layer(layer)], reshape_transform=case.reshape) as extractor:
        found = extractor(case.normalized().requires_grad_(), targets=targets)
    return torch.from_numpy(np.asarray(found))[:, None]


def _map(kind: type[base_cam.BaseCAM], case: Case, layer: str) -> Tensor:
    with patch.object(base_cam, "scale_cam_image", lambda maps, size=None: maps):
        return shown(kind, case, layer)
