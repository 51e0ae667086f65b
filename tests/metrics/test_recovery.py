"""Check pixel flipping and the metrics of Guided AbsoluteGrad: cases by hand, passes, undefined cases, known faults."""

from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from atlas.inputs.score_plan import along
from atlas.metrics import faithfulness, recovery
from atlas.study.schema.settings import Entry
from tests.support.metrics import (
    HEIGHT,
    MEAN,
    SLOW,
    STD,
    WIDTH,
    assert_batch_independent,
    call,
    counted,
    linear,
    make_classifier,
    make_inputs,
    network,
    take,
)
from tests.support.reference import recovery as slow

FIVE = {"lower": 0.5, "interval": 0.1}
BAD = [5, 6, 11]  # constant, zero and broken among the maps of the inputs


def on_white(values):
    """Return the inputs of one white image, its map, and a linear classifier whose weights are the map's values / 8."""
    one = torch.tensor(values).float().view(1, 2, -1)
    return {
        "maps": one,
        "images": torch.ones(1, 3, *one.shape[1:]),
        "targets": torch.tensor([0]),
        "classifier": linear(one[0] / 8),
    }


class TestPixelFlipping:
    def test_on_a_linear_classifier(self):
        inputs = on_white([1, 2, 3, 4, 5, 6, 7, 8]) | {"seeds": [4]}
        score = call("faithfulness", "pixel_flipping", {"pixels": 2, "baseline": "black"}, inputs)
        # 8 + 7, 6 + 5, 4 + 3 and 2 + 1 eighths are taken away; the clean image is no point.
        after = torch.tensor([21, 10, 3, 0]).div(8).sigmoid()
        assert score.item() == pytest.approx(after.sum().item() - (after[0] + after[-1]).item() / 2)

    def test_beside_deletion_it_costs_nothing(self):
        inputs = make_inputs(rows=10)
        call("faithfulness", "deletion", {"pixels": 36, "baseline": "black", "relative": False}, inputs)
        before = counted(inputs["classifier"])
        call("faithfulness", "pixel_flipping", {"pixels": 36, "baseline": "black"}, inputs)
        assert counted(inputs["classifier"]) == before == (10 * 7, 0)

    def test_pixels_are_flipped_not_single_channel_values(self):
        inputs, seen = make_inputs(rows=2), []
        watched = inputs["classifier"]
        looked = watched.logits
        watched.logits = lambda images: seen.append(images) or looked(images)
        call("faithfulness", "pixel_flipping", {"pixels": 72, "baseline": "black"}, inputs)
        flipped = torch.cat(seen) == 0
        assert len(flipped) == 2 * 2 + 2 * 2, "HW / 72 = 3 steps of each image, not 9; both ends are shared"
        partly = flipped.any(dim=1) & ~flipped.all(dim=1) & (inputs["images"][:1] > 0).all(dim=1)
        assert not partly[[4, 5]].any()

    def test_one_step_has_no_area(self):
        score = call("faithfulness", "pixel_flipping", {"pixels": 216, "baseline": "black"}, make_inputs(rows=2))
        assert score.tolist() == [0, 0]


