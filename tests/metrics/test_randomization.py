"""Check the metrics that make maps by other parameters or for another class."""

from functools import partial

import pytest
import torch
from torch import nn

from atlas.metrics import randomization
from atlas.metrics.shared.similarity import similarities
from atlas.study.seeds import generator
from tests.support.metrics import (
    HEIGHT,
    MEAN,
    STD,
    WIDTH,
    call,
    counted,
    explain,
    linear,
    make_classifier,
    make_inputs,
    network,
    same,
    take,
)
from tests.support.reference import stability as slow

MODEL = {"parts": 3, "order": "cascading", "similarity": "spearman", "seed": 4}
SIMILARITIES = ("spearman", "absolute_spearman", "ssim")

model = partial(call, "randomization", "model_randomization")
logit = partial(call, "randomization", "random_logit")


@pytest.fixture
def inputs():
    """Ten images whose maps are those of the method: gradients, or constant where their seed says so."""
    inputs = make_inputs(rows=10)
    return {**inputs, "maps": explain(*(inputs[name] for name in ("classifier", "images", "targets", "seeds")))}


def by_hand(classifier, image, target, seed):
    """The map of one image by a bare network."""
    if seed % 7 == 0:
        return torch.ones(HEIGHT, WIDTH)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    image = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(((image - mean) / std)[None])[0, target], image)
    return gradient.abs().sum(dim=0)


def drawn_by_hand(names):
    """The network of the tests with some of its modules replaced by new ones."""
    made = network().eval()
    fresh = {
        "head.2": lambda: nn.Linear(8, 4),
        "features.2": lambda: nn.BatchNorm2d(8, eps=0.0).eval(),
        "features.0": lambda: nn.Conv2d(3, 8, 3, padding=1),
    }
    for name in names:
        torch.manual_seed(generator(4, f"parameters of {name}").initial_seed())
        part, place = name.split(".")
        getattr(made, part)[int(place)] = fresh[name]()
    return made


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("order", "steps"),
    [
        ("cascading", [["head.2"], ["head.2", "features.2"], ["head.2", "features.2", "features.0"]]),
        ("independent", [["head.2"], ["features.2"], ["features.0"]]),
    ],
)
def test_redrawing_equals_the_formula_in_loops(order, steps, similarity, inputs):
    rows = take(inputs, [0, 2, 3])
    curves = model({**MODEL, "order": order, "similarity": similarity}, rows)
    assert curves.shape == (3, 4)
    for row in range(3):
        given = rows["images"][row], rows["targets"][row], rows["seeds"][row]
        maps = [by_hand(drawn_by_hand(names), *given) for names in ([], *steps)]
        expected = [getattr(slow, similarity)(rows["maps"][row].numpy(), one.numpy()) for one in maps]
        torch.testing.assert_close(curves[row], torch.tensor(expected), rtol=0, atol=2e-3, equal_nan=True)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_another_class_equals_the_formula_in_loops(similarity, inputs):
    others, rows = [], take(inputs, [0, 2, 3])

    def method(classifier, images, targets, seeds):
        others.append(targets)
        return explain(classifier, images, targets, seeds)

    scores = logit({"similarity": similarity}, {**rows, "explain": method})
    for row in range(3):
        one = by_hand(network().eval(), rows["images"][row], others[0][row], rows["seeds"][row])
        expected = getattr(slow, similarity)(rows["maps"][row].numpy(), one.numpy())
        assert scores[row].item() == pytest.approx(expected, abs=2e-3, nan_ok=True)


class TestSimilarity:
    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_it_equals_the_formula_in_loops(self, similarity):
        inputs = make_inputs(rows=9)
        maps, others = inputs["maps"], inputs["maps"].roll(2, dims=0)
        found = similarities(maps, others, similarity)
        for row in range(9):
            expected = getattr(slow, similarity)(maps[row].numpy(), others[row].numpy())
            torch.testing.assert_close(found[row], torch.tensor(expected), rtol=0, atol=1e-6, equal_nan=True)
        assert found.isnan().sum() == 4, "a constant and an empty map, on either side"

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_equal_maps_are_alike_and_broken_ones_nothing(self, similarity):
        maps = make_inputs(rows=12)["maps"]
        found = similarities(maps, maps, similarity)
        assert found[[5, 6, 11]].isnan().all()
        assert found[[row for row in range(12) if row not in (5, 6, 11)]].eq(1).all()
        for broken in (torch.nan, torch.inf, -torch.inf):
            others = maps.clone()
            others[:, 2, 2] = broken
            assert similarities(maps, others, similarity).isnan().all()

    def test_of_the_opposite(self):
        one = torch.randn(3, HEIGHT, WIDTH)
        assert similarities(one, -one, "spearman").eq(-1).all()
        assert similarities(one, -one, "absolute_spearman").eq(1).all()
        assert similarities(one, -one, "ssim").lt(0).all()

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    def test_the_scale_of_maps_is_nothing(self, similarity):
        one, other = torch.randn(3, HEIGHT, WIDTH), torch.randn(3, HEIGHT, WIDTH)
        found = similarities(1e-20 * one, 1e10 * other, similarity)
        torch.testing.assert_close(found, similarities(one, other, similarity))


