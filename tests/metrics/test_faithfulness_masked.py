"""Check the metrics that look at the image through the map: cases by hand, passes, undefined cases."""

import math
from functools import partial

import pytest
import torch

from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.metrics.shared import outputs
from atlas.study.schema.settings import Entry
from tests.support.metrics import (
    HEIGHT,
    MEAN,
    WIDTH,
    Witness,
    assert_batch_independent,
    call,
    counted,
    explain,
    linear,
    make_classifier,
    make_inputs,
    network,
    take,
)
from tests.support.reference import masked as slow

NAMES = ["average_drop", "increase_in_confidence", "coherency", "adcc"]
BAD = [5, 6, 11]  # constant, zero and broken among the maps of the inputs
score = partial(call, "faithfulness_masked")
BLACK = {"fill": "black"}


def of_linear(weights, maps):
    """Return the inputs of white images whose first probability is sigmoid(Σ w x)."""
    rows = len(maps)
    return {
        "maps": maps,
        "images": torch.ones(rows, 3, *weights.shape),
        "targets": torch.zeros(rows, dtype=torch.int64),
        "seeds": list(range(1, rows + 1)),
        "classifier": linear(weights),
        "explain": explain,
    }


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


class TestThroughTheMap:
    def test_what_is_hidden_is_missed(self):
        weights = torch.tensor([[2.0, 1.0], [0.5, -3.0]])
        shown = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], [[2.0, 2.0], [2.0, 0.0]]])
        inputs = of_linear(weights, shown)
        drops = score("average_drop", BLACK, inputs)
        rises = score("increase_in_confidence", BLACK, inputs)
        # The clean image has the logit 0.5; the three maps leave 2, −3 and 3.5.
        assert drops.tolist() == pytest.approx([0, 1 - sigmoid(-3) / sigmoid(0.5), 0])
        assert rises.tolist() == [1, 0, 1]

    def test_the_map_is_scaled_to_weights_of_the_pixels(self):
        weights = torch.tensor([[4.0, 1.0], [0.0, 2.0]])
        inputs = of_linear(weights, torch.tensor([[[-1.0, 1.0], [3.0, 0.0]]]))
        # M is 0, 1/2, 1 and 1/4.
        left = 1 / 2 + 2 / 4
        assert score("average_drop", BLACK, inputs).item() == pytest.approx(1 - sigmoid(left) / sigmoid(7))

    @pytest.mark.parametrize("fill", ["black", "mean"])
    def test_what_lies_behind(self, fill):
        inputs, seen = make_inputs(rows=2), []
        watched = inputs["classifier"]
        looked = watched.logits
        watched.logits = lambda images: seen.append(images) or looked(images)
        inputs["maps"] = (inputs["maps"] > 0).float()
        score("average_drop", {"fill": fill}, inputs)
        hidden = (inputs["maps"] == 0)[:, None].expand(-1, 3, -1, -1)
        color = torch.tensor(MEAN if fill == "mean" else [0.0] * 3).view(3, 1, 1).expand(2, 3, HEIGHT, WIDTH)
        assert torch.equal(seen[1][hidden], color[hidden])
        assert torch.equal(seen[1][~hidden], inputs["images"][~hidden])

    def test_no_rise_is_no_increase(self):
        inputs = of_linear(torch.zeros(2, 3), torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0)))
        assert score("increase_in_confidence", BLACK, inputs).tolist() == [0] * 4
        assert score("average_drop", BLACK, inputs).tolist() == [0] * 4

    def test_a_class_without_probability_cannot_drop(self):
        weights = torch.full((2, 3), -200.0)
        weights[1, 2] = -20
        shown = torch.zeros(2, 2, 3)
        shown[:, 1, 2] = 1
        inputs = of_linear(weights, shown)
        assert score("average_drop", BLACK, inputs).isnan().all()
        assert score("adcc", BLACK, inputs).isnan().all()
        assert score("increase_in_confidence", BLACK, inputs).eq(1).all()


