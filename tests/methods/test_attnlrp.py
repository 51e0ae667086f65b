"""LRP on a transformer beside AttnLRP, restated by slopes."""

import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from atlas.methods import relevance
from atlas.methods.shared.relevance import rules
from atlas.model import runtime
from atlas.model.classifier import Classifier

CLASSES = 7
ENGINE = {"device": "cpu", "precision": "float64", "threads": 1, "batch": 2}
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


class ByGradient(nn.Module):
    """AttnLRP as input x gradient (Achtibat et al. 2024, Arras et al. 2025): with every ε at 0 its rules are slopes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        blocks = [*self.network.encoder.layers]
        for block in blocks:
            tokens = tokens + self.mixed(block.self_attention, self.normalized(block.ln_1, tokens))
            inner = block.mlp[0](self.normalized(block.ln_2, tokens))
            tokens = tokens + block.mlp[3](inner * (block.mlp[1](inner) / inner).detach())
        return self.network.heads(self.normalized(self.network.encoder.ln, tokens)[:, 0])

    def normalized(self, layer: nn.LayerNorm, tokens: torch.Tensor) -> torch.Tensor:
        """What is divided by is a number."""
        centered = tokens - tokens.mean(-1, keepdim=True)
        deviation = (centered.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt().detach()
        return centered / deviation * layer.weight + layer.bias

    def mixed(self, layer: nn.MultiheadAttention, tokens: torch.Tensor) -> torch.Tensor:
        """Of a product each factor has half of its slope."""

        def halves(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return (one @ other.detach() + one.detach() @ other) / 2

        heads, width = layer.num_heads, layer.head_dim
        three = functional.linear(tokens, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (heads, width)).transpose(1, 2) for part in three)
        weights = halves(query, key.transpose(-2, -1) / width**0.5).softmax(-1)
        return layer.out_proj(halves(weights, value).transpose(1, 2).flatten(2))


def test_lrp_is_attnlrp(monkeypatch):
    """Where ε is all but 0, the rules of transformers are those of its authors, which slopes restate."""
    monkeypatch.setattr(rules, "LEAST", 1e-13)
    runtime.start(ENGINE)
    torch.manual_seed(4)
    whole = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=CLASSES
    )
    for parameter in whole.parameters():
        nn.init.normal_(parameter, std=0.3)
    whole = whole.eval().double()
    classifier = Classifier("whole", whole, mean=MEAN, std=STD, engine=ENGINE)
    images, targets = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 4])
    tokens = classifier.normalized(images)
    tokens = whole.conv_proj(tokens).flatten(2).transpose(1, 2)
    tokens = torch.cat([whole.class_token.expand(2, -1, -1), tokens], dim=1) + whole.encoder.pos_embedding
    tokens = tokens.detach().requires_grad_()
    logits = ByGradient(whole)(tokens)
    torch.testing.assert_close(logits.detach(), classifier.logits(images))
    (slopes,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), tokens)
    expected = (tokens * slopes).detach()[:, 1:].mT.unflatten(2, (4, 4))
    found = relevance.lrp(classifier, images, targets, epsilon=1e-13, layer="encoder.dropout")
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-6
