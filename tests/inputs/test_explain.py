"""Check how methods are provided to metrics: together, each once, and none hurt by another."""

import pytest
import torch

from atlas.inputs import calls, explain
from atlas.inputs.calls import attributions
from atlas.inputs.explain import Explainer
from atlas.study import params
from atlas.study.schema.signatures import signature
from tests.support.every import shaping
from tests.support.metrics import HEIGHT, WIDTH, counted, make_inputs

NOISY = {"samples": 3, "spread": 0.2, "extent": "image", "output": "logit", "channels": "abs_sum"}
SMOOTH = {"function": "smoothgrad", "sign": "both", **NOISY}
GIVEN = {
    "smooth": ("noise", SMOOTH),
    "signed": ("noise", {**SMOOTH, "channels": "sum"}),
    "turned": ("noise", {**SMOOTH, "reverse": {"remain": 0.1, "swap": 0.2}}),
    "variance": ("noise", {"function": "vargrad", **NOISY}),
    "center": ("control", {"function": "center", "sigma": 0.2, "channels": "sum"}),
    "coarse": ("cam", {"function": "gradcam", "layer": "final", "channels": "sum"}),
    "expected": ("path", {"function": "expected_gradients", "samples": 2, "output": "logit", "channels": "sum"}),
}


def listed(*names):
    return [
        params.entry("methods", family, name, given, name) for name, (family, given) in GIVEN.items() if name in names
    ]


@pytest.fixture
def asked():
    inputs = make_inputs(rows=20)
    return tuple(inputs[name] for name in ("classifier", "images", "targets", "seeds"))


@pytest.fixture
def background(asked):
    return asked[1][:4].flip(3)


def alone(name, asked, background):
    (bound,) = listed(name)
    return Explainer([bound], background, "float32", attributions).by(name)(*asked)


@pytest.mark.parametrize("name", GIVEN)
def test_maps_are_those_of_the_methods_function(name, asked, background):
    (bound,) = listed(name)
    inputs = dict(zip(("classifier", "images", "targets", "seeds"), asked, strict=True)) | {"background": background}
    classifier, seeds = inputs["classifier"], inputs["seeds"]
    function = params.find("methods", bound.family, bound.function)
    names = signature("methods", bound.family, bound.function).inputs
    attributions = function(*(inputs[name] for name in names), **bound.settings)
    expected = explain.mapped(attributions, classifier.batched, (HEIGHT, WIDTH), seeds, **shaping(bound))
    made = alone(name, asked, background)
    assert made.shape == (20, HEIGHT, WIDTH)
    assert torch.equal(made, expected), "in parts of a batch, bit for bit"


def test_methods_that_share_work_cost_it_once(asked, background):
    names = ("smooth", "signed", "turned", "variance")
    provided = Explainer(listed(*names), background, "float32", attributions)
    made = {name: provided.by(name)(*asked) for name in names}
    assert counted(asked[0]) == (3 * 20, 3 * 20)
    for name in names:
        assert torch.equal(made[name], alone(name, asked, background))


def test_the_order_of_asking_is_nothing(asked, background):
    names = ("smooth", "variance", "coarse")
    forth, back = (
        Explainer(listed(*names), background, "float32", attributions),
        Explainer(listed(*names), background, "float32", attributions),
    )
    one = {name: forth.by(name)(*asked) for name in names}
    other = {name: back.by(name)(*asked) for name in reversed(names)}
    assert all(torch.equal(one[name], other[name]) for name in names)


def test_each_method_is_handed_its_maps_once(asked, background):
    provided = Explainer(listed("smooth", "variance"), background, "float32", attributions)
    for name in ("smooth", "variance"):
        provided.by(name)(*asked)
    assert not provided._cached, "what was given is not kept"
    provided.by("smooth")(*asked)
    assert counted(asked[0]) == (2 * 60, 2 * 60)


def test_other_images_classes_seeds_and_classifiers_are_other_requests(asked, background):
    classifier, images, targets, seeds = asked
    provided = Explainer(listed("smooth", "variance"), background, "float32", attributions)
    first = provided.by("smooth")(*asked)
    others = [
        (classifier, images.flip(3), targets, seeds),
        (classifier, images, (targets + 1) % 4, seeds),
        (classifier, images, targets, [seed + 1 for seed in seeds]),
        (classifier.altered(lambda network: network.head[2].weight.data.mul_(-1).add_(1)), images, targets, seeds),
    ]
    for other in others:
        assert not torch.equal(provided.by("smooth")(*other), first)
    held = provided.by("variance")(*asked), *(provided.by("variance")(*other) for other in others)
    assert counted(classifier) == (5 * 60, 5 * 60), "the other method's were made with them"
    for maps, request in zip(held, [asked, *others], strict=True):
        assert torch.equal(maps, alone("variance", request, background))


def test_an_error_of_one_method_does_not_hurt_the_others(asked, background, monkeypatch):
    find = calls.find

    def broken(kind, family, function):
        def raises(*_, **__):
            raise RuntimeError("out of luck")

        return raises if function == "vargrad" else find(kind, family, function)

    monkeypatch.setattr(calls, "find", broken)
    provided = Explainer(listed("smooth", "variance", "coarse"), background, "float32", attributions)
    with pytest.raises(RuntimeError, match="out of luck"):
        provided.by("variance")(*asked)
    made = {name: provided.by(name)(*asked) for name in ("smooth", "coarse")}
    before = counted(asked[0])
    with pytest.raises(RuntimeError, match="out of luck"):
        provided.by("variance")(*asked)
    assert counted(asked[0]) == before, "it is told again without another try"
    monkeypatch.undo()
    assert all(torch.equal(made[name], alone(name, asked, background)) for name in made)


def test_an_error_in_a_later_batch_leaves_no_half_made_maps(asked, background, monkeypatch):
    find, made = calls.find, []

    def at_times(kind, family, function):
        def raises(*given, **settings):
            made.append(function)
            if len(made) == 2:
                raise RuntimeError("out of memory")
            return find(kind, family, function)(*given, **settings)

        return raises if function == "vargrad" else find(kind, family, function)

    monkeypatch.setattr(calls, "find", at_times)
    provided = Explainer(listed("smooth", "variance"), background, "float32", attributions)
    assert len(provided.by("smooth")(*asked)) == 20
    with pytest.raises(RuntimeError, match="out of memory"):
        provided.by("variance")(*asked)


def test_the_function_is_the_same_whoever_asks(asked, background):
    """Metrics of one method know by it whether what they share is of this method."""
    provided = Explainer(listed("smooth", "variance"), background, "float32", attributions)
    assert provided.by("smooth") is provided.by("smooth")
    assert provided.by("smooth") is not provided.by("variance")


def test_maps_are_rounded_as_stored_ones_are(asked, background):
    (bound,) = listed("coarse")
    exact = Explainer([bound], background, "float32", attributions).by("coarse")(*asked)
    rounded = Explainer([bound], background, "float16", attributions).by("coarse")(*asked)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, exact.half().float())
    assert not torch.equal(rounded, exact)
