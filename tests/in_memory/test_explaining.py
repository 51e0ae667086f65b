"""The public API: what is imported when, and maps and scores in memory that are those of the stages and of others."""

import ast
import json
import re
import shutil
import subprocess
import sys

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchvision
import xarray as xr
import yaml
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import atlas
from atlas.cache.fingerprint import source
from atlas.in_memory import functions
from atlas.inputs import row_inputs
from atlas.model import batch_cache
from atlas.model.classifier import Classifier
from atlas.model.loading import load
from atlas.model.runtime import start
from atlas.study import params
from atlas.study.errors import Unsupported, UserError
from atlas.study.study import Study
from stages import attribute, score, select, tile
from tests.support.study import ROOT, tiny, write

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
NORMALIZED = {"mean": MEAN, "std": STD}
PAGE = ROOT / "docs" / "api.md"


def python(code: str, **about: object) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **about)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What is imported


def test_its_import_costs_neither_torch_nor_xarray():
    told = "import atlas, sys; print([one for one in ('torch', 'numpy', 'xarray', 'zarr') if one in sys.modules])"
    assert python(told, cwd=ROOT) == "[]"


def test_names_are_imported_when_they_are_asked_for():
    assert python("import atlas, sys; atlas.open_maps; print('torch' in sys.modules)", cwd=ROOT) == "False"
    assert atlas.Classifier is Classifier
    assert {*atlas.PUBLIC, "importing"} <= {*dir(atlas)}
    with pytest.raises(AttributeError, match="module 'atlas' has no attribute 'explian'"):
        _ = atlas.explian


def test_type_checkers_are_told_of_the_same_names():
    stub = ast.parse((ROOT / "atlas/__init__.pyi").read_text())
    known = {alias.name: node.module for node in stub.body for alias in node.names}
    assert known == atlas.PUBLIC
    assert (ROOT / "atlas/py.typed").is_file()


def test_keys_tell_definitions_apart_all_the_same():
    assert source.read("atlas").impure == ""
    assert source.reach(("atlas.methods.cam", "gradcam")).whole == ""
    assert "'explain' is not defined" in source.reach(("atlas", "explain")).whole


@pytest.mark.parametrize("kind", ["methods", "metrics"])
def test_a_name_is_of_one_family_alone(kind):
    families = params.entries(params.load(ROOT), kind)
    known = functions.functions(kind)
    assert {entry.function: family for family, listed in families.items() for entry in listed.values()}.items() <= (
        known.items()
    )
    trees = [ast.parse(file.read_text()) for file in (ROOT / "atlas" / kind).glob("[a-z]*.py")]
    names = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert all(names.count(name) == 1 for name in known)


# The stages' numbers

MORE = {
    "methods": {
        "gradient": ["gradient", "input_x_gradient"],
        "noise": ["smoothgrad", "gag_85"],
        "path": ["integrated_gradients", "expected_gradients"],
        "cam": ["gradcam"],
        "control": ["uniform", "center"],
    },
    "metrics": {
        "localization": ["pointing_game", "wsl", "relevance_mass"],
        "faithfulness": ["deletion"],
        "faithfulness_regions": ["sufficiency"],
        "faithfulness_masked": ["coherency"],
        "complexity": ["sparseness"],
        "stability": ["max_sensitivity"],
        "randomization": ["random_logit"],
    },
}


@pytest.fixture(scope="module")
def house(collected, tmp_path_factory):
    """A tiny study with maps and scores that its stages have made."""
    house = shutil.copytree(collected, tmp_path_factory.mktemp("api") / "house")
    full, known = yaml.safe_load((ROOT / "params.yaml").read_text()), tiny()
    for kind, families in MORE.items():
        known[kind] = {family: {name: full[kind][family][name] for name in names} for family, names in families.items()}
    for listed in known["metrics"].values():
        for entry in listed.values():
            entry.pop("count", None)
    known["metrics"]["faithfulness"]["deletion"]["pixels"] = 1024
    known["methods"]["path"]["integrated_gradients"]["steps"] = 3
    write(house, known)
    select.main(house, "resnet_vanilla")
    tile.main(house, "resnet_vanilla")
    for family in known["methods"]:
        attribute.main(house, "resnet_vanilla", family)
        score.main(house, "resnet_vanilla", family)
    return house


