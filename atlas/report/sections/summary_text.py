"""The answer in words: sentences made from the numbers, and the leaderboard as Markdown."""

import numpy as np
import xarray as xr

from atlas.report.sorting import digits, leading, overall

# Relative tolerance for ties.
TIE = 1e-12
# What has equal weight in a mean rank, by setting.
SAME = {"families": "families of metrics", "metrics": "single metrics"}


def answer(summary: xr.Dataset, agreement: xr.Dataset) -> list[str]:
    """Return sentences on who leads and how surely, the controls, and whether metrics and classifiers agree."""
    return [*_leader(summary), *_controls(summary), *_weights(summary), *_agreement(agreement)]


def few(sample_sizes: list[dict]) -> list[str]:
    """Return a warning if fewer than half of all rankings are by enough images to distinguish the methods.

    Args:
        sample_sizes: By classifier, `reached` and `rows`: how many metrics have enough images, and for each metric
            whether it `ranks` any method.
    """
    reached, number = (
        sum(one["reached"] for one in sample_sizes),
        sum(row["ranks"] for one in sample_sizes for row in one["rows"]),
    )
    if not number or 2 * reached >= number:
        return []
    return [
        f"{'Only ' if reached else ''}{reached or 'None'} of the {_number(number, 'ranking')} "
        f"{'is' if reached < 2 else 'are'} by enough images, or grids, to tell the methods apart: with other images of "
        "the same kind the order may be another."
    ]


def omnibus(summary: xr.Dataset) -> list[str]:
    """Return for each classifier whether its metrics rank methods differently from chance and, if so, what differs."""
    text = []
    for classifier in summary["classifier"].values.tolist():
        names = ("friedman_p", "friedman_metrics", "friedman_methods", "critical_difference")
        p, metrics, methods, apart = (float(summary[name].sel(classifier=classifier)) for name in names)
        if np.isnan(p):
            continue
        found = p < 1 - summary.attrs["bootstrap"]["level"]
        message = (
            f"On {classifier} the ranks of the {_number(int(methods), 'method')}, controls left out, that each of "
            f"{_number(int(metrics), 'metric')} ranks {'differ' if found else 'do not differ'} by more than chance "
            f"(Friedman’s test, p = {digits(p, 2)})"
        )
        if found:
            message += (
                f"; two of their mean ranks over these metrics, ties at the average of their ranks, differ where they "
                f"are more than {apart:.1f} apart (Nemenyi)"
            )
        text.append(f"{message}.")
    return text


def partly(summary: xr.Dataset) -> list[str]:
    """Return a sentence on the methods that fewer metrics rank than others."""
    few = [(name, *_rankings(summary, name)) for name in overall(summary)]
    return [f"{name} ({count} of {total} rankings)" for name, count, total in few if 0 < count < total]


def _leader(summary: xr.Dataset) -> list[str]:
    known = [name for name in overall(summary) if not np.isnan(_rank(summary, name))]
    if not known:
        return ["No method could be ranked."]
    whole = leading(summary)
    first = (whole or known)[0]
    (low, high), level = _ends(summary, first), summary.attrs["bootstrap"]["level"]
    named = f"{first}, a control," if bool(summary["control"].sel({"method": first})) else first
    interval = f"({100 * level:.3g}% interval {low:.1f} to {high:.1f})"
    best = f"{named} has the best mean rank: {_rank(summary, first):.1f}"
    count, total = _rankings(summary, first)
    if not whole:
        return [
            f"No method has half of the {_number(total, 'ranking')}, so that none can be said to lead. {best} over "
            f"{count} of them {interval}."
        ]
    own = summary["rank"].sel({"method": first, "metric": summary["role"] == "metric"}).notnull()
    metrics, classifiers = (int(own.any(other).sum()) for other in ("classifier", "metric"))
    over = f"{_number(metrics, 'metric')} on {_number(classifiers, 'classifier')}"
    among = _number(int(summary["overall_rank_methods"]), "method")
    text = [f"{best} of {among} over {_number(count, 'ranking')} by {over} {interval}."]
    near = [name for name in whole[1:] if _ends(summary, name)[0] <= high and low <= _ends(summary, name)[1]]
    if near:
        many = len(near) > 1
        text.append(f"The interval{'s' * many} of {_list(near)} overlap{'s' * (not many)} with its own.")
    elif len(whole) > 1:
        text.append("No other method’s interval overlaps with its own.")
    return text


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


