"""Check the metrics that take regions away: cases by hand, passes, undefined cases, the faults of other packages."""

import math
import weakref
from collections import OrderedDict
from functools import partial
from itertools import pairwise

import captum.metrics
import numpy as np
import pytest
import torch
from torch import nn

from atlas.metrics.shared import neighbors
from atlas.metrics.shared import segments as _segments
from atlas.model import batch_cache
from atlas.model.lazy_images import LazyImages
from atlas.study.errors import Unsupported
from tests.support.metrics import (
    HEIGHT,
    SLOW,
    WIDTH,
    Witness,
    assert_batch_independent,
    call,
    counted,
    linear,
    make_classifier,
    make_inputs,
    network,
    same,
    take,
)
from tests.support.reference import regions as slow

score = partial(call, "faithfulness_regions")
ESTIMATE = {"pixels": 31, "baseline": "black", "output": "logit"}
IROF = {"superpixels": 9, "compactness": 10.0, "sigma": 1.0, "form": "share"}
INFIDELITY = {"patch": 6, "samples": 1, "baseline": "black", "output": "logit", "scaled": False}
QUANTUS = {"patch": 4, "samples": 1, "baseline": "black"}


def weighing(weights):
    """Return a classifier, one that normalizes, whose first logit is Σ w x once normalized, each channel its own w."""
    same_again = nn.Conv2d(3, 3, 1, bias=False)
    same_again.weight.data = torch.eye(3).view(3, 3, 1, 1)
    head = nn.Linear(weights.numel(), 2, bias=False)
    head.weight.data = torch.stack([weights.flatten(), torch.zeros(weights.numel())])
    head = nn.Sequential(nn.Flatten(), head)
    return make_classifier(nn.Sequential(OrderedDict(features=nn.Sequential(same_again), head=head)))


def linear_inputs(rows=6, height=HEIGHT, width=WIDTH):
    """Return images, and the weights of a linear classifier whose target is its first class."""
    draw = torch.Generator().manual_seed(8)
    weights = torch.randn(height, width, generator=draw)
    inputs = make_inputs(rows)
    images = torch.randint(256, (rows, 3, height, width), generator=draw) / 255
    targets = torch.zeros(rows, dtype=torch.int64)
    return inputs | {"images": images, "targets": targets, "classifier": linear(weights)}, weights


def square_inputs(rows=6):
    inputs = make_inputs(rows)
    return inputs | {"images": inputs["images"][:, :, :WIDTH], "maps": inputs["maps"][:, :WIDTH]}


def watch(classifier):
    seen, looked = [], classifier.logits
    classifier.logits = lambda images: seen.append(images) or looked(images)
    return seen


