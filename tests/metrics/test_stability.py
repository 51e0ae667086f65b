"""Check the metrics that look at maps of noisy samples: formulas in loops, known answers, what is shared, faults."""

import inspect
import weakref
from functools import partial

import numpy as np
import pytest
import torch

from atlas.metrics import stability, stability_variants
from atlas.metrics.shared import perturbed
from atlas.metrics.shared.rows import by_row
from atlas.model.lazy_images import LazyImages
from tests.support.metrics import (
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    Witness,
    call,
    counted,
    explain,
    linear,
    make_inputs,
    same,
    take,
)
from tests.support.reference import stability as slow

UNIFORM = {"samples": 3, "noise": "uniform", "scale": 0.4}
GAUSSIAN = {"samples": 2, "noise": "gaussian", "scale": 0.2}
RELATIVE = {**UNIFORM, "floor": 0.05}
SETTINGS = {
    "max_sensitivity": UNIFORM,
    "avg_sensitivity": UNIFORM,
    "local_lipschitz": GAUSSIAN,
    "relative_input_stability": RELATIVE,
    "relative_output_stability": RELATIVE,
    "relative_representation_stability": {**RELATIVE, "layer": "final"},
}
QUANTUS = {"samples": 3, "low": 0.02, "high": 0.2}
BY_COMPANY = {"samples": 2, "noise": "gaussian", "scale": 0.2}
RELATIVES = [name for name in SETTINGS if name.startswith("relative")]


class Method(Witness):
    """The method under test, written out on the bare network."""

    def map(self, image, seed):
        image = torch.from_numpy(np.float32(image)).requires_grad_()
        (gradient,) = torch.autograd.grad(self._logits(image)[0, self.target], image)
        one = gradient.abs().sum(dim=0).numpy()
        return np.ones_like(one) if seed % 7 == 0 else one

    def logits(self, image):
        return self._logits(torch.from_numpy(np.float32(image)))[0].detach().numpy()

    def features(self, image):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return self.network.features(((torch.from_numpy(np.float32(image)) - mean) / std)[None])[0].detach().numpy()


def score(function, inputs, settings):
    family = "stability_variants" if function.endswith("quantus") else "stability"
    return call(family, function, settings, inputs)


def by(method, inputs):
    """Return inputs with another method, whose maps of the images are those judged."""
    return {**inputs, "explain": method, "maps": method(*(inputs[name] for name in ASKED))}


ASKED = ("classifier", "images", "targets", "seeds")


def grown(share):
    """Return a method whose map of a sample is so much larger than that of the image, and has no small values."""
    calls = []

    def method(classifier, images, targets, seeds):
        calls.append(len(images))
        one = 1 + torch.arange(HEIGHT * WIDTH).view(1, HEIGHT, WIDTH) / (HEIGHT * WIDTH)
        return (1 if len(calls) == 1 else 1 + share) * one.repeat(len(images), 1, 1)

    return method


@pytest.fixture
def inputs():
    return make_inputs(rows=12)


@pytest.mark.parametrize(("function", "settings"), [*SETTINGS.items(), ("relative_input_stability_quantus", QUANTUS)])
def test_it_equals_the_formula_in_loops(function, settings, inputs):
    scores = score(function, inputs, settings)
    for row in range(12):
        maps, images = inputs["maps"][row].numpy(), inputs["images"][row].numpy()
        given = maps, images, inputs["seeds"][row], Method(int(inputs["targets"][row]))
        expected = torch.tensor(getattr(slow, function)(*given, **settings)).float()
        torch.testing.assert_close(scores[row], expected, rtol=2e-4, atol=2e-6, equal_nan=True)
    assert scores.isfinite().sum() >= 3


