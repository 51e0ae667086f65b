"""Check the solver of imputation against SciPy and closed forms, and the metrics against pytorch-grad-cam."""

from functools import partial

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road as peer
from pytorch_grad_cam.metrics.perturbation_confidence import RemoveMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torch import nn

from atlas.metrics.shared.curves import target_probability
from atlas.metrics.shared.imputed import imputed
from atlas.study import params
from atlas.study.errors import UserError
from atlas.study.seeds import normal
from tests.support.metrics import (
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    call,
    counted,
    make_classifier,
    make_inputs,
    network,
    same,
    take,
)
from tests.support.reference import imputation as slow

SETTINGS = {"shares": [0.3, 0.7], "noise": 0.01}
PIXELS = HEIGHT * WIDTH

road = partial(call, "imputation", "road")


def draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def removed_at(share, height, width, sigma):
    """Remove a share of pixels: scattered, or, of a smooth map, whole regions."""
    one = gaussian_filter(draw(height, width).numpy(), sigma)
    count = min(round(share * height * width), height * width - 1)
    return torch.from_numpy(one.ravel().argsort().argsort() < count).view(1, height, width)


def seen_by(classifier, judged):
    """Return the images on which a classifier is asked while something is judged."""
    seen, looked = [], classifier.logits
    classifier.logits = lambda images: seen.append(images) or looked(images)
    judged()
    return torch.cat(seen)


