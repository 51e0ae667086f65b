"""Networks whole, as torchvision and timm build them, and each method beside another package's on the very module."""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d
from torchvision.models.inception import BasicConv2d as InceptionConv2d

from atlas.methods import attention, cam, gradient, masking, noise, path, relevance
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported
from atlas.study.schema.signatures import signature
from tests.support.oracles import attentions, cases, others, torchcams
from tests.support.oracles import captums as captum
from tests.support.oracles import gradcams as grad_cam

MADE = {"init_weights": False, "aux_logits": False}


# As `maxvit_t` is built, but of windows of 3 x 3, not 7 x 7, which take images of 224 pixels a side.
MAXVIT = {"block_channels": [64, 128, 256, 512], "block_layers": [2, 2, 5, 2], "stem_channels": 64, "head_dim": 32}
MAXVIT |= {"stochastic_depth_prob": 0.2, "input_size": (96, 96), "partition_size": 3}


class Spec(NamedTuple):
    """A network: how it is built, of which side images are, and the module that gives its last rows and columns."""

    final: str
    side: int = 64
    settings: Mapping[str, object] = MappingProxyType({})
    layout: str = "first"
    """Where features lie: first, last, or in tokens."""
    package: str = "torchvision"


TOKENS = {"layout": "tokens", "package": "timm"}
NETWORKS = {
    "resnet50": Spec("layer4"),
    "densenet121": Spec("features"),
    "vgg16_bn": Spec("features"),
    "googlenet": Spec("inception5b", settings=MADE),
    "inception_v3": Spec("Mixed_7c", 128, MADE),
    "mobilenet_v3_small": Spec("features"),
    "efficientnet_b0": Spec("features"),
    "regnet_y_400mf": Spec("trunk_output"),
    "shufflenet_v2_x0_5": Spec("conv5"),
    "mnasnet0_5": Spec("layers"),
    "squeezenet1_1": Spec("classifier.2"),
    "convnext_tiny": Spec("features"),
    "swin_t": Spec("permute"),
    "vit_b_16": Spec("encoder.layers.encoder_layer_10", settings={"image_size": 64}, layout="tokens"),
    "maxvit_t": Spec("blocks.3", 96, MAXVIT),
    "repvgg_a0": Spec("stages.3", package="timm"),
    "deit_tiny_patch16_224": Spec("blocks.10", settings={"img_size": 64}, **TOKENS),
    "vit_small_patch14_reg4_dinov2": Spec("blocks.10", 70, {"img_size": 70}, **TOKENS),
    "efficientnet_lite0": Spec("bn2", package="timm"),
}
INPUT, FINAL = {"output": "logit", "layer": "input"}, {"layer": "final"}
NOISY = {"samples": 3, "spread": 0.15, "extent": "image", "output": "logit", "sign": "both"}
LINE = {"steps": 3, "baseline": "black", "rule": "gauss_legendre", "sign": "both", **INPUT}
METHODS = {
    "gradient": (gradient.gradient, {"sign": "both", **INPUT}, captum.gradient),
    "input_x_gradient": (gradient.input_x_gradient, {"baseline": "black", **INPUT}, captum.input_x_gradient),
    "guided_backprop": (gradient.guided_backprop, {"sign": "positive", "layer": "input"}, captum.guided_backprop),
    "smoothgrad": (noise.smoothgrad, NOISY, captum.smoothgrad),
    "integrated_gradients": (path.integrated_gradients, LINE, captum.integrated_gradients),
    "cam": (cam.cam, {"rectified": False, **FINAL}, torchcams.cam),
    "gradcam": (cam.gradcam, FINAL, grad_cam.gradcam),
    "gradcam_pp": (cam.gradcam_pp, {"form": "paper", **FINAL}, grad_cam.gradcam_pp),
    "hirescam": (cam.hirescam, FINAL, grad_cam.hirescam),
    "xgradcam": (cam.xgradcam, FINAL, grad_cam.xgradcam),
    "layercam": (cam.layercam, FINAL, grad_cam.layercam),
    "eigencam": (cam.eigencam, FINAL, grad_cam.eigencam),
    "guided_gradcam": (cam.guided_gradcam, FINAL, captum.guided_gradcam),
    "occlusion": (masking.occlusion, {"window": 32, "stride": 16, "fill": "mean"}, captum.occlusion),
    "lrp": (relevance.lrp, {"epsilon": 0.25, "layer": "input"}, others.lrp),
    "deep_lift": (relevance.deep_lift, {"baseline": "black"}, captum.deep_lift),
    "rollout": (attention.rollout, {}, attentions.rollout),
    "gradient_rollout": (attention.gradient_rollout, {}, attentions.gradient_rollout),
}
# Captum's rule of DeepLIFT is for activations that are modules, each called once, and loses a part of maxima's change.
# Zennit's rules are for modules: sums, gates and normalizations that are functions it passes by, without a canonizer.
SERVED = {
    "deep_lift": ("mnasnet0_5", "efficientnet_lite0"),
    "lrp": ("resnet50", "vgg16_bn", "googlenet", "squeezenet1_1"),
}


