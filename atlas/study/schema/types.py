"""The types of settings that several functions share, each with its accepted values and one sentence on its meaning.

A signature uses them like `int` or `Literal`: `samples: Count`. A type that only one function has is written out in its
signature: `Annotated[float, Range(0, 0.8)]`. A number of a plain type may be any whole number from 0, or any finite
one.

Ranges are NamedTuples of this module and not pydantic's: otherwise every method would import pydantic, and its version
would be part of every key. A key holds the name of a type and not what it accepts: that limits which settings are valid
and changes no value.
"""

from typing import Annotated, Literal, NamedTuple

GREATEST_WHOLE = 2**31 - 1
GREATEST_SEED = 2**63 - 1  # the largest seed of torch's generators
GREATEST = 1e9  # its square and the inverse of that fit into single precision
SMALLEST = 1e-12  # above 0, as is its square in single precision


class Range(NamedTuple):
    """The range of a number, or of each number of a list: from least to most, inclusive except at an open end."""

    least: int | float
    most: int | float
    open_below: bool = False
    open_above: bool = False


class Items(NamedTuple):
    """The number of items of a list, and whether they must not decrease."""

    least: int
    most: int = GREATEST_WHOLE
    rising: bool = False


# Numbers
Count = Annotated[int, Range(1, GREATEST_WHOLE), "How many."]
Several = Annotated[int, Range(2, GREATEST_WHOLE), "How many, at least two."]
Seed = Annotated[int, Range(0, GREATEST_SEED), "Where random draws begin."]
Positive = Annotated[float, Range(SMALLEST, GREATEST), "A size or a strength, above 0."]
NotNegative = Annotated[float, Range(0, GREATEST), "A size or a strength; 0 is none."]
Share = Annotated[float, Range(0, 1), "A share: 0 is none, 1 is all."]
SomeShare = Annotated[float, Range(0, 1, open_below=True), "A share that is not 0; 1 is all."]
PartShare = Annotated[float, Range(0, 1, open_below=True, open_above=True), "A share that is neither 0 nor 1."]
Shares = Annotated[list[PartShare], Items(1), "Shares, none of them 0 or 1."]
Sizes = Annotated[list[SomeShare], Items(2, 2, rising=True), "The least and the greatest size, as shares of a side."]

# Of methods, and of metrics that ask the classifier
Layer = Annotated[str, "`input`, `final` (the last layer with rows and columns), or the path of a module."]
Output = Annotated[
    Literal["logit", "probability", "loss"], "f: the target's logit, its probability, or the cross-entropy loss."
]
Response = Annotated[Literal["logit", "probability"], "f: the target's logit or its probability."]
Sign = Annotated[
    Literal["both", "positive", "negative", "absolute"],
    "Which gradients count: both signs, those above 0, those below 0 (the others are 0), or absolute values.",
]
Color = Annotated[
    Literal["black", "mean"], "Black, or the classifier's mean color, which is 0 for the normalized image."
]
Baseline = Annotated[
    Literal["black", "mean", "blur"],
    "Black, the classifier's mean color (0 for the normalized image), or the blurred image.",
]
Rule = Annotated[
    Literal["gauss_legendre", "midpoint", "endpoints"], "The positions and weights of the points on the line."
]
Extent = Annotated[
    Literal["image", "batch"],
    "The range of intensities: the image's own, or that of a `batch` of normalized photographs with black and white.",
]
Spread = Annotated[float, Range(0, GREATEST), "Standard deviation of the noise, as a share of a range of intensities."]
Percentile = Annotated[
    int, Range(0, 100), "Percentage of pixels that Guided AbsoluteGrad's guide W suppresses; 0 for no guide."
]
Floor = Annotated[
    Literal["raw", "minmax", "zero"],
    "The guide at suppressed pixels: the variance (raw), scaled to [0, 1] in its channel (minmax), or 0.",
]
Order = Annotated[
    Literal["normalize_first", "enlarge_first"],
    "Whether features are scaled to [0, 1] at their own size or at the image's, where their range is smaller.",
]
Noise = Annotated[
    Literal["uniform", "gaussian"],
    "Noise of the normalized image: uniform in ± scale, or Gaussian with the scale as its standard deviation.",
]
Similarity = Annotated[
    Literal["spearman", "absolute_spearman", "ssim"],
    "The correlation of the ranks of values, or of absolute values; or the structural similarity of maps scaled to "
    "[0, 1], in a Gaussian window of 1.5 pixels (11 wide).",
]

# Of votes and of what they certify
Top = Annotated[
    Literal["strict", "strict_rectified", "authors"],
    "How the top of a map is found: by signed scores, by those above 0, or as in the code of Anani et al. 2025.",
]
Taus = Annotated[
    list[Annotated[float, Range(0.5, 1, open_above=True)]],
    Items(1),
    "Shares of the votes that a label needs; each gives a radius.",
]
Alpha = Annotated[
    float,
    Range(0, 1, open_below=True, open_above=True),
    "Bound on the probability that any label of a map is wrong inside the radius.",
]
Correction = Annotated[
    Literal["bonferroni", "holm", "none"],
    "The correction over a map's pixels: Bonferroni's or Holm's; without one, alpha bounds each pixel's error.",
]

# Of attacks, datasets and rankings
Norm = Annotated[Literal["l2", "linf"], "The norm of an attack's ball, over all values of an image."]
Split = Annotated[Literal["train", "test"], "The training split, or the held-out one."]
Weights = Annotated[
    Literal["families", "metrics"],
    "What has equal weight in a mean rank: families of metrics, or each metric, whatever its family.",
]
