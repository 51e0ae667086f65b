"""What a dataset yields is checked, picture by picture; boxes partly outside are clipped once, for every reader."""

import time
from functools import partial

import numpy as np
import pytest
import torch
import zarr

from atlas.datasets.shared import stream
from atlas.datasets.shared.source import Picture, Source
from atlas.inputs.row_inputs import Inputs, digests
from atlas.metrics.localization import pointing_game
from atlas.study.errors import UserError
from atlas.study.schema.settings import Entry
from stages import collect
from tests.support.study import files, tiny, write

SIDE = (6, 8)


def sample(number=0, **changes) -> Picture:
    mask = np.zeros(SIDE, bool)
    mask[1:4, 2:5] = True
    given = {
        "id": f"photo_{number}",
        "split": "train",
        "label": 1,
        "image": np.full((3, *SIDE), 7, "uint8"),
        "boxes": np.array([[2, 1, 5, 4]]),
        "mask": mask,
    }
    return Picture(**{**given, **changes})


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """Collect pictures of one's own under the name of the dataset shapes."""
    write(tmp_path, tiny())

    def run(*samples, classes=("cat", "dog"), left_out=(), pictures=None, **options):
        source = pictures or iter(samples)
        classes = list(classes) if isinstance(classes, tuple) else classes
        options = {"path": "here", "channels": "rgb", "fit": None, **options}
        bound = Entry("datasets", "shapes", "shapes", "shapes", {}, options)
        monkeypatch.setattr(collect, "find", lambda *_: lambda **_: Source(classes, source, [*left_out]))
        monkeypatch.setattr(collect.Study, "dataset", lambda *_: bound)
        collect.main(tmp_path, "shapes")
        return zarr.open_group(tmp_path / "data/datasets/shapes.zarr", mode="r")

    return run


def test_samples_come_back_as_they_were(collected):
    """A dataset may be a list as well as a generator; sides need not be equal, and there may be one channel or four."""
    gray = [sample(n, image=np.full((1, *SIDE), n, "uint8"), boxes=np.empty((0, 4), int)) for n in range(3)]
    store = collected(*gray)
    assert store["pixels"].shape == (3, 1, *SIDE)
    assert store["image"][:].tolist() == ["photo_0", "photo_1", "photo_2"]
    assert (store["boxes"][:] == -1).all()
    assert (store["mask"][:] == gray[0].mask).all()
    assert collected(sample(image=np.ones((4, *SIDE), "uint8")))["pixels"].shape == (1, 4, *SIDE)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_mask_of_zeros_and_ones_is_boolean(collected, dtype):
    store = collected(sample(mask=sample().mask.astype(dtype)))
    assert store["mask"].dtype == "bool"
    assert (store["mask"][0] == sample().mask).all()


