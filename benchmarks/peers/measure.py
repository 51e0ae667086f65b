"""Time other systems' metrics for benchmarks/metrics.py, which starts this in the peers' environment.

    python measure.py FOLDER

reads FOLDER/given.npz (network, images, targets, maps, settings) and says which classes the network predicts. Then it
answers each line that names a metric with one of JSON: whose it is, the seconds and the passes of all images, or the
error with which the peer ended. Before a metric is measured first it judges one image.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import quantus
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torch import nn
from torchvision import models


class Normalized(nn.Module):
    """The network with its normalization, and the count of its passes."""

    def __init__(self, network: nn.Module, mean: list[float], std: list[float]):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.forwards = self.backwards = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of images in [0, 1]."""
        self.forwards += len(images)
        return self.network((images - self.mean) / self.std)


def main(folder: Path) -> None:
    """Measure what is asked for."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what peers print is no answer
    given = dict(np.load(folder / "given.npz"))
    told = json.loads(str(given["told"]))
    torch.set_num_threads(told["threads"])
    torch.backends.cudnn.allow_tf32 = False
    np.random.seed(0)
    network = models.resnet18(weights=None, num_classes=len(given["network.fc.bias"]))
    prefix = "network."
    weights = {name.removeprefix(prefix): torch.from_numpy(value) for name, value in given.items() if prefix in name}
    network.load_state_dict(weights)
    model = Normalized(network.requires_grad_(False), told["mean"], told["std"]).to(told["device"]).eval()
    rows = given["images"], given["targets"], given["maps"]
    with torch.no_grad():
        predicted = model(torch.from_numpy(rows[0]).to(told["device"])).argmax(dim=1).tolist()
    print(json.dumps(predicted), file=answers)
    first = {name: judge for _, name, judge in peers(model, *(part[:1] for part in rows), told)}
    known = {name: (peer, judge) for peer, name, judge in peers(model, *rows, told)}
    for line in sys.stdin:
        name = line.strip()
        peer, judge = known[name]
        try:
            first.pop(name, lambda: None)()
            model.forwards = model.backwards = 0
            seconds = timed(judge)
            found = {"peer": peer, "seconds": seconds, "forward": model.forwards, "backward": model.backwards}
        except Exception as error:  # what one peer cannot do is nothing to the others
            found = {"peer": peer, "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers)


def peers(
    model: Normalized, images: np.ndarray, targets: np.ndarray, maps: np.ndarray, told: dict
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
    model.backwards += len(inputs)
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


def timed(function: Callable) -> float:
    """Return the seconds of a call."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    began = perf_counter()
    function()
    wait()
    return perf_counter() - began


if __name__ == "__main__":
    main(Path(sys.argv[1]))
