"""Time other systems' methods for benchmarks/methods.py, which starts this in the peers' environment: see `answering`.

Settings are those of ours. All images are given at once to whoever takes more than one.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytorch_grad_cam as cams
import saliency.core as pair
import torch
import torchcam.methods as torchcam
from answering import Normalized, answer
from captum import attr as captum
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn.functional import interpolate, pad
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite
from zennit.rules import Epsilon, Pass

CAMS = {
    "gradcam": cams.GradCAM,
    "gradcam_pp": cams.GradCAMPlusPlus,
    "hirescam": cams.HiResCAM,
    "xgradcam": cams.XGradCAM,
    "layercam": cams.LayerCAM,
    "eigencam": cams.EigenCAM,
    "scorecam": cams.ScoreCAM,
    "ablation_cam": cams.AblationCAM,
}


def peers(
    model: Normalized, told: dict, images: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[str, str, Callable]]:
    """Return, for each method, whose it is, its name with us, and what is timed."""
    device = told["device"]
    given, of = torch.from_numpy(images).to(device), torch.from_numpy(targets).to(device)
    black, mean = torch.zeros_like(given), model.mean.expand_as(given)
    last = model.network.layer4[-1]
    library = f"captum {version('captum')}"

    def asked() -> torch.Tensor:
        return given.clone().requires_grad_()

    noisy = {"nt_samples": told["samples"], "nt_samples_batch_size": told["samples"], "stdevs": told["noise"]}
    path = {"n_steps": told["steps"], "method": "gausslegendre"}
    window = {"sliding_window_shapes": (3, told["window"], told["window"])}
    window |= {
        "strides": (3, told["stride"], told["stride"]),
        "perturbations_per_eval": told["batch"] // len(images) or 1,
    }
    by_captum: dict[str, Callable] = {
        "gradient": lambda: captum.Saliency(model).attribute(asked(), of),
        "input_x_gradient": lambda: captum.InputXGradient(model).attribute(asked(), of),
        "integrated_gradients": lambda: captum.IntegratedGradients(model).attribute(asked(), black, of, **path),
        "smoothgrad": lambda: captum.NoiseTunnel(captum.Saliency(model)).attribute(asked(), target=of, **noisy),
        "guided_backprop": lambda: captum.GuidedBackprop(model).attribute(asked(), of),
        "deep_lift": lambda: captum.DeepLift(model).attribute(asked(), black, of),
        "occlusion": lambda: captum.Occlusion(model).attribute(given, target=of, baselines=mean, **window),
    }
    for name, run in by_captum.items():
        yield library, name, run
    for name, kind in CAMS.items():
        yield f"pytorch-grad-cam {version('grad-cam')}", name, partial(_cam, kind, model, last, given, targets)
    yield f"TorchCAM {version('torchcam')}", "gradcam beside TorchCAM", lambda: _torchcam(model, last, given, of)
    yield f"zennit {version('zennit')}", "lrp", lambda: _lrp(model, asked(), of, told["epsilon"])
    yield "RISE's loop", "rise", lambda: _rise(model, given, of, told)
    name = f"PAIR saliency {version('saliency')}"
    yield name, "guided_ig", lambda: [_guided(model, *one, told) for one in zip(images, targets, strict=True)]
    yield name, "blur_ig", lambda: [_blurred(model, *one, told) for one in zip(images, targets, strict=True)]


def _cam(kind: type, model: Normalized, layer: nn.Module, images: torch.Tensor, targets: np.ndarray) -> np.ndarray:
    with kind(model=model, target_layers=[layer]) as explain:
        explain.batch_size = 32
        of = [ClassifierOutputTarget(int(one)) for one in targets]
        return explain(input_tensor=images.clone().requires_grad_(), targets=of)


def _torchcam(model: Normalized, layer: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    with torchcam.GradCAM(model, target_layer=layer) as explain:
        return explain(targets.tolist(), model(images.clone().requires_grad_()))


def _lrp(model: Normalized, images: torch.Tensor, targets: torch.Tensor, epsilon: float) -> torch.Tensor:
    composite = LayerMapComposite([(nn.ReLU, Pass()), (nn.Conv2d, Epsilon(epsilon)), (nn.Linear, Epsilon(epsilon))])
    one = torch.nn.functional.one_hot(targets, 1000).to(images)
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(images, one)[1]


def _rise(model: Normalized, images: torch.Tensor, targets: torch.Tensor, told: dict) -> torch.Tensor:
    """Mask and run as RISE's authors do: all masks of an image, in batches."""
    side, cells, count = images.shape[-1], told["cells"], told["masks"]
    rng, cell = np.random.default_rng(0), -(-images.shape[-1] // told["cells"])
    grid = torch.from_numpy((rng.random((count, 1, cells, cells)) < 0.5).astype("float32"))
    large = interpolate(pad(grid, (0, 1, 0, 1), mode="replicate"), scale_factor=cell, mode="bilinear")
    at = rng.integers(cell, size=(count, 2))
    masks = torch.stack([one[:, y : y + side, x : x + side] for one, (y, x) in zip(large, at, strict=True)])
    masks, found = masks.to(images), []
    with torch.no_grad():
        for image, target in zip(images, targets.tolist(), strict=True):
            shares = [model(image * part).softmax(dim=1)[:, target] for part in masks.split(told["batch"])]
            found.append((torch.cat(shares).view(-1, 1, 1, 1) * masks).sum(dim=0) / count / 0.5)
    return torch.stack(found)


def _gradients(model: Normalized, target: int, images: np.ndarray, device: str) -> dict:
    given = torch.from_numpy(np.asarray(images, "float32").transpose(0, 3, 1, 2)).to(device).requires_grad_()
    logits = model(given)[:, target]
    (gradient,) = torch.autograd.grad(logits.sum(), given)
    return {
        pair.INPUT_OUTPUT_GRADIENTS: gradient.permute(0, 2, 3, 1).cpu().numpy(),
        pair.OUTPUT_LAYER_VALUES: logits.detach().cpu().numpy(),
    }


def _call(model: Normalized, target: int, device: str) -> Callable:
    return lambda images, call_model_args=None, expected_keys=None: _gradients(model, target, images, device)


def _guided(model: Normalized, image: np.ndarray, target: int, told: dict) -> np.ndarray:
    image = image.transpose(1, 2, 0)
    how = {"x_steps": told["steps"], "max_dist": 0.02, "fraction": 0.25}
    call = _call(model, int(target), told["device"])
    return pair.GuidedIG().GetMask(image, call, x_baseline=np.zeros_like(image), **how)


def _blurred(model: Normalized, image: np.ndarray, target: int, told: dict) -> np.ndarray:
    call = _call(model, int(target), told["device"])
    how = {"steps": told["steps"], "max_sigma": 50, "batch_size": told["batch"]}
    return pair.BlurIG().GetMask(image.transpose(1, 2, 0), call, **how)


if __name__ == "__main__":
    answer(Path(sys.argv[1]), peers)