class TestModel:
    def test_a_method_that_does_not_look_at_the_classifier_stays_the_same_throughout(self, inputs):
        given = {**inputs, "maps": inputs["images"][:, 0], "explain": lambda classifier, images, *_: images[:, 0]}
        for similarity in SIMILARITIES:
            assert model({**MODEL, "similarity": similarity}, given).eq(1).all()

    def test_what_depends_on_parameters_falls_from_one(self, inputs):
        curves = model(MODEL, inputs)
        defined = curves.isfinite().all(dim=1)
        assert defined.sum() > 5
        assert curves[defined, 0].eq(1).all()
        assert (curves[defined, 1:] < 0.999).any(dim=1).all()

    def altered(self, classifier, **settings):
        """Return the networks' parameters of every step."""
        seen = []

        def method(other, images, targets, seeds):
            seen.append(other)
            return torch.zeros_like(images[:, 0])

        inputs = {**make_inputs(rows=1), "classifier": classifier, "explain": method}
        model({**MODEL, **settings}, inputs)
        return [{name: value.clone() for name, value in one._network.state_dict().items()} for one in seen]

    def test_parts_go_from_the_logits_down(self):
        classifier = make_classifier(network())
        before = {name: value.clone() for name, value in classifier._network.state_dict().items()}

        def new(after):
            return {name for name in before if not torch.equal(before[name], after[name])}

        head, first = {"head.2.weight", "head.2.bias"}, {"features.0.weight", "features.0.bias"}
        cascading, independent = (self.altered(classifier, order=order) for order in ("cascading", "independent"))
        # The normalization is initialized as it was.
        assert [new(after) for after in cascading] == [head, head, head | first]
        assert [new(after) for after in independent] == [head, set(), first]
        assert [new(after) for after in self.altered(classifier, parts=2)] == [head, head | first]
        assert [new(after) for after in self.altered(classifier, parts=1)] == [head | first]
        for name in head:
            assert torch.equal(cascading[0][name], cascading[2][name]), "the same in every step"
            assert torch.equal(cascading[0][name], independent[0][name])
        assert not torch.equal(cascading[0]["head.2.weight"], self.altered(classifier, seed=5)[0]["head.2.weight"])
        assert all(torch.equal(value, classifier._network.state_dict()[name]) for name, value in before.items())

    def test_running_statistics_are_reset(self):
        made = network()
        made.features[2].running_mean += 3
        made.features[2].running_var *= 2
        after = self.altered(make_classifier(made))[1]
        assert after["features.2.running_mean"].eq(0).all()
        assert after["features.2.running_var"].eq(1).all()

    def test_parameters_that_no_module_can_initialize(self):
        class Shift(nn.Module):
            def __init__(self):
                super().__init__()
                self.token = nn.Parameter(5 + 2 * torch.randn(3, HEIGHT, WIDTH))
                self.one = nn.Parameter(torch.tensor(2.5))

            def forward(self, images):
                return images + self.token

        made = network()
        made.features.insert(0, Shift())
        token = made.features[0].token.clone()
        for _ in range(2):
            after = self.altered(make_classifier(made), parts=1)[0]
            assert after["features.0.token"].mean().item() == pytest.approx(5, abs=0.3)
            assert after["features.0.token"].std().item() == pytest.approx(2, abs=0.2)
            assert not torch.equal(after["features.0.token"], token)
            assert after["features.0.one"] == 2.5
        again = self.altered(make_classifier(made), parts=1)[0]
        assert torch.equal(after["features.0.token"], again["features.0.token"])

    def test_a_transformer_is_drawn_anew(self):
        from torchvision.models import VisionTransformer

        torch.manual_seed(0)
        vit = VisionTransformer(8, 4, 2, 2, 8, 16, num_classes=3)
        nn.init.normal_(vit.heads.head.weight)
        classifier = make_classifier(vit)
        inputs = {**make_inputs(rows=3), "classifier": classifier}
        inputs |= {"images": inputs["images"][:, :, :8, :8].contiguous(), "targets": torch.tensor([0, 1, 2])}
        inputs |= {"seeds": [1, 2, 3]}
        inputs["maps"] = explain(*(inputs[name] for name in ("classifier", "images", "targets", "seeds")))
        curves = model({**MODEL, "parts": 5}, inputs)
        assert curves[:, 0].eq(1).all()
        assert curves[:, 5].lt(0.9).all()

    def test_torchs_own_stream_goes_on_undisturbed(self, inputs):
        before = torch.get_rng_state()
        model(MODEL, inputs)
        assert torch.equal(before, torch.get_rng_state())

    def test_passes_and_the_classifiers_that_all_methods_and_batches_share(self, inputs):
        seen = []

        def method(classifier, *asked):
            seen.append(classifier)
            return explain(classifier, *asked)

        before = counted(inputs["classifier"])
        model(MODEL, {**inputs, "explain": method})
        assert [now - then for now, then in zip(counted(inputs["classifier"]), before, strict=True)] == [30, 30]
        for similarity in SIMILARITIES:
            model({**MODEL, "similarity": similarity}, {**inputs, "explain": method})
        assert len(seen) == 3, "entries of other similarities have the same maps"
        model(MODEL, {**take(inputs, [1, 2]), "explain": method})
        model({**MODEL, "order": "independent"}, {**inputs, "explain": method})
        model(MODEL, {**inputs, "explain": lambda *asked: method(*asked)})
        assert seen[:3] == seen[3:6] == seen[9:12], "the very same, so that they are made once"
        assert not set(seen[:3]) & set(seen[6:9])

    def test_a_map_that_is_constant_before_or_after_has_no_curve(self, inputs):
        def flat(classifier, images, targets, seeds):
            maps = explain(classifier, images, targets, seeds)
            if classifier is not inputs["classifier"]:
                maps[2] = 0.5
            return maps

        maps = inputs["maps"].clone()
        maps[0] = 1.0
        constant = {0, 2} | {row for row in range(10) if inputs["seeds"][row] % 7 == 0}
        curves = model(MODEL, {**inputs, "maps": maps, "explain": flat})
        assert {row for row in range(10) if curves[row].isnan().all()} == constant
        assert curves.isnan().any(dim=1).sum() == len(constant)

    @pytest.mark.parametrize(
        ("parts", "told"), [(0, "parts is 0, expected 1 or more"), (4, "expected at most the 3 modules")]
    )
    def test_parts_that_cannot_be(self, parts, told, inputs):
        with pytest.raises(ValueError, match=f"model_randomization: .*{told}"):
            model({**MODEL, "parts": parts}, inputs)