class TestFaithfulnessEstimate:
    @pytest.mark.parametrize("baseline", ["black", "mean"])
    def test_the_contributions_of_a_linear_classifier_are_perfect(self, baseline):
        weights = torch.randn(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(8))
        inputs = make_inputs(rows=4)
        classifier = weighing(weights)
        absent = classifier.mean.view(3, 1, 1) if baseline == "mean" else 0
        true = (weights / classifier.std.view(3, 1, 1) * (inputs["images"] - absent)).sum(dim=1)
        inputs |= {"classifier": classifier, "targets": torch.zeros(4, dtype=torch.int64)}
        for sign in (1, -1):
            scores = score("faithfulness_estimate", {**ESTIMATE, "baseline": baseline}, inputs | {"maps": sign * true})
            torch.testing.assert_close(scores, torch.full((4,), float(sign)), rtol=0, atol=1e-4)

    def test_logits(self):
        inputs = make_inputs(rows=5)
        scores = score("faithfulness_estimate", ESTIMATE, inputs)
        for row in range(5):
            given = (inputs["maps"][row].numpy(), inputs["images"][row].numpy(), inputs["seeds"][row])
            restated = slow.faithfulness_estimate(*given, Witness(int(inputs["targets"][row])), **ESTIMATE)
            assert scores[row].item() == pytest.approx(restated, abs=2e-5)

    def test_blocks_are_taken_away_alone_and_whole(self):
        inputs = make_inputs(rows=2)
        seen = watch(inputs["classifier"])
        score("faithfulness_estimate", ESTIMATE, inputs)
        blocks = math.ceil(HEIGHT * WIDTH / 31)
        images = torch.cat(seen)[: 2 * blocks].view(2, blocks, 3, HEIGHT, WIDTH)
        black = (images == 0).all(dim=2)
        assert black.sum(dim=(2, 3)).tolist() == [[31] * (blocks - 1) + [HEIGHT * WIDTH % 31]] * 2
        assert torch.equal(black.sum(dim=1), torch.ones(2, HEIGHT, WIDTH, dtype=torch.int64))
        kept = (images != 0) | black[:, :, None] | (inputs["images"][:, None] == 0)
        assert kept.all(), "no channel goes without the others"

    def test_passes(self):
        inputs = make_inputs(rows=10)
        score("faithfulness_estimate", {**ESTIMATE, "pixels": 50}, inputs)
        assert counted(inputs["classifier"]) == (10 * (1 + 5), 0)
        score("faithfulness_estimate", {**ESTIMATE, "pixels": 50}, {**inputs, "maps": inputs["maps"].flip(2)})
        assert counted(inputs["classifier"]) == (10 * (1 + 2 * 5), 0)

    def test_a_broken_map_costs_nothing(self):
        inputs = take(make_inputs(), [11])
        inputs["classifier"] = make_classifier(network())
        assert score("faithfulness_estimate", ESTIMATE, inputs).isnan().all()
        assert counted(inputs["classifier"]) == (1, 0)

    def test_what_is_constant_correlates_with_nothing(self):
        inputs, _ = linear_inputs()
        settings = {**ESTIMATE, "pixels": 27}
        flat = score("faithfulness_estimate", settings, inputs | {"maps": torch.full((6, HEIGHT, WIDTH), 0.1)})
        assert flat.isnan().all()
        blind = inputs | {"classifier": linear(torch.zeros(HEIGHT, WIDTH))}
        assert score("faithfulness_estimate", settings, blind).isnan().all()
        assert score("faithfulness_estimate", {**ESTIMATE, "pixels": 216}, inputs).isnan().all()

    def test_a_block_has_a_pixel(self):
        with pytest.raises(ValueError, match="faithfulness_estimate: pixels is 0, expected 1 or more"):
            score("faithfulness_estimate", {**ESTIMATE, "pixels": 0}, make_inputs(rows=1))