def test_what_is_compared_with_all_images_equals_the_formula_in_loops():
    inputs = make_inputs(rows=10)
    scores = score("local_lipschitz_quantus", inputs, BY_COMPANY)
    witnesses = [Method(int(target)) for target in inputs["targets"]]
    given = inputs["maps"].numpy(), inputs["images"].numpy(), inputs["seeds"], witnesses
    expected = torch.tensor(slow.local_lipschitz_quantus(*given, **BY_COMPANY)).float()
    torch.testing.assert_close(scores, expected, rtol=2e-4, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("settings", [BY_COMPANY, {"samples": 5, "noise": "uniform", "scale": 0.3}])
def test_samples_of_all_images_are_in_memory_a_batch_at_a_time(settings):
    """Bit for bit what all samples at once give."""
    inputs, alive, sizes = make_inputs(rows=30), weakref.WeakSet(), []

    def at_once():
        samples, noise, scale = settings.values()
        given = [inputs[name] for name in ("classifier", "images", "targets", "seeds")]
        made = perturbed.NoisySamples(*given, samples, noise, *perturbed.ends(noise, scale))
        again = made.maps(explain)
        largest = again.abs().amax((0, 2, 3))[:, None, None]

        def apart(one, others):
            return perturbed.distances(one / one.abs().max(), others / largest)

        return perturbed.settled(by_row(apart, inputs["maps"], again) / (made.apart() + 1e-10)).amax(dim=1)

    def read(start, stop):
        part = inputs["images"][start:stop].clone()
        alive.add(part)
        sizes.append(sum(map(len, alive)))
        return part

    def method(classifier, images, targets, seeds):
        """As methods are called: a batch at a time."""
        assert len(images) == len(targets) == len(seeds) == 30 * settings["samples"]
        parts = [slice(at, at + classifier.batch) for at in range(0, len(images), classifier.batch)]
        return torch.cat([explain(classifier, images[one], targets[one], seeds[one]) for one in parts])

    lazy = LazyImages(tuple(inputs["images"].shape), read)
    found = score("local_lipschitz_quantus", inputs | {"all_images": lazy, "explain": method}, settings)
    assert same(found, at_once())
    assert found.isfinite().sum() > 20
    assert max(sizes) <= inputs["classifier"].batch


@pytest.mark.parametrize(
    ("function", "settings"),
    [("relative_input_stability_quantus", QUANTUS), ("local_lipschitz_quantus", BY_COMPANY)],
)
def test_a_variants_row_is_the_same_in_any_batch_and_order(function, settings):
    inputs = make_inputs(rows=20)
    inputs["maps"][11] = 1.0  # not finite
    inputs["all_maps"] = inputs["maps"]
    together = score(function, inputs, settings)
    for rows in (1, 7):
        parts = [
            score(function, take(inputs, list(range(at, min(at + rows, 20)))), settings) for at in range(0, 20, rows)
        ]
        assert same(torch.cat(parts), together)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2)).tolist()
    assert same(score(function, take(inputs, order), settings), together[order])


def test_features_and_logits_of_copies_take_one_pass():
    alone, batch = make_inputs(rows=12), make_inputs(rows=12)
    settings = {**SETTINGS["relative_representation_stability"], **UNIFORM}
    passes = partial(counted, alone["classifier"])
    found = score("relative_representation_stability", alone, settings)
    assert passes() == (2 * 12 + 2 * 12 * 3, 12 * 3), "logits and features of images; samples, and their maps"
    score("relative_output_stability", batch, {**RELATIVE, **UNIFORM})
    assert same(score("relative_representation_stability", batch, settings), found)


