"""The meaning of the variables of the results: the attributes that every table carries."""

import re
from collections.abc import Mapping

import xarray as xr

BOOTSTRAP = "efron1993introduction"
ENDS = "hall1992removal, agresti1998approximate"
PAIRED = "hall1992removal, agresti2005simple"
MEASURE = "of the metric (metric_units)"
PASSES = "passes"
OTHERS = ": what as many other images of the same kind would give"
MOSTLY = "1 where it has at least as many of these rankings as it lacks, so that it can be best"
SCALED = "each from 1 to the number of methods, however many are ranked by the metric"
KENDALL = "kendall1945treatment"
KRIPPENDORFF = "krippendorff2011computing"
ASKED = "1 where the score of one {} was asked for of a method that can serve the classifier, else 0"

# long_name, units, reference by variable; {} stands for the subject of a table.
LABELS: dict[str, dict[str, tuple[str, str, str]]] = {
    "scores": {
        "score": ("score of one image", MEASURE, "by metric (metric_reference)"),
        "grid_score": ("score of one tile of a grid", MEASURE, "by metric (metric_reference)"),
        "asked": (ASKED.format("image"), "1", ""),
        "grid_asked": (ASKED.format("tile of a grid"), "1", ""),
    },
    "summary": {
        "mean": ("mean over the defined scores", MEASURE, "by metric (metric_reference)"),
        "low": ("lower end of the mean's interval", MEASURE, ENDS),
        "high": ("upper end of the mean's interval", MEASURE, ENDS),
        "skewness": ("skewness of the scores, or of the means over a grid's tiles", "1", "joanes1998comparing"),
        "count": ("defined scores that the mean is over", "1", ""),
        "asked": ("scores that were to be computed; those that are not defined are the difference", "1", ""),
        "rank": (
            "rank of the mean over scores that all ranked methods have, 1 the best, ties at the best of their ranks",
            "1",
            "",
        ),
        "rank_count": ("scores that all ranked methods have, which ranks are over", "1", ""),
        "rank_low": ("best end of the rank's interval", "1", BOOTSTRAP),
        "rank_high": ("worst end of the rank's interval", "1", BOOTSTRAP),
        "threshold": ("threshold chosen for a metric that is taken at its best one", "1", "choe2020evaluating"),
        "mean_rank": (f"mean of the ranks by all metrics on one classifier, {SCALED}", "1", ""),
        "mean_rank_low": (f"best end of the mean rank's interval{OTHERS}", "1", BOOTSTRAP),
        "mean_rank_high": (f"worst end of the mean rank's interval{OTHERS}", "1", BOOTSTRAP),
        "mean_rank_otherwise": ("the same by the other weights, of metrics or of their families", "1", ""),
        "mean_rank_methods": ("methods that are ranked on a classifier: the last place", "1", ""),
        "mean_rank_kendall": ("Kendall's tau-b between that order and the one by the other weights", "1", KENDALL),
        "mean_rank_metrics": ("metrics that ranked the method on one classifier", "1", ""),
        "mean_rank_mostly": (MOSTLY, "1", ""),
        "mean_rank_lacking": ("metrics that rank another method but a control there, and not this one", "1", ""),
        "family_rank": (f"mean of the ranks by the metrics of one family on one classifier, {SCALED}", "1", ""),
        "family_rank_low": (f"best end of that mean rank's interval{OTHERS}", "1", BOOTSTRAP),
        "family_rank_high": (f"worst end of that mean rank's interval{OTHERS}", "1", BOOTSTRAP),
        "family_rank_otherwise": ("the same by the other weights, of metrics or of their families", "1", ""),
        "family_rank_methods": ("methods that are ranked by a family on a classifier: the last place", "1", ""),
        "family_rank_metrics": ("metrics of the family that ranked the method", "1", ""),
        "family_rank_mostly": (MOSTLY, "1", ""),
        "family_rank_lacking": ("metrics of the family that rank another method but a control, and not it", "1", ""),
        "letters": (
            "methods that share a letter do not differ significantly by a metric on a classifier",
            "1",
            "piepho2004algorithm",
        ),
        "friedman": ("Friedman's statistic of the ranks by all metrics on one classifier", "1", "friedman1937use"),
        "friedman_p": ("its p-value", "1", "friedman1937use"),
        "friedman_metrics": ("metrics that the test is over", "1", ""),
        "friedman_methods": ("methods but controls that all these metrics rank", "1", ""),
        "critical_difference": (
            "difference of two mean ranks over these metrics that is significant",
            "1",
            "nemenyi1963distribution, demsar2006statistical",
        ),
        "overall_rank": (f"mean of the ranks by all metrics on all classifiers, {SCALED}", "1", ""),
        "overall_rank_low": (f"best end of the overall rank's interval{OTHERS}", "1", BOOTSTRAP),
        "overall_rank_high": (f"worst end of the overall rank's interval{OTHERS}", "1", BOOTSTRAP),
        "overall_rank_otherwise": ("the same by the other weights, of metrics or of their families", "1", ""),
        "overall_rank_methods": ("methods that are ranked on any classifier: the last place", "1", ""),
        "overall_rank_kendall": ("Kendall's tau-b between that order and the one by the other weights", "1", KENDALL),
        "overall_rank_metrics": ("rankings, by a metric on a classifier, that the mean is over", "1", ""),
        "overall_rank_mostly": (MOSTLY, "1", ""),
        "overall_rank_lacking": ("rankings that rank another method but a control, and not this one", "1", ""),
        "key_digest": ("digest of the keys of the scores that were read, of all methods", "1", ""),
    },
    "curves": {
        "mean": ("mean curve over the images on which it is defined", MEASURE, "by metric (metric_reference)"),
        "low": ("lower end of the mean's interval, point by point", MEASURE, ENDS),
        "high": ("upper end of the mean's interval, point by point", MEASURE, ENDS),
        "count": ("images on which the point is defined", "1", ""),
    },
    "certified": {
        "mean": ("mean over the images, or tiles, on which it is defined", MEASURE, "by metric (metric_reference)"),
        "low": ("lower end of the mean's interval", MEASURE, ENDS),
        "high": ("upper end of the mean's interval", MEASURE, ENDS),
        "count": ("images, or tiles, on which it is defined", "1", ""),
    },
    "agreement": {
        "kendall": ("Kendall's tau-b between the rankings by two metrics", "1", "kendall1945treatment"),
        "kendall_count": ("methods that both metrics rank", "1", ""),
        "kendall_classifiers": ("Kendall's tau-b between the rankings on two classifiers", "1", "kendall1945treatment"),
        "kendall_classifiers_count": ("methods ranked on both classifiers", "1", ""),
        "kendall_classifiers_mean_count": ("classifiers whose rankings the mean is over", "1", ""),
        "kendall_classifiers_mean": ("mean of the matrix, diagonal included", "1", "nieradzik2024reliable"),
        "kendall_classifiers_sd": ("standard deviation of the matrix, diagonal included", "1", "nieradzik2024reliable"),
        "kendall_classifiers_mean_off_diagonal": ("mean of the matrix, diagonal left out", "1", ""),
        "kendall_classifiers_sd_off_diagonal": ("standard deviation of the matrix, diagonal left out", "1", ""),
        "spearman": (
            "Spearman's rho between metrics, over cells (classifier, method)",
            "1",
            "nourelahi2022explainable",
        ),
        "spearman_count": ("cells that both metrics score", "1", ""),
        "krippendorff": ("Krippendorff's alpha: how far images, or grids, agree on ranks", "1", KRIPPENDORFF),
        "krippendorff_count": ("ranks, of a method on an image or grid, that it is over", "1", ""),
        "spearman_images": (
            "Spearman's rho between metrics over the images of one method, mean over methods",
            "1",
            "spearman1904proof",
        ),
        "spearman_images_count": ("methods for which it is defined", "1", ""),
        "map_pearson": ("Pearson's r between two methods' maps, mean over images", "1", "nieradzik2024reliable"),
        "map_pearson_count": ("images on which it is defined", "1", ""),
        "map_spearman": ("Spearman's rho between two methods' maps, mean over images", "1", "spearman1904proof"),
        "map_spearman_count": ("images on which it is defined", "1", ""),
    },
    "contrasts": {
        "p": ("two-sided p-value of a mean difference of 0 between two methods", "1", PAIRED),
        "p_adjusted": ("the same, adjusted for all pairs of methods by one metric", "1", "holm1979simple"),
        "superiority": ("share of images on which the method is better than the other", "1", "mcgraw1992common"),
        "count": ("images, or grids, on which both are defined", "1", ""),
        "difference": ("mean score of the method minus the other's, where both are defined", MEASURE, ""),
        "difference_low": ("lower end of the difference's interval", MEASURE, PAIRED),
        "difference_high": ("upper end of the difference's interval", MEASURE, PAIRED),
        "difference_count": ("images, or tiles, that the difference is over", "1", ""),
    },
    "precision": {
        "width": (
            "width of the mean's interval with that many images or grids, median over methods",
            MEASURE,
            ENDS,
        ),
        "width_now": ("width of the mean's interval as it is, median over methods", MEASURE, ENDS),
        "width_count": ("methods, controls left out, that the medians are over", "1", ""),
        "units": ("images, or grids, with a score by the method that has most", "1", ""),
        "spread": ("standard deviation of the methods' means, controls left out", MEASURE, ""),
        "spread_count": ("methods that it is over", "1", ""),
        "skewness": ("absolute skewness of the scores, median over methods", "1", "joanes1998comparing"),
        "reliable_size": (
            "size from which on intervals of such skewed scores are reliable",
            "images or grids",
            "",
        ),
        "sample_size": ("smallest size from which on the width is below half of the spread", "images or grids", ""),
    },
    "cost": {
        "method_forward": ("forward passes that a map takes", PASSES, ""),
        "method_backward": ("backward passes that a map takes", PASSES, ""),
        "method_head": ("passes that a map takes of only the part after a layer", PASSES, ""),
        "metric_forward": ("forward passes that a score takes", PASSES, ""),
        "metric_backward": ("backward passes that a score takes", PASSES, ""),
        "metric_head": ("passes that a score takes of only the part after a layer", PASSES, ""),
        "metric_explained": (
            "maps that a score needs besides the one that it scores; their passes count as their method's",
            "maps",
            "",
        ),
        "front": (
            "1 where no other method but a control, of those that have most rankings, is as good in both passes, "
            "forward and backward, and mean rank, and better in one",
            "1",
            "nourelahi2022explainable",
        ),
    },
    "controls": {
        "cases": ("classifiers on which both controls have a mean score", "1", ""),
        "last": ("classifiers on which the first is last, alone", "1", "nieradzik2024reliable"),
        "last_tied": ("classifiers on which the first shares the last place", "1", ""),
        "second_last": ("classifiers on which the second is second-last, alone", "1", "nieradzik2024reliable"),
        "second_last_tied": ("classifiers on which the second shares that place", "1", ""),
        "both": ("classifiers on which both are in their places, alone", "1", "nieradzik2024reliable"),
    },
    "comparison": {
        "change": ("mean change of the mean scores", MEASURE, ""),
        "better_count": ("methods whose mean score is better on the second classifier", "1", ""),
        "worse_count": ("methods whose mean score is worse there; the rest is tied", "1", ""),
        "apart": ("methods whose intervals on the two classifiers do not overlap", "1", ""),
        "count": ("methods (times pairs of classifiers) ranked on both", "1", ""),
        "p": ("two-sided p-value of the Mann-Whitney test between the two groups of means", "1", "mann1947test"),
        "median": ("median of the mean scores of a family's methods", MEASURE, "nourelahi2022explainable"),
        "quartile_low": ("first quartile of these mean scores", MEASURE, "nourelahi2022explainable"),
        "quartile_high": ("third quartile of these mean scores", MEASURE, "nourelahi2022explainable"),
        "whisker_low": ("lowest mean score within 1.5 interquartile ranges", MEASURE, "tukey1977exploratory"),
        "whisker_high": ("highest mean score within 1.5 interquartile ranges", MEASURE, "tukey1977exploratory"),
        "median_count": ("methods with a mean score, which the median is over", "1", ""),
        "median_rank": (
            "rank of the median among the classifiers of a dataset, 1 the best, ties at the best of their ranks",
            "1",
            "nourelahi2022explainable",
        ),
        "accuracy": ("share of held-out images that are classified correctly", "1", ""),
        "adversarial_accuracy": ("the same under attack", "1", ""),
        "accuracy_front": (
            "whether the classifier is on the dataset's Pareto front of median and accuracy",
            "1",
            "nourelahi2022explainable",
        ),
        "adversarial_accuracy_front": (
            "whether the classifier is on the dataset's Pareto front of median and accuracy under attack",
            "1",
            "nourelahi2022explainable",
        ),
    },
}
# long_name of the coordinates, which are the same in every table.
COORDINATES = {
    "dataset": "dataset of the classifier",
    "classifier": "classifier, by its name in params.yaml",
    "classifier_other": "the other classifier of the two",
    "method": "method, by its name in params.yaml",
    "method_other": "the other method of the two",
    "method_family": "family of the method",
    "control": "whether the method is a control, which knows nothing of the classifier",
    "metric": "metric, by its name in params.yaml, or a diagnostic of its curves",
    "metric_other": "the other metric of the two",
    "metric_family": "family of the metric",
    "metric_long_name": "long name of the metric",
    "metric_units": "units of the metric",
    "metric_reference": "papers of the metric, by their keys in REFERENCES.bib",
    "metric_settings": "settings of the metric, as JSON",
    "better": "direction in which the metric is better: higher or lower",
    "role": "what the metric is for: metric ranks, apart ranks beside the mean ranks, diagnostic ranks no method",
    "unit": "what the metric scores: image or tile",
    "family": "family of metrics",
    "image": "evaluation image",
    "grid": "grid of images",
    "tile": "tile of a grid, row by row",
    "fraction": "how far along a curve, 0 to 1: share of the pixels, levels or parts that are changed",
    "radius": "radius, an L2 norm over all values of the image, inside which labels of pixels hold",
    "level": "K of the K% of a map's pixels that are its top, 0 where nothing is removed",
    "size": "number of images, or grids, that is assumed",
    "comparison": "classifiers that are compared, from the first to the second",
    "controls": "two controls: the one that belongs last, the one that belongs before it",
}
# Directions, by the ends of names; spread is in a metric's units, but has no direction.
DIRECTIONS = {
    r"rank(_low|_high|_otherwise)?$|^(width|width_now|sample_size|reliable_size)$": "lower",
    r"accuracy$|^superiority$": "higher",
    r"^spread$": "neither",
}


def label(table: xr.Dataset, name: str, notes: Mapping[str, object]) -> xr.Dataset:
    """Add attributes that describe a table, each of its variables and its coordinates.

    Args:
        table: The dataset to label.
        name: scores, summary, curves, certified, agreement, contrasts, precision, controls, comparison or cost.
        notes: Attributes of the whole table.
    """
    for variable, long_name in COORDINATES.items():
        if variable in table.coords:
            table[variable].attrs = {"long_name": long_name}
    for variable, (long_name, units, reference) in LABELS[name].items():
        if variable in table:
            better = "by metric (better)" if units == MEASURE else "neither"
            better = "lower" if units in (PASSES, "maps") else better
            better = next((one for pattern, one in DIRECTIONS.items() if re.search(pattern, variable)), better)
            about = {"long_name": long_name, "units": units, "better": better}
            table[variable].attrs |= about | {"reference": reference or "by definition"}
    table.attrs = notes
    return table