class TestCoherency:
    @pytest.mark.parametrize(("scale", "expected"), [(3, 1), (-1, 0)])
    def test_a_map_that_does_not_change_is_coherent(self, scale, expected):
        weights = torch.randn(2, 4, generator=torch.Generator().manual_seed(3))
        # On a linear classifier gradients know nothing of the image.
        inputs = of_linear(weights, scale * weights.abs()[None] + 5)
        assert score("coherency", BLACK, inputs).item() == pytest.approx(expected, abs=1e-6)

    def test_it_is_its_loops(self):
        inputs = make_inputs(rows=9)
        # The map of an image whose seed is divisible by 7 is constant.
        inputs["seeds"] = [seed - seed % 7 + (row != 2) for row, seed in enumerate(inputs["seeds"])]
        scores = {name: score(name, {"fill": "mean"}, inputs) for name in ("coherency", "adcc")}
        for row in range(9):
            one, image = inputs["maps"][row].numpy(), inputs["images"][row].numpy()
            witness = Witness(int(inputs["targets"][row]))
            if row in (2, *BAD):
                assert scores["coherency"][row].isnan()
                assert scores["adcc"][row].isnan()
                continue
            seen = torch.from_numpy(slow.through(one, image, witness, "mean"))[None]
            given = (make_classifier(network()), seen, inputs["targets"][[row]], [inputs["seeds"][row]])
            again = explain(*given)[0].numpy()
            assert scores["coherency"][row].item() == pytest.approx(slow.coherency(one, again), abs=2e-5)
            expected = slow.adcc(one, again, image, witness, "mean")
            assert scores["adcc"][row].item() == pytest.approx(expected, abs=2e-5)

    def test_the_method_is_asked_once_and_alone_about_what_can_be_scaled(self):
        asked = []

        def watched(classifier, images, targets, seeds, alone=False):
            asked.append((images, targets, seeds, alone))
            return explain(classifier, images, targets, seeds)

        inputs = make_inputs(rows=9) | {"explain": watched}
        for name in NAMES:
            score(name, BLACK, inputs)
        ((images, targets, seeds, alone),) = asked
        kept = [row for row in range(9) if row not in BAD]
        assert seeds == [inputs["seeds"][row] for row in kept]
        assert torch.equal(targets, inputs["targets"][kept])
        assert len(images) == len(kept)
        assert alone

    def test_a_method_that_is_asked_alone_makes_no_other_s_maps(self):
        named = ["gradient", "input_x_gradient"]
        settings = {"gradient": {"sign": "both"}, "input_x_gradient": {"baseline": "black"}}
        common = {"output": "logit", "layer": "input"}
        options = {"channels": "sum", "reverse": None}
        methods = [Entry("methods", "gradient", name, name, settings[name] | common, options) for name in named]
        inputs = make_inputs(rows=3)
        classifier, images, targets, seeds = (inputs[name] for name in ("classifier", "images", "targets", "seeds"))
        provided = Explainer(methods, torch.zeros(1, 3, HEIGHT, WIDTH), "float32", attributions)
        assert provided.by("gradient") is provided.by("gradient"), "what is shared is known by its identity"
        together = [provided.by(name)(classifier, images, targets, seeds) for name in named]
        assert counted(classifier)[1] in (3, 6)
        assert not provided._cached
        before = counted(classifier)[1]
        alone = provided.by("gradient")(classifier, images, targets, seeds, alone=True)
        assert torch.equal(alone, together[0])
        assert counted(classifier)[1] - before == 3
        assert not provided._cached


class TestAdcc:
    def test_it_is_a_harmonic_mean(self):
        weights = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
        inputs = of_linear(weights, weights[None])
        # M is 0, 1/4, 1/2 and 1, and so the logit 1/4 + 1 + 4; the map does not change.
        parts = [1, 1 - 7 / 16, sigmoid(5.25) / sigmoid(7)]
        assert score("adcc", BLACK, inputs).item() == pytest.approx(3 / sum(1 / part for part in parts))

    def test_it_is_nothing_where_one_part_is(self):
        weights = torch.tensor([[1.0, 2.0, 400.0, 800.0]])
        inputs = of_linear(weights, -weights[None])
        assert score("coherency", BLACK, inputs).item() == pytest.approx(0, abs=1e-7)
        assert score("adcc", BLACK, inputs).item() == pytest.approx(0, abs=1e-6)


class TestAll:
    def test_passes_are_shared(self):
        inputs = make_inputs(rows=4)
        for name in NAMES:
            score(name, BLACK, inputs)
        # The clean image, the image seen through the map, and the gradient of that: a pass forward and one back.
        assert counted(inputs["classifier"]) == (4 * 3, 4)
        score("average_drop", BLACK, inputs | {"maps": inputs["maps"].flip(1)})
        assert counted(inputs["classifier"]) == (4 * 4, 4)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_map_that_cannot_be_scaled_has_no_score_and_costs_nothing(self, name):
        inputs = take(make_inputs(), BAD)
        inputs["classifier"] = make_classifier(network())
        assert score(name, BLACK, inputs).isnan().all()
        assert counted(inputs["classifier"]) == (3, 0)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_row_knows_no_other(self, name):
        assert_batch_independent(partial(score, name, BLACK), make_inputs(16))

    @pytest.mark.parametrize("name", ["coherency", "adcc"])
    def test_the_scale_of_a_map_is_nothing(self, name):
        inputs = make_inputs(rows=9)
        small = inputs | {"maps": inputs["maps"] * 2**-10}
        torch.testing.assert_close(score(name, BLACK, small), score(name, BLACK, inputs), equal_nan=True)


def test_what_is_looked_at_for_several_metrics_is_looked_at_once():
    inputs = make_inputs(rows=3)
    for _ in range(2):
        outputs.clean_logits(inputs["classifier"], inputs["images"])
    assert counted(inputs["classifier"]) == (3, 0)
