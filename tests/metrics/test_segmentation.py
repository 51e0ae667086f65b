"""Relevance mass, the losses against masks, and effective complexity: cases computed by hand, and what is undefined."""

import math
from functools import partial

import pytest
import torch

from atlas.metrics.complexity import effective_complexity
from atlas.metrics.localization import attribution_localization, relevance_mass
from atlas.metrics.segmentation import log_cosh_dice, mae, sqrt_mae
from tests.support.metrics import HEIGHT, WIDTH, make_inputs
from tests.support.reference import localization as slow

LOSSES = (log_cosh_dice, mae, sqrt_mae)
SIGNS = ("both", "positive")


def object_mask():
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 3:9, 2:7] = True
    return mask


def two(inside, outside):
    """Return a map of two pixels, the first of them the object."""
    return torch.tensor([[[inside, outside]]]), torch.tensor([[[True, False]]])


class TestRelevanceMass:
    @pytest.mark.parametrize("sign", SIGNS)
    def test_a_map_that_is_the_object_is_perfect(self, sign):
        mask = object_mask()
        assert relevance_mass(mask.float(), mask, sign=sign).item() == 1
        assert relevance_mass(1 - mask.float(), mask, sign=sign).item() == 0
        uniform = relevance_mass(torch.full_like(mask.float(), 0.3), mask, sign=sign)
        assert uniform.item() == pytest.approx(30 / (HEIGHT * WIDTH))

    @pytest.mark.parametrize(
        ("inside", "outside", "both", "positive"),
        [(3.0, 1.0, 3 / 4, 3 / 4), (2.0, -1.0, 2, 1), (-1.0, 2.0, -1, 0), (1.0, -2.0, math.nan, 1)],
    )
    def test_signs(self, inside, outside, both, positive):
        one, mask = two(inside, outside)
        found = [relevance_mass(one, mask, sign=sign).item() for sign in SIGNS]
        assert found == pytest.approx([both, positive], nan_ok=True)

    @pytest.mark.parametrize("sign", SIGNS)
    def test_without_a_sum_or_an_object_there_is_no_share(self, sign):
        found = [two(0.0, 0.0), two(-1.0, -3.0), (two(1.0, 1.0)[0], torch.zeros(1, 1, 2, dtype=torch.bool))]
        found += [two(broken, 1.0) for broken in (math.nan, math.inf, -math.inf)]
        assert all(relevance_mass(*given, sign=sign).isnan() for given in found)
        assert relevance_mass(*two(2.0, -2.0), sign="both").isnan()

    def test_terms_that_cancel_leave_the_rest(self):
        one = torch.tensor([[[1.0, 1e8], [-1e8, 2.0]]])
        mask = torch.tensor([[[True, False], [False, False]]])
        assert relevance_mass(one, mask, sign="both").item() == pytest.approx(1 / 3)

    def test_on_a_map_without_negatives_it_is_the_share_of_absolute_values(self):
        inputs = make_inputs()
        maps, masks = inputs["maps"].abs(), inputs["masks"]
        expected = attribution_localization(maps, masks)
        for sign in SIGNS:
            torch.testing.assert_close(relevance_mass(maps, masks, sign=sign), expected, equal_nan=True)

    def test_both_signs_equal_the_formula_in_loops(self):
        maps, masks = (make_inputs(rows=24)[name] for name in ("maps", "masks"))
        scores = relevance_mass(maps, masks, sign="both")
        pairs = zip(maps.numpy(), masks.numpy(), strict=True)
        expected = torch.tensor([slow.relevance_mass(one, mask, "both") for one, mask in pairs])
        assert 5 < scores.isfinite().sum() < 20
        torch.testing.assert_close(scores, expected.float(), equal_nan=True)


class TestLosses:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_a_map_that_is_the_object_has_no_loss(self, loss):
        mask = object_mask()
        assert loss(mask.float(), mask).item() == 0
        assert loss(mask * 3.0 - 7, mask).item() == 0, "whatever its scale"

    def test_its_opposite_has_the_largest(self):
        mask = object_mask()
        other = 1 - mask.float()
        dice = 1 / (HEIGHT * WIDTH + 1)
        assert [mae(other, mask).item(), sqrt_mae(other, mask).item()] == [1, 1]
        assert log_cosh_dice(other, mask).item() == pytest.approx(math.log(math.cosh(1 - dice)), rel=1e-5)

    def test_four_pixels(self):
        one = torch.tensor([[[0.0, 0.5], [1.0, 0.25]]])
        mask = torch.tensor([[[False, True], [True, False]]])
        assert mae(one, mask).item() == 0.75 / 4
        assert sqrt_mae(one, mask).item() == pytest.approx(math.sqrt(0.75 / 4))
        assert log_cosh_dice(one, mask).item() == pytest.approx(math.log(math.cosh(1 - 4 / 4.75)), rel=1e-4)

    def test_a_map_of_one_point_errs_by_the_rest_of_the_object(self):
        mask = object_mask()
        one = torch.zeros(1, HEIGHT, WIDTH)
        one[0, 4, 4] = 5
        assert mae(one, mask).item() == pytest.approx(29 / (HEIGHT * WIDTH))

    def test_roots_are_taken_image_by_image(self):
        maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
        mask = torch.tensor([[[True, False], [False, False]]] * 2)
        assert sqrt_mae(maps, mask).tolist() == [0, 0.5]

    def test_they_keep_within_their_bounds(self):
        inputs = make_inputs()
        for loss, most in zip(LOSSES, (math.log(math.cosh(1)), 1, 1), strict=True):
            scores = loss(inputs["maps"], inputs["masks"])
            defined = scores[scores.isfinite()]
            assert len(defined) > 50
            assert 0 < defined.min() < defined.max() < most

    @pytest.mark.parametrize("loss", LOSSES)
    def test_without_an_object_or_a_range_there_is_no_loss(self, loss):
        mask, one = object_mask(), torch.rand(1, HEIGHT, WIDTH)
        assert loss(one, mask & False).isnan()
        assert loss(one * 0, mask).isnan()
        assert loss(one * 0 - 0.1, mask).isnan()


class TestEffectiveComplexity:
    def test_a_uniform_map_is_all_of_its_pixels_and_a_point_is_one(self):
        one = torch.full((1, HEIGHT, WIDTH), -0.1)
        assert effective_complexity(one, epsilon=0.9).item() == HEIGHT * WIDTH
        point = torch.zeros(1, HEIGHT, WIDTH)
        point[0, 4, 4] = -1e-30
        assert effective_complexity(point, epsilon=0.0).item() == 1

    def test_what_is_above_the_share(self):
        score = partial(effective_complexity, torch.tensor([[[8.0, -4.0], [2.0, 0.0]]]))
        assert [score(epsilon=epsilon).item() for epsilon in (0.0, 0.2, 0.25, 0.5, 0.99)] == [3, 3, 2, 1, 1]

    def test_an_empty_map_has_none(self):
        assert effective_complexity(torch.zeros(1, 4, 6), epsilon=0.1).isnan()

    @pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
    def test_the_share_is_a_share(self, epsilon):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}, expected 0 or more and below 1"):
            effective_complexity(torch.ones(1, 4, 6), epsilon=epsilon)
