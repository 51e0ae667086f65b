"""Summaries of plain classifiers and robust ones: those that a paper prints, and a made-up pair."""

import numpy as np
import xarray as xr

from tests.support.printed_tables import table

BETTER = {"pointing": "higher", "wsl": "higher", "insertion": "higher", "deletion": "lower"}
FAMILIES = {
    "gradient": ["gradient", "integrated_gradients", "shap"],
    "cam": ["gradcam", "cam"],
    "perturbation": ["rise", "lime", "mp", "ep"],
}
METHODS = [name for listed in FAMILIES.values() for name in listed]
PAIRS = [[name, f"{name}_r"] for name in ("alexnet", "googlenet", "resnet", "mobilenet", "densenet")]
# Methods of the made-up table, and their means on two classifiers by a metric of which less is better.
MADE_UP = {
    "a": (4.0, 1.0),
    "b": (3.0, np.nan),
    "c": (2.0, 2.0),
    "d": (9.0, 3.0),
    "e": (1.0, 5.0),
    "control": (0.0, 9.0),
}


def summary(
    means: np.ndarray, classifiers: list[str], methods: dict[str, str], better: dict[str, str], width: float = 0
) -> xr.Dataset:
    """Lay out mean scores by classifier, method and metric, with intervals of a width."""
    cells = {"mean": means, "low": means - width / 2, "high": means + width / 2, "rank": 0 * means + 1}
    coords = {
        "classifier": classifiers,
        "dataset": ("classifier", ["photos"] * len(classifiers)),
        "method": list(methods),
        "method_family": ("method", list(methods.values())),
        "control": ("method", [family == "control" for family in methods.values()]),
        "metric": list(better),
        "better": ("metric", list(better.values())),
    }
    same = {"role": "metric", "metric_family": "some", "metric_units": "1", "metric_long_name": "Some"}
    coords |= {name: ("metric", [value] * len(better)) for name, value in same.items()}
    variables = {name: (("classifier", "method", "metric"), values) for name, values in cells.items()}
    return xr.Dataset(variables, coords, {"min_count": 1})


def printed() -> xr.Dataset:
    """Lay out the cells of the paper's plain and robust classifiers."""
    classifiers = [name for pair in PAIRS for name in pair]
    means = np.stack([table(f"robust_{metric}").loc[classifiers, METHODS].values for metric in BETTER], axis=-1)
    families = {name: family for family, listed in FAMILIES.items() for name in listed}
    return summary(means, classifiers, families, BETTER)


def made_up(width: float = 0) -> xr.Dataset:
    """Lay out the made-up pair."""
    families = dict(zip(MADE_UP, ["gradient", "gradient", "gradient", "cam", "cam", "control"], strict=True))
    return summary(
        np.array(list(MADE_UP.values())).T[:, :, None], ["plain", "robust"], families, {"less": "lower"}, width
    )
