"""What a network or an image lacks is said as such, in one line."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from atlas.methods import attention
from atlas.metrics.shared.similarity import similarities
from atlas.model.classifier import Classifier
from atlas.study.errors import Unsupported

ENGINE = {"device": "cpu", "precision": "float32", "threads": 1, "batch": 2}


class Mixed(nn.Module):
    """Attention over places, in one function, behind a softmax that is none."""

    def __init__(self, gate: bool):
        super().__init__()
        self.gate = nn.Softmax(dim=1) if gate else nn.Identity()

    def forward(self, features):
        tokens = self.gate(features).flatten(2).mT
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mT.unflatten(2, (4, 4))


class Layered(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, features):
        tokens = features.flatten(2).mT
        return self.mix(tokens, tokens, tokens)[0].mT.unflatten(2, (4, 4))


@pytest.mark.parametrize(
    ("mixing", "told"),
    [
        (lambda: Mixed(False), "its attention is not among all tokens, the same in every block, but within windows"),
        (lambda: Mixed(True), "its attention is not among all tokens, the same in every block, but within windows"),
        (Layered, "it has no class token, whose attention would be followed"),
    ],
)
def test_attention_without_a_class_token_is_not_followed(mixing, told):
    """Fused attention is spelled out; of tokens that are all patches, the first row is one patch's."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3, 4, padding=1), mixing())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    network = nn.Sequential(OrderedDict(features=features, head=head)).eval()
    classifier = Classifier("fused", network, mean=[0.5] * 3, std=[0.2] * 3, engine=ENGINE)
    images, targets = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    for call in (
        lambda: attention.rollout(classifier, images),
        lambda: attention.gradient_rollout(classifier, images, targets),
    ):
        with pytest.raises(Unsupported) as raised:
            call()
        assert str(raised.value) == told


@pytest.mark.parametrize(("height", "width"), [(10, 30), (30, 10), (4, 4)])
def test_structural_similarity_of_maps_smaller_than_its_window_is_refused(height, width):
    maps = torch.rand(2, height, width)
    with pytest.raises(Unsupported, match=f"at least 11 x 11 pixels, its window; these are {height} x {width}"):
        similarities(maps, maps, "ssim")
    torch.testing.assert_close(similarities(maps, maps, "spearman"), torch.ones(2))


def test_structural_similarity_of_maps_of_its_window():
    maps = torch.rand(2, 11, 11)
    torch.testing.assert_close(similarities(maps, maps, "ssim"), torch.ones(2))