class TestKnownAnswers:
    @pytest.mark.parametrize("function", SETTINGS)
    def test_a_map_that_does_not_depend_on_the_image_is_perfectly_stable(self, function, inputs):
        found = score(function, by(grown(0), inputs), SETTINGS[function])
        assert found[found.isfinite()].eq(0).all()
        assert found.isfinite().any()

    def test_a_map_that_grows_by_a_share_changes_by_that_share(self, inputs):
        for function in ("max_sensitivity", "avg_sensitivity"):
            found = score(function, by(grown(0.25), inputs), UNIFORM)
            torch.testing.assert_close(found, torch.full((12,), 0.25))

    def test_a_pattern_that_stays_is_stable_whatever_its_size(self, inputs):
        assert score("local_lipschitz", by(grown(0.25), inputs), UNIFORM).lt(1e-6).all()

    def test_a_relative_change_is_divided_by_that_of_what_is_moved(self):
        weights = torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
        inputs = {**make_inputs(rows=5), "classifier": linear(weights)}
        one = {"samples": 1, "noise": "uniform", "scale": 0.01, "floor": 0.3}
        seen = []

        def method(classifier, images, targets, seeds):
            seen.append(images)
            return inner(classifier, images, targets, seeds)

        inner = grown(0.5)
        given = by(method, inputs)
        found = {name: score(name, given, one) for name in RELATIVES[:2]}
        found["input"] = score("relative_representation_stability", given, {**one, "layer": "input"})
        clean, noisy = seen
        logits = ((noisy - clean).mean(dim=1) * weights).sum(dim=(1, 2)).abs()
        least = torch.maximum(clean, 0.3 * clean.amax((1, 2, 3), keepdim=True))
        of_inputs = ((noisy - clean) / least).square().mean(dim=(1, 2, 3)).sqrt()
        torch.testing.assert_close(found["relative_output_stability"], 0.5 / logits, rtol=1e-3, atol=0)
        torch.testing.assert_close(found["relative_input_stability"], 0.5 / of_inputs, rtol=1e-3, atol=0)
        # Black has mean 0 and standard deviation 1: the layer `input` holds intensities.
        torch.testing.assert_close(found["input"], 0.5 / of_inputs, rtol=1e-3, atol=0)

    def test_the_mean_is_at_most_the_maximum(self, inputs):
        largest, mean = (score(name, inputs, UNIFORM) for name in ("max_sensitivity", "avg_sensitivity"))
        defined = largest.isfinite()
        assert (mean <= largest * (1 + 1e-6))[defined].all()
        assert (mean < largest).sum() > 5
        once = {**UNIFORM, "samples": 1}
        largest, mean = (score(name, inputs, once) for name in ("max_sensitivity", "avg_sensitivity"))
        assert same(mean, largest)

    @pytest.mark.parametrize("function", [*SETTINGS, "local_lipschitz_quantus"])
    @pytest.mark.parametrize("scale", [2.0**-10, 1e-25])
    def test_the_scale_of_a_methods_maps_is_nothing(self, function, scale, inputs):
        settings = SETTINGS.get(function, BY_COMPANY)
        inputs = by(explain, inputs)
        smaller = by(lambda *asked: scale * explain(*asked), inputs)
        given = [{**one, "all_maps": one["maps"]} for one in (inputs, smaller)]
        found = [score(function, one, settings) for one in given]
        assert found[0].isfinite().any()
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6, equal_nan=True)

    def test_more_noise_changes_more(self, inputs):
        given = by(explain, inputs)
        little, much = (score("avg_sensitivity", given, {**UNIFORM, "scale": scale}) for scale in (0.01, 0.5))
        assert (little <= much)[little.isfinite()].all()
        assert (little < much).any()


class TestCopies:
    def asked(self, settings, rows=5, function="max_sensitivity"):
        seen = []

        def method(*asked):
            seen.append(asked)
            return explain(*asked)

        inputs = {**make_inputs(rows=rows), "explain": method}
        score(function, inputs, settings)
        return inputs, seen[0]

    def test_they_are_asked_about_at_once_each_with_its_images_target_and_seed(self):
        inputs, (classifier, images, targets, seeds) = self.asked(UNIFORM)
        assert classifier is inputs["classifier"]
        assert images.shape == (15, 3, HEIGHT, WIDTH)
        assert targets.tolist() == inputs["targets"].tolist() * 3
        assert seeds == inputs["seeds"] * 3

    def test_their_noise_is_of_the_normalized_image(self):
        std = torch.tensor(STD).view(3, 1, 1)
        for settings in (UNIFORM, {**UNIFORM, "noise": "gaussian"}):
            inputs, (_, images, _, _) = self.asked(settings)
            noise = (images.unflatten(0, (3, 5)) - inputs["images"]) / std
            if settings["noise"] == "uniform":
                assert noise.abs().max() <= 0.4 * (1 + 1e-5)
                assert noise.std().item() == pytest.approx(0.4 / 3**0.5, rel=0.03)
            else:
                assert noise.std().item() == pytest.approx(0.4, rel=0.03)
            assert noise.mean().abs() < 0.02
            assert len(noise.flatten(2).sum(dim=2).unique()) == 15, "each sample has noise of its own"

    def test_a_draw_is_the_same_however_many_follow(self):
        few, many = (self.asked({**UNIFORM, "samples": samples})[1][1] for samples in (1, 3))
        assert torch.equal(many[:5], few)

    def test_passes(self, inputs):
        rows, samples, passes = 12, 3, partial(counted, inputs["classifier"])
        settings = {name: {**given, **UNIFORM} for name, given in SETTINGS.items()}
        score("max_sensitivity", inputs, settings["max_sensitivity"])
        assert passes() == (rows * samples, rows * samples), "the maps of the samples alone"
        for name in settings:
            score(name, inputs, settings[name])
        # Logits, and features, of the images and the samples.
        once = rows * samples + 2 * (rows + rows * samples)
        assert passes() == (once, rows * samples)
        other = {**inputs, "maps": inputs["maps"].flip(1), "explain": lambda *asked: explain(*asked)}
        for name in settings:
            score(name, other, settings[name])
        assert passes() == (once + rows * samples, 2 * rows * samples), "what does not depend on the map is had"

    def test_entries_of_many_noises_that_take_turns_make_each_methods_maps_once(self, inputs):
        noises = [
            {"samples": samples, "noise": noise, "scale": scale}
            for samples in (1, 2)
            for noise in ("uniform", "gaussian")
            for scale in (0.1, 0.2)
        ]
        asked = []

        def method(name):
            def explaining(classifier, images, targets, seeds):
                asked.append((name, images))
                return explain(classifier, images, targets, seeds)

            return explaining

        for name in ("a", "b"):
            given = {**inputs, "explain": method(name)}
            for noise in noises:
                for function in ("max_sensitivity", "avg_sensitivity", "local_lipschitz"):
                    score(function, given, noise)
        assert len(asked) == 2 * len(noises)
        ours, theirs = ([images for name, images in asked if name == which] for which in ("a", "b"))
        assert all(one is other for one, other in zip(ours, theirs, strict=True)), "the very same samples"

    def test_a_method_that_fails_is_asked_again(self, inputs):
        def failing(*asked):
            raise RuntimeError("no")

        for _ in range(2):
            with pytest.raises(RuntimeError, match="no"):
                score("max_sensitivity", {**inputs, "explain": failing}, UNIFORM)
        assert score("max_sensitivity", inputs, UNIFORM).isfinite().any()


