"""The shapes: form alone tells the classes apart, masks and boxes are exact, more images change none."""

import numpy as np
import pytest
import torch

from atlas.datasets.shapes import CLASSES, FORMS, _reach, shapes
from atlas.methods import control
from atlas.metrics import localization
from atlas.study.errors import UserError

SETTINGS = {
    "size": 64,
    "seed": 0,
    "turn": 30,
    "side": [0.3, 0.48],
    "pair": 0.15,
    "pair_side": [0.28, 0.42],
    "large": 0.15,
    "large_side": [0.76, 0.92],
    "cuts": 5,
    "chroma": 0.7,
    "texture": 0.2,
    "grain": 0.02,
}


def drawn(**settings):
    return list(shapes(**{"train": 0, "test": 0, **SETTINGS, **settings}).pictures)


@pytest.fixture(scope="module")
def samples():
    return drawn(train=1000)


def areas(sample):
    return (sample.boxes[:, 2] - sample.boxes[:, 0]) * (sample.boxes[:, 3] - sample.boxes[:, 1])


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_more_images_leave_the_first_as_they_were():
    few, many = drawn(train=5, test=4), drawn(train=9, test=7)
    by_id = {sample.id: sample for sample in many}
    assert [sample.id for sample in few][:6] == [*(f"train_{n:05d}" for n in range(5)), "test_00000"]
    assert all(same(sample, by_id[sample.id]) for sample in few)


def test_another_seed_and_another_split_draw_other_images():
    first, held_out = drawn(train=1, test=1)
    (other,) = drawn(train=1, seed=1)
    assert first.split == "train"
    assert held_out.split == "test"
    assert not np.array_equal(first.image, held_out.image)
    assert not np.array_equal(first.image, other.image)


def test_labels_are_balanced_and_named(samples):
    assert list(FORMS) == CLASSES
    assert len(CLASSES) >= 8
    assert np.ptp(np.bincount([sample.label for sample in samples], minlength=len(FORMS))) <= 1


def test_pixels_and_masks_have_the_image_s_shape(samples):
    for sample in samples[:20]:
        assert (sample.image.shape, sample.image.dtype) == ((3, 64, 64), np.uint8)
        assert (sample.mask.shape, sample.mask.dtype) == ((64, 64), np.bool_)


def test_boxes_are_tight(samples):
    """Each box touches the mask on all four sides, and no pixel of the mask is outside the boxes."""
    for sample in samples[:300]:
        inside = np.zeros_like(sample.mask)
        for x0, y0, x1, y1 in sample.boxes:
            part = sample.mask[y0:y1, x0:x1]
            edges = [part[0], part[-1], part[:, 0], part[:, -1]]
            assert all(edge.any() for edge in edges)
            inside[y0:y1, x0:x1] = True
        assert not (sample.mask & ~inside).any()


def test_the_mask_is_what_is_painted():
    """Without texture and grain the mask is of one color, and all that is outside it is gray."""
    for sample in drawn(train=60, texture=0.0, grain=0.0, pair=0.0):
        inside = np.unique(sample.image[:, sample.mask], axis=1)
        outside = sample.image[:, ~sample.mask]
        assert inside.shape[1] == 1
        assert np.ptp(inside) >= 255 * SETTINGS["chroma"] - 1
        assert (outside == outside[0]).all()
        assert len(np.unique(outside)) > 1


@pytest.mark.parametrize("cuts", [0, 1, 3])
def test_a_mosaic_has_the_pieces_that_its_cuts_make(cuts):
    """n lines make n + 1 pieces at least, and 1 + n + n (n − 1) / 2 at most; each has one gray."""
    for sample in drawn(train=30, texture=0.0, grain=0.0, large=0.0, cuts=cuts):
        grays = len(np.unique(sample.image[0, ~sample.mask]))
        assert grays <= 1 + cuts + cuts * (cuts - 1) / 2
        assert (grays > 1) == (cuts > 0)


def test_objects_are_as_often_brighter_as_darker_than_the_ground(samples):
    """In gray, in each channel and for each object: a share of 1/2 of 1000, within four standard errors."""
    gray = np.array([0.2125, 0.7154, 0.0721])
    brighter = []
    for sample in samples:
        for x0, y0, x1, y1 in sample.boxes:
            inside = sample.image[:, y0:y1, x0:x1][:, sample.mask[y0:y1, x0:x1]].mean(axis=1)
            outside = sample.image[:, ~sample.mask].mean(axis=1)
            brighter.append([*(inside > outside), gray @ inside > gray @ outside])
    np.testing.assert_allclose(np.mean(brighter, axis=0), 0.5, atol=0.064)