class TestLogit:
    def test_the_other_class_is_never_the_target_and_may_be_any_other(self):
        inputs, seen = make_inputs(rows=64), []

        def method(classifier, images, targets, seeds):
            seen.extend(targets.tolist())
            assert images is inputs["images"]
            assert seeds == inputs["seeds"]
            return explain(classifier, images, targets, seeds)

        logit({"similarity": "spearman"}, {**inputs, "explain": method})
        pairs = set(zip(inputs["targets"].tolist(), seen, strict=True))
        assert pairs == {(one, other) for one in range(4) for other in range(4) if one != other}

    def test_a_map_that_does_not_depend_on_the_class_scores_one(self, inputs):
        given = {**inputs, "maps": inputs["images"][:, 0], "explain": lambda classifier, images, *_: images[:, 0]}
        for similarity in SIMILARITIES:
            assert logit({"similarity": similarity}, given).eq(1).all()

    def test_of_two_classes_one_is_the_others_opposite(self, inputs):
        """A linear classifier: what speaks for a class in the probability speaks against the other."""

        def method(classifier, images, targets, seeds):
            return classifier.gradient(images, targets, "probability").sum(dim=1)

        weights = torch.randn(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
        inputs |= {"classifier": linear(weights / 100), "targets": inputs["targets"] % 2}
        inputs["maps"] = method(*(inputs[name] for name in ("classifier", "images", "targets", "seeds")))
        found = logit({"similarity": "spearman"}, {**inputs, "explain": method})
        torch.testing.assert_close(found, torch.full((10,), -1.0), rtol=0, atol=1e-4)
        found = logit({"similarity": "absolute_spearman"}, {**inputs, "explain": method})
        torch.testing.assert_close(found, torch.full((10,), 1.0), rtol=0, atol=1e-4)

    def test_passes(self, inputs):
        before = counted(inputs["classifier"])
        for similarity in SIMILARITIES:
            logit({"similarity": similarity}, inputs)
        # One more says how many classes there are.
        assert [now - then for now, then in zip(counted(inputs["classifier"]), before, strict=True)] == [11, 10]
        logit({"similarity": "spearman"}, {**inputs, "explain": lambda *asked: explain(*asked)})
        assert [now - then for now, then in zip(counted(inputs["classifier"]), before, strict=True)] == [21, 20]

    def test_a_constant_map_has_no_score(self, inputs):
        found = logit({"similarity": "spearman"}, inputs)
        constant = torch.tensor([seed % 7 == 0 for seed in inputs["seeds"]])
        assert constant.any()
        assert torch.equal(found.isnan(), constant)

    def test_a_classifier_of_one_class(self, inputs):
        made = network()
        made.head[2] = nn.Linear(8, 1)
        with pytest.raises(ValueError, match="random_logit: the number of classes is 1, expected 2 or more"):
            logit({"similarity": "spearman"}, {**inputs, "classifier": make_classifier(made)})


@pytest.mark.parametrize(
    ("function", "settings"), [(model, {**MODEL, "similarity": "ssim"}), (logit, {"similarity": "ssim"})]
)
def test_a_row_is_the_same_in_any_batch(function, settings, inputs):
    together = function(settings, inputs)
    parts = [function(settings, take(inputs, rows)) for rows in ([0], [1, 2, 3], [4, 5, 6, 7, 8, 9])]
    assert same(torch.cat(parts), together)


def test_its_docstrings_say_what_one_throughout_means():
    assert "does not look at the classifier" in randomization.__doc__
    assert "does not look at the classifier" in randomization.model_randomization.__doc__
