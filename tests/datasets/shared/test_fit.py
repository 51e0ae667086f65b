"""Pictures of any size come to one as torchvision's transforms bring them, and boxes and masks with them."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms import InterpolationMode, v2

from atlas.datasets.shared import transforms
from atlas.datasets.shared.fit import FILTERS, fitted
from atlas.datasets.shared.transforms import transform
from atlas.study.errors import UserError
from atlas.study.params import dataset, side
from atlas.study.schema.fitting import fitting
from tests.support.study import tiny

SIDES = [(375, 500), (500, 333), (64, 64), (41, 97), (97, 41), (300, 300), (23, 31), (656, 253)]
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def noise(side, channels=3, low=0, high=256):
    return np.random.default_rng(0).integers(low, high, (channels, *side)).astype("uint8")


def mild(side, channels=3):
    """Noise of so little contrast that no filter overshoots black or white."""
    return noise(side, channels, 70, 186)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("side", SIDES)
def test_a_crop_is_torchvision_s(side, interpolation):
    """On noise, where any shift or other filter shows; with pictures of Pillow bit for bit."""
    how = MODES[interpolation]
    settings = {"mode": "crop", "size": 56, "resize": 72, "interpolation": interpolation}
    due = v2.Compose([v2.Resize(72, how, antialias=True), v2.CenterCrop(56)])
    pixels = mild(side)
    found, _, _ = fitted(pixels, None, None, **settings)
    assert abs(found.astype(int) - due(torch.from_numpy(pixels)).numpy()).max() <= 1
    pixels = noise(side)
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    exact = np.asarray(due(image)).transpose(2, 0, 1)
    for given in (pixels, image):
        np.testing.assert_array_equal(fitted(given, None, None, **settings)[0], exact)


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [48, [96, 160], [31, 17]])
def test_squashing_is_torchvision_s(side, size, interpolation):
    pixels = mild(side, channels=4)
    both = size if isinstance(size, list) else [size, size]
    due = v2.Resize(both, MODES[interpolation], antialias=True)(torch.from_numpy(pixels)).numpy()
    found, _, _ = fitted(pixels, None, None, mode="squash", size=size, interpolation=interpolation)
    assert found.shape == (4, *both)
    assert abs(found.astype(int) - due).max() <= (
        2 if interpolation == "bicubic" and (np.array(both) > side).any() else 1
    )
    image = Image.fromarray(noise(side).transpose(1, 2, 0))
    exact = np.asarray(v2.Resize(both, MODES[interpolation], antialias=True)(image)).transpose(2, 0, 1)
    found, _, _ = fitted(image, None, None, mode="squash", size=size, interpolation=interpolation)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("side", SIDES)
def test_nearest_is_torchvision_s_exact_one(side):
    pixels = noise(side, channels=2)
    due = v2.Compose([v2.Resize(72, InterpolationMode.NEAREST_EXACT), v2.CenterCrop([56, 40])])
    found, _, _ = fitted(pixels, None, None, mode="crop", size=[56, 40], resize=72, interpolation="nearest")
    resized = [72 * whole // min(side) for whole in side]
    sure = unlike_ties(side, resized, (56, 40))
    np.testing.assert_array_equal(found[:, sure], due(torch.from_numpy(pixels)).numpy()[:, sure])
    image = Image.fromarray(pixels[0]).resize((40, 56), Image.Resampling.NEAREST)
    found, _, _ = fitted(pixels, None, None, mode="squash", size=[56, 40], interpolation="nearest")
    sure = unlike_ties(side, (56, 40), (56, 40))
    np.testing.assert_array_equal(found[0][sure], np.asarray(image)[sure])


def unlike_ties(side, resized, size):
    """Where the middle of a new pixel lies within one of the source: on the border of two, floats take either.

    Of what is resized the middle of a size is looked at.
    """
    within = []
    for whole, made, length in zip(side, resized, size, strict=True):
        at = np.arange(length) + round((made - length) / 2)
        within.append((2 * at + 1) * whole % (2 * made) != 0)
    both = within[0][:, None] & within[1]
    assert both.mean() > 0.6
    return both


def test_a_picture_of_the_right_size_stays_as_it_is():
    pixels = noise((56, 40))
    for interpolation in (*FILTERS, "nearest"):
        found, _, _ = fitted(pixels, None, None, mode="squash", size=[56, 40], interpolation=interpolation)
        np.testing.assert_array_equal(found, pixels)
        found, _, _ = fitted(pixels, None, None, mode="crop", size=40, resize=40, interpolation=interpolation)
        np.testing.assert_array_equal(found, pixels[:, 8:48])


def test_boxes_are_the_smallest_that_hold_them():
    """100 x 200 to 50 x 100, and of that the middle 50 x 50: 25 columns go on either side."""
    boxes = np.array(
        [[51, 1, 149, 99], [52, 11, 61, 20], [0, 0, 60, 10], [0, 0, 49, 10], [150, 0, 200, 9], [99, 50, 100, 51]]
    )
    pixels = noise((100, 200))
    _, found, _ = fitted(pixels, boxes, None, mode="crop", size=50, resize=50)
    assert found.tolist() == [[0, 0, 50, 50], [1, 5, 6, 10], [0, 0, 5, 5], [24, 25, 25, 26]]
    _, none, _ = fitted(pixels, boxes[3:5], None, mode="crop", size=50, resize=50)
    assert none.shape == (0, 4)
    # A third: whole pixels of the source lie exactly on borders, whatever float arithmetic says.
    _, exact, _ = fitted(noise((300, 672)), np.array([[3, 3, 6, 9]]), None, mode="squash", size=[100, 224])
    assert exact.tolist() == [[1, 1, 2, 3]]


@pytest.mark.parametrize("settings", [{"mode": "crop", "size": 56, "resize": 64}, {"mode": "squash", "size": [33, 71]}])
@pytest.mark.parametrize("side", [(375, 500), (97, 41), (30, 20)])
def test_a_mask_follows_its_pixels_and_its_box(side, settings):
    """A mask drawn into the picture is where the picture is bright afterwards, and its box is around it."""
    mask = np.zeros(side, bool)
    y, x = side[0] // 3, side[1] // 3
    mask[y : 2 * y, x : 2 * x] = True
    pixels = (mask * np.uint8(255))[None]
    found, boxes, there = fitted(pixels, np.array([[x, y, 2 * x, 2 * y]]), mask, **settings)
    assert there.shape == found.shape[1:]
    sure = abs(found[0].astype(int) - 127) > 100  # beside the border
    np.testing.assert_array_equal(there[sure], found[0][sure] > 127)
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert abs(boxes[0] - around).max() <= 1
    assert (boxes[0][:2] <= around[:2]).all()
    assert (boxes[0][2:] >= around[2:]).all()


def test_half_of_a_pixel_is_enough_for_a_mask():
    mask = np.zeros((8, 8), bool)
    mask[0, :2] = mask[2, 2] = True
    _, _, found = fitted(noise((8, 8)), None, mask, mode="squash", size=4)
    assert found.tolist()[0] == [True, False, False, False]
    assert not found[1].any()


WRONG = {
    "no mode": ({"size": 8}, "the setting 'mode' is missing"),
    "another mode": ({"mode": "pad", "size": 8}, "'mode' = 'pad'"),
    "no size": ({"mode": "squash"}, "the setting 'size' is missing"),
    "a size of three": ({"mode": "squash", "size": [1, 2, 3]}, "'size' = .*: expected a list of 2 numbers"),
    "a size of nothing": ({"mode": "squash", "size": 0}, "'size' = 0: expected at least 1"),
    "no resize": ({"mode": "crop", "size": 8}, "resize = None, size = 8: expected the shorter side before the crop"),
    "a crop beyond": (
        {"mode": "crop", "size": [8, 9], "resize": 8},
        "resize = 8, size = .*: expected the shorter side",
    ),
    "resize without a crop": (
        {"mode": "squash", "size": 8, "resize": 8},
        "resize = 8: expected with mode 'crop' alone",
    ),
    "another filter": ({"mode": "squash", "size": 8, "interpolation": "area"}, "'interpolation' = 'area'"),
    "another setting": ({"mode": "squash", "size": 8, "pad": 1}, "unknown setting 'pad'"),
    "no mapping": (224, "fit"),
    "weights of another library": ({"family": "keras", "name": "x", "tag": "y"}, r"fit: 'family' = 'keras'"),
    "weights without a tag": ({"family": "timm", "name": "resnet18"}, "the setting 'tag' is missing"),
    "weights and numbers": (
        {"family": "timm", "name": "resnet18", "tag": "a1_in1k", "size": 8},
        "unknown setting 'size' = 8. Accepted by transform of atlas/datasets/shared/transforms.py: family",
    ),
}


@pytest.mark.parametrize(("fit", "told"), WRONG.values(), ids=WRONG)
def test_a_fit_that_makes_no_sense(fit, told):
    params = {"datasets": {"photographs": {"family": "folder", "path": "raw", "fit": fit}}}
    with pytest.raises(UserError, match=rf"params\.yaml: datasets\.photographs.*{told}"):
        dataset(params, "photographs")


def test_a_fit_may_be_left_out_and_so_may_parts_of_it():
    params = {"datasets": {"photographs": {"family": "folder", "path": "raw"}}}
    bound = dataset(params, "photographs")
    assert bound.options == {"path": "raw", "fit": None, "channels": "rgb"}
    assert bound.settings == {"label": "parent", "classes": None, "train": None}
    due = {"mode": "squash", "size": 8, "resize": None, "interpolation": "bilinear"}
    assert fitting({"mode": "squash", "size": 8}, "fit") == due
    with pytest.raises(UserError, match=r"datasets\.photographs: the setting 'path' is missing"):
        dataset({"datasets": {"photographs": {"family": "folder"}}}, "photographs")


def test_the_fit_says_the_side_of_images():
    params = tiny()
    name = next(iter(params["classifiers"]))
    assert side(params, name) == 64
    params["datasets"]["shapes"]["fit"] = {"mode": "squash", "size": 32}
    assert side(params, name) == 32
    params["datasets"]["shapes"]["fit"]["size"] = [32, 48]
    assert side(params, name) is None
    params["datasets"]["shapes"]["fit"] = {"family": "torchvision", "name": "resnet18", "tag": "IMAGENET1K_V1"}
    assert side(params, name) is None


PHOTOGRAPH = (427, 640)


def photograph() -> Image.Image:
    """A photograph's likeness: smooth surfaces, an edge and fine grain."""
    random = np.random.default_rng(0)
    height, width = PHOTOGRAPH
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([120 + 60 * np.sin(x / 90 + k) * np.cos(y / 70 - k) for k in range(3)], axis=2)
    smooth[(x - 300) ** 2 + (y - 200) ** 2 < 90**2] += 40
    return Image.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype("uint8"))