WRONG = {
    "a mask of bytes": ({"mask": sample().mask * np.uint8(255)}, "mask is uint8 of shape 6 × 8 from 0 to 255; exp"),
    "a mask of numbers": ({"mask": sample().mask * 1.0}, r"mask is float64 .* expected booleans, or integers 0 and 1"),
    "a mask below 0": ({"mask": -sample().mask.astype(int)}, "mask is int64 of shape 6 × 8 from -1 to 0"),
    "a mask turned": ({"mask": sample().mask.T}, "mask is bool of shape 8 × 6 from False to True; .* image's 6 × 8"),
    "a mask with channels": ({"mask": sample().mask[None]}, "mask is bool of shape 1 × 6 × 8"),
    "a mask in a list": ({"mask": [[0]]}, r"mask is \[\[0\]\] \(list\); expected booleans"),
    "a mask that is made wrong": ({"mask": lambda: sample().mask * 2}, "mask is int64 .* from 0 to 2"),
    "pixels that are made wrong": ({"image": lambda: np.ones(SIDE)}, "pixels are float64"),
    "pixels of floats": ({"image": np.ones((3, *SIDE))}, "pixels are float64 of shape 3 × 6 × 8 from 1.0 to 1.0; e"),
    "pixels of 16 bits": ({"image": np.ones((3, *SIDE), "uint16") * 999}, "uint16 .* 999; expected bytes, uint8"),
    "signed pixels": ({"image": np.ones((3, *SIDE), "int8")}, "pixels are int8"),
    "no channels": ({"image": np.ones(SIDE, "uint8")}, "pixels are uint8 of shape 6 × 8 .* 'channel y x'"),
    "no pixels": ({"image": np.ones((3, 0, 8), "uint8")}, "pixels are uint8 of shape 3 × 0 × 8; expected"),
    "pixels of a tensor": ({"image": torch.ones(3, *SIDE)}, r"pixels are tensor\(.*Tensor\); expected bytes"),
    "boxes with fractions": ({"boxes": np.array([[0.5, 1, 2, 3]])}, "boxes are float64 of shape 1 × 4 .*expected int"),
    "whole floats": ({"boxes": np.array([[0.0, 1, 2, 3]])}, "boxes are float64"),
    "one box of one dimension": ({"boxes": np.array([0, 1, 2, 3])}, "boxes are int64 of shape 4 from 0 to 3; expected"),
    "boxes of two corners": ({"boxes": np.array([[0, 1]])}, "boxes are int64 of shape 1 × 2"),
    "boxes in a list": ({"boxes": [[0, 1, 2, 3]]}, r"boxes are \[\[0, 1, 2, 3\]\] \(list\)"),
    "a box turned": ({"boxes": np.array([[5, 1, 2, 3]])}, r"a box is \[5, 1, 2, 3\]; expected .* x0 < x1 and y0 < y1"),
    "an empty box": ({"boxes": np.array([[2, 1, 2, 3]])}, "x0 < x1"),
    "a box outside": ({"boxes": np.array([[2, 1, 5, 4], [8, 0, 9, 2]])}, r"\[8, 0, 9, 2\], all of it outside"),
    "a box above": ({"boxes": np.array([[0, -3, 2, 0]])}, "all of it outside the image; expected x 0 to 8, y 0 to 6"),
    "a box of the padding": ({"boxes": np.array([[-1, -1, -1, -1]])}, "expected x0 y0 x1 y1 with x0 < x1"),
    "an endless box": ({"boxes": np.array([[0, 0, 2**63, 5]], "uint64")}, "expected pixels"),
    "a label past the classes": ({"label": 2}, "label = 2; expected one of the 2 classes, or a whole number, 0 to 1"),
    "a label by another name": ({"label": "cow"}, "label = 'cow'; expected one of the 2 classes"),
    "no label": ({"label": None}, "label = None"),
    "a label below": ({"label": -1}, "label = -1"),
    "a label of a fraction": ({"label": 1.0}, "label = 1.0"),
    "a label of a truth": ({"label": True}, "label = True"),
    "another split": ({"split": "validation"}, "split = 'validation'; expected 'train' or 'test'"),
    "no split": ({"split": None}, "split = None"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=WRONG)
def test_a_sample_that_is_not_as_the_contract_has_it(collected, tmp_path, changes, told):
    with pytest.raises(UserError, match=rf"^dataset shapes: image photo_1: .*{told}") as problem:
        collected(sample(0), sample(1, **changes), sample(2))
    assert "\n" not in str(problem.value)
    assert not list((tmp_path / "data/datasets").iterdir())  # nothing half-written stays


@pytest.mark.parametrize("name", ["", " ", "a\0", "a\nb", 3, None, b"cat"])
def test_an_id_is_printable_text(collected, name):
    with pytest.raises(UserError, match=r"dataset shapes: an image has the id .*; expected printable text"):
        collected(sample(0), sample(1, id=name))


def test_ids_are_unique(collected):
    with pytest.raises(UserError, match="dataset shapes: two images have the id photo_0; expected an id of its own"):
        collected(sample(0), sample(1), sample(0))


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 6, 8), (3, 6, 9)])
def test_all_images_are_of_one_size(collected, shape):
    with pytest.raises(
        UserError,
        match=r"image photo_1: pixels are .*; expected those of the dataset's first image, 3 × 6 × 8 \(`fit` ",
    ):
        collected(sample(0), sample(1, image=np.ones(shape, "uint8"), mask=np.ones(shape[1:], bool)))


