"""What comparable systems get wrong, each fault first seen there, where it can be run, and then not here."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from atlas.metrics import complexity, faithfulness, localization
from atlas.metrics.shared import order
from atlas.metrics.shared.curves import schedule
from atlas.study.seeds import image_seed
from tests.support.metrics import (
    FAMILIES,
    HEIGHT,
    MEAN,
    SLOW,
    STD,
    WIDTH,
    call,
    linear,
    make_classifier,
    make_inputs,
    same,
    take,
)
from tests.support.oracles import quantus_metrics as quantus

OF_MASKS = (
    *("pointing_game", "wsl", "attribution_localization", "relevance_mass", "relevance_rank", "top_k_intersection"),
    *("log_cosh_dice", "mae", "sqrt_mae"),
)
OF_MAPS = ("grid_pointing_game", "complexity", "sparseness", "effective_complexity")
OF_ORDER = ("deletion", "insertion", "ins_minus_del", "perturbation")


def score(function, found):
    family = next(family for family, names in FAMILIES.items() if function in names)
    return call(family, function, SLOW[function][0], found)


def boxed(rows, box=(2, 3, 7, 9)):
    """Return RGB images that are not square, maps without ties, masks of a box, and the box."""
    inputs = take(make_inputs(), [row % 64 for row in range(rows)])
    left, top, right, bottom = box
    masks = torch.zeros(rows, HEIGHT, WIDTH, dtype=torch.bool)
    masks[:, top:bottom, left:right] = True
    boxes = torch.tensor([[box, (-1, -1, -1, -1)]]).expand(rows, -1, -1)
    noise = torch.randn(rows, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9))
    maps = nn.functional.avg_pool2d(noise, 5, stride=1, padding=2)
    return {**inputs, "maps": maps, "masks": masks, "boxes": boxes}


class TestQuantus:
    def test_attribution_localization_weighted_by_the_size_of_the_batch(self):
        found = boxed(8)
        given = [found[name] for name in ("maps", "images", "masks")]
        theirs = [
            quantus.together("AttributionLocalisation", *(part[:rows] for part in given), weighted=True)[0].item()
            for rows in (2, 3, 4, 8)
        ]
        assert len(set(theirs)) == 4
        assert theirs[0] == math.inf
        ours = [
            localization.attribution_localization(found["maps"][:rows], found["masks"][:rows])[0].item()
            for rows in (2, 3, 4, 8)
        ]
        assert len(set(ours)) == 1
        assert 0 < ours[0] < 1

    def test_pointing_game_fails_when_weighted(self):
        found = boxed(3)
        with pytest.raises(TypeError):
            quantus.together("PointingGame", found["maps"], found["images"], found["masks"], weighted=True)
        ours = localization.pointing_game(found["maps"], found["boxes"], [0, 1, 2], tolerance=4)
        assert set(ours.tolist()) <= {0.0, 1.0}

    def test_pointing_game_hits_an_image_without_a_mask(self):
        found = boxed(3)
        found["masks"][1], found["boxes"] = False, found["boxes"].clone()
        found["boxes"][1] = -1
        theirs = quantus.together("PointingGame", found["maps"], found["images"], found["masks"])
        assert theirs[1] == 1
        assert localization.pointing_game(found["maps"], found["boxes"], [0, 1, 2], tolerance=0)[1].isnan()

    @pytest.mark.parametrize("function", OF_MASKS)
    def test_an_image_without_a_mask_changes_no_other(self, function):
        found = boxed(9)
        whole = score(function, found)
        found["masks"], found["boxes"] = found["masks"].clone(), found["boxes"].clone()
        found["masks"][4], found["boxes"][4] = False, -1
        scores = score(function, found)
        others = [0, 1, 2, 3, 5, 6, 7, 8]
        assert same(scores[others], whole[others])
        assert scores[4].isnan().all()
        assert whole[4].isfinite().all()

    @pytest.mark.parametrize("name", ["Complexity", "Sparseness"])
    def test_attributions_changed_in_place(self, name):
        found = boxed(3)
        theirs = quantus.array(found["maps"])
        quantus.call(name, theirs, found["images"], found["masks"], abs=False, normalise=False)
        assert not np.array_equal(theirs, quantus.array(found["maps"]))
        before = found["maps"].clone()
        call("complexity", name.lower(), {}, found)
        assert torch.equal(found["maps"], before)

    def test_maps_scaled_by_the_largest_of_all(self):
        found = boxed(3)
        found["maps"][2] *= 1000
        given = [found[name] for name in ("maps", "images", "masks")]
        alone = quantus.apart("EffectiveComplexity", *given, eps=0.3)
        assert quantus.together("EffectiveComplexity", *given, eps=0.3).tolist()[:2] == [0, 0]
        assert min(alone) > 10
        assert complexity.effective_complexity(found["maps"], epsilon=0.3).tolist() == alone.tolist()

    @pytest.mark.parametrize(
        ("name", "function", "score", "settings"),
        [("EffectiveComplexity", "effective_complexity", 0, {"epsilon": 1e-5}), ("Sparseness", "sparseness", 0, {})],
    )
    def test_an_empty_map_that_has_a_score(self, name, function, score, settings):
        found = boxed(3)
        found["maps"][1] = 0
        assert quantus.together(name, found["maps"], found["images"], found["masks"])[1] == score
        assert call("complexity", function, settings, found).isnan().tolist() == [False, True, False]

    def test_equal_attributions_taken_in_reading_order(self):
        near, far = boxed(200, (0, 0, 5, 6)), boxed(200, (7, 12, 12, 18))
        seeds = [image_seed(0, str(row)) for row in range(200)]
        flat = torch.zeros(200, HEIGHT, WIDTH)
        flat[:, 9, 6] = 1
        theirs, ours = [], []
        for found in (near, far):
            theirs.append(quantus.together("TopKIntersection", flat, found["images"], found["masks"], k=60).mean())
            ours.append(localization.top_k_intersection(flat, found["masks"], seeds, k=60).mean())
        assert abs(theirs[0] - theirs[1]) > 0.2
        area = 30 / (HEIGHT * WIDTH)
        assert [one.item() for one in ours] == pytest.approx([area, area], abs=0.02)


class TestOrderOfPixels:
    @pytest.mark.parametrize("batch", [8, 16, 32])
    def test_images_beyond_the_first_batch_left_out(self, batch):
        # ROAD: the first 16 images are the classifier's, the last 16 are not; the mean is of all.
        weights = torch.full((HEIGHT, WIDTH), 8 / (HEIGHT * WIDTH))
        images = torch.ones(32, 3, HEIGHT, WIDTH)
        targets = (torch.arange(32) >= 16).long()
        classifier = linear(weights)
        classifier.batch = batch
        maps = torch.rand(32, HEIGHT, WIDTH)
        scores = faithfulness.deletion(
            maps, images, targets, classifier, list(range(32)), pixels=72, baseline="black", relative=False
        )
        right = torch.tensor([8.0, 16 / 3, 8 / 3, 0]).sigmoid()
        torch.testing.assert_close(scores, torch.stack([right] * 16 + [1 - right] * 16))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_channels_of_a_pixel_flipped_one_by_one(self, channels):
        # Pixel flipping over single values takes three times the steps on RGB, and leaves pixels partly blank.
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        made = nn.Sequential(OrderedDict(features=nn.Conv2d(channels, 2, 3), head=head))
        classifier = make_classifier(made, mean=MEAN[:channels], std=STD[:channels])
        found = boxed(3)
        scores = faithfulness.deletion(
            found["maps"],
            found["images"][:, :channels],
            torch.tensor([0, 1, 0]),
            classifier,
            found["seeds"],
            pixels=20,
            baseline="black",
            relative=False,
        )
        assert scores.shape == (3, len(schedule(HEIGHT * WIDTH, 20)))
        assert classifier.passes["forward"] == 3 * scores.shape[1]

    def test_an_unstable_order(self):
        maps = (torch.randn(4, 64, 72, generator=torch.Generator().manual_seed(1)) * 2).round().relu()
        seeds = [image_seed(0, str(row)) for row in range(4)]
        first = order.ranking(maps, seeds)
        again = order.ranking(maps.clone(), list(seeds))
        assert torch.equal(first, again)
        assert all(torch.equal(order.ranking(maps[[row]], [seeds[row]])[0], first[row]) for row in range(4))

    @pytest.mark.parametrize("function", [*OF_MASKS, *OF_MAPS, *OF_ORDER])
    def test_height_taken_for_width(self, function):
        """Turning image, map, mask and box over the diagonal changes nothing but the last digits."""
        found = boxed(24)
        weights = torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4)) / 8
        weights -= weights.mean()
        turned = {
            key: value.mT.contiguous() if key in ("maps", "masks", "tiles", "images") else value
            for key, value in found.items()
        }
        turned["boxes"] = found["boxes"][:, :, [1, 0, 3, 2]]
        found["classifier"], turned["classifier"] = linear(weights), linear(weights.T)
        found["targets"] = turned["targets"] = found["classifier"].logits(found["images"]).argmax(dim=1)
        one, other = score(function, found), score(function, turned)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, equal_nan=True)
        assert len(one[one.isfinite()].unique()) > 1
