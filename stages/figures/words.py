"""The answer in words: sentences made of the numbers, and the leaderboard as Markdown."""

import numpy as np
import xarray as xr

from stages.figures.order import overall, ranked

# How intervals of means are made.
INTERVALS = {"percentile": "percentile", "bca": "BCa"}


def answer(summary: xr.Dataset, agreement: xr.Dataset) -> list[str]:
    """Say who leads and how surely, how the controls fare, and whether metrics and classifiers agree."""
    said = [*_leader(summary), *_controls(summary), *_agreement(agreement)]
    return said


def omnibus(summary: xr.Dataset) -> list[str]:
    """Say of each classifier whether its metrics rank methods otherwise than by chance, and what is a difference."""
    said = []
    for classifier in summary["classifier"].values.tolist():
        names = ("friedman_p", "friedman_metrics", "friedman_methods", "critical_difference")
        p, metrics, methods, apart = (float(summary[name].sel(classifier=classifier)) for name in names)
        if np.isnan(p):
            continue
        told = (
            "otherwise than by chance" if p < 1 - summary.attrs["bootstrap"]["level"] else "no otherwise than by chance"
        )
        said.append(
            f"On {classifier} {_number(int(metrics), 'metric')} rank {_number(int(methods), 'method')} {told} than by "
            f"chance (Friedman’s test, p = {p:.2g}); mean ranks that are more than {apart:.1f} apart differ (Nemenyi)."
        )
    return said


def partly(summary: xr.Dataset) -> list[str]:
    """Name the methods that fewer metrics rank than others: their mean rank is over an easier or a harder lot."""
    number = summary["overall_rank_metrics"]
    most = int(number.max())
    few = [(name, int(number.sel({"method": name}))) for name in overall(summary)]
    return [f"{name} ({count} of {most} rankings)" for name, count in few if 0 < count < most]


def _leader(summary: xr.Dataset) -> list[str]:
    leading = [name for name in overall(summary) if not np.isnan(_rank(summary, name))]
    if not leading:
        return ["No method could be ranked."]
    first = leading[0]
    low, high = (float(summary[f"overall_rank_{end}"].sel({"method": first})) for end in ("low", "high"))
    metrics, classifiers = len(ranked(summary)), summary.sizes["classifier"]
    level = summary.attrs["bootstrap"]["level"]
    over = f"{_number(metrics, 'metric')} on {_number(classifiers, 'classifier')}"
    named = f"{first}, a control," if bool(summary["control"].sel({"method": first})) else first
    said = [
        f"{named} has the best mean rank: {_rank(summary, first):.1f} of {len(leading)} methods over {over} "
        f"({100 * level:.3g}% interval {low:.1f} to {high:.1f})."
    ]
    near = [name for name in leading[1:] if float(summary["overall_rank_low"].sel({"method": name})) <= high]
    if near:
        said.append(f"The intervals of {_list(near)} overlap with its own: on these images they are not told apart.")
    return said


def _controls(summary: xr.Dataset) -> list[str]:
    names = summary["method"].values[summary["control"].values].tolist()
    known = [name for name in names if not np.isnan(_rank(summary, name))]
    if not known:
        return []
    best = min(known, key=lambda name: _rank(summary, name))
    worse = [
        name
        for name in overall(summary)
        if name not in names and not np.isnan(_rank(summary, name)) and _rank(summary, name) >= _rank(summary, best)
    ]
    if not worse:
        return ["Every method ranks better than every control, which knows nothing of the classifier."]
    return [
        f"{_list(worse)} {'rank' if len(worse) > 1 else 'ranks'} no better than {best}, a control that knows nothing "
        "of the classifier."
    ]


def _agreement(agreement: xr.Dataset) -> list[str]:
    said = []
    tau = agreement["kendall"].values
    between = tau[:, ~np.eye(tau.shape[1], dtype=bool)]
    between = between[~np.isnan(between)]
    if between.size:
        said.append(
            f"Two metrics order the methods alike with a Kendall τ of {between.mean():.2f} on average "
            f"({between.min():.2f} to {between.max():.2f}).".replace("(-", "(−").replace(" -", " −")
        )
    across = agreement["kendall_classifiers_mean_off_diagonal"].values
    across = across[~np.isnan(across)]
    if across.size:
        said.append(f"Two classifiers order them alike with a τ of {across.mean():.2f} on average over metrics.")
    return said


def leaderboard(summary: xr.Dataset) -> str:
    """Give the mean ranks as a Markdown table, best first."""
    classifiers = summary["classifier"].values.tolist()
    head = ["", "method", "family", "mean rank", "of rankings", *[f"on {name}" for name in classifiers]]
    lines = [head, ["---:", "---", "---", *["---:"] * (2 + len(classifiers))]]
    for place, name in enumerate(overall(summary), start=1):
        one = summary.sel({"method": name})
        family = str(one["method_family"].values)
        cells = [_interval(*(float(one[f"overall_rank{end}"]) for end in ("", "_low", "_high")))]
        cells.append(str(int(one["overall_rank_metrics"])))
        for classifier in classifiers:
            there = one.sel(classifier=classifier)
            cells.append(_interval(*(float(there[f"mean_rank{end}"]) for end in ("", "_low", "_high"))))
        known = not np.isnan(float(one["overall_rank"]))
        lines.append([str(place) if known else "", f"`{name}`", family, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _interval(value: float, low: float, high: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _rank(summary: xr.Dataset, method: str) -> float:
    return float(summary["overall_rank"].sel({"method": method}))


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