@pytest.fixture(scope="module")
def given(house):
    """Its classifier, and what its maps were made of."""
    known = params.load(house)
    start(known["engine"])
    found = row_inputs.images(Study(house), "resnet_vanilla")
    folder, network = house / "data/classifiers/resnet_vanilla", known["classifiers"]["resnet_vanilla"]["network"]
    from atlas.inputs.audit.building import building

    classifier = load(folder, "resnet_vanilla", network, known["engine"], building)
    inputs = row_inputs.tensors(found, np.arange(len(found.ids)), "cpu")
    return {**inputs, "classifier": classifier, "background": row_inputs.intensities(found.background, "cpu")}


METHODS = [(family, name) for family, names in MORE["methods"].items() for name in names]


@pytest.mark.parametrize(("family", "name"), METHODS)
def test_maps_are_those_of_the_stage(house, given, family, name):
    entry = params.entries(params.load(house), "methods")[family][name]
    about = {key: given[key] for key in ("seeds", "background")}
    maps = atlas.explain(
        given["classifier"], given["images"], given["targets"], entry.function,
        channels=entry.options["channels"], **about, **entry.settings,
    )  # fmt: skip
    stored = atlas.open_maps("resnet_vanilla", name, study=house)
    assert maps.dims == stored.dims
    assert maps.dtype == "float32"
    assert maps.values.tobytes() == stored.values.tobytes()
    assert maps["target"].values.tolist() == stored["target"].values.tolist()
    assert {**stored.attrs, "method": entry.function}.items() <= maps.attrs.items()


METRICS = [(family, name) for family, names in MORE["metrics"].items() for name in names]


@pytest.mark.parametrize(("family", "name"), METRICS)
def test_scores_are_those_of_the_stage(house, given, family, name):
    known = params.load(house)
    entry = params.entries(known, "metrics")[family][name]
    stored = atlas.open_scores("resnet_vanilla", name, study=house)
    methods = {one.name: one for listed in params.entries(known, "methods").values() for one in listed.values()}
    assert stored["method"].values.tolist() == [*methods]
    about = {key: given[key] for key in ("seeds", "background", "masks", "boxes")}
    for method in ("gradient", "smoothgrad", "expected_gradients", "gradcam", "center"):
        bound = methods[method]
        scores = atlas.score(
            given["classifier"], given["images"], given["targets"],
            atlas.open_maps("resnet_vanilla", method, study=house), entry.function,
            method=bound.function, method_settings={**bound.settings, "channels": bound.options["channels"]},
            **about, **entry.settings,
        )  # fmt: skip
        expected = stored.sel({"method": method})
        assert scores.dims == expected.dims
        assert scores.values.tobytes() == expected.values.tobytes(), method
        for dim in scores.dims[1:]:
            assert scores[dim].values.tolist() == expected[dim].values.tolist()
        told = {key: value for key, value in expected.attrs.items() if key in ("better", "units", "settings")}
        assert told.items() <= scores.attrs.items()


def test_scores_open_lazy_and_labelled(house):
    curves = atlas.open_scores("resnet_vanilla", "deletion", study=house)
    assert curves.dims == ("method", "image", "fraction")
    assert curves.chunks is not None
    assert curves.attrs["better"] == "lower"
    assert json.loads(curves.attrs["unsupported"]) == {}
    with pytest.raises(UserError, match="names no metric 'deletions'; it names: coherency, deletion"):
        atlas.open_scores("resnet_vanilla", "deletions", study=house)


# Others' numbers


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7)
    network.train()(torch.randn(8, 3, 64, 64))  # statistics of batches that are not 0 and 1
    return network.eval()


@pytest.fixture(scope="module")
def photographs():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 0])


class Normalizing(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, images):
        return self.network((images - self.mean) / self.std)


def enlarged(maps):
    return nn.functional.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False)[:, 0]


def by_captum_saliency(network, images, targets):
    return captum.attr.Saliency(network).attribute(images, targets, abs=False).abs().sum(1)


def by_captum_integrated_gradients(network, images, targets):
    found = captum.attr.IntegratedGradients(network).attribute(images, 0.0, targets, n_steps=5, method="gausslegendre")
    return found.sum(1)


