"""What changed between two summaries, and `atlas compare`: between two revisions of a study."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from atlas.statistics.changes import MEAN_RANKS, changes, names, settings
from flows.cli import app
from tests.support.results import opened
from tests.support.study import repro, run, tiny, write

METHODS, METRICS = ["a", "b", "c"], ["deletion", "insertion"]
AT = {"classifier": "one", "metric": "insertion", "method": "b"}


def summary() -> xr.Dataset:
    """Three methods by two metrics on one classifier: means of 0.2, 0.5, 0.8 within 0.1, of 10 scores each."""
    mean = np.array([[[0.2, 0.2], [0.5, 0.5], [0.8, 0.8]]])
    rank = np.array([[[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]])
    columns = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "rank": rank}
    columns["count"] = np.full(mean.shape, 10, np.int32)
    cells = {name: (("classifier", "method", "metric"), values) for name, values in columns.items()}
    ends = ("", "_low", "_high", "_metrics")
    ranks = {f"mean_rank{end}": (("classifier", "method"), np.full((1, 3), 2.0)) for end in ends}
    ranks |= {f"overall_rank{end}": (("method",), np.full(3, 2.0)) for end in ends}
    coords = {
        "classifier": ["one"],
        "method": METHODS,
        "metric": METRICS,
        "better": ("metric", ["lower", "higher"]),
        "letters": (("classifier", "method", "metric"), np.array([[["a", "b"], ["a", "a"], ["b", "a"]]], object)),
        "metric_settings": ("metric", [json.dumps({"pixels": 8}), json.dumps({"pixels": 8, "blur": 3})]),
    }
    attrs = {"bootstrap": {"resamples": 20, "level": 0.95, "seed": 0}, "min_count": 1, "weights": "families"}
    return xr.Dataset(cells | ranks, coords, attrs)


def moved(by: float, *, half: float = 0.1) -> xr.Dataset:
    """The same, with the mean of one cell and its interval elsewhere."""
    other = summary().copy(deep=True)
    for name, end in (("mean", 0.0), ("low", -half), ("high", half)):
        other[name].loc[AT] = 0.5 + by + end
    return other


def cell(table: pd.DataFrame, **at: str) -> pd.Series:
    (row,) = (row for _, row in table.iterrows() if all(row[name] == value for name, value in (AT | at).items()))
    return row


def test_a_summary_differs_from_itself_in_nothing():
    table = changes(summary(), summary())
    assert len(table) == 3 * 2 + 3 + 3  # and the mean ranks, on the classifier and on all
    assert set(table["state"]) == {"same"}
    assert (table["change"] == 0).all()
    assert not table["apart"].any()
    assert names(summary(), summary()).empty
    assert settings(summary(), summary()).empty


@pytest.mark.parametrize(("by", "apart"), [(0.19, False), (0.21, True), (-0.21, True), (-0.19, False)])
def test_means_are_apart_where_intervals_share_no_value(by, apart):
    table = changes(summary(), moved(by))
    row = table.iloc[0]
    assert tuple(row[list(AT)]) == tuple(AT.values())
    assert row["state"] == "changed"
    assert row["change"] == pytest.approx(by)
    assert row["widths"] == pytest.approx(abs(by) / 0.2)
    assert bool(row["apart"]) is apart
    assert (table["state"].iloc[1:] == "same").all()


def test_intervals_that_touch_share_a_value():
    one, other = summary(), summary().copy(deep=True)
    other["mean"].loc[AT], other["low"].loc[AT], other["high"].loc[AT] = 0.7, one["high"].loc[AT], 0.8
    assert not cell(changes(one, other))["apart"]


def test_what_is_undefined_is_not_told_apart():
    other = moved(0.4)
    other["low"].loc[AT] = np.nan
    row = cell(changes(summary(), other))
    assert row["state"] == "changed"
    assert row["change"] == pytest.approx(0.4)
    assert np.isnan(row["widths"])
    assert pd.isna(row["apart"])
    gone = summary().copy(deep=True)
    for name in ("mean", "low", "high", "rank"):
        gone[name].loc[AT] = np.nan
    assert set(changes(gone, gone)["state"]) == {"same"}
    row = cell(changes(summary(), gone))
    assert row["state"] == "changed"
    assert np.isnan([row["change"], row["rank_change"]]).all()


def test_a_change_between_intervals_without_width_is_infinite():
    row = cell(changes(moved(0, half=0), moved(0.001, half=0)))
    assert row["widths"] == np.inf
    assert row["apart"]


@pytest.mark.parametrize(("name", "value"), [("count", 9), ("rank", 1.0), ("high", 0.61)])
def test_counts_ranks_and_intervals_change_too(name, value):
    other = summary().copy(deep=True)
    other[name].loc[AT] = value
    table = changes(summary(), other)
    assert list(table["state"]).count("changed") == 1
    row = cell(table)
    assert (row["state"], row[f"{name}_after"], row["change"]) == ("changed", value, 0)
    assert row["rank_change"] == (-1 if name == "rank" else 0)


def test_a_changed_mean_rank_is_a_row_of_its_own():
    other = summary().copy(deep=True)
    other["mean_rank"].loc[{"classifier": "one", "method": "b"}] = 1.5
    row = cell(changes(summary(), other), metric="mean_rank")
    assert (row["state"], row["change"], row["better"]) == ("changed", -0.5, "lower")
    assert np.isnan(row["rank_after"])


def test_a_changed_overall_rank_is_a_row_of_its_own_with_its_interval():
    other = summary().copy(deep=True)
    for name, value in (("overall_rank", 1.5), ("overall_rank_low", 1.25)):
        other[name].loc[{"method": "b"}] = value
    table = changes(summary(), other)
    assert list(table["state"]).count("changed") == 1
    row = cell(table, classifier="all classifiers", metric="overall_rank")
    assert (row["state"], row["change"], row["low_after"], row["better"]) == ("changed", -0.5, 1.25, "lower")


def test_letters_change_too():
    other = summary().copy(deep=True)
    other["letters"].loc[AT] = "ab"
    table = changes(summary(), other)
    assert list(table["state"]).count("changed") == 1
    row = cell(table)
    assert (row["state"], row["letters_before"], row["letters_after"], row["change"]) == ("changed", "a", "ab", 0)
    assert set(changes(summary().drop_vars("letters"), other)["state"]) == {"same"}  # an older one has none


@pytest.mark.parametrize("back", [False, True])
def test_means_that_became_defined_or_undefined_come_first(back):
    one, other = summary(), summary().copy(deep=True)
    gone = {"classifier": "one", "metric": "deletion", "method": "c"}
    for name in ("mean", "low", "high"):
        other[name].loc[gone] = np.nan
        other[name].loc[AT] += 0.4
    table = changes(other, one) if back else changes(one, other)
    assert table["turned"].tolist() == [True] + [False] * 11
    assert tuple(table.iloc[0][list(gone)]) == tuple(gone.values())
    assert table["apart"].iloc[1]
    fewer = changes(one.isel(method=[0, 1]), other)
    assert not fewer["turned"].any()  # who came did not become undefined


def test_what_is_cut_is_counted_and_what_became_undefined_is_told(monkeypatch, tmp_path, capsys):
    from flows.commands import compare

    named = [f"method_{at:02}" for at in range(50)]
    one = summary().isel(method=[1] * 50).assign_coords(method=named)
    other = one.copy(deep=True)
    for name in ("mean", "low", "high"):
        other[name].loc[{"metric": "deletion"}] += 0.5
        other[name].loc[{"metric": "insertion", "method": named[:23]}] = np.nan
    monkeypatch.setattr(compare, "read", lambda study, revision: one if revision == "old" else other)
    compare.compare(tmp_path, "old", None, None)
    said = " ".join(capsys.readouterr().out.split())
    undefined, changed = "one: 23 means became defined or undefined, the first 20 of them; 3 more", "one: 50 changes"
    assert undefined in said
    assert f"{changed}, the 20 largest of them; 30 more are not shown (--csv FILE writes all)" in said
    assert said.index(undefined) < said.index(changed)
    assert "73 changed (the mean, its interval, count, rank or letters): 23 became defined or undefined" in said
    assert "of 50 the intervals are apart" in said
    assert "nothing corrects for the number of means" in said


def test_what_came_and_went_is_named_and_has_one_side():
    one, other = summary().isel(method=[0, 1]), summary().isel({"method": [1, 2], "metric": [1]})
    assert names(one, other).to_numpy().tolist() == [
        ["metric", "deletion", "went"],
        ["method", "a", "went"],
        ["method", "c", "came"],
    ]
    table = changes(one, other)
    assert cell(table)["state"] == "same"
    assert cell(table, method="c")["state"] == "came"
    assert cell(table, method="a")["state"] == "went"
    assert cell(table, method="b", metric="deletion")["state"] == "went"
    assert cell(table, method="b", metric="deletion")["better"] == "lower"
    assert pd.isna(cell(table, method="c")["count_before"])
    assert cell(table, method="c")["count_after"] == 10


def test_settings_that_changed_are_listed_with_both_values():
    other = summary().assign_coords(
        metric_settings=("metric", [json.dumps({"pixels": 9}), json.dumps({"pixels": 8, "fill": None})])
    )
    other.attrs["bootstrap"] = {"resamples": 20, "level": 0.9}
    assert settings(summary(), other).to_numpy().tolist() == [
        ["aggregate", "level", "0.95", "0.9"],
        ["aggregate", "seed", "0", ""],
        ["deletion", "pixels", "8", "9"],
        ["insertion", "blur", "3", ""],
        ["insertion", "fill", "", "null"],
    ]


def test_a_setting_of_the_whole_that_an_older_summary_lacks_is_listed():
    older = summary()
    del older.attrs["min_count"]
    assert settings(older, summary()).to_numpy().tolist() == [["aggregate", "min_count", "", "1"]]
    assert settings(summary(), older).to_numpy().tolist() == [["aggregate", "min_count", "1", ""]]


@pytest.fixture(scope="module")
def house(baseline, tmp_path_factory) -> Path:
    """A study with two revisions: `plain`, and one whose metric has another setting; the results of both are here."""
    house = Path(shutil.copytree(baseline, tmp_path_factory.mktemp("compare") / "house", symlinks=True))
    commit(house, "plain")
    params = tiny()
    params["metrics"]["faithfulness"]["deletion"]["pixels"] = 512
    del params["methods"]["control"]["center"]
    write(house, params)
    repro(house, "aggregate")
    commit(house, "finer")
    return house


def commit(house: Path, tag: str) -> None:
    run(house, "git", "add", ".")
    run(house, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", tag)
    run(house, "git", "tag", tag)


def atlas(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *map(str, words)])
    return done.exit_code, done.output.strip()


def stored(house: Path) -> xr.Dataset:
    return opened(house).load()


def test_a_revision_is_compared_with_the_working_tree(house, baseline, tmp_path):
    status, said = atlas("plain", "--study", house, "--csv", tmp_path / "all.csv")
    assert status == 0, said
    assert "center" in said
    assert "went" in said
    for word in ("pixels", "2048", "512", "deletion ↓"):
        assert word in said
    assert "the intervals are apart: the intervals of the two means (95 %) share no value" in said
    table = pd.read_csv(tmp_path / "all.csv")
    old, new = stored(baseline), stored(house)
    assert len(table) == old.sizes["method"] * (old.sizes["metric"] + 2)
    for _, row in table[(table["state"] != "went") & ~table["metric"].isin(MEAN_RANKS)].iterrows():
        at = {name: row[name] for name in ("classifier", "metric", "method")}
        for name in ("mean", "rank", "count"):
            assert (row[f"{name}_before"], row[f"{name}_after"]) == (old[name].sel(at), new[name].sel(at)), at
    assert set(table.query("metric == 'deletion' and state == 'changed'")["method"]) >= {"gradient", "smoothgrad"}
    assert set(table.query("metric == 'pointing_game'")["state"]) <= {"same", "changed", "went"}


def test_two_revisions_are_compared_without_the_working_tree(house, tmp_path):
    other = Path(shutil.copytree(house, tmp_path / "house", symlinks=True))
    shutil.rmtree(other / "data")
    forth, back = (tmp_path / f"{name}.csv" for name in ("forth", "back"))
    assert atlas("plain", "finer", "--study", other, "--csv", forth)[0] == 0
    assert atlas("finer", "plain", "--study", other, "--csv", back)[0] == 0
    one, two = (pd.read_csv(file).sort_values(["metric", "method"]).reset_index() for file in (forth, back))
    np.testing.assert_array_equal(one["change"], -two["change"])
    assert not (other / "data").exists()  # nothing was brought
    assert atlas("finer", "--study", other)[1].startswith("Nothing changed between finer and the working tree: ")


def test_nothing_changed_is_one_line(house):
    status, said = atlas("finer", "--study", house)
    assert status == 0
    assert said == "Nothing changed between finer and the working tree: 32 means, all the same."


def test_results_come_from_a_remote_and_nothing_else_does(house, tmp_path):
    ours = Path(shutil.copytree(house, tmp_path / "ours", symlinks=True))
    run(ours, "dvc", "remote", "add", "--default", "shared", str(tmp_path / "shared"))
    for tag in ("plain", "finer"):
        run(ours, "git", "checkout", "-q", tag, "--", "dvc.lock", "params.yaml")
        run(ours, "dvc", "push", "-q", "data/results")
    commit(ours, "shared")
    run(tmp_path, "git", "clone", "-q", str(ours), str(tmp_path / "theirs"))
    status, said = atlas("plain", "finer", "--study", tmp_path / "theirs")
    assert status == 0, said
    assert "pixels" in said
    assert not (tmp_path / "theirs/data").exists()
    shutil.rmtree(tmp_path / "shared")
    run(tmp_path, "git", "clone", "-q", str(ours), str(tmp_path / "others"))
    status, said = atlas("plain", "finer", "--study", tmp_path / "others")
    assert status == 2
    assert said.startswith("error: the results of plain are neither in DVC's cache nor in a remote (")
    assert "\n" not in said


def test_a_revision_whose_results_are_of_earlier_code_is_told(house, tmp_path):
    other = Path(shutil.copytree(house, tmp_path / "house", symlinks=True))
    (other / "data/results/results.zarr.zip").unlink()
    run(other, "dvc", "commit", "-q", "-f", "aggregate")
    commit(other, "older")
    status, said = atlas("older", "--study", other)
    assert status == 2
    assert said == "error: the results of older, made by earlier code, have no results.zarr.zip and cannot be read"


def test_errors_are_one_line(house, tmp_path):
    for words, told in (
        (["nosuch", "--study", house], "has no revision 'nosuch'; `git log` lists those there are"),
        (["HEAD", "--study", tmp_path], "is not a repository of Git and DVC: it has no revisions to compare"),
        (["plain", "--study", house, "--csv", "no/such/one.csv"], "no/such/one.csv: cannot be written (No such file"),
    ):
        status, said = atlas(*words)
        assert status == 2
        assert said.startswith("error: ")
        assert told in said
        assert "\n" not in said


def test_dvc_shows_metrics_of_each_method(house):
    (line,) = run(house, "dvc", "metrics", "show", "--md").stdout.strip().splitlines()[2:]
    assert line.startswith("| data/metrics.json")
    told = json.loads(run(house, "dvc", "metrics", "show", "--json").stdout)[""]["data"]["data/metrics.json"]["data"]
    summary = stored(house)
    for method in summary["method"].values.tolist():
        at = {"classifier": "resnet_vanilla", "method": method}
        given = told["mean_rank"]["resnet_vanilla"][method]
        assert given == pytest.approx(float(summary["mean_rank"].sel(at)), rel=1e-5)
    assert set(told["median"]["resnet_vanilla"]) == set(summary["metric"].values[summary["role"] != "diagnostic"])


def test_dvc_tells_the_metrics_that_changed_by_method(house):
    told = json.loads(run(house, "dvc", "metrics", "diff", "plain", "finer", "--json").stdout)
    changed = told["data/metrics.json"]
    assert {"median.resnet_vanilla.deletion", "mean_rank.resnet_vanilla.gradient"} <= set(changed)
    deletion = changed["median.resnet_vanilla.deletion"]
    assert deletion["diff"] == pytest.approx(deletion["new"] - deletion["old"])


def specs(page: Path) -> dict[str, dict]:
    """What a page of `dvc plots` draws, by title."""
    found = map(json.loads, re.findall(r"var spec = (\{.*\});", page.read_text()))
    return {one["title"]["text"]: one for one in found}


def fields(spec: object) -> set[str]:
    if isinstance(spec, list):
        return set().union(*map(fields, spec))
    own = {spec["field"]} if isinstance(spec, dict) and isinstance(spec.get("field"), str) else set()
    return own.union(*map(fields, spec.values())) if isinstance(spec, dict) else own


@pytest.mark.parametrize(
    ("command", "revisions"), [(["show"], {"workspace"}), (["diff", "plain"], {"workspace", "plain"})]
)
def test_dvc_plots_every_metric_and_curve_with_intervals(house, tmp_path, command, revisions):
    run(house, "dvc", "plots", *command, "-o", str(tmp_path / "plots"))
    drawn = specs(tmp_path / "plots/index.html")
    families = set(stored(house)["metric_family"].values.tolist())
    curves = ["data/plots/curves/faithfulness.csv"]
    bars = ["mean rank of each method", *(f"data/plots/scores/{family}.csv" for family in families)]
    assert set(drawn) == {*bars, *curves}
    for title, spec in drawn.items():
        assert "<DVC_METRIC" not in json.dumps(spec)
        rows = spec.pop("data")["values"]
        wanted = {"classifier", "method", "rev", *(("low", "high") if title in bars else ("fraction", "mean"))}
        assert wanted <= fields(spec) <= set(rows[0]), title
        assert {row["rev"] for row in rows} == revisions
        assert {row["method"] for row in rows if row["rev"] == "workspace"} == set(stored(house)["method"].values)
