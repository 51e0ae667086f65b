"""Check what the stage of scores provides to metrics, and that work, and keys, are shared as far as they may be."""

import numpy as np
import pytest
import torch
import zarr

from atlas.inputs import metric_inputs, row_inputs
from atlas.inputs.audit.building import load_classifier
from atlas.inputs.cell_runner import Cell
from atlas.inputs.metric_inputs import MetricInputs
from atlas.study.errors import UserError
from atlas.study.study import Study
from stages import attribute, score, select, tile
from tests.support import stored
from tests.support.cells import C, last_line, mapped, study
from tests.support.reference import regions as slow
from tests.support.scores import read
from tests.support.study import tiny, write

__all__ = ["mapped", "study"]

NOISY = {"samples": 2, "noise": "uniform", "scale": 0.2}
RELATIVE = {**NOISY, "floor": 0.01}
ENTRIES = {
    "complexity": {"complexity": {}},
    "stability": {
        "max_sensitivity": NOISY,
        "avg_sensitivity": NOISY,
        "relative_input_stability": RELATIVE,
        "few": {"function": "local_lipschitz", **NOISY, "count": 5},
        "wide": {"function": "max_sensitivity", **NOISY, "noise": "gaussian"},
    },
    "stability_variants": {"local_lipschitz_quantus": {**NOISY, "count": 9}},
    "randomization": {
        "model_randomization": {"parts": 2, "order": "cascading", "similarity": "spearman", "seed": 0},
        "random_logit": {"similarity": "spearman"},
        "structure": {"function": "random_logit", "similarity": "ssim"},
    },
}
IMAGES = 12


def prepare(study, family, **methods):
    params = tiny()
    params["methods"] = {family: methods}
    params["metrics"], params["certify"] = ENTRIES, {}
    write(study, params)
    select.main(study, C)
    tile.main(study, C)
    attribute.main(study, C, family)
    return params


def keys(study, family, method):
    works = score.plan(Cell(Study(study), C, family))
    return {work.metric.name: work.table.keys[work.methods.index(method)] for work in works}


def changed(before, after):
    return {name: (before[name] != after[name]).any(axis=-1) for name in before}


