"""Methods and metrics on images of one channel and of four: right, or `Unsupported` with the reason."""

import base64
import io
from collections import OrderedDict

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from atlas.inputs.explain import mapped
from atlas.methods.control import LUMINANCE
from atlas.model.classifier import Classifier
from atlas.report.images import pictures
from atlas.study import params
from atlas.study.errors import Unsupported
from atlas.study.schema.signatures import signature
from tests.support import every, metrics

HEIGHT, WIDTH = metrics.HEIGHT, metrics.WIDTH
CHANNELS = [1, 4]
# Of three channels alone, or of one.
REFUSED = {
    ("canny", 4): "no gray of 4 channels is known",
    ("intensity", 4): "no gray of 4 channels is known",
    **{(name, channels): "it has no attention" for name in ("rollout", "gradient_rollout") for channels in CHANNELS},
}
STUDIES = sorted(one.parent for one in (metrics.ROOT / "studies").glob("*/methods.yaml"))


def network(channels: int) -> nn.Sequential:
    torch.manual_seed(3)
    features = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    nn.init.normal_(features[0].weight, std=1.0)
    nn.init.normal_(head[2].weight, std=2.0)
    return nn.Sequential(OrderedDict(features=features, head=head)).eval()


def classified(channels: int, module: nn.Sequential | None = None) -> Classifier:
    about = {"mean": [0.4] * channels, "std": [0.25] * channels, "engine": metrics.ENGINE}
    return Classifier("tiny", module or network(channels), **about)


def methods() -> list:
    """Every method with the least cost, and every entry of the default study and of the others."""
    found = {(one.family, one.function, str(one.settings)): one for one in every.EVERY}
    for file in [metrics.ROOT / "params.yaml", *(folder / "methods.yaml" for folder in STUDIES)]:
        given = yaml.safe_load(file.read_text())
        given = given.get("methods", given)
        for family, listed in params.entries({"methods": given}, "methods").items():
            for bound in listed.values():
                if family != "optimized_mask" and bound.function not in ("rise", "xrai"):
                    found.setdefault((family, bound.function, str(bound.settings)), bound)
    return list(found.values())


METHODS = methods()


@pytest.fixture(scope="module", params=CHANNELS)
def inputs(request):
    channels = request.param
    draws = torch.Generator().manual_seed(0)
    images = nn.functional.interpolate(torch.rand(3, channels, 6, 4, generator=draws), (HEIGHT, WIDTH), mode="bilinear")
    return {
        "classifier": classified(channels),
        "images": images.contiguous(),
        "targets": torch.tensor([0, 2, 1]),
        "seeds": [0, 1, 2],
        "background": torch.rand(2, channels, HEIGHT, WIDTH, generator=draws),
    }


@pytest.mark.parametrize("bound", METHODS, ids=lambda bound: f"{bound.family}-{bound.name}")
def test_a_method_on_images_of_other_channels(bound, inputs):
    channels = inputs["images"].shape[1]
    declared = signature("methods", bound.family, bound.function).inputs
    function = params.find("methods", bound.family, bound.function)
    settings = {**bound.settings}
    if settings.get("layer", "final") not in ("final", "input"):
        settings["layer"] = "final"

    def run() -> torch.Tensor:
        found = function(*(inputs[name] for name in declared), **settings)
        return mapped(found, inputs["classifier"].batched, (HEIGHT, WIDTH), inputs["seeds"], **every.shaping(bound))

    if bound.function == "guided_backprop" and settings["layer"] == "final":
        pytest.skip("no ReLU follows it")
    if (bound.function, channels) in REFUSED:
        with pytest.raises(Unsupported, match=REFUSED[bound.function, channels]):
            run()
        return
    try:
        maps = run()
    except Unsupported as reason:
        pytest.fail(f"refused: {reason}")
    assert maps.shape == (3, HEIGHT, WIDTH)
    assert torch.isfinite(maps).all()


LOOKING = [one for one in every.EVERY if one.family not in ("control", "attention")]
# Where colors say more than a gray: superpixels of three channels are made in Lab, and regions of all channels.
# Guided IG moves a share of all values.
BY_COLOR = ("lime", "xrai", "guided_ig")