class TestRcap:
    def test_on_a_linear_classifier(self):
        inputs = on_white([1, 2, 3, 4, 5, 6, 7, 8])
        score = call("recovery", "rcap", {"lower": 0.5, "interval": 0.25}, inputs)
        # M is (value - 1) / 7: above t = 5/7 lie two pixels with 13 of 28 sevenths, above 3/7 four with 22.
        shown = torch.tensor([8 + 7, 8 + 7 + 6 + 5]).div(8).sigmoid()
        assert score.item() == pytest.approx((13 / 28 * shown[0] + 22 / 28 * shown[1]).item() / 2)

    @pytest.mark.parametrize(
        ("values", "masses", "shown"),
        [
            # The threshold of the rate 0.9 is 1 and all differ: it is dropped.
            ([0, 1, 2, 3, 4, 5, 6, 7, 9, 9], [18, 25, 31, 36], [18, 25, 31, 36]),
            # Those of 0.9 and 0.8 are 1: both act as 0, and what is pasted stays.
            ([0, 1, 2, 3, 4, 5, 6, 9, 9, 9], [48, 48, 27, 33, 38], [48, 48, 48, 48, 48]),
            # All differ and none is 1.
            ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 17, 24, 30, 35], [9, 17, 24, 30, 35]),
        ],
        ids=["dropped", "zero", "plain"],
    )
    def test_a_threshold_of_one(self, values, masses, shown):
        inputs = on_white(values)
        score = call("recovery", "rcap", FIVE, inputs)
        probabilities = torch.tensor(shown).div(8).sigmoid()
        expected = (torch.tensor(masses) / sum(values) * probabilities).mean()
        assert score.item() == pytest.approx(expected.item(), rel=1e-6)
        assert counted(inputs["classifier"])[0] == len(set(shown)), "equal images are looked at once"

    @pytest.mark.parametrize(
        ("lower", "interval", "rates"),
        [
            (0.5, 0.1, [0.9, 0.8, 0.7, 0.6, 0.5]),
            (0.7, 0.1, [0.9, 0.8, 0.7]),  # numpy's arange has a 1 at its end
            (0.7, 0.05, [0.95, 0.9, 0.85, 0.8, 0.75, 0.7]),
            (0.5, 1.0, [0.5]),
        ],
    )
    def test_rates_stay_below_one(self, lower, interval, rates):
        assert recovery._rates(lower, interval) == rates

    def test_a_single_level_is_not_dropped(self):
        inputs = on_white([0, 0, 0, 9, 9, 9, 9, 9])
        score = call("recovery", "rcap", {"lower": 0.5, "interval": 0.5}, inputs)
        assert score.item() == pytest.approx(torch.tensor(45 / 8).sigmoid().item())

    def test_it_starts_from_black_and_passes_are_levels(self):
        inputs, seen = make_inputs(rows=4), []
        watched = inputs["classifier"]
        looked = watched.logits
        watched.logits = lambda images: seen.append(images) or looked(images)
        inputs["maps"] = torch.rand(4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
        call("recovery", "rcap", FIVE, inputs)
        images = torch.cat(seen).view(4, 5, 3, HEIGHT, WIDTH)
        shown = (images != 0).any(dim=2)
        pixels = HEIGHT * WIDTH
        expected = [pixels - int(pixels * rate) for rate in (0.9, 0.8, 0.7, 0.6, 0.5)]
        assert (shown.sum(dim=(2, 3)) - torch.tensor(expected)).abs().max() <= 1, "black pixels of the image"
        assert torch.equal(images * shown[:, :, None], inputs["images"][:, None] * shown[:, :, None])
        assert counted(watched) == (20, 0)

    @pytest.mark.parametrize("lower", [0.0, 1.0, -0.5])
    def test_a_bound_beyond_the_rates_is_refused(self, lower):
        with pytest.raises(ValueError, match=f"rcap: lower is {lower}, expected above 0 and below 1"):
            call("recovery", "rcap", {"lower": lower, "interval": 0.1}, make_inputs(rows=1))

    def test_an_interval_that_leads_nowhere_is_refused(self):
        with pytest.raises(ValueError, match=r"rcap: interval is 0\.0, expected 0\.01 or more"):
            call("recovery", "rcap", {"lower": 0.5, "interval": 0.0}, make_inputs(rows=1))


class TestLevels:
    def test_on_a_linear_classifier(self):
        inputs = on_white([1, 2, 3, 4, 5, 6, 7, 8])
        down = call("recovery", "dauc", {"levels": 4}, inputs)[0]
        # The mean color of this classifier is black; blurred, a white image is white.
        torch.testing.assert_close(down, torch.tensor([36, 21, 10, 3]).div(8).sigmoid())
        up = call("recovery", "iauc", {"levels": 4}, inputs)[0]
        torch.testing.assert_close(up, torch.tensor([36.0] * 4).div(8).sigmoid())

    def test_the_area_of_a_perfect_curve_is_nine_tenths(self):
        entry = Entry("metrics", "recovery", "dauc", "dauc", {"levels": 10}, {})
        fraction = along(entry, "fraction", (HEIGHT, WIDTH), [])["fraction"]
        assert len(fraction) == 10
        assert np.trapezoid(np.ones(10), fraction) == pytest.approx(0.9)

    @pytest.mark.parametrize("name", ["dauc", "iauc"])
    def test_passes(self, name):
        inputs = make_inputs(rows=4)
        inputs["maps"] = torch.rand(4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
        call("recovery", name, {"levels": 10}, inputs)
        assert counted(inputs["classifier"]) == (4 * 10, 0)
        # The first point does not depend on the map.
        call("recovery", name, {"levels": 10}, {**inputs, "maps": inputs["maps"].flip(2)})
        assert counted(inputs["classifier"]) == (4 * 19, 0)

    @pytest.mark.parametrize("name", ["dauc", "iauc"])
    def test_equal_levels_are_one_image(self, name):
        inputs = make_inputs(rows=2)
        inputs["maps"] = (inputs["maps"] > inputs["maps"].median()).float()
        curves = call("recovery", name, {"levels": 10}, inputs)
        assert counted(inputs["classifier"]) == (2 * 2, 0)
        assert all(len(curve.unique()) == 2 for curve in curves)

    def test_the_first_points_are_the_clean_and_the_blurred_image(self):
        inputs = make_inputs(rows=4)
        down, up = (call("recovery", name, {"levels": 5}, inputs)[:, 0] for name in ("dauc", "iauc"))
        classifier, images = inputs["classifier"], inputs["images"]
        for first, looked_at in ((down, images), (up, recovery.blur(images))):
            expected = classifier.probabilities(looked_at).gather(1, inputs["targets"][:, None])[:, 0]
            assert torch.equal(first, expected)

    def test_one_point_has_no_area(self):
        with pytest.raises(ValueError, match="levels is 1, expected 2 or more"):
            call("recovery", "dauc", {"levels": 1}, make_inputs(rows=1))


class TestBlur:
    def test_it_is_torchvision_s(self):
        images = torch.rand(2, 3, 24, 31, generator=torch.Generator().manual_seed(6))
        blurrer = v2.GaussianBlur(kernel_size=33, sigma=16)
        torch.testing.assert_close(recovery.blur(images), blurrer(images), rtol=1e-5, atol=1e-6)
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        theirs = blurrer((images - mean) / std) * std + mean
        torch.testing.assert_close(recovery.blur(images), theirs, rtol=1e-5, atol=1e-6)

    def test_an_image_smaller_than_the_window_is_mirrored_again(self):
        image = make_inputs(rows=1)["images"]
        restated = slow.blurred(image[0].numpy(), np.float32(MEAN), np.float32(STD))
        torch.testing.assert_close(recovery.blur(image)[0], torch.from_numpy(restated), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["rcap", "dauc", "iauc"])
class TestAll:
    def test_a_map_that_cannot_be_scaled_has_no_score_and_costs_nothing(self, name):
        inputs = take(make_inputs(), BAD)
        inputs["classifier"] = make_classifier(network())
        scores = call("recovery", name, SLOW[name][0], inputs)
        assert scores.isnan().all()
        assert counted(inputs["classifier"])[0] == (0 if name == "rcap" else 3)

    def test_a_row_knows_no_other(self, name):
        assert_batch_independent(partial(call, "recovery", name, SLOW[name][0]), take(make_inputs(), list(range(16))))


def test_pixel_flipping_is_the_area_of_deletion_without_its_first_point():
    inputs = make_inputs(rows=9)
    curves = call("faithfulness", "deletion", {"pixels": 31, "baseline": "blur", "relative": False}, inputs)
    given = (inputs[name] for name in ("maps", "images", "targets", "classifier", "seeds"))
    areas = faithfulness.pixel_flipping(*given, pixels=31, baseline="blur")
    torch.testing.assert_close(areas, torch.trapezoid(curves[:, 1:]), equal_nan=True)
