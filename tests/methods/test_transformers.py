"""Every method on a vision transformer: a map, or the reason why there is none; attention restated."""

from collections import Counter

import pytest
import torch
from torchvision import models

from atlas.inputs.explain import mapped
from atlas.methods import attention
from atlas.model import runtime
from atlas.model.classifier import Classifier
from atlas.networks.residual import small_resnet
from atlas.networks.torchvision import torchvision
from atlas.study.errors import Unsupported
from atlas.study.params import find
from atlas.study.schema.signatures import HOUSE, signature
from tests.support.every import EVERY, shaping

SIDE, CLASSES = 64, 7
ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 2}
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]
REFUSED = {
    "cam": "needs a head of global average pooling and one linear layer",
    "hirescam": "the terms of its sum over features cancel",
    "guided_backprop": "no ReLU follows its layer input",
    "guided_gradcam": "no ReLU follows its layer input",
}
# A pass for each of 768 features: on smaller images, of which there is one. SS-CAM and IS-CAM ask as Score-CAM does.
DEAR = ("scorecam", "ablation_cam")
LIKE_SCORECAM = ("ss_cam", "is_cam")
# Its regions, found for every image on its own, cost seconds, and its passes are those of integrated gradients.
ALONE = ("xrai",)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    runtime.start(ENGINE)


def alive(network: models.VisionTransformer) -> models.VisionTransformer:
    """Return the head, which torchvision begins with zeros, weights by which images differ."""
    torch.manual_seed(2)
    torch.nn.init.normal_(network.heads.head.weight, std=0.5)
    return network.eval()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = alive(torchvision(classes=CLASSES, name="vit_b_16", side=SIDE, settings={}))
    return Classifier("vit", network, mean=MEAN, std=STD, engine=ENGINE)


@pytest.fixture(scope="module")
def small() -> Classifier:
    """A transformer of the same kind, which costs next to nothing."""
    torch.manual_seed(1)
    whole = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    return Classifier("small", alive(whole), mean=MEAN, std=STD, engine={**ENGINE, "batch": 4})


def given(classifier: Classifier, count: int, side: int) -> dict:
    draws = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 6, 6, generator=draws)  # enlarged, so that there are segments
    return {
        "classifier": classifier,
        "images": torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").contiguous(),
        "targets": torch.arange(count) % CLASSES,
        "seeds": list(range(count)),
        "background": torch.rand(2, 3, side, side, generator=draws),
    }


def run(entry, inputs: dict) -> torch.Tensor:
    named = signature("methods", entry.family, entry.function).inputs
    found = find("methods", entry.family, entry.function)(*(inputs[name] for name in named), **entry.settings)
    side = tuple(inputs["images"].shape[-2:])
    return mapped(found, inputs["classifier"].batched, side, inputs["seeds"], **shaping(entry))


def test_no_method_is_left_out():
    there = Counter((one.family, one.function) for one in EVERY)
    for file in (HOUSE / "methods").glob("[a-z]*.py"):
        for name in find("methods", file.stem, "ATTRS"):
            assert there[file.stem, name] == 1, f"{file.stem}.{name} is not in tests/support/every.py"


@pytest.mark.parametrize(
    "entry", [one for one in EVERY if one.name not in (*DEAR, *LIKE_SCORECAM)], ids=lambda entry: entry.name
)
def test_vit_b_16(entry, classifier):
    inputs = given(classifier, 2, SIDE)
    if entry.function in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[entry.function]):
            run(entry, inputs)
        return
    found = run(entry, inputs)
    assert found.shape == (2, SIDE, SIDE)
    assert torch.isfinite(found).all()
    assert (found.flatten(1).std(1) > 0).all()


@pytest.mark.parametrize(
    "entry", [one for one in EVERY if one.function not in (*REFUSED, *ALONE)], ids=lambda entry: entry.name
)
def test_a_row_is_the_same_in_any_batch(entry, small):
    inputs = given(small, 6, 32)
    whole = run(entry, inputs)
    assert torch.isfinite(whole).all()
    for rows in ([5], [4, 0, 3, 5, 1]):
        part = {**inputs, **{name: inputs[name][rows] for name in ("images", "targets")}, "seeds": rows}
        assert torch.equal(run(entry, part), whole[rows])