def undone(normalized, mean, std):
    """Return the intensities, 0 to 255, of what a library's transform made of a picture."""
    return (normalized * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)).mul(255).numpy()


# By resize: 232 beside a crop of 224, the same as the crop, bicubic; and what is not bilinear of 256.
@pytest.mark.parametrize(
    ("name", "tag", "due"),
    [
        ("resnet50", "IMAGENET1K_V2", (224, 232, "bilinear")),
        ("swin_t", "IMAGENET1K_V1", (224, 232, "bicubic")),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", (384, 384, "bicubic")),
        ("inception_v3", "IMAGENET1K_V1", (299, 342, "bilinear")),
    ],
)
def test_a_fit_of_weights_of_torchvision_is_their_own_transform(name, tag, due):
    fit = fitting(transform("fit", family="torchvision", name=name, tag=tag), "fit")
    assert (fit["size"], fit["resize"], fit["interpolation"]) == due
    own = models.get_model_weights(name)[tag].transforms()
    found, _, _ = fitted(photograph(), None, None, **fit)
    assert abs(found - undone(own(photograph()), own.mean, own.std)).max() <= 1


@pytest.mark.parametrize(
    ("name", "tag", "due"),
    [
        ("resnet18", "a1_in1k", ("crop", 288, 288, "bicubic")),
        ("deit_tiny_patch16_224", "fb_in1k", ("crop", 224, 248, "bicubic")),
        ("eva_large_patch14_336", "in22k_ft_in1k", ("squash", 336, None, "bicubic")),
    ],
)
def test_a_fit_of_weights_of_timm_is_their_own_transform(name, tag, due):
    timm = pytest.importorskip("timm")
    fit = fitting(transform("fit", family="timm", name=name, tag=tag), "fit")
    assert tuple(fit[part] for part in ("mode", "size", "resize", "interpolation")) == due
    known = timm.models.get_pretrained_cfg(f"{name}.{tag}").to_dict()
    about = timm.data.resolve_data_config(pretrained_cfg=known, use_test_size=True)
    own = timm.data.create_transform(**about)
    found, _, _ = fitted(photograph(), None, None, **fit)
    assert abs(found - undone(own(photograph()), about["mean"], about["std"])).max() <= 1


