"""Metrics against Quantus where it is right, and against the rules of the protocols that they follow."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from atlas.inputs.row_inputs import tile_masks
from atlas.metrics import faithfulness, grid, localization
from atlas.metrics.localization import relevance_mass
from atlas.metrics.shared import curves as _curves
from atlas.statistics import curves
from tests.support.metrics import (
    FAMILIES,
    HEIGHT,
    MEAN,
    WIDTH,
    Witness,
    call,
    make_classifier,
    make_inputs,
    network,
    take,
)
from tests.support.oracles import quantus_metrics as quantus
from tests.support.oracles import restated_metrics as restated


@cache
def scored():
    """RGB images, not square, with signed maps in which no value occurs twice, in any size, and masks of a box."""
    draw = torch.Generator().manual_seed(7)
    maps = torch.randn(12, HEIGHT, WIDTH, generator=draw) + torch.tensor([0.0, 0.3, -0.3]).repeat(4)[:, None, None]
    maps = maps * torch.logspace(-3, 3, 12)[:, None, None]
    assert all(len(one.abs().unique()) == one.numel() for one in maps)
    inputs = take(make_inputs(), list(range(12)))
    masks = torch.zeros(12, HEIGHT, WIDTH, dtype=torch.bool)
    for mask, box in zip(masks, inputs["boxes"].tolist(), strict=True):
        for left, top, right, bottom in box:
            mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    kept = masks.any(dim=2).any(dim=1).nonzero().flatten().tolist()
    return take({**inputs, "maps": maps, "masks": masks}, kept)


# A metric with its settings, and Quantus's with its own.
QUANTUS = [
    ("complexity", {}, "Complexity", {}),
    ("sparseness", {}, "Sparseness", {}),
    ("effective_complexity", {"epsilon": 0.1}, "EffectiveComplexity", {"eps": 0.1}),
    ("attribution_localization", {}, "AttributionLocalisation", {}),
    ("relevance_rank", {}, "RelevanceRankAccuracy", {}),
    ("top_k_intersection", {"k": 17}, "TopKIntersection", {"k": 17}),
    ("top_k_intersection", {"k": 120}, "TopKIntersection", {"k": 120}),
    ("pointing_game", {"tolerance": 0}, "PointingGame", {}),
]


class TestQuantus:
    @pytest.mark.parametrize(("function", "settings", "name", "theirs"), QUANTUS)
    def test_it_agrees(self, function, settings, name, theirs):
        found = scored()
        family = next(family for family, names in FAMILIES.items() if function in names)
        scores = call(family, function, settings, found)
        expected = quantus.apart(name, found["maps"], found["images"], found["masks"], **theirs)
        assert scores.isfinite().all()
        assert len(scores.unique()) > (1 if function == "pointing_game" else 3)
        torch.testing.assert_close(scores.double(), expected, rtol=1e-5, atol=0)

    def test_relevance_mass_agrees_where_the_sum_is_above_nothing(self):
        found = scored()
        maps, images, masks = (found[name] for name in ("maps", "images", "masks"))
        scores = relevance_mass(maps, masks, sign="both")
        expected = quantus.apart("RelevanceMassAccuracy", maps, images, masks)
        above = maps.double().sum(dim=(1, 2)) > 0
        assert 3 < above.sum() < len(maps) - 3
        assert torch.equal(scores.isnan(), ~above)
        torch.testing.assert_close(scores[above].double(), expected[above], rtol=1e-5, atol=0)
        positive = relevance_mass(maps, masks, sign="positive")
        expected = quantus.apart("RelevanceMassAccuracy", maps.relu(), images, masks)
        torch.testing.assert_close(positive.double(), expected, rtol=1e-5, atol=0)


def blobs(rows, height, width):
    """Return maps with hills, valleys and noise, and boxes around some of the hills."""
    draw = torch.Generator().manual_seed(11)
    noise = torch.randn(rows, 1, height, width, generator=draw)
    maps = nn.functional.avg_pool2d(noise, 17, stride=1, padding=8)[:, 0] + noise[:, 0] / 80
    boxes = torch.full((rows, 2, 4), -1)
    for row, one in enumerate(maps):
        for box in range(1 + row % 2):
            y, x = divmod(int((one * (-1) ** box).argmax()), width)
            down, across = torch.randint(5, 22, (2,), generator=draw).tolist()
            corners = [max(x - across, 0), max(y - down, 0), min(x + across, width), min(y + down, height)]
            boxes[row, box] = torch.tensor(corners)
    return maps, boxes


class TestProtocols:
    @pytest.mark.parametrize("tolerance", [0, 1, 4, 15])
    def test_torchray_s_pointing_game(self, tolerance):
        height, width, boxes = 64, 72, [[20, 22, 41, 31], [50, 40, 60, 64]]
        points = [(y, x) for y in range(0, height, 3) for x in range(0, width, 3)]
        maps = torch.zeros(len(points), height, width)
        for one, point in zip(maps, points, strict=True):
            one[point] = 1
        corners = [(x0 + 1, y0 + 1, x1, y1) for x0, y0, x1, y1 in boxes]
        hits = localization.pointing_game(
            maps, torch.tensor(boxes).expand(len(points), -1, -1), [0] * len(maps), tolerance=tolerance
        ).tolist()
        assert hits == [restated.torchray_hit(one, corners, tolerance) for one in maps.numpy()]
        assert 30 < sum(hits) < len(hits) - 30

    @pytest.mark.parametrize("iou", [0.3, 0.5, 0.6])
    def test_the_maximal_box_accuracy_of_wsolevaluation(self, iou):
        maps, boxes = blobs(40, 64, 72)
        hits = localization.wsl(maps, boxes, thresholds=50, iou=iou)
        inclusive = [[[x0, y0, x1 - 1, y1 - 1] for x0, y0, x1, y1 in of if x1 > x0] for of in boxes.tolist()]
        accuracy, place = restated.max_box_acc(maps.numpy(), inclusive, 0.02, iou)
        chosen, best = curves.best_threshold(hits.numpy())
        assert (chosen.mean(), best) == (pytest.approx(accuracy), place)
        assert 0 < best < 49
        assert 0.1 < accuracy < 0.9, "some are right, and some wrong"

    @pytest.mark.parametrize("cells", [2, 3])
    def test_the_grid_score_of_attribution_evaluation(self, cells):
        maps = torch.randn(6, 48, 72, generator=torch.Generator().manual_seed(3))
        maps[1] = maps[1].clamp(max=0)
        for row, total in ((2, 0.9e-7), (3, 1.1e-7)):
            maps[row] *= total / maps[row].relu().sum()
        tiles = torch.from_numpy(tile_masks((48, 72), cells**2))
        scores = torch.stack([grid.grid_pointing_game(maps, tile.expand(6, -1, -1)) for tile in tiles], dim=1)
        expected = torch.tensor([restated.grid_scores(one, cells) for one in maps.numpy()])
        torch.testing.assert_close(scores, expected.float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(scores.sum(dim=1), torch.tensor([1.0, 0, 0, 1, 1, 1]))

    def test_the_causal_metric_of_rise(self):
        side, pixels, rows = 64, 64, 2
        draw = torch.Generator().manual_seed(5)
        images = torch.randint(256, (rows, 3, side, side), generator=draw) / 255
        maps = torch.randn(rows, side, side, generator=draw)
        assert all(len(one.unique()) == side**2 for one in maps)
        classifier, mean = make_classifier(network()), np.float32(MEAN)
        targets = classifier.logits(images).argmax(dim=1)
        rest = (maps, images, targets, classifier, list(range(rows)))
        deleted = faithfulness.deletion(*rest, pixels=pixels, baseline="mean", relative=False)
        inserted = faithfulness.insertion(*rest, pixels=pixels, baseline="blur", relative=False)
        difference = faithfulness.ins_minus_del(
            *rest, pixels=pixels, inserted_into="blur", deleted_to="mean", relative=False
        )
        share = np.array(_curves.schedule(side**2, pixels)) / side**2
        for row in range(rows):
            image, witness = images[row].numpy(), Witness(int(targets[row]))
            grey = np.broadcast_to(mean[:, None, None], image.shape).astype(np.float32)
            blurred = restated.rise_blur(image, mean).astype(np.float32)
            ends = {"deletion": (image, grey, deleted), "insertion": (blurred, image, inserted)}
            areas = {}
            for name, (start, finish, found) in ends.items():
                points, areas[name] = restated.causal_metric(
                    witness.probability, maps[row].numpy(), start, finish, pixels
                )
                torch.testing.assert_close(found[row], torch.tensor(points), rtol=1e-5, atol=1e-6)
                assert curves.area(found[row : row + 1].numpy(), share) == pytest.approx(areas[name], rel=1e-5)
            assert difference[row].item() == pytest.approx(areas["insertion"] - areas["deletion"], abs=1e-5)
            assert abs(areas["insertion"] - areas["deletion"]) > 1e-3