@pytest.mark.parametrize(
    "bound", [one for one in LOOKING if one.name not in BY_COLOR], ids=lambda bound: f"{bound.family}-{bound.name}"
)
def test_a_channel_that_the_network_does_not_see_changes_nothing(bound):
    """A method on four channels, of which the network sees three, says what it says on three, and 0 of the fourth."""
    three = network(3)
    four = network(4)
    four.load_state_dict(
        {
            name: torch.cat([value, torch.zeros_like(value[:, :1])], dim=1) if value.dim() == 4 else value
            for name, value in three.state_dict().items()
        }
    )
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(2, 4, HEIGHT, WIDTH, generator=draws)
    images[:, 3] = 0.4  # in the range of the others
    background = torch.rand(2, 4, HEIGHT, WIDTH, generator=draws)
    declared = signature("methods", bound.family, bound.function).inputs
    if "seeds" in declared:
        pytest.skip("its noise is drawn for all channels at once")
    found = []
    for channels, module in ((3, three), (4, four)):
        given = {"images": images[:, :channels].contiguous(), "background": background[:, :channels]}
        given |= {"classifier": classified(channels, module), "targets": torch.tensor([0, 2])}
        found.append(
            params.find("methods", bound.family, bound.function)(*(given[name] for name in declared), **bound.settings)
        )
    expected, wide = found
    if wide.shape[1] == 4:
        assert not wide[:, 3].any() or bound.function == "lrp"
        wide = wide[:, :3]
    if bound.function != "lrp":  # whose box rule lets black and white of any channel in, as far as weights do
        scale = expected.abs().max()
        torch.testing.assert_close(wide / scale, expected / scale, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("channels", CHANNELS)
def test_gray_is_the_one_channel_or_unknown(channels):
    images = torch.rand(2, channels, 8, 9)
    intensity = params.find("methods", "control", "intensity")
    if channels == 1:
        assert torch.equal(intensity(images), images)
        colored = torch.cat([images] * 3, dim=1)
        torch.testing.assert_close(intensity(colored), images * sum(LUMINANCE))
    for wrong in (2, 4, 5):
        with pytest.raises(Unsupported, match=f"no gray of {wrong} channels is known"):
            intensity(torch.rand(2, wrong, 8, 9))


def metric_entries() -> list:
    listed = {}
    for name, (family, function, settings) in metrics.entries().items():
        listed[f"{family}-{name}"] = family, function, settings
    for name, (settings, _) in metrics.SLOW.items():
        family = next(family for family, names in metrics.FAMILIES.items() if name in names)
        listed.setdefault(f"{family}-{name}", (family, name, settings))
    for folder in STUDIES:
        given = yaml.safe_load((folder / "metrics.yaml").read_text())
        for family, entries in params.entries({"metrics": given.get("metrics", given)}, "metrics").items():
            for one in entries.values():
                listed.setdefault(f"{family}-{one.name}-{folder.name}", (family, one.function, one.settings))
    return [pytest.param(*about, id=name) for name, about in listed.items()]


@pytest.fixture(scope="module", params=CHANNELS)
def judged(request):
    given = metrics.make_inputs(rows=9)
    channels = request.param
    images = torch.cat([given["images"]] * 2, dim=1)[:, :channels].contiguous()
    classifier = classified(channels)
    targets = classifier.logits(images).argmax(1)  # an attack asks what is predicted right
    given |= {"classifier": classifier, "images": images, "all_images": images}
    given |= {"targets": targets, "all_targets": targets}
    return given | {"background": images}


@pytest.mark.parametrize(("family", "function", "settings"), metric_entries())
def test_a_metric_on_images_of_other_channels(family, function, settings, judged):
    settings = {**settings}
    if "layer" in settings:
        settings["layer"] = "final"
    # What suits a larger network, or larger images, than these.
    suited = (("k", 50), ("parts", 3), ("pixels", 8), ("epsilon", 100), ("step", 50))
    settings |= {name: value for name, value in suited if isinstance(settings.get(name), int)}
    if function == "infidelity_quantus":
        with pytest.raises(Unsupported, match="needs square images"):
            metrics.call(family, function, settings, judged)
        settings["patch"], side = 4, min(HEIGHT, WIDTH)
        judged = judged | {name: judged[name][..., :side, :side].contiguous() for name in ("images", "maps")}
    scores = metrics.call(family, function, settings, judged)
    assert len(scores) == 9
    # Of the gray images every one is predicted alike, whatever an attack does: it turns none.
    assert torch.isfinite(scores).any() or (family == "adversarial" and judged["images"].shape[1] == 1)


@pytest.mark.parametrize(
    ("channels", "suffix"),
    [(1, ""), (3, ""), (2, " (the mean of its 2 channels)"), (4, " (the mean of its 4 channels)")],
)
def test_pictures_show_one_channel_three_or_the_mean(channels, suffix):
    pixels = np.random.default_rng(0).integers(256, size=(channels, 8, 6), dtype=np.uint8)
    picture = pictures.image(pixels, "an image", side=8)
    assert picture.alt == f"an image{suffix}"
    shown = pictures.visible(pixels)
    assert shown.shape == (3 if channels == 3 else 1, 8, 6)
    np.testing.assert_array_equal(shown, pixels if channels in (1, 3) else pixels.mean(axis=0, keepdims=True))
    drawn = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))
    expected = np.broadcast_to(np.round(shown), (3, 8, 6))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(drawn.convert("RGB")), -1, 0), expected)