def _weights(summary: xr.Dataset) -> list[str]:
    """Return a sentence on how much the order depends on the weights."""
    tau, weights = float(summary["overall_rank_kendall"]), summary.attrs["weights"]
    if np.isnan(tau):
        return []
    same, other = SAME[weights], next(message for name, message in SAME.items() if name != weights)
    ranks = summary["overall_rank_otherwise"].sel({"method": leading(summary)})
    text = f"In a mean rank all {same} count the same; if {other} did, its order would agree with this one with a "
    text += f"Kendall τ of {digits(tau, 2)}"
    first = str(ranks["method"].values[int(ranks.values.argmin())]) if ranks.size else ""
    return [f"{text} and {first} would come first." if first else f"{text}."]


def _agreement(agreement: xr.Dataset) -> list[str]:
    text = []
    tau = agreement["kendall"].values
    between = tau[:, ~np.eye(tau.shape[1], dtype=bool)]
    between = between[~np.isnan(between)]
    if between.size:
        text.append(
            f"Two metrics order the methods alike with a Kendall τ of {digits(between.mean(), 2)} on average "
            f"({digits(between.min(), 2)} to {digits(between.max(), 2)})."
        )
    across = agreement["kendall_classifiers_mean_off_diagonal"].values
    across = across[~np.isnan(across)]
    if across.size:
        alike = digits(across.mean(), 2)
        text.append(f"Two classifiers order them alike with a τ of {alike} on average over metrics.")
    return text


def leaderboard(summary: xr.Dataset) -> str:
    """Return the mean ranks as a Markdown table, best first; equal ones share a place.

    A method that lacks more rankings than it has gets no place; its number of rankings is stated.
    """
    placed = {name: _rank(summary, name) for name in leading(summary)}
    classifiers = summary["classifier"].values.tolist()
    head = ["", "method", "family", "mean rank", "of rankings", *[f"on {name}" for name in classifiers]]
    lines = [head, ["---:", "---", "---", *["---:"] * (2 + len(classifiers))]]
    for name in overall(summary):
        one = summary.sel({"method": name})
        family = str(one["method_family"].values)
        cells = [_interval(*(float(one[f"overall_rank{end}"]) for end in ("", "_low", "_high")))]
        count, total = _rankings(summary, name)
        cells.append(str(count) if count == total else f"{count} of {total}")
        for classifier in classifiers:
            there = one.sel(classifier=classifier)
            cells.append(_interval(*(float(there[f"mean_rank{end}"]) for end in ("", "_low", "_high"))))
        # Equal means may differ in the last bit.
        ahead = [other for other, rank in placed.items() if rank < _rank(summary, name) * (1 - TIE)]
        lines.append([str(1 + len(ahead)) if name in placed else "", f"`{name}`", family, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _interval(value: float, low: float, high: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _rank(summary: xr.Dataset, method: str) -> float:
    return float(summary["overall_rank"].sel({"method": method}))


def _ends(summary: xr.Dataset, method: str) -> tuple[float, float]:
    one = summary.sel({"method": method})
    return float(one["overall_rank_low"]), float(one["overall_rank_high"])


def _rankings(summary: xr.Dataset, method: str) -> tuple[int, int]:
    """Return how many rankings a method has, and how many there are including those that it lacks."""
    one = summary.sel({"method": method})
    has = int(one["overall_rank_metrics"])
    return has, has + int(one["overall_rank_lacking"])


def _number(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