def by_captum_gradcam(network, images, targets):
    found = captum.attr.LayerGradCam(network, network.network.layer3).attribute(images, targets, relu_attributions=True)
    return enlarged(found)


def by_pytorch_grad_cam(network, images, targets):
    """Its maps before they are scaled: weights and activations as it has them."""
    with pytorch_grad_cam.HiResCAM(network, [network.network.layer4]) as cam:
        cam(images, [ClassifierOutputTarget(int(one)) for one in targets])
        held = cam.activations_and_grads
        product = (held.activations[0] * held.gradients[0]).sum(1, keepdim=True)
    return enlarged(product.relu())


PEERS = {
    "gradient": (by_captum_saliency, {"layer": "input", "channels": "abs_sum"}),
    "integrated_gradients": (by_captum_integrated_gradients, {"steps": 5}),
    "gradcam": (by_captum_gradcam, {"layer": "layer3"}),
    "hirescam": (by_pytorch_grad_cam, {}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", PEERS)
def test_maps_of_a_plain_network_are_those_of_other_packages(resnet, photographs, method):
    images, targets = photographs
    peer, settings = PEERS[method]
    maps = atlas.explain(resnet, images, targets, method, **NORMALIZED, **settings)
    expected = peer(Normalizing(resnet), images.clone(), targets).detach().numpy()
    assert maps.shape == (2, 64, 64)
    # In single precision a ReLU at about 0 may be on in one and off in the other: a few pixels differ by more.
    assert np.linalg.norm(maps.values - expected) <= 1e-3 * np.linalg.norm(expected)


def test_a_curve_is_that_of_the_network_itself(resnet, photographs):
    images, targets = photographs
    maps = torch.rand(2, 64, 64)
    scores = atlas.score(resnet, images, targets, maps, "deletion", pixels=2048, baseline="black", **NORMALIZED)
    half = images.clone()
    half[maps[:, None].expand_as(images) > maps.flatten(1).median(1).values[:, None, None, None]] = 0
    with torch.no_grad():
        network = Normalizing(resnet)
        curve = [network(one).softmax(1)[[0, 1], targets] for one in (images, half, images * 0)]
    assert scores.dims == ("image", "fraction")
    assert scores["fraction"].values.tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(scores.values, torch.stack(curve, 1).numpy(), rtol=1e-4)


# What a notebook may rely on


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()  # fmt: skip


IMAGES, TARGETS = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0)), [0, 4, 2]