def held(classifier: Classifier, image: torch.Tensor, target: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The attention of every block (head, token, token) and the gradient of the logit by it, block by block."""
    network, seen = classifier._network, []
    normalized = classifier.normalized(image[None]).contiguous().requires_grad_()
    tokens = torch.cat([network.class_token, network._process_input(normalized)], dim=1)
    tokens = tokens + network.encoder.pos_embedding
    for block in network.encoder.layers:
        layer, given = block.self_attention, block.ln_1(tokens)
        three = torch.nn.functional.linear(given, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2) for part in three)
        weights = (query @ key.transpose(-2, -1) / layer.head_dim**0.5).softmax(-1)
        weights.retain_grad()
        seen.append(weights)
        tokens = tokens + layer.out_proj((weights @ value).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.ln_2(tokens))
    logits = network.heads(network.encoder.ln(tokens)[:, 0])
    torch.testing.assert_close(logits, classifier.logits(image[None]), rtol=1e-4, atol=1e-4)
    logits[0, target].backward()
    return [(weights[0].detach().double(), weights.grad[0].double()) for weights in seen]


@pytest.fixture(params=["small", "classifier"])
def transformers(request) -> tuple[Classifier, int]:
    """The small transformer and vit_b_16, both of 4 x 4 patches, and their sides."""
    return request.getfixturevalue(request.param), {"small": 32, "classifier": SIDE}[request.param]


def test_rollout_restated(transformers):
    classifier, side = transformers
    inputs = given(classifier, 2, side)
    found = attention.rollout(classifier, inputs["images"])
    for image, target, map_ in zip(inputs["images"], inputs["targets"], found, strict=True):
        total = torch.eye(17, dtype=torch.float64)
        for weights, _ in held(classifier, image, target):
            mixed = torch.zeros(17, 17, dtype=torch.float64)
            for head in weights:
                mixed += head / len(weights)
            mixed = mixed / 2 + torch.eye(17) / 2
            assert torch.allclose(mixed.sum(1), torch.ones(17, dtype=torch.float64))
            total = mixed @ total
        torch.testing.assert_close(map_[0], total[0, 1:].view(4, 4).float(), rtol=2e-4, atol=1e-7)
        assert float(map_.sum() + total[0, 0]) == pytest.approx(1, abs=1e-5)


def test_gradient_rollout_restated(transformers):
    classifier, side = transformers
    inputs = given(classifier, 2, side)
    found = attention.gradient_rollout(classifier, inputs["images"], inputs["targets"])
    assert found.min() >= 0
    for image, target, map_ in zip(inputs["images"], inputs["targets"], found, strict=True):
        total = torch.eye(17, dtype=torch.float64)
        for weights, slope in held(classifier, image, target):
            total = total + (weights * slope).clamp(min=0).mean(0) @ total
        torch.testing.assert_close(map_[0], total[0, 1:].view(4, 4).float(), rtol=2e-4, atol=1e-7)


def test_passes_of_attention(small):
    inputs = given(small, 3, 32)
    small.passes = dict.fromkeys(small.passes, 0)
    attention.rollout(small, inputs["images"])
    assert small.passes == {"forward": 3, "backward": 0, "head": 0}
    attention.gradient_rollout(small, inputs["images"], inputs["targets"])
    assert small.passes == {"forward": 6, "backward": 3, "head": 0}


def test_a_network_without_attention():
    network = small_resnet(classes=CLASSES, widths=[4], blocks=1).eval()
    classifier = Classifier("cnn", network, mean=MEAN, std=STD, engine=ENGINE)
    with pytest.raises(Unsupported, match="it has no attention"):
        attention.rollout(classifier, torch.rand(1, 3, 16, 16))