class Result(NamedTuple):
    """What came of a method on a network: the largest difference, or why there is none; and what its maps sum to."""

    difference: float | None
    message: str


@cache
def pair(name: str, dtype: torch.dtype = torch.float64) -> tuple[Classifier, cases.Case]:
    """Return a classifier of a network as it is built, and the case that another package is given, made to be
    hooked."""
    spec = NETWORKS[name]
    built = _built(name, spec)
    inplace = {path for path, layer in built.named_modules() if getattr(layer, "inplace", False)}
    with torch.no_grad():
        _enlivened(built)
    pictures = cases.photographs(16, spec.side, spec.side)
    hooked = cases.as_if_trained(built, cases.normalized(pictures)).to(dtype)
    own = deepcopy(hooked)
    for path_, layer in own.named_modules():
        if path_ in inplace:
            layer.inplace = True
    _hookable(hooked)
    images = pictures[:2]
    with torch.no_grad():
        order = hooked(cases.normalized(images).to(dtype)).argsort(1, descending=True)
    seeds = [1000 + 7 * row for row in range(2)]
    reshape = None if spec.layout == "first" else _reshape(spec)
    case = cases.Case(name, hooked, images, order[[0, 1], [0, 1]], seeds, pictures[4:7], spec.final, reshape)
    engine = {"device": "cpu", "precision": str(dtype).removeprefix("torch."), "threads": 1, "batch": 2}
    return Classifier(name, own, mean=cases.MEAN, std=cases.STD, engine=engine), case


def compare(name: str, method: str) -> Result:
    """Set a method beside another package's on a network."""
    classifier, case = pair(name)
    function, settings, oracle = METHODS[method]
    given = {"classifier": classifier, "images": case.images, "targets": case.targets, "seeds": case.seeds}
    inputs = signature("methods", function.__module__.rpartition(".")[2], function.__name__).inputs
    try:
        found = function(*(given[part] for part in inputs), **settings).double()
    except Unsupported as reason:
        return Result(None, f"n/a: {reason}")
    told = _told(method, classifier, case, found)
    if name not in SERVED.get(method, (name,)):
        return Result(None, told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = oracle(case, **settings).double()
        except Exception as raised:  # whatever a package raises on a network that it does not serve
            return Result(None, f"{told} (no peer: {type(raised).__name__}: {str(raised)[:80]})".strip())
    return Result(error(found, expected), told)


def error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the image's largest value, where the oracle has one."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    shares = []
    for one, other in zip(found, expected, strict=True):
        known = other.isfinite()
        apart = (one - other)[known].abs().max()
        shares.append(0.0 if apart == 0 else float(apart / other[known].abs().max()))  # both may be 0 everywhere
    return max(shares)


def _told(method: str, classifier: Classifier, case: cases.Case, found: Tensor) -> str:
    """Return by how much DeepLIFT's maps miss the change of the logit, or how much of the logit LRP's keep."""
    rows, total = range(len(found)), found.flatten(1).sum(1)
    logits = classifier.logits(case.images)[rows, case.targets]
    if method == "deep_lift":
        change = logits - classifier.logits(torch.zeros_like(case.images))[rows, case.targets]
        return f"sum {float((total - change).abs().max() / change.abs().max()):.0e}"
    return f"keeps {100 * float((total / logits).mean()):.2g} %" if method == "lrp" else ""


def _built(name: str, spec: Spec) -> nn.Module:
    torch.manual_seed(7)
    if spec.package == "timm":
        import timm

        return timm.create_model(name, num_classes=cases.CLASSES, **spec.settings)
    if name == "maxvit_t":
        return torchvision.models.MaxVit(num_classes=cases.CLASSES, **spec.settings)
    return torchvision.models.get_model(name, weights=None, num_classes=cases.CLASSES, **spec.settings)


def _enlivened(network: nn.Module) -> None:
    """Draw what begins with zeros or near: heads, scales of layers, and biases of attention."""
    for path_, parameter in network.named_parameters():
        if parameter.abs().max() < 1e-4:
            scales = path_.endswith(("gamma", "layer_scale"))
            parameter.uniform_(0.5, 1.0) if scales else nn.init.normal_(parameter, std=0.1)


class _Convolution(nn.Module):
    """Of googlenet and inception_v3."""

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class _DenseNet(torchvision.models.DenseNet):
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _hookable(network: nn.Module) -> None:
    """Make layers of ReLUs that are functions, which captum does not see."""
    for layer in network.modules():
        if isinstance(layer, BasicConv2d | InceptionConv2d):
            layer.relu, layer.__class__ = nn.ReLU(), _Convolution
    if isinstance(network, torchvision.models.DenseNet):
        network.features.add_module("relu5", nn.ReLU())
        network.__class__ = _DenseNet


def _reshape(spec: Spec) -> Callable[[Tensor], Tensor]:
    def reshape(tokens: Tensor) -> Tensor:
        side = int(tokens.shape[1] ** 0.5)
        return tokens[:, -side * side :].mT.unflatten(2, (side, side))

    return reshape
