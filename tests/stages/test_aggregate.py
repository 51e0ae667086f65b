"""Aggregation of made-up scores: numbers recomputed slowly, nothing lost in silence, equal bytes from equal input."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
import yaml
import zarr
from statsmodels.stats.multitest import multipletests

from atlas.cache.score_store import find
from atlas.cache.stores import array
from atlas.results import parquet
from atlas.statistics import labels
from atlas.statistics.intervals import means
from atlas.study import params
from atlas.study.errors import UserError
from stages import aggregate, report
from tests.support import labelled, made_up
from tests.support.reported import housed
from tests.support.results import names, opened
from tests.support.scores import change as change_scores


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Iterator[Path]:
    with housed(tmp_path_factory, made_up) as folder:
        aggregate.main(folder)
        yield folder


@pytest.fixture
def copy(study, tmp_path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "study"))


def stored(study: Path, classifier: str, metric: str, method: str) -> xr.DataArray:
    family = next(family for family, listed in made_up.METHODS.items() if method in listed)
    place = find(params.path(study, "scores", classifier, family)).places[metric]
    found = xr.open_zarr(place.folder, consolidated=False, chunks=None)["score"]
    found = found.isel(metric=slice(*place.span)).sel({"method": method})
    found = found.isel({found.dims[1]: slice(place.attrs["count"])}).transpose(..., "metric").drop_vars("metric")
    if not place.attrs["along"]:
        return found.squeeze("metric")
    ((dim, points),) = place.attrs["along"].items()
    return found.rename({"metric": dim}).assign_coords({dim: points})


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def change(study: Path, **sections: dict) -> None:
    given = yaml.safe_load((study / "params.yaml").read_text())
    (study / "params.yaml").write_text(yaml.safe_dump({**given, **sections}, sort_keys=False))


def placed(ranks: xr.DataArray, last: int) -> xr.DataArray:
    """Return the places that ranks by method and metric are, ties at the average, from 1 to the last of so many."""
    table = ranks.transpose("method", "metric").to_pandas()
    places = (table.rank() - 1) * (last - 1) / (table.notna().sum() - 1) + 1
    coords = {"method": ranks["method"].values, "metric": ranks["metric"].values}
    found = xr.DataArray(places.values, coords, ("method", "metric"))
    return found.assign_coords(metric_family=("metric", ranks["metric_family"].values))


def test_means_and_counts_are_those_of_the_defined_scores(study):
    summary = opened(study, "summary")
    cell = summary.sel({"classifier": "robust", "method": "rise", "metric": "pointing_game"})
    scores = stored(study, "robust", "pointing_game", "rise").values
    assert cell["asked"] == scores.size == 24
    assert cell["count"] == (~np.isnan(scores)).sum() == 23
    assert cell["mean"] == pytest.approx(np.nanmean(scores))
    assert cell["low"] < cell["mean"] < cell["high"]


def test_a_score_that_becomes_undefined_lowers_the_count(copy):
    change_scores(params.path(copy, "scores", "robust", "perturbation"), "sparseness", "score", (0, 5), np.nan)
    aggregate.main(copy)
    cell = opened(copy, "summary").sel({"classifier": "robust", "method": "rise", "metric": "sparseness"})
    assert (cell["count"], cell["asked"]) == (23, 24)
    rows = pd.read_parquet(copy / "data/results/scores.parquet").query(
        "classifier == 'robust' and method == 'rise' and metric == 'sparseness'"
    )
    assert len(rows) == 24
    assert rows["score"].isna().sum() == 1


def test_a_metric_on_a_prefix_has_smaller_counts(study):
    summary = opened(study, "summary")
    cell = summary.sel({"classifier": "vanilla", "method": "gradcam"})
    assert cell["count"].sel(metric="max_sensitivity") == 10
    assert cell["count"].sel(metric="sparseness") == 24
    scores = opened(study, "scores")["score"].sel(
        {"classifier": "vanilla", "method": "gradcam", "metric": "max_sensitivity"}
    )
    assert list(scores["image"].values[~np.isnan(scores)]) == made_up.ids(10)


def test_excluded_and_unsupported_methods_were_not_asked_and_are_unranked(study):
    summary = opened(study, "summary")
    excluded = summary.sel({"metric": "max_sensitivity", "method": "uniform", "classifier": "robust"})
    refused = summary.sel({"metric": "insertion", "method": "cam", "classifier": "vanilla"})
    for cell in (excluded, refused):
        assert (cell["count"], cell["asked"]) == (0, 0)
        assert np.isnan([cell[name] for name in ("mean", "low", "high", "rank", "rank_low", "rank_high")]).all()
    assert np.isnan(summary["mean_rank"].sel({"classifier": "vanilla", "method": "cam"}))
    reason = made_up.UNSUPPORTED["vanilla", "cam"]
    assert summary.attrs["unsupported"]["vanilla"]["cam"]["insertion"] == reason
    assert summary["rank"].sel(metric="insertion", classifier="vanilla").max() == 13


def test_curves_give_areas_and_diagnostics_that_rank_nothing(study):
    summary = opened(study, "summary")
    curve = stored(study, "robust", "deletion", "smoothgrad").values.astype(float)
    cell = summary.sel({"classifier": "robust", "method": "smoothgrad"})
    assert cell["mean"].sel(metric="deletion") == pytest.approx(np.trapezoid(curve, dx=1 / 12, axis=1).mean())
    falls = (np.diff(curve, axis=1) <= 0).mean()
    assert cell["mean"].sel(metric="deletion_monotonicity") == pytest.approx(falls)
    assert set(summary["metric"].values[summary["role"] == "diagnostic"]) == {
        f"{name}_{word}" for name in ("deletion", "insertion") for word in ("monotonicity", "smoothness")
    }
    judged = summary.where(summary["role"] == "metric", drop=True)["rank"].sel(classifier="robust")
    places = placed(judged, len(judged["method"])).groupby("metric_family").mean("metric").mean("metric_family")
    np.testing.assert_allclose(summary["mean_rank"].sel(classifier="robust"), places)
    assert cell["mean_rank_metrics"] == judged.sizes["metric"] == 7
    assert summary["mean_rank_methods"].values.tolist() == [13, 14]
    curves = opened(study, "curves").sel({"classifier": "robust", "method": "smoothgrad", "metric": "deletion"})
    np.testing.assert_allclose(curves["mean"], curve.mean(axis=0))
    assert (curves["low"] <= curves["mean"]).all()
    assert (curves["count"] == 24).all()


def test_hits_are_taken_at_each_methods_best_threshold(study):
    cell = opened(study, "summary").sel({"classifier": "vanilla", "method": "occlusion", "metric": "wsl"})
    hits = stored(study, "vanilla", "wsl", "occlusion").mean("image")
    assert cell["mean"] == pytest.approx(float(hits.max()))
    assert cell["threshold"] == hits["threshold"][int(np.argmax(hits.values))]


def test_grids_are_scored_by_tile_and_resampled_whole(study):
    where = {"classifier": "vanilla", "method": "rise", "metric": "grid_pointing_game"}
    cell = opened(study, "summary").sel(where)
    scores = stored(study, "vanilla", "grid_pointing_game", "rise").values
    assert cell["count"] == 24
    assert cell["mean"] == pytest.approx(scores.mean(), rel=1e-6)
    # The standard error of a mean over 6 grids, from the grids' own means.
    error = scipy.stats.sem(scores.mean(axis=1))
    assert 1 <= (cell["high"] - cell["low"]) / (2 * scipy.stats.t.ppf(0.975, 5) * error) < 1.5
    table = opened(study, "scores")["grid_score"].sel(
        {"classifier": "vanilla", "method": "rise", "metric": "grid_pointing_game"}
    )
    np.testing.assert_array_equal(table, scores)


def test_scores_that_are_undefined_unsupported_and_not_asked_for_are_told_apart(study):
    table, summary = opened(study, "scores").load(), opened(study, "summary")
    assert [table[name].dtype for name in ("asked", "grid_asked")] == [np.int8, np.int8]
    at = {"classifier": "vanilla", "method": "cam", "metric": "pointing_game"}
    undefined, refused = ({**at, "method": name, "image": made_up.ids(4)[3]} for name in ("gradcam", "cam"))
    late = {"classifier": "vanilla", "method": "gradcam", "metric": "max_sensitivity", "image": made_up.ids(24)[20]}
    excluded = {**late, "method": "uniform", "image": made_up.ids(1)[0]}
    for cell, asked in ((undefined, 1), (refused, 0), (late, 0), (excluded, 0)):
        assert np.isnan(table["score"].sel(cell))
        assert table["asked"].sel(cell) == asked
    assert table.attrs["unsupported"]["vanilla"]["cam"]["pointing_game"]
    assert (table["asked"].where(table["score"].notnull(), 1) == 1).all()
    each = table["asked"].sum("image") + table["grid_asked"].sum(["grid", "tile"])
    assert (each == summary["asked"]).all()


def test_every_score_is_in_both_forms(study):
    table = opened(study, "scores")
    rows = pd.read_parquet(study / "data/results/scores.parquet")
    assert len(rows) == opened(study, "summary")["asked"].sum()
    image = rows[rows["image"].notna()]
    for row in image.sample(50, random_state=0).itertuples():
        where = {"classifier": row.classifier, "method": row.method, "metric": row.metric, "image": row.image}
        np.testing.assert_array_equal(table["score"].sel(where), np.float32(row.score))
    assert image["score"].notna().sum() == table["score"].notnull().sum()
    assert rows[rows["grid"].notna()]["score"].notna().sum() == table["grid_score"].notnull().sum()


def test_every_table_has_its_rows_in_parquet(study):
    folder = study / "data/results"
    assert {path.stem for path in folder.glob("*.parquet")} == names(study)
    for path in sorted(folder.glob("*.parquet")):
        if path.stem in ("scores", "summary"):
            continue
        table, rows = opened(study, path.stem).load(), pd.read_parquet(path)
        assert {*table.data_vars, *table.dims} <= set(rows)
        for name, variable in table.data_vars.items():
            known = rows[rows[name].notna()]
            assert known[name].size >= variable.notnull().sum(), (path.stem, name)
            for row in known[:: max(1, len(known) // 5)].to_dict("records"):
                cell = variable.sel({dim: row[dim] for dim in variable.dims})
                assert cell.item() == row[name], (path.stem, name)
    contrasts = pd.read_parquet(folder / "contrasts.parquet")
    assert len(contrasts) == opened(study, "contrasts")["p"].size  # undefined ones among them
    assert contrasts["p"].isna().any()


def test_rows_of_curves_are_at_the_fractions_that_their_metric_has(tmp_path):
    mean = [[[0.5, np.nan, 0.25], [np.nan, 0.75, np.nan]], np.full((2, 3), np.nan)]
    dims, names = ("classifier", "metric", "fraction"), (["one", "two"], ["deletion", "road"], [0.0, 0.5, 1.0])
    curves = xr.Dataset({"mean": (dims, np.array(mean))}, dict(zip(dims, names, strict=True)))
    parquet.write_table(curves, tmp_path / "curves.parquet")
    rows = pd.read_parquet(tmp_path / "curves.parquet")
    places = [("deletion", 0.0), ("deletion", 1.0), ("road", 0.5)]
    told = [(row.classifier, row.metric, row.fraction) for row in rows.itertuples()]
    assert told == [(name, *place) for name in ("one", "two") for place in places]
    assert rows["mean"].isna().tolist() == [False] * 3 + [True] * 3


def test_rankings_agree_as_scipy_says(study):
    summary, agreement = opened(study, "summary"), opened(study, "agreement")
    means = summary["mean"].sel(classifier="vanilla")
    one, other = means.sel(metric="deletion"), means.sel(metric="pointing_game")
    both = one.notnull() & other.notnull()
    tau = scipy.stats.kendalltau(-one[both], other[both]).statistic
    found = agreement.sel(classifier="vanilla", metric="deletion", metric_other="pointing_game")
    assert found["kendall"] == pytest.approx(tau)
    assert found["kendall_count"] == 13
    cells = summary["mean"].sel(metric=["deletion", "sparseness"]).stack(cell=["classifier", "method"])
    rho = scipy.stats.spearmanr(-cells[0], cells[1], nan_policy="omit").statistic
    assert agreement["spearman"].sel(metric="deletion", metric_other="sparseness") == pytest.approx(rho)
    assert "deletion_smoothness" not in agreement["metric"]
    across = agreement["kendall_classifiers"].sel(metric="insertion")
    assert across.sel(classifier="vanilla", classifier_other="robust") == pytest.approx(
        scipy.stats.kendalltau(*summary["mean"].sel(metric="insertion").dropna("method").values).statistic
    )
    assert agreement["kendall_classifiers_mean"].sel(metric="insertion") == pytest.approx(float(across.mean()))


def test_families_of_metrics_rank_methods_by_the_mean_over_their_metrics(study):
    summary = opened(study, "summary").load()
    families = [family for family, listed in made_up.METRICS.items() if listed]
    assert summary["family"].values.tolist() == families
    ranking = summary["role"] == "metric"
    for family in families:
        one = summary["rank"].sel(metric=ranking & (summary["metric_family"] == family))
        here = summary.sel(family=family, drop=True)
        for classifier in made_up.CLASSIFIERS:
            own, number = one.sel(classifier=classifier), int(here["family_rank_methods"].sel(classifier=classifier))
            assert number == own.notnull().any("metric").sum()
            expected = placed(own, number).mean("metric")
            np.testing.assert_allclose(here["family_rank"].sel(classifier=classifier), expected)
        assert (here["family_rank_metrics"] == one.notnull().sum("metric")).all()
        known = here["family_rank"].notnull()
        assert (here["family_rank_low"] <= here["family_rank"]).where(known, True).all()
        assert (here["family_rank"] <= here["family_rank_high"]).where(known, True).all()
        assert (here["family_rank_low"] < here["family_rank_high"]).any()
    assert not pd.read_parquet(study / "data/results/summary.parquet").columns.str.startswith("family_rank").any()


def paired(study: Path, metric: str, classifier: str = "robust") -> pd.DataFrame:
    """Return scores by unit and method, those of a grid averaged."""
    listed = [name for names in made_up.METHODS.values() for name in names]
    columns = {}
    for name in listed:
        if name not in made_up.EXCLUDED.get(metric, []) and (classifier, name) not in made_up.UNSUPPORTED:
            scores = stored(study, classifier, metric, name)
            columns[name] = scores.mean("tile").values if "tile" in scores.dims else scores.values
    return pd.DataFrame(columns).reindex(columns=listed)


@pytest.mark.parametrize(
    ("metric", "better"), [("pointing_game", 1), ("grid_pointing_game", 1), ("max_sensitivity", -1)]
)
def test_methods_are_compared_in_pairs_image_by_image(study, metric, better):
    here = {"classifier": "robust", "metric": metric}
    contrasts, scores = opened(study, "contrasts").sel(here).load(), paired(study, metric)
    p, pairs = [], []
    for at, one in enumerate(scores):
        for other in list(scores)[at + 1 :]:
            pair = contrasts.sel({"method": one, "method_other": other})
            both = scores[[one, other]].dropna()
            assert int(pair["count"]) == len(both)
            if both.empty:
                assert np.isnan(pair["p"])
                continue
            ours, theirs = both[one].astype(float), both[other].astype(float)
            p.append(float(pair["p"]))
            # Student's test, no surer than that all images agree, is never less sure than what follows the skewness.
            students = scipy.stats.ttest_rel(ours, theirs).pvalue
            assert metric == "pointing_game" or p[-1] >= max(students, 2.0 ** (1 - len(both))) * (1 - 1e-4)
            won = (np.sign(ours - theirs) * better + 1).mean() / 2
            assert float(pair["superiority"]) == pytest.approx(won)
            assert float(contrasts["superiority"].sel({"method": other, "method_other": one})) == pytest.approx(1 - won)
            pairs.append(pair)
    assert len(pairs) >= 10
    adjusted = multipletests(p, method="holm")[1]
    np.testing.assert_allclose([float(pair["p_adjusted"]) for pair in pairs], adjusted, rtol=1e-6)


def scored(study: Path, metric: str, classifier: str = "robust") -> dict[str, np.ndarray]:
    """Return scores by unit and part, of each method that has some."""
    listed = [name for names in made_up.METHODS.values() for name in names]
    served = [name for name in listed if name not in made_up.EXCLUDED.get(metric, [])]
    found = {name: stored(study, classifier, metric, name).values.astype(float) for name in served}
    return {name: one.reshape(len(one), -1) for name, one in found.items() if not np.isnan(one).all()}


@pytest.mark.parametrize("metric", ["pointing_game", "grid_pointing_game", "max_sensitivity"])
def test_differences_of_means_are_paired_and_have_intervals(study, metric):
    for classifier in made_up.CLASSIFIERS:
        contrasts = opened(study, "contrasts").sel(classifier=classifier, metric=metric).load()
        scores = scored(study, metric, classifier)
        for one, other in (("rise", "gradcam"), ("gradcam", "rise"), ("saliency", "canny"), ("center", "occlusion")):
            change = scores[one] - scores[other]
            pair = contrasts.sel({"method": one, "method_other": other})
            assert float(pair["difference"]) == pytest.approx(np.nanmean(change))
            assert float(pair["difference_low"]) < float(pair["difference"]) < float(pair["difference_high"])
            apart = not float(pair["difference_low"]) <= 0 <= float(pair["difference_high"])
            assert apart == (float(pair["p"]) <= 0.05)
            assert int(pair["difference_count"]) == (~np.isnan(change)).sum()
        for absent in set(contrasts["method"].values) - set(scores):
            pair = contrasts.sel({"method": absent, "method_other": "rise"})
            assert np.isnan([pair[name] for name in ("difference", "difference_low", "difference_high")]).all()
            assert int(pair["difference_count"]) == 0


def test_means_over_too_few_images_count_nowhere(copy):
    change(copy, aggregate={"resamples": 200, "level": 0.95, "weights": "families", "min_count": 11})
    aggregate.main(copy)
    few, many = {"metric": "max_sensitivity"}, {"metric": "sparseness"}
    assert opened(copy, "summary")["mean"].sel(few).notnull().any()
    assert opened(copy, "summary")["rank"].sel(few).isnull().all()
    agreement, compared, counted = (opened(copy, name) for name in ("agreement", "comparison", "controls"))
    for table, name in (
        (agreement, "kendall_count"),
        (agreement, "kendall_classifiers_count"),
        (agreement, "spearman_count"),
        (compared, "count"),
        (compared, "median_count"),
        (counted, "cases"),
    ):
        assert (table[name].sel(few) == 0).all(), name
        assert (table[name].sel(many) > 0).any(), name


def test_intervals_say_by_which_papers_they_are(study):
    for name, end in (("summary", "low"), ("curves", "high"), ("precision", "width_now")):
        assert opened(study, name)[end].attrs["reference"] == "hall1992removal, agresti1998approximate"
    for end in ("p", "difference_low"):
        assert opened(study, "contrasts")[end].attrs["reference"] == "hall1992removal, agresti2005simple"
    assert opened(study, "summary")["rank_low"].attrs["reference"] == "efron1993introduction"


def test_the_mean_rank_counts_metrics_the_same_where_that_is_asked_for(study, copy):
    change(copy, aggregate={"resamples": 200, "level": 0.95, "weights": "metrics", "min_count": 1})
    aggregate.main(copy)
    before, after = opened(study, "summary").load(), opened(copy, "summary").load()
    for name in ("mean_rank", "overall_rank"):
        assert not np.allclose(before[name], after[name], equal_nan=True)
        xr.testing.assert_allclose(before[name], after[f"{name}_otherwise"])
        xr.testing.assert_allclose(before[f"{name}_otherwise"], after[name])
        xr.testing.assert_allclose(before[f"{name}_kendall"], after[f"{name}_kendall"])
    known = before["overall_rank"].notnull()
    tau = scipy.stats.kendalltau(before["overall_rank"][known], after["overall_rank"][known]).statistic
    assert float(before["overall_rank_kendall"]) == pytest.approx(tau)
    kept = [name for name in before.data_vars if not str(name).startswith(("mean_rank", "overall_rank"))]
    xr.testing.assert_equal(before[kept], after[kept])


@pytest.mark.parametrize("metric", ["pointing_game", "sparseness", "grid_pointing_game", "max_sensitivity"])
def test_images_agree_on_the_order_of_methods_as_krippendorff_says(study, metric):
    # By the definition: squared differences of places among all, within methods and over all pairs.
    ranks = np.array(
        [scipy.stats.rankdata(row) for row in paired(study, metric).dropna(axis=1, how="all").dropna().values]
    )
    places = scipy.stats.rankdata(ranks).reshape(ranks.shape)
    images, number = len(places), places.size
    within = sum(((one[:, None] - one) ** 2).sum() / (images - 1) for one in places.T) / number
    chance = ((places.ravel()[:, None] - places.ravel()) ** 2).sum() / (number * (number - 1))
    found = opened(study, "agreement").sel(classifier="robust", metric=metric)
    assert float(found["krippendorff"]) == pytest.approx(1 - within / chance)
    assert int(found["krippendorff_count"]) == number


def test_metrics_are_correlated_over_the_images_of_a_method(study):
    found = opened(study, "agreement").sel(classifier="vanilla").load()
    metrics = {"pointing_game": 1, "max_sensitivity": -1, "sparseness": 1}
    tables = {
        name: sign * pd.DataFrame({m: s[:, 0] for m, s in scored(study, name, "vanilla").items()})
        for name, sign in metrics.items()
    }
    for one in metrics:
        for other in metrics:
            both = [method for method in tables[one] if method in tables[other]]
            # Images are the first ones of the same list; what is constant on them has no correlation.
            expected = [tables[one][method].corr(tables[other][method], method="spearman") for method in both]
            pair = found.sel(metric=one, metric_other=other)
            assert float(pair["spearman_images"]) == pytest.approx(np.nanmean(expected)), (one, other)
            assert int(pair["spearman_images_count"]) == (~np.isnan(expected)).sum()
    grids = found.sel(metric="grid_pointing_game")
    assert np.isnan(grids["spearman_images"]).all()
    assert (grids["spearman_images_count"] == 0).all()


@pytest.mark.parametrize("metric", ["pointing_game", "grid_pointing_game", "deletion"])
def test_widths_spread_and_how_many_are_enough(study, metric):
    found = opened(study, "precision").sel(classifier="robust", metric=metric).load()
    board = opened(study, "summary").sel(classifier="robust", metric=metric).load()
    board = board.isel(method=~board["control"].values)
    scores = scored(study, metric)
    if metric == "deletion":
        scores = {name: np.trapezoid(one, dx=1 / 12, axis=1)[:, None] for name, one in scores.items()}
    units = len(scores["rise"])
    for size in (10, 100, 5000):
        widths = []
        for method in board["method"].values.tolist():
            sums, counts = np.nansum(scores[method], axis=1), (~np.isnan(scores[method])).sum(axis=1)
            options = {"binary": metric == "pointing_game", "level": 0.95, "times": size / units}
            low, high = means.intervals(sums[:, None], counts[:, None], **options)
            widths.append(high[0] - low[0])
        assert float(found["width"].sel(size=size)) == pytest.approx(np.median(widths))
    assert float(found["width_now"]) == pytest.approx(np.median(board["high"] - board["low"]))
    assert float(found["spread"]) == pytest.approx(np.std(board["mean"], ddof=1))
    narrow = found["width"] < found["spread"] / 2
    assert float(found["sample_size"]) == min(found["size"].values[narrow])
    assert not narrow.sel(size=found["size"] < found["sample_size"]).any()
    assert int(found["units"]) == {"pointing_game": 23, "grid_pointing_game": 6}.get(metric, 24)
    assert int(found["width_count"]) == int(found["spread_count"]) == 11


def test_a_metric_on_four_grids_has_no_width(study, tmp_path):
    aggregate.main(made_up.study(tmp_path / "study", grids=4))
    found = opened(tmp_path / "study", "precision").sel(metric="grid_pointing_game").load()
    assert np.isnan(found[["width", "width_now", "sample_size"]].to_array()).all()
    assert (found["width_count"] == 0).all()
    assert (found["spread"] > 0).all()
    assert found["units"].values.tolist() == [4, 4]
    differences = opened(tmp_path / "study", "contrasts").sel(metric="grid_pointing_game").load()
    assert np.isnan(differences["difference_low"]).all()
    assert differences["difference"].notnull().any()


def test_methods_share_a_letter_exactly_where_they_are_not_told_apart(study):
    summary, contrasts = opened(study, "summary").load(), opened(study, "contrasts").load()
    seen = set()
    for metric in contrasts["metric"].values.tolist():
        for classifier in made_up.CLASSIFIERS:
            here = {"classifier": classifier, "metric": metric}
            letters = dict(zip(summary["method"].values, summary["letters"].sel(here).values, strict=True))
            adjusted = contrasts["p_adjusted"].sel(here).to_pandas()
            images, pairs = int(contrasts["count"].sel(here).max()), adjusted.notna().to_numpy().sum() / 2
            # On six grids, or ten images, p is 2 / 2⁶ or more even where one method wins on all, times the pairs.
            hopeless = 2 / 2**images * pairs > 0.05
            assert hopeless == (metric in ("grid_pointing_game", "max_sensitivity"))
            if hopeless:
                assert not any(letters.values())
                continue
            for one, own in letters.items():
                assert bool(own) == (not np.isnan(summary["rank"].sel({**here, "method": one}))), (metric, one)
                for other, its in letters.items() if own else ():
                    if its and other != one:
                        assert bool(set(own) & set(its)) == (adjusted.loc[one, other] > 0.05), (metric, one, other)
                        seen.add(bool(set(own) & set(its)))
    assert seen == {True, False}
    diagnostics = summary["role"] == "diagnostic"
    assert (summary["letters"].sel(metric=diagnostics) == "").all()


def test_metrics_together_rank_methods_as_friedman_says(study):
    summary = opened(study, "summary").load()
    for classifier in made_up.CLASSIFIERS:
        here = summary.sel(classifier=classifier)
        ranks = here["rank"].sel({"metric": here["role"] == "metric", "method": ~here["control"]})
        ranks = ranks.to_pandas().dropna(axis="columns", how="all").dropna()
        expected = scipy.stats.friedmanchisquare(*ranks.values)
        assert float(here["friedman"]) == pytest.approx(expected.statistic)
        assert float(here["friedman_p"]) == pytest.approx(expected.pvalue)
        methods, metrics = ranks.shape
        assert (int(here["friedman_methods"]), int(here["friedman_metrics"])) == (methods, metrics)
        quantile = scipy.stats.studentized_range.ppf(0.95, methods, np.inf)
        assert float(here["critical_difference"]) == pytest.approx(
            quantile * np.sqrt(methods * (methods + 1) / 12 / metrics), rel=1e-6
        )


def test_classifiers_are_side_by_side_in_the_results(study):
    summary, found = opened(study, "summary"), opened(study, "comparison")
    assert found.attrs["same_images"] == [made_up.CLASSIFIERS]
    assert found["accuracy"].values.tolist() == [0.97, 0.91]
    assert found["adversarial_accuracy"].values.tolist() == [0.04, 0.66]
    methods = summary["method"].values[~summary["control"].values]
    sign = {"higher": 1, "lower": -1}
    for metric in summary["metric"].values:
        way = sign[str(summary["better"].sel(metric=metric).values)]
        medians = []
        for classifier in made_up.CLASSIFIERS:
            means = summary["mean"].sel({"classifier": classifier, "metric": metric, "method": methods}).values
            known = means[~np.isnan(means)]
            assert len(known) == len(methods) - (classifier == "vanilla")
            one = found.sel({"classifier": classifier, "metric": metric, "method_family": "all"})
            at = [float(one[name]) for name in ("quartile_low", "median", "quartile_high")]
            np.testing.assert_allclose(at, np.percentile(known, [25, 50, 75]))
            assert one["median_count"] == len(known)
            medians.append(way * float(one["median"]))
        plain, robust = found.sel({"metric": metric, "method_family": "all"})["median_rank"].values
        assert (plain < robust) == (medians[0] > medians[1])
        # The first is more accurate, the second under attack.
        assert found["accuracy_front"].sel(metric=metric).values.tolist() == [True, medians[1] > medians[0]]
        assert found["adversarial_accuracy_front"].sel(metric=metric).values.tolist() == [medians[0] > medians[1], True]


def test_a_missing_card_is_named(copy):
    path = params.path(copy, "classifiers", "robust") / "card.json"
    path.unlink()
    with pytest.raises(UserError, match=r"robust.card\.json: cannot be read .*; run stages\.prepare again"):
        aggregate.main(copy)


def test_places_of_controls_are_counted(study):
    summary, counted = opened(study, "summary").load(), opened(study, "controls").load()
    assert counted["controls"].values.tolist() == ["uniform, canny"]
    for metric in counted["metric"].values.tolist():
        one = summary.sel(metric=metric)
        turned = one["mean"].round(9) * (1 if one["better"] == "higher" else -1)
        last = second = cases = 0
        for classifier in made_up.CLASSIFIERS:
            board = turned.sel(classifier=classifier).to_pandas().dropna()
            if {"uniform", "canny"} <= set(board.index):
                cases += 1
                others = board.drop(["uniform", "canny"])
                last += board["uniform"] < min(board["canny"], others.min())
                second += board["uniform"] < board["canny"] < others.min()
        found = counted.sel({"controls": "uniform, canny", "metric": metric})
        assert [int(found[name]) for name in ("cases", "last", "second_last")] == [cases, last, second], metric
    assert int(counted["last"].sum()) > 0


def test_similarity_of_maps_is_averaged_over_defined_images(study):
    agreement = opened(study, "agreement")
    path = params.path(study, "similarity", "vanilla")
    given = xr.open_zarr(path, consolidated=False, chunks=None)["pearson"].sel({"method": "saliency", "other": "rise"})
    found = agreement.sel({"classifier": "vanilla", "method": "saliency", "method_other": "rise"})
    assert found["map_pearson"] == pytest.approx(float(given.mean(skipna=True)))
    assert found["map_pearson_count"] == 23


def test_costs_are_those_measured_and_nan_where_there_is_none(study):
    cost = opened(study, "cost").load()
    for classifier in made_up.CLASSIFIERS:
        for method in [name for listed in made_up.METHODS.values() for name in listed]:
            found = cost.sel({"classifier": classifier, "method": method})
            numbers = [float(found[f"method_{kind}"]) for kind in made_up.KINDS]
            none = (classifier, method) in made_up.UNSUPPORTED
            np.testing.assert_array_equal(numbers, [np.nan] * 3 if none else made_up.cost(method))
    one = cost.sel({"classifier": "robust", "metric": "max_sensitivity"})
    assert [float(one[f"metric_{kind}"]) for kind in (*made_up.KINDS, "explained")] == [0, 0, 0, 10]
    assert list(cost["metric"].values) == [name for listed in made_up.METRICS.values() for name in listed]


def test_the_front_of_cost_and_mean_rank_is_what_no_method_beats(study):
    cost, summary = opened(study, "cost").load(), opened(study, "summary").load()
    passes = cost["method_forward"] + cost["method_backward"]
    for classifier in made_up.CLASSIFIERS:
        kept = [name for family, listed in made_up.METHODS.items() if family != "control" for name in listed]
        at = {
            name: tuple(
                float(one.sel({"classifier": classifier, "method": name})) for one in (passes, summary["mean_rank"])
            )
            for name in kept
        }
        here = summary.sel(classifier=classifier)
        whole = here["mean_rank_lacking"] <= here["mean_rank_metrics"]
        known = {name: one for name, one in at.items() if not np.isnan(one).any() and whole.sel({"method": name})}
        beaten = {
            name
            for name, (cheap, rank) in known.items()
            if any(a <= cheap and b <= rank and (a, b) != (cheap, rank) for a, b in known.values())
        }
        found = cost["front"].sel(classifier=classifier)
        assert set(found["method"].values[found.values == 1]) == set(known) - beaten
        assert 1 < len(set(known) - beaten) < len(known)
    assert cost["front"].dtype == np.int8


@pytest.mark.parametrize("kind", ["method", "metric"])
def test_costs_of_others_or_none_are_not_taken(copy, kind):
    path = params.path(copy, "cost", "robust")
    names = zarr.open_group(path / f"{kind}s", mode="r+")[kind]
    names[0] = "another"
    with pytest.raises(
        UserError, match=rf"robust\.zarr: made for other {kind}s than params\.yaml's; run stages\.cost again"
    ):
        aggregate.main(copy)
    shutil.rmtree(path)
    with pytest.raises(UserError, match=r"robust\.zarr: cannot be read .* run stages\.cost again"):
        aggregate.main(copy)


@pytest.mark.parametrize("name", sorted({*labels.LABELS} - {"certified"}))
def test_everything_in_a_table_says_what_it_is(study, name):
    labelled.check(opened(study, name))


def test_the_comparison_says_by_which_metrics_and_how_many_methods_are_better(study):
    table, summary = opened(study, "comparison").load(), opened(study, "summary")
    assert table["better"].sel(metric="deletion") == "lower"
    here = {"metric": "deletion", "comparison": "vanilla to robust"}
    means = summary["mean"].sel(metric="deletion").load()
    lower = (means.sel(classifier="robust") < means.sel(classifier="vanilla")).values & ~summary["control"].values
    assert table["better_count"].sel({**here, "method_family": "all"}) == lower.sum() > 0


def test_variables_and_metrics_are_told_apart(study):
    summary = opened(study, "summary")
    assert summary["mean"].attrs["better"] == "by metric (better)"
    assert summary["rank"].attrs["better"] == "lower"
    assert opened(study, "contrasts")["superiority"].attrs == {
        "long_name": "share of images on which the method is better than the other",
        "units": "1",
        "better": "higher",
        "reference": "mcgraw1992common",
    }
    cost = opened(study, "cost")
    for name in [name for name in cost.data_vars if name != "front"]:
        assert (cost[name].attrs["better"], cost[name].attrs["reference"]) == ("lower", "by definition")
        assert cost[name].attrs["units"] == ("maps" if name == "metric_explained" else "passes")
    assert summary["better"].sel(metric="deletion") == "lower"
    assert summary["metric_family"].sel(metric="deletion_smoothness") == "faithfulness"
    assert summary["unit"].sel(metric="grid_pointing_game") == "tile"
    assert list(summary["method"].values[summary["control"]]) == made_up.METHODS["control"]


def test_numbers_for_dvc(study):
    numbers = json.loads((study / "data/metrics.json").read_text())
    summary, metrics = opened(study, "summary"), [name for one in made_up.METRICS.values() for name in one]
    given = float(summary["mean_rank"].sel({"classifier": "robust", "method": "rise"}))
    assert numbers["mean_rank"]["robust"]["rise"] == pytest.approx(given, rel=1e-5)
    overall = float(summary["overall_rank"].sel({"method": "rise"}))
    assert numbers["overall_rank"]["rise"] == pytest.approx(overall, rel=1e-5)
    means = summary["mean"].where(~summary["control"]).sel(classifier="robust", metric="insertion")
    assert numbers["median"]["robust"]["insertion"] == pytest.approx(float(means.median()), rel=1e-5)
    assert {name: list(told) for name, told in numbers["median"].items()} == dict.fromkeys(made_up.CLASSIFIERS, metrics)
    card = json.loads((params.path(study, "classifiers", "robust") / "card.json").read_text())
    for name in ("accuracy", "adversarial_accuracy"):
        assert numbers[name]["robust"] == pytest.approx(card[name], rel=1e-5)
    assert set(numbers) == {"accuracy", "adversarial_accuracy", "overall_rank", "mean_rank", "median"}
    assert "cam" not in numbers["mean_rank"]["vanilla"]  # undefined: it cannot serve that classifier
    assert {name: len(told) for name, told in numbers["mean_rank"].items()} == {"vanilla": 13, "robust": 14}


def test_plots_for_dvc(study):
    plots = study / "data/plots"
    assert {one.stem for one in (plots / "scores").iterdir()} == set(made_up.METRICS)
    bars = pd.read_csv(plots / "scores/faithfulness.csv")
    assert list(bars.columns) == ["metric", "classifier", "method", "mean", "low", "high", "count", "rank"]
    assert {"deletion", "insertion", "deletion_smoothness"} <= set(bars["metric"])
    for _, rows in bars.groupby(["metric", "classifier"]):
        assert len(rows) == 14
        assert rows["rank"].dropna().is_monotonic_increasing
    points = pd.read_csv(plots / "curves/faithfulness.csv")
    assert points.groupby("metric").size().to_dict() == {"deletion": 13 * 27, "insertion": 13 * 27}
    assert [one.name for one in (plots / "curves").iterdir()] == ["faithfulness.csv"]
    ranks = pd.read_csv(plots / "mean_rank.csv").query("classifier == 'robust'").dropna()
    assert ranks["mean_rank"].is_monotonic_increasing
    assert ((ranks["low"] <= ranks["mean_rank"]) & (ranks["mean_rank"] <= ranks["high"])).all()


def test_equal_input_gives_equal_bytes(study, tmp_path):
    found = []
    for name, times in (("one", 1), ("other", 2)):
        folder = made_up.study(tmp_path / name)
        for _ in range(times):
            aggregate.main(folder)
        found.append({name: digests(folder / "data" / name) for name in ("results", "plots")})
        found[-1]["metrics"] = (folder / "data/metrics.json").read_bytes()
        assert not list((folder / "data").glob(".*"))
    assert found[0] == found[1]
    assert {Path(name).suffix for name in found[0]["results"]} == {".zip", ".parquet"}
    assert len(found[0]["results"]) == 1 + len(names(folder))


def number_pictures(study: Path, labels: int) -> None:
    """Give the scores of images a number of the picture: so many consecutive rows are labels of the same one."""
    for path in sorted((study / "data/scores").glob("*/*.zarr/images")):
        rows = zarr.open_array(path / "image", mode="r").shape[0]
        array(zarr.open_group(path), "picture", np.arange(rows) // labels, ("image",), {})


def test_one_label_a_picture_gives_equal_bytes(study, copy):
    number_pictures(copy, 1)
    aggregate.main(copy)
    for name in ("results", "plots"):
        assert digests(copy / "data" / name) == digests(study / "data" / name)
    assert (copy / "data/metrics.json").read_bytes() == (study / "data/metrics.json").read_bytes()


def test_several_labels_of_a_picture_are_one_unit(study, copy):
    number_pictures(copy, 2)
    aggregate.main(copy)
    before, after = opened(study, "summary"), opened(copy, "summary")
    numbered = {"rows": 24, "pictures": 12}
    assert "pictures" not in before.attrs
    assert after.attrs["pictures"] == {"vanilla": numbered, "robust": numbered}
    np.testing.assert_array_equal(after["count"], before["count"])
    np.testing.assert_allclose(after["mean"], before["mean"])
    cell = {"classifier": "robust", "method": "rise", "metric": "sparseness"}
    scores = stored(study, "robust", "sparseness", "rise").values.astype(float).reshape(12, 2)
    low, high = means.intervals(scores.sum(axis=1)[:, None], np.full((12, 1), 2), binary=False, level=0.95)
    assert (after["low"].sel(cell), after["high"].sel(cell)) == (pytest.approx(low[0]), pytest.approx(high[0]))
    assert opened(copy, "precision")["units"].sel(classifier="robust", metric="sparseness") == 12
    pair = {"classifier": "robust", "method": "rise", "method_other": "gradcam", "metric": "sparseness"}
    contrast = opened(copy, "contrasts").sel(pair)
    assert (contrast["count"], contrast["difference_count"]) == (12, 24)
    report.main(copy)
    page = " ".join((copy / "data/report/index.html").read_text().split())
    assert "up to 24 scores, one per label, are of 12 pictures" in page
    assert "take a picture with all its labels as one unit" in page


def test_methods_are_taken_from_params_and_never_from_a_listing(copy):
    given = yaml.safe_load((copy / "params.yaml").read_text())
    del given["methods"]["perturbation"]
    del given["metrics"]["complexity"]
    (copy / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    aggregate.main(copy)
    summary = opened(copy, "summary")
    assert "rise" not in summary["method"].values
    assert "sparseness" not in summary["metric"].values


def test_a_missing_store_is_named(copy):
    path = params.path(copy, "scores", "robust", "cam")
    shutil.rmtree(path)
    with pytest.raises(UserError, match=r"robust/cam\.zarr: no scores can be read .* run stages\.score again"):
        aggregate.main(copy)


def test_an_infinite_score_is_no_score(copy):
    change_scores(params.path(copy, "scores", "robust", "cam"), "sparseness", "score", (0, 0), np.inf)
    with pytest.raises(UserError, match=r"cam\.zarr: sparseness holds an infinite score"):
        aggregate.main(copy)


def test_families_scored_on_other_images_are_not_joined(copy):
    import zarr

    place = find(params.path(copy, "scores", "robust", "cam")).places["sparseness"]
    zarr.open_array(place.folder / "image", mode="r+")[0] = "other"
    with pytest.raises(UserError, match=r"robust: [a-z_]+: families were scored on different rows"):
        aggregate.main(copy)


def test_senseless_settings_are_refused(copy):
    change(copy, aggregate={"resamples": 200, "level": 95.0, "weights": "families", "min_count": 1})
    with pytest.raises(UserError, match=r"aggregate: 'level' = 95\.0: expected more than 0 and less than 1"):
        aggregate.main(copy)


def test_weights_that_there_are_not_are_refused(copy):
    change(copy, aggregate={"resamples": 200, "level": 0.95, "weights": "normal", "min_count": 1})
    with pytest.raises(
        UserError, match=r"params\.yaml: aggregate: 'weights' = 'normal': expected Literal\['families', 'metrics'\]"
    ):
        aggregate.main(copy)


def test_a_failed_run_leaves_the_last_results(copy):
    before = digests(copy / "data" / "results")
    shutil.rmtree(params.path(copy, "similarity", "robust"))
    with pytest.raises(UserError, match=r"run stages\.correlate again"):
        aggregate.main(copy)
    assert digests(copy / "data" / "results") == before