USUAL = {"input_size": (3, 96, 96), "crop_pct": 0.9, "crop_mode": "center", "interpolation": "bilinear"}
OF_TIMM = {
    "a crop": ({}, {"mode": "crop", "size": 96, "resize": 106}),
    "all of it": ({"crop_mode": "squash", "crop_pct": 1.0}, {"mode": "squash", "size": 96, "resize": None}),
    "not square": (
        {"crop_mode": "squash", "crop_pct": 1.0, "input_size": (3, 64, 96)},
        {"mode": "squash", "size": [64, 96], "resize": None},
    ),
}
NOT_OF_TIMM = {
    "borders": ({"crop_mode": "border"}, "crop_mode 'border' with crop_pct 0.9 to 96 x 96 pixels"),
    "a part of what is squashed": ({"crop_mode": "squash"}, "crop_mode 'squash' with crop_pct 0.9"),
    "a crop that is not square": ({"input_size": (3, 64, 96)}, "crop_mode 'center' with crop_pct 0.9 to 64 x 96"),
    "another filter": ({"interpolation": "lanczos"}, "interpolation 'lanczos': expected one of bilinear, bicubic"),
}


@pytest.mark.parametrize(("changed", "due"), OF_TIMM.values(), ids=OF_TIMM)
def test_what_timm_says_of_weights_as_a_fit(changed, due):
    assert transforms._of_timm(USUAL | changed, "") == {**due, "interpolation": "bilinear"}


