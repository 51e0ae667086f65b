"""The runner of cells, by a made-up stage: what it asks of a stage, what it keeps of failures, when it begins again."""

import json
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import zarr

from atlas.cache import keys
from atlas.cache.fingerprint import source
from atlas.cache.tables import Field, Table
from atlas.inputs import cell_runner
from atlas.inputs.calls import SCORED
from atlas.inputs.cell_runner import Batch, Part, Stage, count_missing, run_cell
from atlas.study.errors import Edited, Fault, Unsupported, UserError
from atlas.study.study import Study
from tests.support.cells import unfinished

PARAMS = {"classifiers": {"net": {}}, "stores": {"shard_rows": 64}, "engine": {"batch": 2}, "methods": {}}
KEPT = "these failed, all others are kept"
NONE = {"forward": 0, "backward": 0, "head": 0}


class Plan(NamedTuple):
    """What one function makes: its name times the row."""

    name: str
    table: Table


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage of two functions of five rows; `raised` says what a function raises, the list `calls` what was called."""
    monkeypatch.setattr(cell_runner, "Study", lambda folder: Study(folder, PARAMS))
    found = SimpleNamespace(raised={}, calls=[], loaded=[], forgotten=0)

    def load_classifier(study, name, engine):
        found.loaded.append((name, engine["batch"]))
        return SimpleNamespace(passes=dict(NONE))

    def forget():
        found.forgotten += 1

    monkeypatch.setattr(cell_runner, "load_classifier", load_classifier)
    monkeypatch.setattr(cell_runner.calls, "forget", forget)

    def plan(cell):
        made = {name: b"".join(keys.digest(name, i) for i in range(5)) for name in ("one", "two")}
        fields, coords = {"value": Field((), (), "int64")}, {"image": (("image",), np.arange(5))}
        tables = {name: np.frombuffer(found, "uint8").reshape(-1, keys.SIZE) for name, found in made.items()}
        return [Plan(name, Table(name, ("image",), one, fields, coords)) for name, one in tables.items()]

    def make(work, plan, positions, classifier):
        found.calls.append((plan.name, *positions.tolist()))
        classifier.passes["forward"] += len(positions)
        try:
            if plan.name in found.raised:
                raise found.raised[plan.name]
        except Unsupported as reason:
            work.rows.refuse(plan.name.encode(), str(reason))
        else:
            work.rows.put(plan.table, positions, {"value": positions * len(plan.name)})

    def batches(work, classifier):
        for start in range(0, 5, 2):
            for i, plan in enumerate(work.plans):
                positions = work.missing[i][(work.missing[i] >= start) & (work.missing[i] < start + 2)]
                part = Part(plan.name, (i, start), plan.name.encode())
                if len(positions) and work.pending(part):
                    yield Batch([part], partial(make, work, plan, positions, classifier), "a, b", plan.name)

    def served(rows, plan):
        return rows.without_unsupported(plan.table, plan.name.encode())

    found.stage = Stage(
        "make", "maps", plan, batches, lambda cell, plans: {"": {"of": cell.classifier}}, served, failure_message=KEPT
    )
    found.study, found.output = tmp_path, tmp_path / "data/maps/net.zarr"
    return found


def last(stage) -> dict:
    return json.loads((stage.study / ".atlas/log.jsonl").read_text().splitlines()[-1])


def test_what_is_missing_is_made_once_and_assembled(stage):
    assert count_missing(stage.stage, stage.study, "net") == (10, 10)
    with unfinished():
        run_cell(stage.stage, stage.study, "net")
    assert not stage.output.exists()
    assert last(stage)["assembled"] is False
    assert last(stage)["passes"] == {name: {**NONE, "forward": 5} for name in ("one", "two")}
    assert count_missing(stage.stage, stage.study, "net") == (10, 0)
    run_cell(stage.stage, stage.study, "net")
    assert len(stage.calls) == 6
    assert stage.loaded == [("net", 2)], "who finds all rows loads no classifier"
    store = zarr.open_group(stage.output, mode="r")
    assert store.attrs["of"] == "net"
    assert store["two/value"][:].tolist() == [0, 3, 6, 9, 12]
    assert last(stage)["passes"] == {}


def test_a_stage_may_have_batches_of_its_own_size(stage):
    run_cell(stage.stage._replace(batch=1), stage.study, "net")
    assert stage.loaded == [("net", 1)]


def test_who_fails_is_called_once_and_the_rows_of_all_others_are_kept(stage):
    stage.raised["one"] = ValueError("of no\nuse")
    with pytest.raises(UserError, match=rf"^make@net: {KEPT}: one: ValueError: of no use \(images a, b\)$"):
        run_cell(stage.stage, stage.study, "net")
    assert [name for name, *_ in stage.calls] == ["one", "two", "two", "two"]
    assert not stage.output.exists()
    assert last(stage)["computed"] == {"two": 5}
    assert last(stage)["passes"]["one"] == {**NONE, "forward": 2}, "what it took is told, too"
    stage.raised.clear()
    run_cell(stage.stage, stage.study, "net")
    assert last(stage)["computed"] == {"one": 5}


def test_an_edit_meanwhile_ends_the_cell_at_once(stage):
    """It is no fault of the function at hand, and all that follows would be in vain."""
    stage.raised["one"] = Edited("params.yaml was edited")
    with pytest.raises(Edited, match=r"^params\.yaml was edited$"):
        run_cell(stage.stage, stage.study, "net")
    assert [name for name, *_ in stage.calls] == ["one"]


def test_after_a_fault_all_is_forgotten_and_what_is_made_is_not_made_again(stage):
    stage.raised["two"] = Fault("two writes", "methods", "two")
    with pytest.raises(UserError, match="two: two writes"):
        run_cell(stage.stage, stage.study, "net")
    assert stage.calls == [("one", 0, 1), ("two", 0, 1), ("one", 2, 3), ("one", 4)]
    assert stage.forgotten == 1
    assert len(stage.loaded) == 2


def test_a_stage_says_who_failed_beside_those_of_a_batch(stage):
    stage.raised["one"] = Fault("one writes", "methods", "one")

    def batches(work, classifier, given=stage.stage.batches):
        for batch in given(work, classifier):
            yield batch._replace(failing=lambda error: [error.name, "two"])

    with pytest.raises(UserError, match=r"one: one writes .*; two: one writes"):
        run_cell(stage.stage._replace(batches=batches), stage.study, "net")
    assert stage.calls == [("one", 0, 1)]


def test_what_cannot_serve_is_asked_once_and_its_rows_are_none(stage):
    stage.raised["one"] = Unsupported("it has no edges")
    run_cell(stage.stage, stage.study, "net")
    assert [name for name, *_ in stage.calls].count("one") == 1
    assert zarr.open_group(stage.output, mode="r")["one"].attrs["unsupported"] == "it has no edges"
    assert count_missing(stage.stage, stage.study, "net") == (5, 0)


def test_where_nothing_is_said_of_failures_the_first_ends_the_cell_as_it_is(stage):
    stage.raised["one"] = ValueError("of no use")
    with pytest.raises(ValueError, match=r"^of no use$"):
        run_cell(stage.stage._replace(failure_message=""), stage.study, "net")


@pytest.mark.parametrize(
    "root",
    [
        *SCORED,
        ("stages.predict", "predictions"),
        ("stages.certify", "DTYPE"),
        ("stages.correlate", "correlations"),
        ("stages.cost", "of_map"),
        ("stages.cost", "of_score"),
    ],
)
def test_keys_hold_of_a_stage_what_makes_values_and_not_how_it_is_run(root):
    """What a stage says to the runner is a value for them: else they would hold whole modules."""
    found = source.reach(root)
    assert found.whole == ""
    assert "atlas.inputs.cell_runner" not in {module for module, _ in found.texts}
