"""Where cells failed, a draft shows what there is and says what is missing, outside DVC's outputs."""

import json
import shutil

import pytest
import xarray as xr

from atlas.study.errors import UserError
from flows.draft import draft, why_missing
from stages import score
from tests.support.results import opened
from tests.support.study import files, tiny, write

C = "resnet_vanilla"
FAILED = "failed: k is 5000, expected at most the map's 4096 pixels"


def with_a_metric_that_fails():
    given = tiny()
    given["metrics"]["localization"]["top_k_intersection"] = {"k": 5000}
    return given


@pytest.fixture(scope="module")
def broken(baseline, tmp_path_factory):
    """A study one of whose metrics raises, scored as far as it goes: the cell `noise` was made, others failed."""
    house = tmp_path_factory.mktemp("draft") / "house"
    shutil.copytree(baseline, house, symlinks=True)
    write(house, with_a_metric_that_fails())
    for family in ("gradient", "control"):
        with pytest.raises(
            UserError, match=r"these metrics failed, .*: top_k_intersection \(\w+\): ValueError: .*k is 5000"
        ):
            score.main(house, C, family)
    return house


@pytest.fixture(scope="module")
def drafted(broken):
    missing = {f"score@{C}-{family}": FAILED for family in ("gradient", "control")}
    missing |= {f"attribute@{C}-noise": "failed: out of memory"}
    needs = f"it needs attribute@{C}-noise, which was not made"
    before = files(broken / "data")
    page = draft(broken, missing | {cell: needs for cell in (f"score@{C}-noise", f"correlate@{C}", f"cost@{C}")})
    assert files(broken / "data") == before
    return page


def summary(page):
    return opened(page.parents[2]).load()


def test_what_was_made_is_in_the_draft(drafted, baseline):
    whole = opened(baseline).load()
    cells = {"method": ["gradient", "uniform"], "metric": ["relevance_rank", "deletion", "grid_pointing_game"]}
    # Letters are among all the methods that there are, and keys are of their scores.
    ours, theirs = (one["mean"].drop_vars(["letters", "key_digest"]).sel(cells) for one in (summary(drafted), whole))
    xr.testing.assert_equal(ours, theirs)


def test_what_is_missing_has_no_number_and_a_reason(drafted):
    found = summary(drafted)
    assert found["mean"].sel(metric="top_k_intersection").isnull().all()
    assert found["mean"].sel({"method": "smoothgrad"}).isnull().all()
    told = found.attrs["unsupported"][C]
    assert told["gradient"] == {"top_k_intersection": FAILED}
    assert set(told["smoothgrad"].values()) == {f"it needs attribute@{C}-noise, which was not made"}
    assert "deletion" in told["smoothgrad"]


def test_the_page_says_that_it_is_a_draft(drafted):
    text = drafted.read_text()
    assert "A draft." in text
    assert f"<code>attribute@{C}-noise</code> failed: out of memory" in text
    assert "k is 5000" in text


def test_a_draft_without_costs_has_none_and_says_so(drafted, baseline, tmp_path):
    place = tmp_path / "house"
    shutil.copytree(baseline, place, symlinks=True)
    shutil.rmtree(place / "data/cost")
    for page, reason in ((drafted, "it needs attribute@"), (draft(place, {}), "is not there")):
        found = opened(page.parents[2], "cost").load()
        assert found["method_forward"].isnull().all()
        assert not found["front"].any()
        text = page.read_text()
        assert f"<code>cost@{C}</code> {reason}" in text
        assert 'id="cost"' not in text


def test_rows_that_were_made_are_kept_for_the_next_run(drafted, broken):
    with_k = with_a_metric_that_fails()
    with_k["metrics"]["localization"]["top_k_intersection"] = {"k": 100}
    write(broken, with_k)
    score.main(broken, C, "gradient")
    line = json.loads((broken / ".atlas/log.jsonl").read_text().splitlines()[-1])
    assert set(line["computed"]) == {"top_k_intersection"}


def test_a_study_without_a_classifier_has_no_draft(baseline, tmp_path):
    house = tmp_path / "house"
    shutil.copytree(baseline, house, symlinks=True, ignore=shutil.ignore_patterns("cache", "cells"))
    with pytest.raises(UserError, match="there is nothing to draft a report from: failed: no memory"):
        draft(house, {f"prepare@{C}": "failed: no memory"})


def test_a_reason_for_every_cell_that_was_not_made():
    needs = {"a": [], "b": ["a"], "c": ["b"], "d": []}
    assert why_missing({"a": "failed: x"}, needs) == {
        "a": "failed: x",
        "b": "it needs a, which was not made",
        "c": "it needs b, which was not made",
    }