def test_what_is_no_sample(collected):
    with pytest.raises(UserError, match=r"dataset shapes: yields \('photo_0', .* expected a Picture"):
        collected(tuple(sample(0)))
    with pytest.raises(UserError, match=r"dataset shapes: its source has no image that can be used$"):
        collected()


@pytest.mark.parametrize("classes", [("cat", "cat"), (), (1, 2), "cat", ("", "dog")])
def test_classes_are_different_names(collected, classes):
    with pytest.raises(UserError, match=r"dataset shapes: its classes (are|name) .*; expected"):
        collected(sample(0), classes=classes)


def test_a_box_partly_outside_is_clipped_for_every_reader(collected):
    boxes = np.array([[-3, -2, 2, 3], [6, 4, 30, 40], [2, 1, 5, 4]], "int16")
    store = collected(sample(0, boxes=boxes))
    assert store["boxes"].dtype == "int64"
    assert store["boxes"][0].tolist() == [[0, 0, 2, 3], [6, 4, 8, 6], [2, 1, 5, 4]]
    maps = torch.zeros(1, *SIDE)
    maps[0, 0, 0] = 1
    assert pointing_game(maps, torch.from_numpy(store["boxes"][:1]), [0], tolerance=0).item() == 1


def test_a_corrected_box_is_in_the_key_of_whoever_is_given_boxes():
    """Whatever its corners were; how many more rows another image needs is in no key but its own."""

    def key(boxes):
        given = {"boxes": np.array([boxes])}
        one = Inputs("images", ("image",), (1,), {}, np.zeros((1, 3, *SIDE), "uint8"), np.arange(1), ["a"], given,
                       np.zeros((1, 3, *SIDE), "uint8"), 0, [b""])  # fmt: skip
        return digests(one, ["boxes"])[0]

    pad = [-1] * 4
    keys = [key([box, pad]) for box in ([-3, 0, 4, 5], [-2, 0, 4, 5], [-1, 0, 4, 5], [0, 0, 4, 5], [0, -1, 4, 5])]
    assert len(set(keys)) == 5
    assert key([[0, 0, 4, 5]]) == key([[0, 0, 4, 5], pad, pad])


def test_what_is_not_known_is_not_there(collected):
    store = collected(sample(0, boxes=None, mask=None), sample(1, boxes=None, mask=None))
    assert store.attrs["known"] == []
    assert "mask" not in store
    assert (store["boxes"][:] == -1).all()


def test_boxes_are_the_mask_where_there_is_none(collected):
    store = collected(sample(0, boxes=np.array([[0, 0, 2, 1], [6, 4, 9, 9]]), mask=None), sample(1, mask=None))
    due = np.zeros(SIDE, bool)
    due[0, :2] = due[4:, 6:] = True
    np.testing.assert_array_equal(store["mask"][0], due)
    assert store.attrs["known"] == ["boxes"]
    assert store.attrs["mask_from"] == "boxes"
    assert "boxes_from" not in store.attrs


def test_the_box_is_around_the_mask_where_there_is_none(collected):
    empty = np.zeros(SIDE, bool)
    store = collected(sample(0, boxes=None), sample(1, boxes=None, mask=empty))
    assert store["boxes"][:].tolist() == [[[2, 1, 5, 4]], [[-1] * 4]]
    assert store.attrs["known"] == ["mask"]
    assert store.attrs["boxes_from"] == "mask"


def test_some_pictures_may_be_known_better_than_others(collected, monkeypatch):
    """What is first known of a later block leaves those before without objects."""
    monkeypatch.setattr(collect, "SHARD_BYTES", 2 * 3 * SIDE[0] * SIDE[1])
    monkeypatch.setattr(collect, "CHUNK_BYTES", 1)
    unknown = {"boxes": None, "mask": None}
    store = collected(*(sample(n, **unknown) for n in range(5)), sample(5, mask=None), sample(6), sample(7, **unknown))
    assert store["mask"].shape == (8, *SIDE)
    assert store["mask"][:].any(axis=(1, 2)).tolist() == [False] * 5 + [True, True, False]
    assert (store["boxes"][:, 0, 0] >= 0).tolist() == [False] * 5 + [True, True, False]
    assert store.attrs["known"] == ["boxes", "mask"]
    assert not {"mask_from", "boxes_from"} & {*store.attrs}