class TestUndefined:
    @pytest.mark.parametrize("function", [*SETTINGS, "local_lipschitz_quantus"])
    def test_a_map_that_is_zero_everywhere(self, function, inputs):
        assert not inputs["maps"][6].any()
        inputs = {**inputs, "maps": inputs["maps"].nan_to_num(), "all_maps": inputs["maps"].nan_to_num()}
        found = score(function, inputs, SETTINGS.get(function, BY_COMPANY))
        assert found[6].isnan()
        assert found.isfinite().sum() >= 4

    @pytest.mark.parametrize("function", [*SETTINGS, "relative_input_stability_quantus"])
    @pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
    def test_a_copys_map_that_is_not_finite(self, function, broken, inputs):
        def method(*asked):
            maps = explain(*asked)
            maps[-12:, 2, 3] = broken  # of the last draw
            return maps

        settings = {**SETTINGS.get(function, QUANTUS)}
        settings |= {"scale": 1e-4} if "scale" in settings else {"low": 0.0, "high": 1e-4}
        found = score(function, {**inputs, "explain": method}, settings)
        assert score(function, inputs, settings).isfinite().any()
        assert found.isnan().all()

    def test_no_copy_is_of_the_predicted_class(self, inputs):
        """A linear classifier whose prediction any noise of one sign turns."""
        weights = torch.full((HEIGHT, WIDTH), 1.0)
        inputs = {**inputs, "images": torch.zeros(12, 3, HEIGHT, WIDTH), "classifier": linear(weights)}
        inputs["explain"] = lambda classifier, images, targets, seeds: images.sum(dim=1)
        noisy = {"samples": 2, "noise": "uniform", "scale": 0.1, "floor": 0.1}
        inputs["images"] += 1e-4  # just of class 0
        predicted = inputs["classifier"].logits(inputs["images"]).argmax(dim=1)
        assert predicted.eq(0).all()
        scores = score("relative_output_stability", inputs, noisy)
        few = score("relative_output_stability", inputs, {**noisy, "samples": 1})
        assert scores.isnan().sum() > 0
        assert few.isnan().sum() > scores.isnan().sum(), "one sample that counts is enough"

    def test_a_copy_that_does_not_change_the_output_does_not_count(self, inputs):
        inputs = {**inputs, "classifier": linear(torch.zeros(HEIGHT, WIDTH))}
        inputs["explain"] = lambda classifier, images, targets, seeds: images.sum(dim=1)
        assert score("relative_output_stability", inputs, RELATIVE).isnan().all()
        assert score("relative_input_stability", inputs, RELATIVE).isfinite().any()

    def test_a_black_image_has_no_relative_change(self, inputs):
        inputs = {**inputs, "images": inputs["images"].clone()}
        inputs["images"][0] = 0
        assert score("relative_input_stability", inputs, {**RELATIVE, "scale": 1e-4})[0].isnan()

    def test_a_new_map_that_is_zero_everywhere_stays_that(self, inputs):
        inputs = {**inputs, "explain": lambda classifier, images, *_: torch.zeros_like(images[:, 0])}
        found = score("local_lipschitz", inputs, GAUSSIAN)
        assert found[0].isfinite()
        assert found[0] > 0

    @pytest.mark.parametrize(
        ("function", "settings", "told"),
        [
            ("max_sensitivity", {**UNIFORM, "samples": 0}, "max_sensitivity: samples is 0, expected 1 or more"),
            ("avg_sensitivity", {**UNIFORM, "scale": 0.0}, "avg_sensitivity: scale is 0.0, expected more than 0"),
            ("local_lipschitz", {**UNIFORM, "scale": -1.0}, "local_lipschitz: scale is -1.0"),
            ("relative_input_stability", {**RELATIVE, "floor": 0.0}, "relative_input_stability: floor is 0.0"),
            ("relative_input_stability_quantus", {**QUANTUS, "low": 0.5}, "high - low is -0.3"),
            ("local_lipschitz_quantus", {**BY_COMPANY, "scale": 0.0}, "local_lipschitz_quantus: scale is 0.0"),
        ],
    )
    def test_settings_that_make_no_sense(self, function, settings, told, inputs):
        with pytest.raises(ValueError, match=told):
            score(function, inputs, settings)