@pytest.mark.parametrize(("changed", "told"), NOT_OF_TIMM.values(), ids=NOT_OF_TIMM)
def test_what_timm_does_and_no_fit_does_is_told(changed, told):
    with pytest.raises(UserError, match=rf"^params\.yaml: fit: .*{told}"):
        transforms._of_timm(USUAL | changed, "params.yaml: fit")


UNKNOWN = {
    "a tag": ({"name": "resnet18", "tag": "V9"}, r"tag = 'V9': torchvision knows no such weights of resnet18; .* IMAG"),
    "a network": ({"name": "resnet19", "tag": "V9"}, "tag = 'V9': torchvision has no network 'resnet19' that class"),
    "one that segments": (
        {"name": "fcn_resnet50", "tag": "DEFAULT"},
        "tag = .*: torchvision has no network 'fcn_",
    ),
}


@pytest.mark.parametrize(("given", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_fit_of_weights_that_nobody_knows(given, told):
    with pytest.raises(UserError, match=rf"^params\.yaml: datasets\.a\.fit: {told}"):
        transform("datasets.a.fit", family="torchvision", **given)


def test_a_fit_of_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"^params\.yaml: datasets\.a\.fit: family = 'timm': it cannot be imported"):
        transform("datasets.a.fit", family="timm", name="resnet18", tag="a1_in1k")