class TestIrof:
    def test_three_channels(self):
        scores = score("irof", IROF, make_inputs(rows=5))
        assert scores.isfinite().all()
        assert len(scores.unique()) == 5

    @pytest.mark.parametrize(("form", "expected"), [("share", 0), ("quantus", 1)])
    def test_where_nothing_matters(self, form, expected):
        inputs, _ = linear_inputs()
        inputs["classifier"] = linear(torch.zeros(HEIGHT, WIDTH))
        # r = 1 throughout: 1 − L / L, and L − (L − 1).
        assert score("irof", {**IROF, "form": form}, inputs)[:5].tolist() == [expected] * 5

    def test_the_form_of_quantus(self):
        inputs = make_inputs(rows=5)
        scores = score("irof", {**IROF, "form": "quantus"}, inputs)
        for row in range(5):
            given = (inputs["maps"][row].numpy(), inputs["images"][row].numpy(), inputs["seeds"][row])
            witness = Witness(int(inputs["targets"][row]))
            restated = slow.irof(*given, witness, **{**IROF, "form": "quantus"})
            # What nine ratios near 1, in single precision, leave of 9.
            assert scores[row].item() == pytest.approx(restated, rel=2e-5, abs=4e-5)

    @pytest.mark.parametrize(("best", "kept"), [(0, [8, 2, 1, 0.5]), (3, [8, 7.5, 7, 6])])
    def test_four_quarters_of_a_linear_classifier(self, best, kept):
        quarters = torch.arange(4).view(2, 2).repeat_interleave(8, 0).repeat_interleave(8, 1)
        image = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]).float()[quarters].movedim(2, 0)[None]
        settings = {**IROF, "superpixels": 4, "sigma": 0.0}
        labels = _segments.segmented(image, 4, 10.0, 0.0)[0]
        assert len(torch.stack([quarters, labels]).flatten(1).unique(dim=1).T) == len(labels.unique()) == 4
        # A quarter's pixels together are worth 6, 1, 0.5 and 0.5 of the logit; the target is the first class.
        worth = torch.tensor([6, 1, 0.5, 0.5]) / image.mean(dim=1)[0, ::8, ::8].flatten() / 64
        one = torch.tensor([4.0, 3, 2, 1]) if best == 0 else torch.tensor([1.0, 2, 3, 4])
        inputs = make_inputs(rows=1) | {"images": image, "targets": torch.tensor([0])}
        inputs |= {"classifier": linear(worth[quarters]), "maps": one[quarters][None]}
        # The last quarter that goes leaves black, the mean color of this classifier.
        ratios = torch.tensor([*kept, 0.0]).sigmoid() / torch.tensor(8.0).sigmoid()
        expected = 1 - torch.trapezoid(ratios).item() / 4
        assert score("irof", settings, inputs).item() == pytest.approx(expected, rel=1e-5)

    def test_segments_are_cut_once_an_image(self, monkeypatch):
        inputs, cut = make_inputs(rows=4), []
        slic = _segments.slic
        monkeypatch.setattr(_segments, "slic", lambda *args, **options: cut.append(1) or slic(*args, **options))
        for maps in (inputs["maps"], inputs["maps"].flip(1)):
            score("irof", IROF, inputs | {"maps": maps})
        assert len(cut) == 4

    def test_passes(self):
        inputs = make_inputs(rows=5)
        counts = _segments.segmented(inputs["images"], 9, 10.0, 1.0).amax(dim=(1, 2)) + 1
        assert len(counts.unique()) > 1, "images of one batch have unlike numbers of segments"
        score("irof", IROF, inputs)
        # The clean image and each step; the last, all mean color, is one for all images.
        assert counted(inputs["classifier"]) == (5 + int((counts - 1).sum()) + 1, 0)

    def test_equal_means_are_ordered_by_the_image_s_key(self):
        segments = torch.arange(12).repeat(3, 1).view(3, 2, 6)
        turns = _segments.turns(torch.full((3, 2, 6), 0.1), segments, [1, 1, 2])
        assert torch.equal(turns[0], turns[1])
        assert not torch.equal(turns[0], turns[2])
        assert sorted(turns[0].flatten().tolist()) == list(range(1, 13))
        assert _segments.turns(torch.arange(12.0).view(1, 2, 6), segments[:1], [1])[0, 1, 5] == 1

    def test_means_of_equal_values_are_equal_whatever_the_segment_s_size(self):
        segments = torch.tensor([0] * 7 + [1] * 5).view(1, 2, 6)
        found = {tuple(_segments.turns(torch.full((1, 2, 6), 0.1), segments, [s])[0, 0, :1].tolist()) for s in range(9)}
        assert found == {(1,), (2,)}

    def test_a_class_without_probability_has_no_share_of_it(self):
        inputs, _ = linear_inputs()
        inputs["classifier"] = linear(torch.full((HEIGHT, WIDTH), -100.0))
        assert score("irof", IROF, inputs).isnan().all()