def test_no_control_finds_the_objects_that_are_judged(samples):
    """By no localization metric is a map of brightness, edges or the middle much better than noise.

    Bounds are what the worst of the methods of the default study reaches on its classifiers, less a margin.
    """
    judged = [sample for sample in samples if len(sample.boxes) == 1 and areas(sample)[0] <= 64 * 64 / 2][:200]
    images = torch.from_numpy(np.stack([sample.image for sample in judged])).float().div(255)
    boxes, masks = (torch.from_numpy(np.stack(each)) for each in zip(*((s.boxes, s.mask) for s in judged), strict=True))
    seeds = list(range(len(judged)))
    maps = {
        "uniform": control.uniform(images, seeds),
        "canny": control.canny(images, sigma=1.0),
        "center": control.center(images, sigma=0.25),
        "intensity": control.intensity(images),
        "darkness": -control.intensity(images),
        "red": images[:, :1],
    }
    for name, one in maps.items():
        assert localization.relevance_rank(one[:, 0], masks, seeds).mean() < 0.3, name
        assert localization.top_k_intersection(one[:, 0], masks, seeds, k=100).mean() < 0.4, name
        assert localization.attribution_localization(one[:, 0], masks).mean() < 0.2, name
        assert localization.pointing_game(one[:, 0], boxes, [0] * len(one[:, 0]), tolerance=4).mean() < 0.75, name
        assert localization.wsl(one[:, 0], boxes, thresholds=100, iou=0.5).mean(0).max() < 0.35, name


def test_an_object_that_covers_no_pixel_is_refused():
    with pytest.raises(UserError, match=r"^an object of train_\d+ covers no pixel of 16 a side"):
        drawn(train=100, size=16, side=[0.01, 0.02])


def test_shares_of_pairs_and_large_objects(samples):
    pairs = np.array([len(sample.boxes) == 2 for sample in samples])
    large = np.array([areas(sample)[0] > 64 * 64 / 2 for sample in samples])
    # Four standard errors of a share of 0.15 of 1000.
    assert abs(pairs.mean() - SETTINGS["pair"]) < 0.046
    assert abs(large.mean() - SETTINGS["large"]) < 0.046
    assert not (pairs & large).any()


def test_objects_of_a_pair_do_not_overlap():
    for sample in drawn(train=100, pair=1.0, large=0.0):
        assert sample.boxes.shape == (2, 4)
        (a, b) = sample.boxes
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("form", CLASSES)
def test_large_objects_of_every_form_cover_more_than_half_with_their_box(form):
    label = CLASSES.index(form)
    large = [sample for sample in drawn(train=200, pair=0.0, large=1.0) if sample.label == label]
    assert len(large) == 20
    assert all(areas(sample)[0] > 64 * 64 / 2 for sample in large)


def test_form_alone_tells_the_classes_apart(samples):
    """No mean color, contrast, box or place depends on the class: a one-way F test on each, at 1 in 10 000."""
    facts = np.array(
        [
            [
                *sample.image[:, ~sample.mask].mean(axis=1),
                *sample.image[:, sample.mask].mean(axis=1),
                sample.image[:, ~sample.mask].std(),
                areas(sample)[0],
                sample.boxes[0, [0, 2]].mean(),
                sample.boxes[0, [1, 3]].mean(),
            ]
            for sample in samples
        ],
        dtype=float,
    )
    labels = np.array([sample.label for sample in samples])
    from scipy.stats import f_oneway

    assert f_oneway(*(facts[labels == label] for label in range(len(FORMS)))).pvalue.min() > 1e-4
    # The test can fail: how much of its box an object fills does depend on its form.
    fill = np.array([sample.mask.sum() / areas(sample).sum() for sample in samples])
    assert f_oneway(*(fill[labels == label] for label in range(len(FORMS)))).pvalue < 1e-100


@pytest.mark.parametrize("form", CLASSES)
def test_forms_differ_from_each_other_and_reach_as_far_as_they_say(form):
    line = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(line, line)
    mine = FORMS[form](u, v)
    assert u[mine].max() == pytest.approx(_reach(form)[0], abs=0.03)
    assert v[mine].max() == pytest.approx(_reach(form)[90], abs=0.03)
    for other in set(FORMS) - {form}:
        assert (mine ^ FORMS[other](u, v)).sum() > 0.1 * mine.sum()