class TestFaults:
    """What published code does wrong: the variants do it, the metrics do not."""

    def test_a_zero_pixel_in_ris(self):
        inputs = make_inputs(rows=4)
        whole = torch.ones(4, HEIGHT, WIDTH)
        hole = whole.clone()
        hole[:, 3, 4] = 0

        def ratio(function, settings):
            found = []
            for maps in (whole, hole):
                grown = {**inputs, "maps": maps, "explain": lambda *_, maps=maps: maps.repeat(4, 1, 1) + 0.01}
                found.append(score(function, grown, settings))
            return found[1] / found[0]

        noise = {"samples": 4, "noise": "uniform", "scale": 1e-3, "floor": 0.1}
        assert ratio("relative_input_stability", noise).sub(1).abs().max() < 0.3
        assert ratio("relative_input_stability_quantus", {"samples": 4, "low": 1e-4, "high": 1e-3}).min() > 1e4

    def test_one_changed_prediction_makes_no_image_undefined(self):
        inputs = make_inputs(rows=40)
        inputs["maps"] = inputs["maps"].nan_to_num(nan=1.0)
        settings = {**RELATIVE, "samples": 6}
        ours = score("relative_input_stability", inputs, settings)
        theirs = score("relative_input_stability_quantus", inputs, {"samples": 6, "low": -0.4, "high": 0.4})
        assert theirs.isnan().sum() > ours.isnan().sum()

    def test_one_sided_noise(self):
        seen = []

        def method(*asked):
            seen.append(asked[1])
            return explain(*asked)

        inputs = {**make_inputs(rows=4), "explain": method}
        score("relative_input_stability", inputs, RELATIVE)
        score("relative_input_stability_quantus", inputs, QUANTUS)
        ours, theirs = (noisy.unflatten(0, (3, 4)) - inputs["images"] for noisy in seen)
        assert (theirs > 0).all(), "it brightens the image"
        assert 0.4 < (ours > 0).float().mean() < 0.6

    def test_a_score_that_depends_on_other_images(self):
        inputs = make_inputs(rows=6)

        def loud(classifier, images, targets, seeds):
            factors = torch.tensor([50.0 if seed == inputs["seeds"][5] else 1.0 for seed in seeds])
            return factors[:, None, None] * explain(classifier, images, targets, seeds)

        changed = {**inputs, "explain": loud}
        for function, others_matter in (("local_lipschitz", False), ("local_lipschitz_quantus", True)):
            quiet, noisy = (score(function, given, BY_COMPANY) for given in (inputs, changed))
            assert (not same(quiet[:5], noisy[:5])) == others_matter

    def test_the_variants_are_asked_for_by_their_own_names(self):
        public = {
            name for name, value in vars(stability_variants).items() if name in stability_variants.ATTRS and value
        }
        assert public == {"relative_input_stability_quantus", "local_lipschitz_quantus"}
        assert set(stability.ATTRS) == set(SETTINGS)
        for name in SETTINGS:
            assert "explain" in inspect.signature(getattr(stability, name)).parameters
