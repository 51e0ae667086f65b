"""Check every metric against its formula, cases computed by hand, and the rule that a row knows no other row."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch

from atlas.metrics import adversarial, complexity, faithfulness, grid, localization
from atlas.metrics.shared import curves as _curves
from atlas.metrics.shared import order as _order
from atlas.study import params
from atlas.study.schema import signatures
from atlas.study.seeds import image_seed
from tests.support.metrics import (
    FAMILIES,
    FGSM,
    HEIGHT,
    MEAN,
    SLOW,
    STD,
    WIDTH,
    Witness,
    assert_batch_independent,
    call,
    counted,
    entries,
    linear,
    make_classifier,
    make_inputs,
    network,
    same,
    take,
    votes_of,
)
from tests.support.reference import certified, imputation, masked, recovery, regions
from tests.support.reference import localization as slow_localization
from tests.support.reference import metrics as slow

# Where metrics are restated.
RESTATED = (slow, slow_localization, recovery, regions, masked, imputation, certified)

# The scale of a map is something to them: they compare it with changes of the output.
UNLIKE = {"kept_share", "perturbation"}


class TestEveryMetric:
    def test_what_is_restated_is_there(self):
        assert set(SLOW) <= {name for names in FAMILIES.values() for name in names}

    @pytest.mark.parametrize(("family", "function"), [(f, name) for f, names in FAMILIES.items() for name in names])
    def test_it_says_what_it_is(self, family, function):
        attrs = signatures.attributes("metrics", family, function)
        assert attrs["better"] in ("higher", "lower")
        assert all(attrs[key] for key in ("long_name", "units", "reference"))
        returned = inspect.signature(params.find("metrics", family, function)).return_annotation
        dims = returned.dim_str.split()
        known = {
            "image": (None, None),
            "image fraction": ("fraction", "area"),
            "image threshold": ("threshold", "best_threshold"),
            "image radius level": ("removed" if function == "certified_deletion" else "level", "level"),
        }
        assert (attrs.get("dim"), attrs.get("summary")) == known[" ".join(dims)]

    @pytest.mark.parametrize(
        ("family", "function"), [(f, name) for f, names in FAMILIES.items() for name in names if name in SLOW]
    )
    def test_it_equals_the_formula_in_loops(self, family, function):
        inputs = make_inputs(rows=9)
        settings, names = SLOW[function]
        scores = call(family, function, settings, inputs)
        restated = next(getattr(module, function) for module in RESTATED if hasattr(module, function))
        for row in range(len(scores)):
            witness = Witness(int(inputs["targets"][row]))
            given = {"witness": witness, "votes": votes_of(inputs["votes"], row)} | {
                name: inputs[name][row] if name == "seeds" else inputs[name][row].numpy()
                for name in names
                if name not in ("witness", "votes")
            }
            expected = torch.tensor(restated(*(given[name] for name in names), **settings))
            torch.testing.assert_close(scores[row], expected.float(), rtol=2e-5, atol=2e-6, equal_nan=True)

    @pytest.mark.parametrize("name", entries())
    def test_a_row_is_the_same_in_any_batch_and_order(self, name):
        assert_batch_independent(partial(call, *entries()[name]), make_inputs())

    @pytest.mark.parametrize("name", entries())
    def test_it_leaves_its_inputs_alone(self, name):
        inputs = make_inputs(rows=12)
        before = {key: value.clone() for key, value in inputs.items() if isinstance(value, torch.Tensor)}
        score = call(*entries()[name], inputs)
        assert all(same(inputs[key].float(), value.float()) for key, value in before.items())
        assert score.dtype == torch.float32

    # The protocol of wsl takes a broken map for a black one.
    @pytest.mark.parametrize(
        "name",
        [
            name
            for name, (family, function, _) in entries().items()
            if function != "wsl" and "maps" in signatures.signature("metrics", family, function).inputs
        ],
    )
    def test_a_map_that_is_not_finite_has_no_score(self, name):
        inputs = take(make_inputs(), [11, 12])
        for broken in (torch.nan, torch.inf, -torch.inf):
            inputs["maps"] = inputs["maps"].clone()
            inputs["maps"][0, 3, 4] = broken
            assert call(*entries()[name], inputs)[0].isnan().all()

    @pytest.mark.parametrize("name", sorted(set(SLOW) - UNLIKE))
    def test_the_scale_of_a_map_is_nothing(self, name):
        family = next(family for family, names in FAMILIES.items() if name in names)
        inputs = make_inputs(rows=9)
        scores = call(family, name, SLOW[name][0], inputs)
        small = call(family, name, SLOW[name][0], {**inputs, "maps": inputs["maps"] * 2**-10})
        torch.testing.assert_close(small, scores, equal_nan=True)


def object_map(rows=1):
    """Return a mask of a box, the map that equals it, and the box."""
    mask = torch.zeros(rows, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 3:9, 2:7] = True
    return mask, mask.float(), torch.tensor([[[2, 3, 7, 9], [-1, -1, -1, -1]]]).expand(rows, -1, -1)


class TestLocalization:
    def test_a_map_that_is_the_object_is_perfect(self):
        mask, one, boxes = object_map()
        seeds = [5]
        assert localization.attribution_localization(one, mask).item() == 1
        assert localization.relevance_rank(one, mask, seeds).item() == 1
        assert localization.top_k_intersection(one, mask, seeds, k=30).item() == 1
        assert localization.pointing_game(one, boxes, [0] * len(one), tolerance=0).item() == 1
        assert localization.wsl(one, boxes, thresholds=10, iou=0.5).eq(1).all()

    def test_its_opposite_is_worthless(self):
        mask, one, boxes = object_map()
        other, seeds = 1 - one, [5]
        assert localization.attribution_localization(other, mask).item() == 0
        assert localization.relevance_rank(other, mask, seeds).item() == 0
        assert localization.top_k_intersection(other, mask, seeds, k=30).item() == 0
        assert localization.pointing_game(other, boxes, [0] * len(other), tolerance=0).item() == 0
        assert localization.wsl(other, boxes, thresholds=10, iou=0.5).eq(0).all()

    def test_a_uniform_map_scores_the_area_of_the_object(self):
        mask, one, _ = object_map(400)
        area = 30 / (HEIGHT * WIDTH)
        assert localization.attribution_localization(torch.ones_like(one), mask)[0].item() == pytest.approx(area)
        seeds = [image_seed(0, str(row)) for row in range(400)]
        ranks = localization.relevance_rank(torch.ones_like(one), mask, seeds)
        # Ties in reading order would give every image the same share, and not this one.
        assert len(ranks.unique()) > 5
        assert ranks.mean().item() == pytest.approx(area, abs=0.02)

    def test_nothing_is_defined_without_an_object(self):
        one = torch.rand(1, HEIGHT, WIDTH)
        mask, boxes = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool), torch.full((1, 2, 4), -1)
        assert localization.attribution_localization(one, mask).isnan().all()
        assert localization.relevance_rank(one, mask, [5]).isnan().all()
        assert localization.top_k_intersection(one, mask, [5], k=3).isnan().all()
        assert localization.pointing_game(one, boxes, [0] * len(one), tolerance=0).isnan().all()
        assert localization.wsl(one, boxes, thresholds=4, iou=0.5).isnan().all()

    def test_an_empty_map_has_no_share(self):
        mask, one, _ = object_map()
        assert localization.attribution_localization(one * 0, mask).isnan().all()

    def test_attributions_of_either_sign_count(self):
        mask, one, _ = object_map()
        one[0, 0, 0], one[0, 4, 4] = -10, -1
        assert localization.attribution_localization(one, mask).item() == pytest.approx(30 / 40)

    def test_top_k_reaches_no_more_than_the_object(self):
        mask, one, _ = object_map()
        assert localization.top_k_intersection(one, mask, [5], k=60).item() == 0.5

    def test_top_k_refuses_more_pixels_than_there_are(self):
        mask, one, _ = object_map()
        with pytest.raises(ValueError, match="k is 217, expected at most the map's 216 pixels"):
            localization.top_k_intersection(one, mask, [5], k=217)
        with pytest.raises(ValueError, match="k is 0, expected 1 or more"):
            localization.top_k_intersection(one, mask, [5], k=0)

    @pytest.mark.parametrize(
        ("place", "tolerance", "hit"),
        [
            ((3, 2), 0, 1),  # the box's first pixel
            ((8, 6), 0, 1),  # its last
            ((9, 6), 0, 0),  # one past: boxes are half-open
            ((8, 7), 0, 0),
            ((9, 6), 1, 0),  # distance 1 is not below 1
            ((9, 6), 2, 1),
            ((11, 6), 3, 0),  # distance 3 is not below 3
            ((11, 6), 4, 1),
            ((10, 8), 3, 1),  # squared distance 8 < 9: round, not square
            ((11, 9), 4, 0),  # squared distance 18 is not below 16
        ],
    )
    def test_pointing(self, place, tolerance, hit):
        _, one, boxes = object_map()
        one = one * 0
        one[0][place] = 1
        assert localization.pointing_game(one, boxes, [0] * len(one), tolerance=tolerance).item() == hit

    def test_of_equal_pixels_any_is_pointed_at(self):
        """A constant map hits as often as a point that is drawn; of two equal pixels it points at each as often."""
        masks, one, boxes = object_map()
        many, seeds = 2000, list(range(2000))
        hits = localization.pointing_game(one.expand(many, -1, -1) * 0, boxes.expand(many, -1, -1), seeds, tolerance=0)
        share = float(masks.float().mean())
        assert abs(float(hits.mean()) - share) < 4 * (share * (1 - share) / many) ** 0.5
        two = torch.zeros_like(one)
        y, x = masks[0].nonzero()[0].tolist()
        two[0, y, x] = two[0, -1, -1] = 1
        hits = localization.pointing_game(two.expand(many, -1, -1), boxes.expand(many, -1, -1), seeds, tolerance=0)
        assert 0.4 < float(hits.mean()) < 0.6

    def test_any_of_several_objects_is_a_hit(self):
        _, one, boxes = object_map()
        two = boxes.clone()
        two[0, 1] = torch.tensor([8, 11, 12, 17])
        one[0, 12, 9] = 5
        assert localization.pointing_game(one, boxes, [0] * len(one), tolerance=0).item() == 0
        assert localization.pointing_game(one, two, [0] * len(one), tolerance=0).item() == 1
        far = torch.zeros_like(one)
        far[0, 11:17, 8:12] = 1
        assert localization.wsl(far, boxes, thresholds=3, iou=0.5).eq(0).all()
        assert localization.wsl(far, two, thresholds=3, iou=0.5).eq(1).all()

    def test_the_tolerance_is_not_negative(self):
        _, one, boxes = object_map()
        with pytest.raises(ValueError, match="pointing_game: tolerance is -1, expected 0 or more"):
            localization.pointing_game(one, boxes, [0] * len(one), tolerance=-1)

    def test_the_box_of_the_protocol_is_a_pixel_larger(self):
        _, one, boxes = object_map()
        # The box of 5 x 6 is estimated as 6 x 7: 30 of 42.
        assert localization.wsl(one, boxes, thresholds=1, iou=30 / 42).item() == 1
        assert localization.wsl(one, boxes, thresholds=1, iou=30 / 42 + 1e-6).item() == 0

    def test_the_threshold_cuts_the_map(self):
        _, one, boxes = object_map()
        one[0, :, :] += 0.5
        one = one / one.max()
        one[0, 0, 0] = 0
        # 1/3 of the greatest grey level, 85 of 255, outside: up to there the whole image is the object.
        hits = localization.wsl(one, boxes, thresholds=255, iou=0.5)[0]
        assert hits.tolist() == [0] * 85 + [1] * 170

    def test_a_constant_map_has_the_box_of_the_first_pixel(self):
        _, one, boxes = object_map()
        assert localization.wsl(one * 0 + 3, boxes, thresholds=4, iou=0.5).eq(0).all()
        first = torch.tensor([[[0, 0, 1, 1]]])
        assert localization.wsl(one * 0 + 3, first, thresholds=4, iou=1.0).eq(1).all()
        assert localization.wsl(one * torch.nan, first, thresholds=4, iou=1.0).eq(1).all()


class TestGrid:
    def test_only_positive_attribution_counts(self):
        one = torch.tensor([[[3.0, -8.0], [1.0, 0.0]]])
        tile = torch.tensor([[[True, True], [False, False]]])
        assert grid.grid_pointing_game(one, tile).item() == 0.75
        assert grid.grid_pointing_game(one, ~tile).item() == 0.25

    def test_a_map_without_positive_attribution_scores_nothing(self):
        tile = torch.tensor([[[True, False]]])
        assert grid.grid_pointing_game(torch.tensor([[[-1.0, 0.0]]]), tile).item() == 0
        assert grid.grid_pointing_game(torch.tensor([[[9e-8, 0.0]]]), tile).item() == 0
        assert grid.grid_pointing_game(torch.tensor([[[2e-7, 0.0]]]), tile).item() == 1


class TestComplexity:
    def test_a_uniform_map_is_the_most_complex(self):
        for size in (-3.0, 1e37, 1e-37):
            one = torch.full((1, HEIGHT, WIDTH), size)
            assert complexity.complexity(one).item() == pytest.approx(math.log(HEIGHT * WIDTH), rel=1e-6)
            assert 0 <= complexity.sparseness(one).item() < 1e-6

    def test_one_pixel_is_the_simplest(self):
        one = torch.zeros(1, HEIGHT, WIDTH)
        one[0, 4, 4] = -1e-6
        assert complexity.complexity(one).item() == 0
        assert complexity.sparseness(one).item() == pytest.approx(1 - 1 / (HEIGHT * WIDTH), abs=1e-4)

    def test_half_the_pixels(self):
        one = torch.ones(1, 4, 6)
        one[0, :2] = 0
        assert complexity.complexity(one).item() == pytest.approx(math.log(12))
        assert complexity.sparseness(one).item() == pytest.approx(0.5, abs=1e-6)

    def test_an_empty_map_has_no_shape(self):
        one = torch.zeros(1, 4, 6)
        assert complexity.complexity(one).isnan().all()
        assert complexity.sparseness(one).isnan().all()


class TestOrder:
    def test_highest_first_and_ties_by_the_key_of_the_image(self):
        maps = torch.zeros(3, 4, 6)
        maps[:, 2, 3], maps[:, 0, 1] = 2, -1
        maps[0, 3] = -0.0
        orders = _order.ranking(maps, [1, 1, 2])
        assert orders[:, 0].tolist() == [15, 15, 15]
        assert orders[:, -1].tolist() == [1, 1, 1]
        assert torch.equal(orders[0], orders[1]), "0.0 and -0.0 are one value"
        assert not torch.equal(orders[0], orders[2])
        assert all(sorted(row) == list(range(24)) for row in orders.tolist())

    def test_the_key_is_the_image_s_whatever_the_map(self):
        first, second = (_order.ranking(torch.full((1, 4, 6), value), [9]) for value in (1.0, 2.0))
        assert torch.equal(first, second)


BLACK = {"baseline": "black", "relative": False}


class TestCurves:
    def test_the_schedule_ends_at_the_last_pixel(self):
        assert _curves.schedule(10, 4) == [0, 4, 8, 10]
        assert _curves.schedule(12, 4) == [0, 4, 8, 12]
        assert _curves.schedule(3, 6) == [0, 3]

    def curves_of(self, metric, order, pixels=2):
        weights = torch.arange(1.0, 9.0).view(2, 4) / 8
        classifier = linear(weights)
        white, target = torch.ones(1, 3, 2, 4), torch.tensor([0])
        return metric(
            {"best": weights, "worst": -weights}[order][None],
            white,
            target,
            classifier,
            [4],
            pixels=pixels,
            relative=False,
        )[0]

    @pytest.mark.parametrize(
        ("order", "kept"), [("best", [36, 21, 10, 3, 0]), ("worst", [36, 33, 26, 15, 0])], ids=["best", "worst"]
    )
    def test_deletion_on_a_linear_classifier(self, order, kept):
        # The weights are eighths of 1 ... 8; each of 4 steps takes two of them away.
        curve = self.curves_of(partial(faithfulness.deletion, baseline="black"), order)
        torch.testing.assert_close(curve, torch.tensor(kept).div(8).sigmoid())

    @pytest.mark.parametrize(
        ("order", "present"), [("best", [0, 15, 26, 33, 36]), ("worst", [0, 3, 10, 21, 36])], ids=["best", "worst"]
    )
    def test_insertion_on_a_linear_classifier(self, order, present):
        curve = self.curves_of(partial(faithfulness.insertion, baseline="black"), order)
        torch.testing.assert_close(curve, torch.tensor(present).div(8).sigmoid())

    def test_the_true_map_is_at_no_point_worse(self):
        inputs = make_inputs(rows=12)
        weights = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(2))
        inputs |= {"classifier": linear(weights / 40), "targets": torch.zeros(12, dtype=torch.int64)}
        truth = inputs["images"].mean(dim=1) * weights
        for metric, sign in ((faithfulness.deletion, -1), (faithfulness.insertion, 1)):
            rest = [inputs[name] for name in ("images", "targets", "classifier", "seeds")]
            best = metric(truth, *rest, pixels=44, baseline="black", relative=False)
            other = metric(inputs["maps"], *rest, pixels=44, baseline="black", relative=False)[:11]
            assert (sign * (best[:11] - other) >= -1e-6).all()

    def test_all_channels_of_a_pixel_go_together(self):
        seen = []
        inputs = make_inputs(rows=3)
        watched = inputs["classifier"]
        looked = watched.logits
        watched.logits = lambda images: seen.append(images) or looked(images)
        call("faithfulness", "deletion", {"pixels": 50, **BLACK}, inputs)
        images = torch.cat(seen[2:]).view(3, 4, 3, HEIGHT, WIDTH)
        black = images == 0
        pixels = (black.sum(dim=2) == 3).sum(dim=(2, 3))
        assert pixels.tolist() == [_curves.schedule(HEIGHT * WIDTH, 50)[1:-1]] * 3
        changed = (images != inputs["images"][:, None]).any(dim=2)
        assert torch.equal(changed.sum(dim=(2, 3)), pixels)

    def test_one_step_has_two_points(self):
        inputs = make_inputs(rows=3)
        curves = call("faithfulness", "deletion", {"pixels": 216, **BLACK}, inputs)
        assert curves.shape == (3, 2)
        with pytest.raises(ValueError, match="pixels is 0, expected 1 or more"):
            call("faithfulness", "deletion", {"pixels": 0, **BLACK}, inputs)

    @pytest.mark.parametrize("baseline", ["black", "mean"])
    def test_the_ends_are_the_image_and_the_baseline(self, baseline):
        inputs = make_inputs(rows=5)
        down, up = (
            call("faithfulness", name, {"pixels": 72, "baseline": baseline, "relative": False}, inputs)
            for name in ("deletion", "insertion")
        )
        blurred = call("faithfulness", "insertion", {"pixels": 72, "baseline": "blur", "relative": False}, inputs)
        classifier, images, targets = (inputs[name] for name in ("classifier", "images", "targets"))
        color = torch.tensor(MEAN if baseline == "mean" else [0.0, 0.0, 0.0])
        whole = _curves.target_probability(classifier, images, targets)
        empty = _curves.target_probability(classifier, color.view(1, 3, 1, 1).expand_as(images), targets)
        for curve, first, last in ((down, whole, empty), (up, empty, whole)):
            assert torch.equal(curve[:, 0], first)
            assert torch.equal(curve[:, -1], last)
        assert torch.equal(blurred[:, -1], whole)

    @pytest.mark.parametrize("baseline", ["black", "mean", "blur"])
    @pytest.mark.parametrize("name", ["deletion", "insertion"])
    def test_passes(self, name, baseline):
        inputs = make_inputs(rows=10)
        settings = {"pixels": 36, "baseline": baseline, "relative": True}
        passes = partial(counted, inputs["classifier"])
        call("faithfulness", name, settings, inputs)
        assert passes() == (10 * 7, 0)
        # The ends do not depend on the map: another map of the same batch does not look at them again.
        call("faithfulness", name, settings, {**inputs, "maps": inputs["maps"].flip(2)})
        assert passes() == (10 * (7 + 5), 0)

    def test_a_relative_curve_begins_or_ends_at_one(self):
        inputs = make_inputs(rows=5)
        for name, settings in (("deletion", {"pixels": 72}), ("insertion", {"pixels": 72})):
            plain, relative = (
                call("faithfulness", name, {**settings, "baseline": "mean", "relative": how}, inputs)
                for how in (False, True)
            )
            assert relative[:, 0 if name == "deletion" else -1].eq(1).all()
            clean = plain[:, :1] if name == "deletion" else plain[:, -1:]
            torch.testing.assert_close(relative, plain / clean)

    def test_a_share_of_nothing_is_undefined(self, monkeypatch):
        inputs = make_inputs(rows=4)
        output = faithfulness.clean(*(inputs[name] for name in ("classifier", "images", "targets")))
        nothing = output._replace(probability=torch.tensor([0.0, 1e-44, 0.5, 0.5]))
        monkeypatch.setattr(faithfulness, "clean", lambda *_: nothing)
        relative = {"pixels": 72, "baseline": "mean", "relative": True}
        for name in ("deletion", "insertion"):
            curves = call("faithfulness", name, relative, inputs)
            assert not curves.isinf().any()
            assert curves[0].isnan().any()
            assert curves[2:].isfinite().all()

    def test_the_difference_of_curves_costs_no_pass_beside_them(self):
        inputs = make_inputs(rows=10)
        for name, baseline in (("insertion", "blur"), ("deletion", "mean")):
            call("faithfulness", name, {"pixels": 36, "baseline": baseline, "relative": False}, inputs)
        before = counted(inputs["classifier"])
        both = {"inserted_into": "blur", "deleted_to": "mean", "relative": False}
        call("faithfulness", "ins_minus_del", {"pixels": 36, **both}, inputs)
        assert counted(inputs["classifier"]) == before == (10 * (1 + 2 * 6), 0)

    def test_a_broken_map_costs_nothing(self):
        inputs = take(make_inputs(), [11])
        inputs["classifier"] = make_classifier(network())
        call("faithfulness", "deletion", {"pixels": 36, **BLACK}, inputs)
        assert counted(inputs["classifier"]) == (2, 0)


class TestBlur:
    def test_the_kernel_is_rise_s(self):
        images = torch.zeros(1, 3, 23, 29)
        images[:, 1, 11, 14] = 1
        blurred = faithfulness.blur(images, torch.zeros(3))
        assert blurred[0, 1, 11, 14].item() == pytest.approx(0.00883, abs=5e-6)
        assert blurred[0, 1, 6, 9].item() == pytest.approx(0.00774, abs=5e-6)
        assert blurred[0, 1, 5, 14].item() == 0
        assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
        assert blurred[0, [0, 2]].eq(0).all()

    def test_the_mean_color_stays(self):
        color = torch.tensor(MEAN)
        images = color.view(1, 3, 1, 1).expand(2, 3, HEIGHT, WIDTH)
        torch.testing.assert_close(faithfulness.blur(images, color), images)

    def test_it_is_rise_s_convolution_of_the_normalized_image(self):
        image = make_inputs(rows=9)["images"][0]
        fast = faithfulness.blur(image[None], torch.tensor(MEAN))[0]
        restated = slow.blurred(image.numpy(), np.float32(MEAN), np.float32(STD))
        torch.testing.assert_close(fast, torch.from_numpy(restated), rtol=1e-5, atol=1e-6)


class TestPerturbation:
    def attack(self, inputs, epsilon, iterations=1, step=None):
        given = (inputs[name] for name in ("classifier", "images", "targets"))
        return adversarial._attack(*given, epsilon, iterations, step or epsilon)

    @pytest.mark.parametrize("epsilon", [1, 4])
    def test_the_attack_moves_every_channel_by_whole_levels(self, epsilon):
        inputs = make_inputs(rows=16)
        attack = self.attack(inputs, epsilon)
        moved = (attack.attacked.images - attack.clean.images) * 255
        assert torch.equal(attack.clean.images, inputs["images"])
        levels = moved.round()
        torch.testing.assert_close(moved, levels, rtol=0, atol=1e-4)
        assert 0 <= attack.attacked.images.min() <= attack.attacked.images.max() <= 1
        inside = ((inputs["images"] * 255).round() >= epsilon) & ((inputs["images"] * 255).round() <= 255 - epsilon)
        assert set(levels[inside].tolist()) <= {-float(epsilon), 0.0, float(epsilon)}
        assert (levels[inside] != 0).float().mean() > 0.9
        assert (attack.attacked.probability < attack.clean.probability).float().mean() > 0.9

    def test_more_steps_flip_more_and_stay_within_the_strength(self):
        inputs = make_inputs(rows=64)
        one, many = self.attack(inputs, 8), self.attack(inputs, 8, iterations=8, step=16)
        assert one.succeeded.sum() < many.succeeded.sum()
        assert many.succeeded[one.succeeded].all()
        moved = ((many.attacked.images - inputs["images"]) * 255).round()
        inside = ((inputs["images"] * 255).round() >= 8) & ((inputs["images"] * 255).round() <= 247)
        assert set(moved[inside].unique().tolist()) <= {-8.0, 0.0, 8.0}, "from twice epsilon on: one strength"
        assert (moved[inside] == 0).float().mean() < 0.1

    def test_an_image_that_is_flipped_is_attacked_no_more(self):
        inputs = make_inputs(rows=32)
        first = self.attack(inputs, 3)
        before = counted(inputs["classifier"])
        more = self.attack(inputs, 3, iterations=2, step=3)
        flipped = first.succeeded
        assert torch.equal(more.attacked.images[flipped], first.attacked.images[flipped])
        left = int((~flipped).sum())
        now = counted(inputs["classifier"])
        assert (now[0] - before[0], now[1] - before[1]) == (2 * 32 + 2 * left, 32 + left)

    def test_curves_run_from_the_attacked_to_the_clean_image(self):
        inputs = make_inputs(rows=16)
        curves = call("adversarial", "perturbation", {"pixels": 54, **FGSM}, inputs)
        attack = self.attack(inputs, 3)
        kept = attack.succeeded & inputs["maps"].isfinite().all(dim=2).all(dim=1)
        assert 0 < kept.sum() < 15
        assert torch.equal(curves.isnan(), ~kept[:, None].expand(-1, 5))
        clean = _curves.target_probability(inputs["classifier"], inputs["images"], inputs["targets"])
        torch.testing.assert_close(curves[kept, -1], clean[kept], rtol=0, atol=1e-5)
        assert torch.equal(curves[kept, 0], attack.attacked.probability[kept])

    def test_an_attack_that_cannot_succeed_leaves_nothing_defined(self):
        inputs = make_inputs(rows=3) | {"targets": torch.zeros(3, dtype=torch.int64)}
        inputs["classifier"] = linear(torch.zeros(HEIGHT, WIDTH))
        assert (
            call("adversarial", "perturbation", {"pixels": 54, "epsilon": 8, "iterations": 1, "step": 8}, inputs)
            .isnan()
            .all()
        )
        assert counted(inputs["classifier"]) == (9, 3)

    def test_passes(self):
        inputs = make_inputs(rows=10)
        passes = partial(counted, inputs["classifier"])
        curves = call("adversarial", "perturbation", {"pixels": 36, **FGSM}, inputs)
        kept = int((~curves[:, 0].isnan()).sum())
        assert 0 < kept < 10
        assert passes() == (10 * 3 + kept * 5, 10)
        # The attack does not depend on the map.
        call("adversarial", "perturbation", {"pixels": 36, **FGSM}, {**inputs, "maps": inputs["maps"].flip(2)})
        assert passes() == (10 * 3 + 2 * kept * 5, 10)

    def test_images_are_attacked_once_for_any_number_of_strengths(self):
        inputs = make_inputs(rows=8)
        kinds = [{"epsilon": k, "iterations": 1, "step": k} for k in (1, 2, 3, 4, 6, 8)]
        for maps in (inputs["maps"], inputs["maps"].flip(2), inputs["maps"] * 2):
            for kind in kinds:
                call("adversarial", "perturbation", {"pixels": 108, **kind}, {**inputs, "maps": maps})
        assert counted(inputs["classifier"])[1] == 8 * len(kinds)

    def test_the_strength_is_at_least_a_grey_level(self):
        with pytest.raises(ValueError, match="perturbation: epsilon is 0, expected 1 or more"):
            call("adversarial", "perturbation", {"pixels": 54, **FGSM, "epsilon": 0}, make_inputs(rows=9))
