"""How much of a map is certified, where, and whether it is what the classifier uses (Anani et al. 2025).

The metrics are computed from the votes of an image's noisy samples (stages.certify): their labels are certified
important, certified unimportant or abstained (atlas.inputs.certification), at every radius σ · Φ⁻¹(τ) of the smoothings
and τ, and every level K.
"""

from collections.abc import Sequence

import torch

from atlas.inputs.certification import ABSTAINED, IMPORTANT, UNIMPORTANT, Votes
from atlas.inputs.top_k import scale_of, top_k
from atlas.metrics.shared.certified import certified, parted, share, share_of
from atlas.metrics.shared.outputs import clean_logits, color, output_of, outputs
from atlas.metrics.shared.rows import finite
from atlas.model.arrays import Certified, Images, Maps, Masks, Targets
from atlas.model.classifier import Classifier
from atlas.study.schema.types import Alpha, Color, Correction, Taus

ATTRS = {
    "certified_important": {
        "long_name": "pixels certified important",
        "units": "%",
        "reference": "anani2025pixel",
        "better": "higher",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "certified_unimportant": {
        "long_name": "pixels certified unimportant",
        "units": "%",
        "reference": "anani2025pixel",
        "better": "higher",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "abstained": {
        "long_name": "pixels without a certificate",
        "units": "%",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "certified_localization": {
        "long_name": "certified localization",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "higher",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "certified_deletion": {
        "long_name": "probability without the pixels certified important",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "removed",
        "summary": "level",
        "role": "apart",
    },
    "certified_consistency": {
        "long_name": "certified pixels that have their label in the clean map",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "higher",
        "dim": "level",
        "summary": "level",
        "role": "apart",
    },
    "parted_ties": {
        "long_name": "noisy samples with equal scores at the edge of the top",
        "units": "1",
        "reference": "anani2025pixel",
        "better": "lower",
        "dim": "level",
        "summary": "level",
        "role": "diagnostic",
    },
}


def certified_important(
    votes: Sequence[Votes],
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure how many pixels are certified to be at the top of the map.

        100 · #{i : cᵢ = 1} / pixels

    Returns:
        Percent, 0 to K · n / k₀ if k₀ of n votes certify; higher is better. Never undefined.

    Reference: anani2025pixel.
    """
    return 100 * share_of(votes, IMPORTANT, tau, alpha, correction)


def certified_unimportant(
    votes: Sequence[Votes],
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure how many pixels are certified not to be at the top of the map.

        100 · #{i : cᵢ = 0} / pixels

    Returns:
        Percent, 0 to (100 − K) · n / k₀ if k₀ of n votes certify; higher is better. Never undefined.

    Reference: anani2025pixel.
    """
    return 100 * share_of(votes, UNIMPORTANT, tau, alpha, correction)


def abstained(
    votes: Sequence[Votes],
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure how many pixels get no certificate.

        100 · #{i : cᵢ = ⊘} / pixels

    Returns:
        Percent, 0 to 100, lower is better. Never undefined.

    Reference: anani2025pixel; the paper's certified share is 100 minus this.
    """
    return 100 * share_of(votes, ABSTAINED, tau, alpha, correction)


def certified_localization(
    votes: Sequence[Votes],
    masks: Masks,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure the share of the pixels certified important that lies on the object.

        #{i in the mask : cᵢ = 1} / #{i : cᵢ = 1}

    Returns:
        0 to 1, higher is better. Undefined where no pixel is certified important, and where the mask is empty: a mean
        is then over the other images only, so a method that certifies little is evaluated on its surest images. Compare
        methods on the same number of images, and together with `certified_important`.

    Reference: anani2025pixel, whose grid pointing game is applied to masks here.
    """
    important = certified(votes, tau, alpha, correction, masks.device.type) == IMPORTANT
    found = share(masks[:, None, None].expand_as(important), important)
    return torch.where(masks.flatten(1).any(dim=1)[:, None, None], found, torch.nan)


def certified_deletion(
    votes: Sequence[Votes],
    images: Images,
    targets: Targets,
    classifier: Classifier,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
    baseline: Color,
) -> Certified:
    """Record the target's probability while pixels certified important are removed, those of the smallest level first.

        p(x without ∪_{k ≤ K} {i : cᵢ(k) = 1}), for K = 0 (the image), then the levels, rising

    Args:
        votes, images, targets, classifier: The inputs; the classifier is not smoothed.
        tau, alpha, correction: Settings of the test.
        baseline: What replaces removed pixels.

    Returns:
        A probability, 0 to 1, lower is better. Never undefined; if nothing is certified, it does not change. All pixels
        certified important are removed, so it favors methods that certify more, wherever that lies: read it together
        with `certified_important`. One forward pass per image, and one for each radius and level.

    Reference: anani2025pixel, whose text does not say what replaces removed pixels, and whose curves at K = 30 and 50
    agree to the printed digit.
    """
    device = classifier.device
    images, targets = images.to(device), targets.to(device)
    important = certified(votes, tau, alpha, correction, device.type) == IMPORTANT
    removed = important.flip(2).cummax(dim=2).values  # levels are stored in falling order
    count, radii, levels = removed.shape[:3]
    clean = output_of(classifier, clean_logits(classifier, images), targets, "probability")
    absent = color(classifier, baseline)
    row = torch.arange(count, device=device).repeat_interleave(radii * levels)
    place = torch.arange(radii * levels, device=device).repeat(count)
    without = removed.flatten(1, 2)

    def made(r: torch.Tensor, at: torch.Tensor) -> Images:
        return torch.where(without[r, at][:, None], absent, images[r])

    found = outputs(classifier, targets, row, place, made, "probability").view(count, radii, levels)
    return torch.cat([clean[:, None, None].expand(count, radii, 1), found], dim=2)


def certified_consistency(
    votes: Sequence[Votes],
    maps: Maps,
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure the share of the certified pixels whose certified label equals their label in the image's own map.

        #{i : cᵢ = top(map)ᵢ} / #{i : cᵢ ≠ ⊘}, with the top in the same form as in the votes

    Returns:
        0 to 1, higher is better. Undefined where no pixel is certified, and where the map is not finite. At a small K,
        most certified pixels are unimportant: if all are certified, it is at least 1 − 2 K / 100, even if no pixel
        certified important is at the top.

    Reference: anani2025pixel (the smoothed map is certified; this measures how far the image's own map agrees with it).
    The map is used as stored: in float16 its ties may differ from those of the samples' maps in float32.
    """
    marks = certified(votes, tau, alpha, correction, maps.device.type)
    tops = []
    for one in votes:
        scales = scale_of(maps) if one.form == "authors" else None
        top, _ = top_k(maps, levels=one.levels, form=one.form, scales=scales)
        tops += [top] * len(tau)
    found = share(marks == torch.stack(tops, dim=1).to(marks.dtype), marks != ABSTAINED)
    return torch.where(finite(maps)[:, None, None], found, torch.nan)


def parted_ties(
    votes: Sequence[Votes],
    *,
    tau: Taus,
    alpha: Alpha,
    correction: Correction,
) -> Certified:
    """Measure in how many noisy samples equal scores straddle the edge of the top, so that certificates mean little.

    The forms of the top leave out such scores together. In a map that is constant, or mostly 0, fewer than K% are
    marked, in every sample: all other pixels would be certified unimportant, whatever the classifier uses.

    Returns:
        Share of the samples, 0 to 1, lower is better. Never undefined; the same at every τ.

    Reference: anani2025pixel, whose form of the top does not mark pixels of such a tie either.
    """
    return parted(votes, tau)