class TestInfidelity:
    @pytest.mark.parametrize("baseline", ["black", "mean", "uniform"])
    def test_the_weights_of_a_linear_classifier_are_perfect(self, baseline):
        inputs, weights = linear_inputs()
        maps = (weights / 3).repeat(6, 1, 1)
        settings = {**INFIDELITY, "baseline": baseline, "samples": 3 if baseline == "uniform" else 1}
        assert score("infidelity", settings, inputs | {"maps": maps}).max() < 1e-9
        assert score("infidelity", settings, inputs | {"maps": 7 * maps}).min() > 1
        assert score("infidelity", {**settings, "scaled": True}, inputs | {"maps": -7 * maps}).max() < 1e-9

    def test_an_empty_map_is_charged_with_all_that_is_lost(self):
        inputs, weights = linear_inputs()
        empty = inputs | {"maps": torch.zeros(6, HEIGHT, WIDTH)}
        lost = (inputs["images"].mean(dim=1) * weights).unfold(1, 6, 6).unfold(2, 6, 6).sum(dim=(3, 4))
        for how in (False, True):
            scores = score("infidelity", {**INFIDELITY, "scaled": how}, empty)
            torch.testing.assert_close(scores, lost.square().mean(dim=(1, 2)))

    def test_scaled_no_map_is_worse_than_an_empty_one(self):
        inputs = make_inputs(rows=11)
        scores, most = (
            score("infidelity", {**INFIDELITY, "scaled": True}, inputs | {"maps": maps})
            for maps in (inputs["maps"], torch.zeros(11, HEIGHT, WIDTH))
        )
        assert (scores <= most).all()

    @pytest.mark.parametrize("how", [False, True])
    def test_captum_agrees(self, how):
        inputs = make_inputs(rows=4)
        scores = score("infidelity", {**INFIDELITY, "patch": 5, "scaled": how}, inputs)
        for row in range(4):
            corners = [(y, x) for y in range(0, HEIGHT, 5) for x in range(0, WIDTH, 5)]
            witness = Witness(int(inputs["targets"][row]))

            def replaced(images, corners=corners):
                lost = torch.zeros_like(images)
                for one, image, (y, x) in zip(lost, images, corners, strict=True):
                    one[:, y : y + 5, x : x + 5] = image[:, y : y + 5, x : x + 5]
                return lost, images - lost

            def forward(images, witness=witness):
                return torch.stack([witness._logits(image)[0, witness.target] for image in images])

            theirs = captum.metrics.infidelity(
                forward,
                replaced,
                inputs["images"][row][None],
                inputs["maps"][row].expand(1, 3, -1, -1),
                n_perturb_samples=len(corners),
                normalize=how,
            )
            torch.testing.assert_close(scores[row], theirs[0].detach(), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("patch", [5, 6, 18, 40])
    def test_patches_cover_the_image_once_and_alone_where_they_do_not_divide_it(self, patch):
        inputs = make_inputs(rows=2)
        seen = watch(inputs["classifier"])
        assert score("infidelity", {**INFIDELITY, "patch": patch}, inputs).isfinite().all()
        count = math.ceil(HEIGHT / patch) * math.ceil(WIDTH / patch)
        black = (torch.cat(seen)[: 2 * count] == 0).all(dim=1).view(2, count, HEIGHT, WIDTH)
        assert torch.equal(black.sum(dim=1), torch.ones(2, HEIGHT, WIDTH, dtype=torch.int64))
        assert black.sum(dim=(2, 3)).max() == min(patch, HEIGHT) * min(patch, WIDTH)

    def test_passes_are_shared_by_all_maps(self):
        inputs = make_inputs(rows=10)
        score("infidelity", INFIDELITY, inputs)
        assert counted(inputs["classifier"]) == (10 * (1 + 6), 0)
        score("infidelity", {**INFIDELITY, "scaled": True}, inputs | {"maps": inputs["maps"].flip(1)})
        assert counted(inputs["classifier"]) == (10 * (1 + 6), 0)
        score("infidelity", {**INFIDELITY, "baseline": "uniform", "samples": 4}, inputs)
        assert counted(inputs["classifier"]) == (10 * (1 + 6 + 4 * 6), 0)

    def test_more_draws_keep_the_first(self):
        inputs = make_inputs(rows=3)
        settings = {**INFIDELITY, "baseline": "uniform"}
        one, two = (score("infidelity", {**settings, "samples": samples}, inputs) for samples in (1, 2))
        second = 2 * two - one
        assert (second > 0).all()
        assert not torch.allclose(one, second)

    @pytest.mark.parametrize("name", ["infidelity", "infidelity_quantus"])
    def test_what_is_not_drawn_is_not_drawn_twice(self, name):
        settings = {"infidelity": INFIDELITY, "infidelity_quantus": QUANTUS}[name]
        with pytest.raises(ValueError, match=f"{name}: samples is 2, expected 1: the baseline 'black' is not drawn"):
            score(name, {**settings, "samples": 2}, square_inputs())
        with pytest.raises(ValueError, match=f"{name}: patch is 0, expected 1 or more"):
            score(name, {**settings, "patch": 0}, square_inputs())

    def test_a_broken_map_has_no_score(self):
        inputs = make_inputs(rows=2)
        for broken in (torch.nan, torch.inf):
            inputs["maps"] = inputs["maps"].clone()
            inputs["maps"][1, 0, 0] = broken
            for how in (False, True):
                assert score("infidelity", {**INFIDELITY, "scaled": how}, inputs).isnan().tolist() == [False, True]


class TestInfidelityOfQuantus:
    @pytest.mark.parametrize(("baseline", "samples"), [("black", 1), ("uniform", 2)])
    def test_it_is_its_loops(self, baseline, samples):
        inputs, settings = square_inputs(), {"patch": 4, "samples": samples, "baseline": baseline}
        scores = score("infidelity_quantus", settings, inputs)
        for row in range(6):
            given = (inputs["maps"][row].numpy(), inputs["images"][row].numpy(), inputs["seeds"][row])
            restated = slow.infidelity_quantus(*given, Witness(int(inputs["targets"][row])), **settings)
            assert scores[row].item() == pytest.approx(restated, rel=2e-5)

    def test_its_product_is_of_columns_by_rows(self):
        inputs, weights = linear_inputs(height=12, width=12)
        true = inputs | {"maps": (weights / 3).repeat(6, 1, 1)}
        assert score("infidelity", {**INFIDELITY, "scaled": False}, true).max() < 1e-9
        assert score("infidelity_quantus", {**QUANTUS, "patch": 6}, true).min() > 1
        # A column of the map meets the row of the same number: only the map's column sums count.
        columns = true["maps"].mean(dim=1, keepdim=True).expand(-1, 12, -1)
        other = score("infidelity_quantus", {**QUANTUS, "patch": 6}, inputs | {"maps": columns})
        torch.testing.assert_close(other, score("infidelity_quantus", {**QUANTUS, "patch": 6}, true))

    def test_its_patches_stay_and_leave_the_last_pixels(self):
        inputs = square_inputs(rows=1)
        classifier = inputs["classifier"]
        seen = watch(classifier)
        score("infidelity_quantus", QUANTUS, inputs)
        images = torch.cat(seen)[:9]
        changed = ((images - inputs["images"]).abs() > 1e-4).any(dim=1)
        assert changed[0].nonzero().tolist() == [[0, 0]], "the first patch of 4 x 4 is one pixel"
        assert all((after | ~before).all() for before, after in pairwise(changed))
        assert not changed[:, -3:].any()
        assert not changed[:, :, -3:].any()
        assert changed[-1, :-3, :-3].float().mean() > 0.95

    def test_it_needs_squares_that_patches_divide(self):
        with pytest.raises(Unsupported, match="needs square images; these are 18 pixels high, 12 wide"):
            score("infidelity_quantus", QUANTUS, make_inputs(rows=1))
        with pytest.raises(
            ValueError, match="infidelity_quantus: patch is 5, expected a divisor of the image's side, 12"
        ):
            score("infidelity_quantus", {**QUANTUS, "patch": 5}, square_inputs())

    def test_passes(self):
        inputs = square_inputs()
        score("infidelity_quantus", QUANTUS, inputs)
        score("infidelity_quantus", QUANTUS, inputs | {"maps": inputs["maps"].flip(1)})
        assert counted(inputs["classifier"]) == (6 * (1 + 9), 0)

    def test_a_broken_map_has_no_score(self):
        inputs = square_inputs()
        inputs["maps"] = inputs["maps"].clone()
        inputs["maps"][3, 0, 0], inputs["maps"][4, 0, 0] = torch.nan, torch.inf
        assert score("infidelity_quantus", QUANTUS, inputs).isnan().tolist() == [False] * 3 + [True] * 2 + [False]


def at_once(maps, classes, threshold):
    """Sufficiency of finite maps with all of them in memory."""
    whole = maps.isfinite().flatten(1).all(dim=1)
    sizes = maps[whole].flatten(1).double().abs()
    largest = sizes.amax(dim=1, keepdim=True)
    known = sizes / largest.where(largest > 0, 1.0)
    varied = (known != known[:1]).any(dim=0)
    alike = known[:, varied] / known[:, varied].std(dim=0, correction=0)
    distances = torch.cdist(alike, alike, compute_mode="donot_use_mm_for_euclid_dist")
    near = (distances / distances.max() <= threshold).fill_diagonal_(False)
    scores = torch.full((len(maps),), torch.nan)
    scores[whole] = (near & (classes[whole][:, None] == classes[whole])).sum(dim=1) / near.sum(dim=1)
    return scores


class TestSufficiency:
    def set_of(self, maps, classes):
        """Return the inputs of a set whose classes are predicted: a red, green or blue image of each."""
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        made = nn.Sequential(OrderedDict(features=nn.Sequential(nn.Identity()), head=head))
        images = torch.zeros(len(maps), 3, *maps.shape[1:])
        images[range(len(maps)), classes] = 1
        classifier = make_classifier(made, mean=[0.0] * 3, std=[1.0] * 3)
        return {"all_maps": maps, "all_images": images, "classifier": classifier, "positions": list(range(len(maps)))}

    def test_two_groups_of_maps(self):
        maps = torch.zeros(6, 2, 3)
        maps[:3, 0], maps[3:, 1] = 1, 1
        maps += torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(1)) / 100
        scores = score("sufficiency", {"threshold": 0.5}, self.set_of(maps, [0, 0, 1, 2, 2, 2]))
        assert scores.tolist() == [0.5, 0.5, 0, 1, 1, 1]
        everyone = score("sufficiency", {"threshold": 1.0}, self.set_of(maps, [0, 0, 1, 2, 2, 2]))
        torch.testing.assert_close(everyone, torch.tensor([1, 1, 0, 2, 2, 2]) / 5)

    def test_it_is_its_loops(self):
        draw = torch.Generator().manual_seed(4)
        maps = torch.rand(30, 5, 4, generator=draw) * torch.rand(5, 4, generator=draw) * 100
        maps[:, 2] += torch.rand(30, 1, generator=draw) * 200
        classes = torch.randint(3, (30,), generator=draw).tolist()
        for threshold in (0.5, 0.6, 0.7):
            scores = score("sufficiency", {"threshold": threshold}, self.set_of(maps, classes))
            restated = torch.tensor(slow.sufficiency(maps.numpy(), classes, threshold)).float()
            torch.testing.assert_close(scores, restated, equal_nan=True)
        assert 0 < score("sufficiency", {"threshold": 0.5}, self.set_of(maps, classes)).isnan().sum() < 30

    def test_batches_see_the_whole_set(self):
        inputs = make_inputs()
        together = score("sufficiency", {"threshold": 0.6}, inputs)
        parts = [score("sufficiency", {"threshold": 0.6}, take(inputs, range(at, at + 16))) for at in (0, 16, 32, 48)]
        assert same(torch.cat(parts), together)
        assert len(together[~together.isnan()].unique()) > 3

    def test_a_constant_pixel_is_left_out(self):
        maps = torch.rand(12, 3, 3, generator=torch.Generator().manual_seed(2))
        classes = [0, 1, 2] * 4
        plain = score("sufficiency", {"threshold": 0.8}, self.set_of(maps, classes))
        padded = score("sufficiency", {"threshold": 0.8}, self.set_of(nn.functional.pad(maps, (0, 1)), classes))
        assert plain.isfinite().any()
        assert plain.nan_to_num().max() > 0
        assert same(plain, padded)

    def test_without_a_neighbor_it_is_undefined(self):
        maps = torch.rand(5, 3, 3, generator=torch.Generator().manual_seed(2))
        assert score("sufficiency", {"threshold": 0.0}, self.set_of(maps, [0, 0, 0, 0, 0])).isnan().all()
        assert score("sufficiency", {"threshold": 0.9}, self.set_of(maps[:1], [0])).isnan().all()
        assert score("sufficiency", {"threshold": 0.9}, self.set_of(maps[:1].repeat(4, 1, 1), [0] * 4)).isnan().all()

    def test_a_broken_map_is_no_one_s_neighbor(self):
        maps = torch.rand(9, 3, 3, generator=torch.Generator().manual_seed(2))
        classes = [0, 1, 2] * 3
        expected = score("sufficiency", {"threshold": 0.8}, self.set_of(maps, classes))
        broken = torch.cat([maps, maps[:2]])
        broken[9, 0, 0], broken[10, 2, 2] = torch.nan, torch.inf
        found = score("sufficiency", {"threshold": 0.8}, self.set_of(broken, [*classes, 0, 0]))
        assert same(found[:9], expected)
        assert found[9:].isnan().all()
        assert score("sufficiency", {"threshold": 0.8}, self.set_of(broken[9:], [0, 0])).isnan().all()

    def test_the_set_is_looked_at_once_for_all_maps_and_batches(self, monkeypatch):
        inputs, measured = make_inputs(rows=20), []
        cdist = torch.cdist
        monkeypatch.setattr(neighbors.torch, "cdist", lambda *args, **how: measured.append(1) or cdist(*args, **how))
        for maps in (inputs["maps"], inputs["maps"].flip(1)):
            for at in (0, 10):
                score("sufficiency", {"threshold": 0.6}, take(inputs | {"all_maps": maps}, range(at, at + 10)))
        assert len(measured) == 2
        assert counted(inputs["classifier"]) == (20, 0)

    @pytest.mark.parametrize("block", [1, 500, 7000])
    def test_maps_are_compared_in_blocks(self, block, monkeypatch):
        """Bit for bit what all maps at once give."""
        inputs, sizes = make_inputs(rows=40), []
        maps = inputs["all_maps"].clone()
        maps[:, 0], maps[9], maps[20] = 1.0, maps[8], torch.inf
        given = inputs | {"all_maps": maps}
        cdist = torch.cdist

        def measured(one, other, **how):
            sizes.append(max(one.numel(), other.numel()))
            return cdist(one, other, **how)

        for threshold in (0.4, 0.6, 0.8):
            expected = at_once(maps, inputs["classifier"].logits(inputs["images"]).argmax(1), threshold)
            monkeypatch.setattr(neighbors, "BLOCK", block)
            monkeypatch.setattr(neighbors.torch, "cdist", measured)
            found = score("sufficiency", {"threshold": threshold}, given)
            monkeypatch.undo()
            batch_cache.forget()
            assert same(found, expected)
            assert 10 < found.isfinite().sum() < 40
        assert max(sizes) <= max(block, HEIGHT * WIDTH)

    def test_images_are_in_memory_a_batch_at_a_time(self):
        inputs, alive = make_inputs(rows=40), weakref.WeakSet()

        def read(start, stop):
            assert not alive
            part = inputs["all_images"][start:stop].clone()
            assert len(part) <= inputs["classifier"].batch
            alive.add(part)
            return part

        lazy = LazyImages(tuple(inputs["all_images"].shape), read)
        found = score("sufficiency", {"threshold": 0.6}, inputs | {"all_images": lazy})
        assert same(found, score("sufficiency", {"threshold": 0.6}, inputs))
        assert found.isfinite().any()

    def test_a_threshold_is_a_share(self):
        with pytest.raises(ValueError, match=r"sufficiency: threshold is 1\.5, expected 0 to 1"):
            score("sufficiency", {"threshold": 1.5}, make_inputs(rows=2))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("faithfulness_estimate", SLOW["faithfulness_estimate"][0]),
        ("irof", {**IROF, "form": "quantus"}),
        ("infidelity", SLOW["infidelity"][0]),
        ("infidelity", {**INFIDELITY, "output": "probability", "baseline": "mean"}),
        ("infidelity_quantus", {"patch": 4, "samples": 2, "baseline": "uniform"}),
    ],
    ids=["estimate", "irof", "infidelity drawn", "infidelity", "infidelity_quantus"],
)
def test_a_row_knows_no_other(name, settings):
    inputs = square_inputs(16) if name == "infidelity_quantus" else make_inputs(16)
    assert_batch_independent(partial(score, name, settings), inputs)


@pytest.mark.parametrize("name", ["faithfulness_estimate", "irof", "infidelity"])
def test_metrics_share_the_clean_image(name):
    inputs = make_inputs(rows=3)
    score("faithfulness_estimate", {**ESTIMATE, "pixels": 216}, inputs)
    before = counted(inputs["classifier"])[0]
    settings = {"faithfulness_estimate": ESTIMATE, "irof": IROF, "infidelity": {**INFIDELITY, "patch": 18}}[name]
    score(name, settings, inputs)
    segments = _segments.segmented(inputs["images"], 9, 10.0, 1.0).amax(dim=(1, 2))
    own = {"faithfulness_estimate": 3 * 7, "irof": int(segments.sum()) + 1, "infidelity": 3}[name]
    assert counted(inputs["classifier"])[0] - before == own
    assert np.isfinite(own)