class TestSolver:
    @pytest.mark.parametrize("sigma", [0, 4], ids=["scattered", "regions"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    @pytest.mark.parametrize(("height", "width"), [(18, 12), (33, 50), (7, 1)])
    def test_it_is_the_solution_of_the_system(self, height, width, share, sigma):
        images, removed = draw(1, 3, height, width), removed_at(share, height, width, sigma)
        expected = torch.from_numpy(slow.imputed(images[0].numpy(), removed[0].numpy())).float()
        torch.testing.assert_close(imputed(images, removed)[0], expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("sigma", [0, 8], ids=["scattered", "regions"])
    def test_pytorch_grad_cam_solves_the_same_system(self, sigma):
        images, removed = draw(1, 3, 64, 48), removed_at(0.6, 64, 48, sigma)
        assert removed[0, 0].any(), "the border's weights are in it"
        expected = peer.NoisyLinearImputer(noise=0)(images[0], 1 - removed[0].float())
        torch.testing.assert_close(imputed(images, removed)[0], expected, rtol=0, atol=1e-5)

    def test_a_constant_image_is_restored_exactly(self):
        images = torch.tensor([0.1, 0.7, 1.0]).view(1, 3, 1, 1).expand(1, 3, 30, 20).contiguous()
        assert torch.equal(imputed(images, removed_at(0.8, 30, 20, 3)), images)

    def test_a_slope_is_restored_inside(self):
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij")
        images = torch.stack([y / 40, x / 30, (2 * x + y) / 100])[None]
        removed = torch.zeros(1, 40, 30, dtype=torch.bool)
        removed[:, 1:-1, 1:-1] = True
        torch.testing.assert_close(imputed(images, removed), images, rtol=0, atol=1e-5)

    def test_one_pixel_between_eight(self):
        images, removed = torch.zeros(1, 1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.bool)
        images[0, 0, 0], images[0, 0, 1, 1] = torch.tensor([0.12, 0.6, 0.24]), 0.9
        removed[0, 1, 1] = True
        assert imputed(images, removed)[0, 0, 1, 1].item() == pytest.approx(0.12 / 12 + 0.6 / 6 + 0.24 / 12)
        removed[:] = False
        removed[0, 0, 0] = True
        assert imputed(images, removed)[0, 0, 0, 0].item() == pytest.approx((0.6 / 6 + 0.9 / 12) / (5 / 12))

    def test_nothing_is_invented(self):
        images = draw(3, 3, 40, 30)
        removed = torch.cat([removed_at(share, 40, 30, 3) for share in (0.3, 0.6, 0.9)])
        filled = imputed(images, removed)
        kept = (~removed)[:, None].expand_as(images)
        assert torch.equal(filled[kept], images[kept])
        for image, one, hole in zip(images, filled, removed, strict=True):
            assert (one[:, hole].amax(dim=1) <= image[:, ~hole].amax(dim=1) + 1e-5).all()
            assert (one[:, hole].amin(dim=1) >= image[:, ~hole].amin(dim=1) - 1e-5).all()

    def test_of_one_pixel_left_all_have_the_color(self):
        images, removed = draw(1, 3, 50, 31), torch.ones(1, 50, 31, dtype=torch.bool)
        removed[0, 49, 3] = False
        assert torch.equal(imputed(images, removed), images[:, :, 49:, 3:4].expand_as(images))

    def test_of_two_pixels_left_all_lie_between(self):
        images, removed = draw(1, 1, 50, 31), torch.ones(1, 50, 31, dtype=torch.bool)
        removed[0, 49, 3] = removed[0, 2, 20] = False
        expected = slow.imputed(images[0].numpy(), removed[0].numpy())
        torch.testing.assert_close(imputed(images, removed)[0], torch.from_numpy(expected).float(), rtol=0, atol=1e-5)

    def test_nothing_removed(self):
        images = draw(2, 3, 9, 8)
        assert torch.equal(imputed(images, torch.zeros(2, 9, 8, dtype=torch.bool)), images)

    def test_easy_and_hard_systems_do_not_know_each_other(self):
        shares = [0.0, 0.1, 0.9, 0.5, 0.999, 0.3]
        images = draw(12, 3, 33, 20)
        removed = torch.cat([removed_at(share, 33, 20, sigma) for share in shares for sigma in (0, 4)])
        together = imputed(images, removed)
        for size in (1, 5):
            parts = zip(images.split(size), removed.split(size), strict=True)
            assert torch.equal(torch.cat([imputed(*part) for part in parts]), together), f"{size} at a time"
        assert torch.equal(imputed(images.flip(0), removed.flip(0)).flip(0), together)


class TestRoad:
    def test_pytorch_grad_cam_has_the_same_scores(self, monkeypatch):
        monkeypatch.setattr(peer.NoisyLinearImputer.__init__, "__defaults__", (0, peer.neighbors_weights))
        inputs = take(make_inputs(), [0, 1, 4, 8, 9, 12])
        maps = torch.randn(6, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))
        targets = [ClassifierOutputSoftmaxTarget(int(target)) for target in inputs["targets"]]
        # Its network sees normalized images, which imputation does not mind; its percentiles are what is kept.
        normalized = (inputs["images"] - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        expected = peer.ROADCombined([30, 70])(normalized, maps.numpy(), targets, network().eval())
        scores = road({"shares": [0.7, 0.3], "noise": 0.0}, {**inputs, "maps": maps})
        assert np.abs(expected).max() > 0.01
        torch.testing.assert_close(scores, torch.from_numpy(expected), rtol=0, atol=2e-5)

    def test_pytorch_grad_cam_removes_all_that_is_tied(self):
        plateau = torch.zeros(4, 4)
        plateau[0, 0] = -1
        kept = RemoveMostRelevantFirst(50, lambda image, mask: mask)(None, plateau)
        assert kept.sum() == 1, "of 16, where 8 are asked for"
        inputs = make_inputs(rows=3)
        seen = seen_by(
            inputs["classifier"],
            lambda: call(
                "imputation",
                "road_morf",
                {"shares": [0.5], "noise": 0.01},
                {**inputs, "maps": inputs["maps"] * 0, "seeds": [7, 7, 8]},
            ),
        )
        changed = (seen != inputs["images"]).any(dim=1)
        assert changed.sum(dim=(1, 2)).tolist() == [PIXELS // 2] * 3
        assert torch.equal(changed[0], changed[1])
        assert not torch.equal(changed[0], changed[2])

    def test_quantus_knows_the_first_batch_alone(self):
        inputs = make_inputs(rows=24)  # three batches of the classifier
        scores = road(SETTINGS, inputs)
        assert len(scores[~scores.isnan()].unique()) > 20
        changed = inputs["targets"].clone()
        changed[20:] = (changed[20:] + 1) % 4
        others = road(SETTINGS, {**inputs, "targets": changed})
        assert same(others[:20], scores[:20])
        assert (others[20:] != scores[20:]).all()

    def test_quantus_cannot_judge_color_images(self):
        inputs = take(make_inputs(), [0, 1])
        seen = seen_by(inputs["classifier"], lambda: road(SETTINGS, inputs)).view(2, 2, 2, 3, HEIGHT, WIDTH)
        changed = seen != inputs["images"][:, None]
        assert torch.equal(changed.any(dim=3), changed.all(dim=3)), "all channels of a pixel"
        assert changed.any(dim=3).sum(dim=(3, 4)).eq(torch.tensor([65, 151])).all(), "of the pixels, not the channels"

    def test_the_most_relevant_go_first(self):
        inputs = take(make_inputs(), [0, 4])
        for name, largest in (("road_morf", True), ("road_lerf", False)):
            inputs["classifier"] = make_classifier(network())
            judged = partial(call, "imputation", name, {"shares": [0.25], "noise": 0.01}, inputs)
            changed = (seen_by(inputs["classifier"], judged) != inputs["images"]).any(dim=1)
            expected = inputs["maps"].flatten(1).topk(54, largest=largest).indices
            assert changed.flatten(1).gather(1, expected).all()
            assert changed.sum(dim=(1, 2)).eq(54).all()

    def test_the_opposite_map_has_the_opposite_score(self):
        inputs = take(make_inputs(), [0, 4, 8, 12])  # without equal values
        opposite = {**inputs, "maps": -inputs["maps"]}
        assert torch.equal(road(SETTINGS, opposite), -road(SETTINGS, inputs))
        first, last = (call("imputation", name, SETTINGS, inputs) for name in ("road_morf", "road_lerf"))
        assert torch.equal(call("imputation", "road_lerf", SETTINGS, opposite), first)
        torch.testing.assert_close(road(SETTINGS, inputs), (last - first) / 2)

    def test_an_image_of_one_color_loses_nothing(self):
        inputs = make_inputs(rows=3)
        inputs["images"] = inputs["images"][:, :, :1, :1].expand(-1, -1, HEIGHT, WIDTH).contiguous()
        clean = target_probability(inputs["classifier"], inputs["images"], inputs["targets"])
        quiet = {"shares": [0.2, 0.8], "noise": 0.0}
        assert road(quiet, inputs).eq(0).all()
        torch.testing.assert_close(call("imputation", "road_morf", quiet, inputs), clean)

    def test_a_map_of_what_matters_beats_its_opposite(self):
        # The class is the brightness of a square: filled in from around it, a white square on black is gone.
        mix, head = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(PIXELS, 2, bias=False)
        square = torch.zeros(HEIGHT, WIDTH)
        square[5:11, 3:9] = 1
        nn.init.constant_(mix.weight, 1 / 3)
        head.weight.data = torch.stack([square.flatten(), torch.zeros(PIXELS)])
        made = nn.Sequential()
        made.add_module("features", nn.Sequential(mix))
        made.add_module("head", nn.Sequential(nn.Flatten(), head))
        inputs = {
            "maps": square[None],
            "images": square.expand(1, 3, -1, -1).contiguous(),
            "targets": torch.tensor([0]),
            "classifier": make_classifier(made, mean=[0.0] * 3, std=[1.0] * 3),
            "seeds": [3],
        }
        quiet = {"shares": [36 / PIXELS], "noise": 0.0}
        assert call("imputation", "road_morf", quiet, inputs).item() == pytest.approx(0.5)
        assert call("imputation", "road_lerf", quiet, inputs).item() == pytest.approx(1)
        assert road(quiet, inputs).item() == pytest.approx(0.25)

    def test_noise_is_that_of_the_image_and_the_number_of_pixels(self):
        inputs = take(make_inputs(), [0, 4])
        classifier, images = inputs["classifier"], inputs["images"]

        def filled(shares, noise):
            watched = make_classifier(network())
            given = {**inputs, "classifier": watched}
            settings = {"shares": shares, "noise": noise}
            return seen_by(watched, lambda: call("imputation", "road_morf", settings, given))

        quiet, loud = filled([0.5], 0.0), filled([0.5], 0.2)
        changed = (loud != images).any(dim=1, keepdim=True)
        drawn = normal(inputs["seeds"], "road", PIXELS // 2, tuple(images.shape[1:]))
        torch.testing.assert_close(loud - quiet, changed * drawn * 0.2 * torch.tensor(STD).view(3, 1, 1))
        assert torch.equal(filled([0.1, 0.5], 0.2).view(2, 2, *images.shape[1:])[:, 1], loud)
        assert classifier.passes["forward"] == 0

    @pytest.mark.parametrize("share", [0.99, 0.9999])
    def test_nearly_all_removed(self, share):
        inputs = take(make_inputs(), [0, 1, 2, 3])
        judged = partial(call, "imputation", "road_morf", {"shares": [share], "noise": 0.0}, inputs)
        seen = seen_by(inputs["classifier"], judged)
        same_as = (seen == inputs["images"]).all(dim=1).sum(dim=(1, 2))
        assert same_as.tolist() == [2 if share == 0.99 else 1] * 4
        if share == 0.9999:
            assert torch.equal(seen, seen[:, :, :1, :1].expand_as(seen))
        assert judged().isfinite().all()

    def test_passes(self):
        inputs = make_inputs(rows=10)
        settings = {"shares": [0.1, 0.5, 0.9], "noise": 0.01}
        passes = partial(counted, inputs["classifier"])
        call("imputation", "road_morf", settings, inputs)
        assert passes() == (10 * 3, 0)
        road(settings, inputs)
        assert passes() == (10 * 2 * 3, 0)
        call("imputation", "road_lerf", settings, inputs)
        road(settings, inputs)
        assert passes() == (10 * 2 * 3, 0)

    def test_a_broken_map_costs_nothing(self):
        inputs = take(make_inputs(), [11])
        inputs["classifier"] = make_classifier(network())
        for name in ("road", "road_morf", "road_lerf"):
            assert call("imputation", name, SETTINGS, inputs).isnan().all()
        assert counted(inputs["classifier"]) == (0, 0)

    @pytest.mark.parametrize("shares", [[], [0.0], [0.5, 1.0], [-0.1], [float("nan")]])
    def test_shares_lie_between_none_and_all(self, shares):
        with pytest.raises(ValueError, match=r"road: shares is .*, expected numbers above 0 and below 1"):
            road({"shares": shares, "noise": 0.01}, make_inputs(rows=2))

    def test_noise_is_not_negative(self):
        with pytest.raises(ValueError, match=r"road: noise is -0\.1, expected 0 or more"):
            road({"shares": [0.5], "noise": -0.1}, make_inputs(rows=2))

    def test_shares_are_a_list_of_numbers(self):
        entry = partial(params.entry, "metrics", "imputation", "road", where="metrics.imputation.road")
        assert entry({"shares": [0.5], "noise": 0.0}).settings["shares"] == [0.5]
        for wrong in (0.5, ["half"]):
            with pytest.raises(UserError, match=r"shares.*expected list\[float\]"):
                entry({"shares": wrong, "noise": 0.0})
