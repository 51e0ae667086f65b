"""Time other systems' metrics for benchmarks/metrics.py, which starts this in their environment: see `answering`."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import quantus
import torch
from answering import Normalized, answer
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torch import nn


def peers(
    model: Normalized, told: dict, images: np.ndarray, targets: np.ndarray, maps: np.ndarray
) -> Iterator[tuple[str, str, Callable]]:
    """Return, for each metric, whose it is, its name with us, and what is timed."""
    device = told["device"]
    quiet = {"disable_warnings": True, "display_progressbar": False}
    # It flips single channel values, in three times our steps: it refuses a number that does not divide the pixels.
    steps = {"features_in_step": told["pixels"], "perturb_baseline": "black", **quiet}
    patches = {"perturb_patch_sizes": [told["patch"]], "n_perturb_samples": told["samples"]}
    metrics = {
        "pixel_flipping": (quantus.PixelFlipping(**steps), True),
        "faithfulness_estimate": (quantus.FaithfulnessEstimate(**steps), True),
        "infidelity": (quantus.Infidelity(**patches, perturb_baseline="uniform", **quiet), False),
        "max_sensitivity": (
            quantus.MaxSensitivity(nr_samples=told["samples"], lower_bound=told["scale"], **quiet),
            False,
        ),
    }

    def explain(model: Normalized, inputs: np.ndarray, targets: np.ndarray, **_: object) -> np.ndarray:
        return gradients(model, inputs, targets, device)

    for name, (metric, softmax) in metrics.items():
        given = {"x_batch": images, "y_batch": targets, "a_batch": maps[:, None], "explain_func": explain}
        given = {**given, "device": device, "softmax": softmax, "channel_first": True}
        yield f"Quantus {quantus.__version__}", name, lambda metric=metric, given=given: metric(model=model, **given)
    for name in ("deletion", "insertion"):
        yield "RISE's loop", name, lambda name=name: causal(model, images, targets, maps, told, name)
    of = [ClassifierOutputSoftmaxTarget(int(target)) for target in targets]
    road = ROADCombined([round(100 * (1 - share)) for share in told["shares"]])
    yield "pytorch-grad-cam", "road", lambda: road(torch.from_numpy(images).to(device), maps, of, model)


def gradients(model: Normalized, images: np.ndarray, targets: np.ndarray, device: str) -> np.ndarray:
    """Return the absolute gradient of the target's logit, summed over channels."""
    inputs = torch.from_numpy(np.asarray(images, np.float32)).to(device).requires_grad_()
    logits = model(inputs).gather(1, torch.from_numpy(targets).to(device)[:, None])
    (gradient,) = torch.autograd.grad(logits.sum(), inputs)
    return gradient.abs().sum(dim=1, keepdim=True).cpu().numpy()


def causal(
    model: Normalized, images: np.ndarray, targets: np.ndarray, maps: np.ndarray, told: dict, mode: str
) -> list[list[float]]:
    """Run RISE's causal metric as its authors' loop does: one image and one step at a time, on the host."""
    channels, height, width = images.shape[1:]
    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = torch.zeros(channels, channels, 11, 11)
    for channel in range(channels):
        kernel[channel, channel] = torch.from_numpy(gaussian_filter(delta, 5))
    curves = []
    for image, target, one in zip(torch.from_numpy(images), targets, maps, strict=True):
        empty = nn.functional.conv2d(image[None], kernel, padding=5)[0] if mode == "insertion" else image * 0
        begin, end = (empty, image) if mode == "insertion" else (image, empty)
        begin, end = begin.reshape(channels, -1).clone(), end.reshape(channels, -1)
        order, curve = np.flip(np.argsort(one.ravel())).copy(), []
        for at in range(0, height * width + told["pixels"], told["pixels"]):
            with torch.no_grad():
                logits = model(begin.view(1, channels, height, width).to(told["device"]))
            curve.append(logits.softmax(dim=1)[0, target].item())
            places = order[at : at + told["pixels"]]
            begin[:, places] = end[:, places]
        curves.append(curve)
    return curves


if __name__ == "__main__":
    answer(Path(sys.argv[1]), peers)
