"""What a dataset yields is checked, sample by sample; boxes partly outside are clipped once, for every reader."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from study import tiny, write

from stages import collect
from stages.datasets._sample import Sample
from stages.inputs.evidence import Evidence, digests
from stages.metrics.localization import pointing_game
from stages.study.problem import Problem

SIDE = (6, 8)


def sample(number=0, **changes) -> Sample:
    mask = np.zeros(SIDE, bool)
    mask[1:4, 2:5] = True
    given = {
        "id": f"photo_{number}",
        "split": "train",
        "label": 1,
        "pixels": np.full((3, *SIDE), 7, "uint8"),
        "boxes": np.array([[2, 1, 5, 4]]),
        "mask": mask,
    }
    return Sample(**{**given, **changes})


@pytest.fixture
def collected(tmp_path, monkeypatch):
    """Collect samples of one's own under the name of the dataset shapes."""
    write(tmp_path, tiny())

    def run(*samples, classes=("cat", "dog")):
        dataset = SimpleNamespace(shapes=lambda **_: list(samples), CLASSES={"shapes": classes})
        monkeypatch.setattr(collect, "find", lambda kind, family, name: getattr(dataset, name))
        monkeypatch.setattr(
            collect, "dataset_entry", lambda *_: SimpleNamespace(family="shapes", function="shapes", settings={})
        )
        dataset.CLASSES["shapes"] = list(classes) if isinstance(classes, tuple) else classes
        collect.main(tmp_path, "shapes")
        return zarr.open_group(tmp_path / "data/datasets/shapes.zarr", mode="r")

    return run


def test_samples_come_back_as_they_were(collected):
    """A dataset may be a list as well as a generator; sides need not be equal, and there may be one channel or four."""
    gray = [sample(n, pixels=np.full((1, *SIDE), n, "uint8"), boxes=np.empty((0, 4), int)) for n in range(3)]
    store = collected(*gray)
    assert store["pixels"].shape == (3, 1, *SIDE)
    assert store["image"][:].tolist() == ["photo_0", "photo_1", "photo_2"]
    assert (store["boxes"][:] == -1).all()
    assert (store["mask"][:] == gray[0].mask).all()
    assert collected(sample(pixels=np.ones((4, *SIDE), "uint8")))["pixels"].shape == (1, 4, *SIDE)


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
    "no mask": ({"mask": None}, r"mask is None \(NoneType\); expected booleans"),
    "pixels of floats": ({"pixels": np.ones((3, *SIDE))}, "pixels are float64 of shape 3 × 6 × 8 from 1.0 to 1.0; e"),
    "pixels of 16 bits": ({"pixels": np.ones((3, *SIDE), "uint16") * 999}, "uint16 .* 999; expected bytes, uint8"),
    "signed pixels": ({"pixels": np.ones((3, *SIDE), "int8")}, "pixels are int8"),
    "no channels": ({"pixels": np.ones(SIDE, "uint8")}, "pixels are uint8 of shape 6 × 8 .* 'channel y x'"),
    "no pixels": ({"pixels": np.ones((3, 0, 8), "uint8")}, "pixels are uint8 of shape 3 × 0 × 8; expected"),
    "pixels of a tensor": ({"pixels": torch.ones(3, *SIDE)}, r"pixels are tensor\(.*Tensor\); expected bytes"),
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
    "a label past the classes": ({"label": 2}, "label = 2; expected a whole number, 0 to 1, as there are 2 classes"),
    "a label below": ({"label": -1}, "label = -1"),
    "a label of a fraction": ({"label": 1.0}, "label = 1.0"),
    "a label of a truth": ({"label": True}, "label = True"),
    "a label by name": ({"label": "cat"}, "label = 'cat'"),
    "another split": ({"split": "validation"}, "split = 'validation'; expected 'train' or 'test'"),
    "no split": ({"split": None}, "split = None"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=WRONG)
def test_a_sample_that_is_not_as_the_contract_has_it(collected, tmp_path, changes, told):
    with pytest.raises(Problem, match=rf"^dataset shapes: image photo_1: .*{told}") as problem:
        collected(sample(0), sample(1, **changes), sample(2))
    assert "\n" not in str(problem.value)
    assert not list((tmp_path / "data/datasets").iterdir())  # nothing half-written stays


@pytest.mark.parametrize("name", ["", " ", "a\0", "a\nb", 3, None, b"cat"])
def test_an_id_is_printable_text(collected, name):
    with pytest.raises(Problem, match=r"dataset shapes: an image has the id .*; expected printable text"):
        collected(sample(0), sample(1, id=name))


def test_ids_are_unique(collected):
    with pytest.raises(Problem, match="dataset shapes: two images have the id photo_0; expected an id of its own"):
        collected(sample(0), sample(1), sample(0))


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 6, 8), (3, 6, 9)])
def test_all_images_are_of_one_size(collected, shape):
    with pytest.raises(
        Problem, match=r"image photo_1: pixels are uint8 .* expected those of the dataset's first image, 3 "
    ):
        collected(sample(0), sample(1, pixels=np.ones(shape, "uint8"), mask=np.ones(shape[1:], bool)))


def test_what_is_no_sample(collected):
    with pytest.raises(Problem, match=r"dataset shapes: yields \('photo_0', .* expected a Sample"):
        collected(tuple(sample(0)))
    with pytest.raises(Problem, match="dataset shapes: its source has no image"):
        collected()


@pytest.mark.parametrize("classes", [("cat", "cat"), (), (1, 2), "cat", ("", "dog")])
def test_classes_are_different_names(collected, classes):
    with pytest.raises(Problem, match=r"dataset shapes: its CLASSES are .*; expected"):
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
        one = Evidence("images", ("image",), (1,), {}, np.zeros((1, 3, *SIDE), "uint8"), np.arange(1), ["a"], given,
                       np.zeros((1, 3, *SIDE), "uint8"), 0, [b""])  # fmt: skip
        return digests(one, ["boxes"])[0]

    pad = [-1] * 4
    keys = [key([box, pad]) for box in ([-3, 0, 4, 5], [-2, 0, 4, 5], [-1, 0, 4, 5], [0, 0, 4, 5], [0, -1, 4, 5])]
    assert len(set(keys)) == 5
    assert key([[0, 0, 4, 5]]) == key([[0, 0, 4, 5], pad, pad])