def test_labels_are_names_or_numbers_of_classes(collected):
    assert collected(sample(0, label="dog"), sample(1, label=0), sample(2, label="cat"))["label"][:].tolist() == [
        1,
        0,
        0,
    ]


def test_labels_are_the_classes_where_there_are_none(collected):
    store = collected(*(sample(n, label=label) for n, label in enumerate(["10", 9, "b", "a", "10"])), classes=None)
    assert store.attrs["classes"] == ["9", "10", "a", "b"]
    assert store["label"][:].tolist() == [1, 0, 3, 2, 1]
    with pytest.raises(UserError, match="image photo_0: label = ' '; expected a name, or a whole number"):
        collected(sample(0, label=" "), classes=None)


def test_what_a_source_leaves_out_is_listed(collected, tmp_path):
    (tmp_path / "empty.jpg").touch()
    store = collected(sample(0, image=tmp_path / "empty.jpg"), sample(1), left_out=[("b.jpg", "of another year")])
    assert store["image"][:].tolist() == ["photo_1"]
    assert store.attrs["left_out"] == [["b.jpg", "of another year"], ["photo_0", "an empty file"]]
    told = (
        r"^dataset shapes: its source has no image that can be used; left out: 1, the first photo_0 \(an empty file\)$"
    )
    with pytest.raises(UserError, match=told):
        collected(sample(0, image=tmp_path / "empty.jpg"))


def test_a_picture_is_made_when_it_is_due(collected):
    store = collected(sample(0, image=lambda: np.full((1, *SIDE), 9, "uint8"), mask=lambda: np.ones(SIDE, bool)))
    assert (store["pixels"][:] == 9).all()
    assert store["mask"][:].all()


@pytest.mark.parametrize("threads", [1, 4])
def test_few_pictures_wait_at_a_time_and_all_come_in_order(collected, monkeypatch, threads):
    monkeypatch.setattr(stream, "cores", lambda: threads)
    monkeypatch.setattr(stream, "AHEAD_BYTES", 10 * 3 * SIDE[0] * SIDE[1])
    begun, done, most = [], [], []

    def drawn(number):
        begun.append(number)
        time.sleep(0.002 * (number % 3))
        return np.full((3, *SIDE), number, "uint8")

    def pictures():
        for number in range(60):
            most.append(number - len(done))
            yield sample(number, image=partial(drawn, number))

    known = stream.labelled(pictures(), ["a", "b"], {"a": 0, "b": 1})
    for row in stream.decoded(known, {"channels": "rgb", "fit": None}, []):
        done.append(row.picture.id)
        assert (row.sample.pixels == len(done) - 1).all()
    assert done == [f"photo_{number}" for number in range(60)]
    assert max(most) <= 12
    assert sorted(begun) == [*range(60)]


def test_the_store_is_the_same_for_any_number_of_threads(collected, monkeypatch, tmp_path):
    draw = np.random.default_rng(0).integers(0, 256, (40, 3, *SIDE)).astype("uint8")
    stores = []
    for threads in (1, 4):
        monkeypatch.setattr(stream, "cores", lambda threads=threads: threads)
        collected(*(sample(n, image=one) for n, one in enumerate(draw)))
        stores.append(files(tmp_path / "data/datasets/shapes.zarr"))
    assert stores[0] == stores[1]


def test_a_fault_of_the_source_names_the_dataset(collected):
    def pictures():
        yield sample(0)
        raise UserError("photos.csv, row 3: no")

    with pytest.raises(UserError, match=r"^dataset shapes: photos\.csv, row 3: no$"):
        collected(pictures=pictures())


def test_a_fit_is_of_pixels_boxes_and_mask_alike(collected):
    store = collected(sample(0), fit={"mode": "squash", "size": [12, 4], "resize": None, "interpolation": "nearest"})
    assert store["pixels"].shape == (1, 3, 12, 4)
    assert store["boxes"][:].tolist() == [[[1, 2, 3, 8]]]
    due = np.zeros((12, 4), bool)
    due[2:8, 1:3] = True  # of the column's two source pixels one is object
    np.testing.assert_array_equal(store["mask"][0], due)