def test_methods_of_a_family_that_are_asked_together_cost_shared_work_once(study):
    noise = tiny()["methods"]["noise"]["smoothgrad"]
    variance = {name: value for name, value in noise.items() if name != "sign"} | {"function": "vargrad"}
    prepare(study, "noise", smoothgrad=noise, vargrad=variance)
    score.main(study, C, "noise")
    passes = last_line(study)["passes"]
    samples, copies = 2, 2 * IMAGES
    # Gradients at noisy samples of the noisy samples, once for both methods and all metrics of one noise.
    assert passes["max_sensitivity"] == {"forward": samples * copies, "backward": samples * copies, "head": 0}
    assert passes["avg_sensitivity"] == {"forward": 0, "backward": 0, "head": 0}
    assert passes["relative_input_stability"] == {"forward": IMAGES + copies, "backward": 0, "head": copies}
    assert passes["wide"] == passes["max_sensitivity"]
    assert passes["few"] == {"forward": samples * 2 * 5, "backward": samples * 2 * 5, "head": 0}
    # More images than a batch has, and looked at once: a metric of the whole set has all its rows at once.
    of_set = samples * 2 * 9
    assert passes["local_lipschitz_quantus"] == {"forward": of_set, "backward": of_set, "head": 0}
    # Two classifiers; another class, and one pass a batch that says how many there are.
    assert passes["model_randomization"]["forward"] == 2 * samples * IMAGES
    assert passes["random_logit"]["forward"] == samples * IMAGES + 2
    assert passes["structure"]["forward"] == 0
    together = {name: scores(study, "noise", name) for name in passes}
    assert all(np.isfinite(found).any() for found in together.values())
    # A method alone, and its rows in two runs, have the same scores.
    prepare(study, "noise", vargrad=variance)
    for folder in (study / "data/scores", study / ".atlas/cells"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    score.main(study, C, "noise")
    assert last_line(study)["rows_computed"] == last_line(study)["rows_wanted"]
    for name, found in together.items():
        np.testing.assert_array_equal(scores(study, "noise", name)[0], found[1])


def scores(study, family, metric):
    return read(study / "data/scores" / C / f"{family}.zarr", metric)["score"]


def test_a_score_of_maps_made_anew_is_keyed_by_how_maps_are_made(study):
    """A setting that leaves the stored maps as they are may change others."""
    center = {"function": "center", "sigma": 0.25, "channels": "sum"}
    prepare(study, "control", one=center)
    before = keys(study, "control", "one")
    prepare(study, "control", one={**center, "channels": "abs_sum"})
    found = changed(before, keys(study, "control", "one"))
    assert not found.pop("complexity").any(), "the maps are the same"
    assert all(rows.all() for rows in found.values())
    assert {name: len(rows) for name, rows in found.items() if len(rows) < IMAGES} == {
        "few": 5,
        "local_lipschitz_quantus": 9,
    }


def test_another_image_of_the_set_changes_the_keys_of_what_looks_at_all_of_them(study):
    prepare(study, "control", one={"function": "center", "sigma": 0.25, "channels": "sum"})

    def flip(image):
        before = keys(study, "control", "one")
        zarr.open_group(study / "data/images" / f"{C}.zarr/images", mode="r+")["pixels"][image, 0, 0, 0] ^= 1
        return {
            name: set(np.flatnonzero(rows)) for name, rows in changed(before, keys(study, "control", "one")).items()
        }

    found = flip(6)
    assert found.pop("complexity") == set(), "it names no image"
    assert found.pop("local_lipschitz_quantus") == set(range(9))
    assert found.pop("few") == set()
    assert set(map(tuple, found.values())) == {(6,)}
    assert flip(10)["local_lipschitz_quantus"] == set(), "it judges the first nine"


def test_equal_maps_of_a_set_keep_scores_of_their_own(study):
    """`center` has one map for all images: their scores differ with the images' classes."""
    params = prepare(study, "control", one={"function": "center", "sigma": 0.25, "channels": "sum"})
    write(study, {**params, "metrics": {"faithfulness_regions": {"sufficiency": {"threshold": 0.6}}}})
    (found,) = keys(study, "control", "one").values()
    assert len({key.tobytes() for key in found}) == IMAGES


def test_images_of_a_whole_set_are_read_within_the_call(study, monkeypatch):
    """A few at a time, and it is no reading that keys do not hold."""
    params = prepare(study, "control", noise={"function": "uniform", "channels": "sum"})
    noisy = {"local_lipschitz_quantus": NOISY}
    metrics = {"faithfulness_regions": {"sufficiency": {"threshold": 0.99}}, "stability_variants": noisy}
    write(study, {**params, "metrics": metrics})
    sizes, read = [], row_inputs.intensities
    monkeypatch.setattr(
        row_inputs, "intensities", lambda pixels, device: sizes.append(len(pixels)) or read(pixels, device)
    )
    score.main(study, C, "control")
    found = {metric: scores(study, "control", metric) for metric in ("sufficiency", "local_lipschitz_quantus")}
    assert all(np.isfinite(one).sum() > 6 for one in found.values())
    assert max(sizes) <= Study(study).engine["batch"] < IMAGES
    seen = row_inputs.images(Study(study), C)
    images = row_inputs.tensors(seen, np.arange(IMAGES), "cpu")["images"]
    predictions = load_classifier(Study(study), C).logits(images).argmax(1)
    maps = stored.rows(study / "data/maps" / C / "control.zarr", "images", "noise")["attribution"]
    expected = slow.sufficiency(maps, predictions.tolist(), 0.99)
    np.testing.assert_allclose(found["sufficiency"][0], expected, rtol=1e-6)


def test_an_error_of_one_method_is_told_and_the_rows_of_all_others_kept(study, monkeypatch):
    from atlas.inputs import explain

    center = {"function": "center", "sigma": 0.25, "channels": "sum"}
    prepare(study, "control", good=center, bad={**center, "sigma": 0.3})
    maps = explain.Explainer._maps

    def failing(self, bound, given, made):
        if bound.name == "bad":
            raise RuntimeError("out of luck")
        return maps(self, bound, given, made)

    monkeypatch.setattr(explain.Explainer, "_maps", failing)
    with pytest.raises(UserError, match=r"max_sensitivity \(bad\): RuntimeError: out of luck"):
        score.main(study, C, "control")
    monkeypatch.undo()
    score.main(study, C, "control")
    computed = last_line(study)["computed"]
    assert "complexity" not in computed
    assert computed["few"] == 5, "those of the other method are there"


# What metrics, here numbers, name.
ASKS = {
    0: ["maps", "explain"],
    1: ["maps", "explain"],
    2: ["all_maps", "all_images", "all_seeds", "positions"],
    3: ["maps"],
}


class TestLender:
    """What is provided of 12 images, in batches of 8."""

    def make(self, study, wanted, kind=row_inputs.images):
        known = Study(study)
        seen = kind(known, C)
        return MetricInputs(known, C, known.methods["control"], seen, wanted, ASKS, known.engine, "float32", {}), seen

    def all_of(self, *methods, metrics=(0, 1, 2, 3)):
        return {(metric, method): np.arange(IMAGES) for method in methods for metric in metrics}

    def given(self, seen, positions):
        return {**row_inputs.tensors(seen, positions, "cpu"), "background": torch.zeros(1, 3, 64, 64)}

    def stored(self, study, method, group="images"):
        return stored.rows(study / "data/maps" / C / "control.zarr", group, method)["attribution"]

    def test_maps_of_the_rows_are_lent_and_nothing_that_is_not_asked_for(self, mapped):
        inputs, seen = self.make(mapped, self.all_of("uniform", "center"))
        rows = np.array([1, 4, 7])
        provided = inputs.provide(3, "uniform", IMAGES, rows, self.given(seen, rows))
        assert torch.equal(provided["maps"], torch.from_numpy(self.stored(mapped, "uniform")[rows]))
        assert not {"explain", "positions", "all_maps", "all_images", "all_targets", "all_seeds"} & set(provided)

    def test_the_whole_set_is_lent_beside_the_rows_positions(self, mapped):
        inputs, seen = self.make(mapped, self.all_of("uniform", "center"))
        rows = np.arange(8, 10)
        provided = inputs.provide(2, "center", 10, rows, self.given(seen, rows))
        assert provided["positions"] == [8, 9]
        assert torch.equal(provided["all_maps"], torch.from_numpy(self.stored(mapped, "center")[:10]))
        assert torch.equal(provided["all_images"][:], row_inputs.tensors(seen, np.arange(10), "cpu")["images"])
        assert provided["all_images"].shape == (10, 3, *seen.side)
        assert len(provided["all_seeds"]) == 10
        assert torch.equal(provided["all_images"][8:10], provided["images"])
        again = inputs.provide(2, "uniform", 10, np.arange(8), self.given(seen, np.arange(8)))
        assert again["all_images"] is provided["all_images"], "the same for all methods and batches"

    def test_tiles_of_grids_are_rows_too(self, mapped):
        inputs, _ = self.make(mapped, {}, row_inputs.grids)
        rows = np.array([1, 6, 7])
        found = inputs.provide(3, "uniform", 12, rows, {})["maps"]
        assert torch.equal(found, torch.from_numpy(self.stored(mapped, "uniform", "grids").reshape(12, 128, 128)[rows]))

    def test_metrics_of_a_method_get_the_very_same(self, mapped):
        inputs, seen = self.make(mapped, self.all_of("uniform", "center"))
        first, later = np.arange(8), np.arange(8, 12)
        one, other = (inputs.provide(metric, "center", 12, first, self.given(seen, first)) for metric in (0, 1))
        assert one["maps"] is other["maps"]
        assert one["explain"] is other["explain"]
        assert inputs.provide(0, "uniform", 12, first, self.given(seen, first))["explain"] is not one["explain"]
        assert inputs.provide(0, "center", 12, later, self.given(seen, later))["explain"] is not one["explain"]

    def test_only_methods_that_will_ask_about_the_same_rows_are_made_together(self, mapped, monkeypatch):
        made = []

        class Recorded:
            def __init__(self, methods, background, dtype, call):
                made.append([bound.name for bound in methods])

            def by(self, method):
                return method

        monkeypatch.setattr("atlas.inputs.explain.Explainer", Recorded)
        some = np.array([0, 2, 3, 9])
        both = {(metric, method): some for metric in (0, 1) for method in ("uniform", "center")}
        inputs, seen = self.make(mapped, both | {(2, "center"): np.arange(IMAGES)})
        for metric, method in both:
            assert inputs.provide(metric, method, 12, some[:3], self.given(seen, some[:3]))["explain"] == method
        assert made == [["uniform", "center"]], "for both metrics"
        inputs.provide(0, "uniform", 12, some[3:], self.given(seen, some[3:]))
        assert made == [["uniform", "center"]] * 2, "another batch"
        made.clear()
        wanted = {(0, "uniform"): some, (1, "uniform"): some, (1, "center"): some, (3, "center"): some}
        inputs, seen = self.make(mapped, wanted)
        inputs.provide(0, "uniform", 12, some[:3], self.given(seen, some[:3]))
        assert made == [["uniform"]], "the first metric does not judge the other method"
        inputs.provide(1, "center", 12, some[:3], self.given(seen, some[:3]))
        assert made == [["uniform"], ["uniform", "center"]]
        made.clear()
        inputs, seen = self.make(mapped, {(0, "uniform"): some, (0, "center"): some[:2]})
        inputs.provide(0, "uniform", 12, some[:3], self.given(seen, some[:3]))
        assert made == [["uniform"]], "the other one is asked about others"

    def test_maps_are_lent_in_float32_whatever_they_are_stored_in(self):
        provided = metric_inputs.tensor(np.ones((2, 3, 3), "float16"), "cpu")
        assert provided.dtype == torch.float32
