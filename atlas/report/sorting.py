"""The order of methods and metrics in the report."""

import numpy as np
import xarray as xr

TIED = "no method is before another"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def overall(summary: xr.Dataset) -> list[str]:
    """Return methods by their mean rank over everything, best first, unranked ones last."""
    return _sorted(summary["method"].values, summary["overall_rank"].values)


def leading(summary: xr.Dataset) -> list[str]:
    """Return the methods with most rankings by their overall mean rank, best first: only these can be called best."""
    return [name for name in overall(summary) if bool(summary["overall_rank_mostly"].sel({"method": name}))]


def by_metric(summary: xr.Dataset, metric: str) -> list[str]:
    """Return methods by their rank by one metric, averaged over classifiers."""
    ranks = summary["rank"].sel(metric=metric).transpose("method", "classifier").values
    known = ~np.isnan(ranks)
    number = known.sum(axis=1)
    mean = np.divide(np.where(known, ranks, 0).sum(axis=1), number, out=np.full(number.shape, np.nan), where=number > 0)
    return _sorted(summary["method"].values, mean)


def ranking_metrics(summary: xr.Dataset) -> list[str]:
    """Return the metrics that rank methods, without diagnostics."""
    return summary["metric"].values[summary["role"].values != "diagnostic"].tolist()


def behind(summary: xr.Dataset, contrasts: xr.Dataset) -> xr.Dataset:
    """Return how far methods are behind the best of their leaderboard, by the difference of their paired means.

    Args:
        summary: Ranks.
        contrasts: Differences of every two methods with their intervals.

    Returns:
        The summary of the metrics that rank, and `behind`: in the units of the metric, above 0 if the method is worse,
        0 for the best (the first of those that share the first rank). NaN where a method is not ranked.
    """
    summary = summary.sel(metric=contrasts["metric"])
    dims = ("classifier", "metric", "method")
    best = summary["rank"].transpose(*dims).fillna(np.inf).argmin("method")
    ahead = contrasts.isel(method_other=best)
    sign = xr.where(summary["better"] == "higher", -1.0, 1.0)
    ends = {"behind": "difference", "behind_low": "difference_low", "behind_high": "difference_high"}
    found = {name: sign * ahead[variable] + 0.0 for name, variable in ends.items()}  # avoids negative zeros
    turned = sign < 0
    low, high = found["behind_low"], found["behind_high"]
    found |= {"behind_low": xr.where(turned, high, low), "behind_high": xr.where(turned, low, high)}
    return summary.assign({**found, "behind_count": ahead["difference_count"]})


def apart(summary: xr.Dataset) -> list[str]:
    """Return the metrics that rank methods but are left out of mean ranks, because not all methods have them."""
    return summary["metric"].values[summary["role"].values == "apart"].tolist()


def ranked(summary: xr.Dataset) -> list[str]:
    """Return the metrics of the mean ranks that ranked a method; the others had too few defined scores."""
    some = summary["rank"].notnull().any(["classifier", "method"])
    names = [name for name in ranking_metrics(summary) if name not in apart(summary)]
    return [name for name in names if bool(some.sel({"metric": name}))]


def scores(board: xr.Dataset) -> tuple[int, str]:
    """Return the number of scores of the method that has most by a metric on a classifier, and their unit."""
    return int(board["count"].max()), "tiles" if board["unit"] == "tile" else "images"


def scored(board: xr.Dataset) -> str:
    """Return in words how many images, or tiles, have a score by a metric on a classifier."""
    number, unit = scores(board)
    if number == 0:
        return f"no {unit[:-1]} has a score"
    return f"at most {number} {unit} have a score" if number > 1 else f"at most 1 {unit[:-1]} has a score"


def tied(board: xr.Dataset) -> bool:
    """Return whether methods were compared by a metric on a classifier and all tie."""
    return int(board["rank_count"].max()) > 0 and not board["rank"].notnull().any()


def unranked_reason(board: xr.Dataset) -> str:
    """Return why a metric ranks no method on a classifier: all tie, or few scores are defined."""
    return TIED if tied(board) else scored(board)


def unranked(summary: xr.Dataset) -> dict[str, dict[str, str]]:
    """Return by classifier the metrics that rank no method though scores were requested, and why."""
    found: dict[str, dict[str, str]] = {}
    for classifier in summary["classifier"].values.tolist():
        for metric in ranking_metrics(summary):
            board = summary.sel({"classifier": classifier, "metric": metric})
            if board["asked"].any() and not board["rank"].notnull().any():
                found.setdefault(classifier, {})[metric] = unranked_reason(board)
    return found


def shared(board: xr.Dataset) -> int:
    """Return the number of scores behind the ranks of a leaderboard, if some ranked method has more; otherwise 0."""
    over = int(board["rank_count"].max())
    return over if bool((board["count"].where(board["rank"].notnull(), over) != over).any()) else 0


def _sorted(names: np.ndarray, ranks: np.ndarray) -> list[str]:
    return names[np.argsort(ranks, kind="stable")].tolist()


def digits(value: float, number: int) -> str:
    """Format a number with a number of significant digits, without an exponent if that is readable."""
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        places = max(0, number - 1 - int(np.floor(np.log10(abs(value)))) if value else 0)
        text = f"{value:.{places}f}"
    else:
        text = f"{value:.{number - 1}e}"
    return text.replace("-", "−")