def test_the_network_stays_as_it_is_and_nothing_is_kept(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with torch.no_grad():
        atlas.explain(small, IMAGES, TARGETS, "guided_backprop")
    assert all(parameter.requires_grad for parameter in small.parameters())
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert not any(part._forward_hooks or part._backward_hooks for part in small.modules())
    assert not any(cached for cached, _ in batch_cache.CACHES)


def test_maps_are_the_same_in_any_mode_and_by_any_array(small):
    maps = atlas.explain(small, IMAGES, TARGETS, "smoothgrad", samples=2, batch=2)
    with torch.inference_mode():
        again = atlas.explain(small, IMAGES.numpy(), np.array(TARGETS), "smoothgrad", samples=2, batch=2)
    assert maps.identical(again)
    made = Classifier(
        "small", small, mean=[0.0] * 3, std=[1.0] * 3, engine={"device": "cpu", "precision": "float32", "batch": 2}
    )
    assert maps.identical(atlas.explain(made, IMAGES, TARGETS, "smoothgrad", samples=2))
    fewer = atlas.explain(small, IMAGES[:2], TARGETS[:2], "smoothgrad", samples=2, batch=2)
    assert fewer.identical(maps[:2])
    drawn = atlas.explain(small, IMAGES, TARGETS, "smoothgrad", samples=2, batch=2, seeds=[5, 6, 7])
    assert not drawn.equals(maps)


def test_settings_that_are_not_given_are_those_of_the_default_study(small):
    known = params.entries(params.load(ROOT), "methods")["path"]["integrated_gradients"]
    maps = atlas.explain(small, IMAGES, TARGETS, "integrated_gradients", rule="midpoint")
    assert json.loads(maps.attrs["settings"]) == {
        **known.settings, "rule": "midpoint", "channels": known.options["channels"], "reverse": None,
    }  # fmt: skip


def test_a_map_that_is_not_finite_is_nan_and_has_no_score(small, monkeypatch):
    from atlas.methods import gradient

    def broken(classifier, images, targets, *, sign, output, layer):
        found = images.clone()
        found[1:2, 0, 0, 0] = torch.inf
        return found

    monkeypatch.setattr(gradient, "gradient", broken)
    maps = atlas.explain(small, IMAGES, TARGETS, "gradient")
    assert maps.isnull().all(("y", "x")).values.tolist() == [False, True, False]
    assert atlas.score(None, None, None, maps, "sparseness").isnull().values.tolist() == [False, True, False]
    # A method that gives such a map when a metric asks it is asked of each image alone.
    asked = {"method": "gradient", "samples": 1}
    maps = torch.rand(3, 12, 10)
    together, alone = (
        atlas.score(small, IMAGES, TARGETS, maps, "max_sensitivity", batch=batch, **asked) for batch in (3, 1)
    )
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_metrics_of_maps_alone_need_no_network():
    maps = torch.rand(3, 12, 10)
    masks = torch.zeros(3, 12, 10, dtype=torch.bool)
    masks[:, 4:8, 2:6] = True
    found = atlas.score(None, None, None, maps, "relevance_mass", masks=masks, sign="positive")
    np.testing.assert_allclose(found, (maps * masks).sum((1, 2)) / maps.sum((1, 2)), rtol=1e-6)
    assert found.attrs["better"] == "higher"
    tiled = atlas.score(None, None, None, xr.DataArray(maps.numpy()), "grid_pointing_game", tiles=masks)
    np.testing.assert_allclose(tiled, found, rtol=1e-6)


EXPLAINED = {
    "did you mean": ({"method": "gradcamm"}, "there is no method 'gradcamm'; did you mean gradcam"),
    "no such method": ({"method": "zzz"}, "there is no method 'zzz'; there are: .*gradcam, gradcam_pp"),
    "unknown setting": (
        {"steps": 3},
        "^gradcam: unknown setting 'steps' = 3. Accepted by gradcam of .*: layer: .*channels",
    ),
    "wrong setting": ({"channels": "mean"}, "^gradcam: 'channels' = 'mean': expected .*'abs_sum'"),
    "missing setting": ({"method": "ss_cam"}, "^ss_cam: the setting 'samples' is missing.* Accepted by ss_cam"),
    "out of range": ({"method": "smoothgrad", "samples": 0}, "^smoothgrad: 'samples' = 0: expected at least 1"),
    "one image": ({"images": IMAGES[0]}, r"images: got the shape \(3, 12, 10\); expected \(image, channel, y, x\)"),
    "bytes": ({"images": (IMAGES * 255).byte()}, "images: got numbers of uint8; expected floating-point intensities"),
    "normalized": ({"images": IMAGES * 4 - 2}, r"images: got values from -2 to 2; expected intensities in \[0, 1\]"),
    "NaN": ({"images": IMAGES / 0 * 0}, "images: got NaN or infinity"),
    "no array": ({"images": "cat.jpg"}, "images: got str; expected a tensor or an array"),
    "targets": ({"targets": [0, 1]}, r"targets: got the shape \(2,\); expected \(3,\), a class for each image"),
    "shares": ({"targets": [0.0, 1.0, 2.0]}, "targets: got numbers of float64; expected whole numbers"),
    "class": ({"targets": [0, 5, 1]}, "targets: got the class 5; Sequential has the classes 0 to 4"),
    "seeds": ({"seeds": [1]}, "seeds: got 1 numbers for 3 images"),
    "mean": ({"mean": [0.5]}, "mean: got 1 numbers for images of 3 channels"),
    "std": ({"std": [0.5, 0.5, 0.0]}, "std: got .* expected numbers above 0"),
    "batch": ({"batch": 0}, "batch: got 0; expected a whole number of at least 1"),
    "module": ({"module": "resnet18"}, "module: got str; expected a torch.nn.Module"),
    "channels": ({"images": IMAGES[:, :1]}, "Sequential: its network does not take images of 1 x 12 x 10"),
    "no background": ({"method": "expected_gradients"}, "expected_gradients: needs background"),
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_what_explain_cannot_take_is_told_in_one_line(small, case):
    given, told = EXPLAINED[case]
    arguments = {"module": small, "images": IMAGES, "targets": TARGETS, "method": "gradcam", **given}
    with pytest.raises(UserError, match=told) as raised:
        atlas.explain(**arguments)
    assert "\n" not in str(raised.value)
    assert "params.yaml" not in str(raised.value)


def test_a_network_that_cannot_be_explained_is_told_in_one_line(small):
    small[1].train()
    with pytest.raises(
        UserError, match=r"module: 1 is in training mode; expected evaluation mode: call module.eval\(\)"
    ):
        atlas.explain(small, IMAGES, TARGETS, "gradcam")
    small.eval()
    probabilities = nn.Sequential(small, nn.Softmax(dim=1)).eval()
    with pytest.raises(UserError, match="expected logits: leave out the softmax"):
        atlas.explain(probabilities, IMAGES, TARGETS, "gradcam")
    with pytest.raises(Unsupported, match=r"^gradcam: .*layer9"):
        atlas.explain(small, IMAGES, TARGETS, "gradcam", layer="layer9")
    engine = {"device": "cpu", "precision": "float32", "batch": 2}
    made = Classifier("small", small, mean=[0.0] * 3, std=[1.0] * 3, engine=engine)
    with pytest.raises(UserError, match="mean, batch: a Classifier has its own"):
        atlas.explain(made, IMAGES, TARGETS, "gradcam", mean=MEAN, batch=2)


MAPS = torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(2))
SCORED = {
    "did you mean": ({"metric": "deletions"}, "there is no metric 'deletions'; did you mean deletion"),
    "a helper": ({"metric": "blur"}, "there is no metric 'blur'"),
    "unknown setting": ({"sigma": 3}, "^deletion: unknown setting 'sigma' = 3"),
    "a study's": ({"count": 3}, "^deletion: unknown setting 'count' = 3"),
    "masks": ({"metric": "relevance_mass"}, "^relevance_mass: needs masks, which is not given"),
    "boxes": ({"metric": "pointing_game"}, "^pointing_game: needs boxes, which is not given"),
    "tiles": ({"metric": "grid_pointing_game"}, "^grid_pointing_game: needs tiles, which is not given"),
    "method": ({"metric": "max_sensitivity"}, "^max_sensitivity: needs method, which is not given"),
    "module": ({"module": None, "targets": None}, "^deletion: needs targets, module, which is not given"),
    "votes": (
        {"metric": "abstained"},
        "^abstained: needs votes of noisy samples of each image, which only a study has",
    ),
    "maps of others": ({"maps": MAPS[:, :5]}, r"maps: got the shape \(3, 5, 10\); expected \(3, 12, 10\)"),
    "attributions": ({"maps": IMAGES}, r"maps: got the shape \(3, 3, 12, 10\) and .*; expected .* of \(image, y, x\)"),
    "soft masks": ({"metric": "mae", "masks": MAPS}, r"masks: got .* float32; expected bool of \(image, y, x\)"),
    "flat boxes": (
        {"metric": "wsl", "boxes": [[0, 0, 2, 2]] * 3},
        r"boxes: got .*; expected whole numbers of \(3, box, 4\)",
    ),
    "its settings": (
        {"metric": "max_sensitivity", "method": "gradcam", "method_settings": {"steps": 1}},
        "^gradcam: unknown setting 'steps'",
    ),
}


@pytest.mark.parametrize("case", SCORED)
def test_what_score_cannot_take_is_told_in_one_line(small, case):
    given, told = SCORED[case]
    arguments = {"module": small, "images": IMAGES, "targets": TARGETS, "maps": MAPS, "metric": "deletion", **given}
    with pytest.raises(UserError, match=told) as raised:
        atlas.score(**arguments)
    assert "\n" not in str(raised.value)
    assert "params.yaml" not in str(raised.value)


def test_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    alone = [block for block in blocks if "open_" not in block]
    assert alone
    names: dict = {}
    for block in alone:
        exec(block, names)
    assert names["scores"].dims == ("image", "fraction")
