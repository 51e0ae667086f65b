"""Datasets as they are published: a small tree of each layout, with what may be wrong in it."""

import ast
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
import zarr
from PIL import Image
from scipy.io import savemat

from atlas.datasets.chestxray8 import chestxray8
from atlas.datasets.cifar10 import cifar10
from atlas.datasets.coco import coco
from atlas.datasets.huggingface import huggingface
from atlas.datasets.imagenet import imagenet
from atlas.datasets.imagenet_s import imagenet_s
from atlas.datasets.isic import isic
from atlas.datasets.oxford_pet import oxford_pet
from atlas.datasets.places365 import places365
from atlas.datasets.shared.pictures import Unusable
from atlas.datasets.shared.sample import to_sample
from atlas.datasets.shared.segments import drawn
from atlas.study.errors import UserError
from atlas.study.params import dataset
from stages import collect
from tests.support.study import tiny, write

HOUSE = Path(__file__).parents[2]
PUBLISHED = ["chestxray8", "cifar10", "coco", "huggingface", "imagenet", "imagenet_s", "isic"]
PUBLISHED += ["oxford_pet", "places365"]
TENCH, GOLDFISH, CRANE, CRANE_TOO = "n01440764", "n01443537", "n02012849", "n03126707"


def put(file: Path, content: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def paint(file: Path, values: np.ndarray | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), "uint8") if values is None else values).save(file)
    return file


def facts(source) -> dict:
    """Return class, split, boxes and file of each picture by its id."""
    found = {}
    for one in source.pictures:
        label = source.classes[one.label] if isinstance(one.label, int) else one.label
        file = one.image.name if isinstance(one.image, Path) else None
        found[one.id] = (label, one.split, None if one.boxes is None else one.boxes.tolist(), file)
    return found


# ImageNet


def synsets(root: Path) -> None:
    put(
        root / "LOC_synset_mapping.txt",
        f"{CRANE_TOO} crane\n{TENCH} tench, Tinca tinca\n{GOLDFISH} goldfish, Carassius auratus\n{CRANE} crane\n",
    )


def voc(file: Path, objects: list, size: str = "<width>500</width><height>375</height>") -> Path:
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    )
    return put(file, f"<annotation><size>{size}</size>{boxes}</annotation>")


def test_imagenet_by_folders_with_xml(tmp_path):
    synsets(tmp_path)
    paint(tmp_path / "val" / GOLDFISH / "ILSVRC2012_val_00000001.JPEG")
    paint(tmp_path / "val" / TENCH / "ILSVRC2012_val_00000002.JPEG")
    paint(tmp_path / "val" / CRANE_TOO / "ILSVRC2012_val_00000003.JPEG")
    paint(tmp_path / "val" / "n09999999" / "ILSVRC2012_val_00000004.JPEG")
    put(tmp_path / "val" / TENCH / "._ILSVRC2012_val_00000002.JPEG")
    xml = tmp_path / "Annotations"
    voc(xml / "ILSVRC2012_val_00000001.xml", [(GOLDFISH, 111, 108, 441, 193), (TENCH, 1, 1, 9, 9)])
    voc(xml / "ILSVRC2012_val_00000002.xml", [(TENCH, 0, 0, 500, 300), (TENCH, 3, 4, 5, 6)])
    source = imagenet(tmp_path, classes="LOC_synset_mapping.txt", boxes="Annotations")
    assert source.classes == ["tench", "goldfish", f"crane ({CRANE})", f"crane ({CRANE_TOO})"]
    assert facts(source) == {
        "ILSVRC2012_val_00000001": ("goldfish", "test", [[111, 108, 441, 193]], "ILSVRC2012_val_00000001.JPEG"),
        "ILSVRC2012_val_00000002": ("tench", "test", [[0, 0, 500, 300], [3, 4, 5, 6]], "ILSVRC2012_val_00000002.JPEG"),
        "ILSVRC2012_val_00000003": (f"crane ({CRANE_TOO})", "test", None, "ILSVRC2012_val_00000003.JPEG"),
    }
    assert source.left_out == [
        ("ILSVRC2012_val_00000004", "its class n09999999 is not in LOC_synset_mapping.txt"),
    ]
    assert imagenet(tmp_path).classes == [TENCH, GOLDFISH, CRANE_TOO, "n09999999"]
    for rules, taken in (({"boxes_exactly": 1}, ["1"]), ({"box_area_at_most": 0.8}, ["2", "1"])):
        chosen = imagenet(tmp_path, classes="LOC_synset_mapping.txt", boxes="Annotations", **rules)
        assert [one.id[-1] for one in chosen.pictures] == taken
    with pytest.raises(UserError, match="need 'boxes'"):
        imagenet(tmp_path, boxes_exactly=1)
    voc(xml / "ILSVRC2012_val_00000001.xml", [(GOLDFISH, 111, 108, "", 193)])
    with pytest.raises(UserError, match=r"00000001.xml: object 1: '111,108,,193'; expected numbers: xmin"):
        imagenet(tmp_path, classes="LOC_synset_mapping.txt", boxes="Annotations")
    put(xml / "ILSVRC2012_val_00000001.xml", "<annotation>")
    with pytest.raises(UserError, match=r"00000001.xml: no element found: line 1.* expected XML"):
        imagenet(tmp_path, classes="LOC_synset_mapping.txt", boxes="Annotations")
    paint(tmp_path / "val" / "ILSVRC2012_val_00000005.JPEG")
    with pytest.raises(UserError, match="lies in the folder 'val'; expected a wnid, or a list as 'labels'"):
        imagenet(tmp_path)
    paint(tmp_path / "val" / TENCH / "ILSVRC2012_val_00000001.png")
    with pytest.raises(UserError, match="have the same stem; expected each once"):
        imagenet(tmp_path)


def test_imagenet_by_the_lists_of_wsolevaluation_counts_as_the_paper_does(tmp_path):
    """Of these seven pictures four have one box, and three of the four one over at most half of the picture."""
    synsets(tmp_path)
    lists = tmp_path / "metadata" / "ILSVRC" / "test"
    boxes = {
        1: [(0, 0, 10, 10)],  # 1 of 400
        2: [(0, 0, 20, 10)],  # exactly half
        3: [(0, 0, 20, 11)],  # more
        4: [(0, 0, 10, 10), (5, 5, 9, 9)],
        5: [(5, 0, 15, 20)],  # half; more than half if the last row and column counted
        6: [(0, 0, 1, 1), (2, 2, 3, 3), (4, 4, 5, 5)],
        7: [],
    }
    names = {number: f"ILSVRC2012_val_{number:08d}" for number in (*boxes, 8, 9)}
    for number in (1, 2, 3, 4, 5, 6, 7, 9):
        paint(tmp_path / "val" / f"{names[number]}.JPEG")
    put(lists / "image_ids.txt", "".join(f"val/{names[number]}.JPEG\n" for number in (*boxes, 8)))
    put(lists / "class_labels.txt", "".join(f"val/{name}.JPEG,{number % 4}\n" for number, name in names.items()))
    rows = [(number, box) for number, own in boxes.items() for box in own]
    put(lists / "localization.txt", "".join(f"val/{names[n]}.JPEG,{','.join(map(str, box))}\n" for n, box in rows))
    put(lists / "image_sizes.txt", "".join(f"val/{names[number]}.JPEG,20,20\n" for number in boxes))

    def taken(**rules) -> list[int]:
        at = {"labels": "metadata/ILSVRC/test", "boxes": "metadata/ILSVRC/test", "classes": "LOC_synset_mapping.txt"}
        source = imagenet(tmp_path, **at, **rules)
        assert source.left_out == [(names[8], "named in class_labels.txt, line 8, and not in val")]
        return [int(one.id[-1]) for one in source.pictures]

    assert taken() == [1, 2, 3, 4, 5, 6, 7]
    assert taken(boxes_exactly=1) == [1, 2, 3, 5]
    assert taken(boxes_exactly=1, box_area_at_most=0.5) == [1, 2, 5]
    file = lists / "localization.txt"
    alone = imagenet(
        tmp_path,
        labels="metadata/ILSVRC/test/class_labels.txt",
        boxes="metadata/ILSVRC/test/localization.txt",
        classes="LOC_synset_mapping.txt",
    )
    assert facts(alone)[names[4]] == ("tench", "test", [[0, 0, 10, 10], [5, 5, 9, 9]], f"{names[4]}.JPEG")
    assert names[9] in facts(alone)
    put(lists / "image_sizes.txt", f"val/{names[1]}.JPEG,20,20\n")
    with pytest.raises(UserError, match=f"image_sizes.txt: has no line of {names[2]}"):
        taken(box_area_at_most=0.5)
    put(file, f"val/{names[1]}.JPEG,0,0,10\n")
    with pytest.raises(UserError, match=r"localization.txt: line 1: 'val.*'; expected at least 5 fields: a line a box"):
        taken()
    put(file, f"val/{names[1]}.JPEG,9,0,9,10\n")
    with pytest.raises(UserError, match=r"localization.txt: line 1: .*; expected x0 < x1 and y0 < y1"):
        taken()
    put(file, f"val/{names[1]}.JPEG,0,0,9,10\n")
    put(lists / "class_labels.txt", f"val/{names[1]}.JPEG,4\n")
    with pytest.raises(UserError, match=r"image_ids.txt: line 2: .*; expected a picture that class_labels.txt names"):
        taken()
    put(lists / "image_ids.txt", f"val/{names[1]}.JPEG\n")
    with pytest.raises(UserError, match=r"class_labels.txt, line 1: 4; expected a number of a class, 0 to 3"):
        taken()


def test_imagenet_labels_of_other_sources(tmp_path):
    synsets(tmp_path)
    for number in (1, 2):
        paint(tmp_path / "val" / f"ILSVRC2012_val_0000000{number}.JPEG")
    due = {"ILSVRC2012_val_00000001": "goldfish", "ILSVRC2012_val_00000002": "tench"}
    put(tmp_path / "caffe.txt", "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 0\n")
    put(
        tmp_path / "LOC_val_solution.csv",
        f"ImageId,PredictionString\nILSVRC2012_val_00000002,{TENCH} 85 1 499 272 \n"
        f"ILSVRC2012_val_00000001,{GOLDFISH} 1 2 3 4 {GOLDFISH} 5 6 7 8\n",
    )
    put(
        tmp_path / "index.json",
        json.dumps({"0": [TENCH, "tench"], "1": [GOLDFISH, "goldfish"], "2": [CRANE, "crane"]}),
    )
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(7, GOLDFISH, "goldfish, Carassius auratus", 0), (9, TENCH, "tench", 0), (1001, "n01439121", "fish", 2)]
    savemat(tmp_path / "meta.mat", {"synsets": np.array(rows, kinds)})
    put(tmp_path / "ground_truth.txt", "7\n9\n")
    for labels, classes in (
        ("caffe.txt", "index.json"),
        ("LOC_val_solution.csv", "LOC_synset_mapping.txt"),
        ("ground_truth.txt", "meta.mat"),
    ):
        source = imagenet(tmp_path, labels=labels, classes=classes)
        assert {name: own[0] for name, own in facts(source).items()} == due, labels
    builtin = imagenet(tmp_path, labels="caffe.txt", classes="imagenet")
    assert (len(builtin.classes), builtin.classes[134]) == (1000, "crane bird")
    assert facts(builtin)["ILSVRC2012_val_00000002"][:2] == ("tench", "test")
    with pytest.raises(UserError, match="the pictures are of 2 wnids; expected all 1000, or a file as 'classes'"):
        imagenet(tmp_path, labels="LOC_val_solution.csv", classes="imagenet")
    voc(tmp_path / "xml" / "ILSVRC2012_val_00000001.xml", [(GOLDFISH, 1, 2, 3, 4)])
    with pytest.raises(UserError, match="classes = imagenet says no wnids, as the XML of ILSVRC2012_val_00000001 does"):
        imagenet(tmp_path, labels="caffe.txt", classes="imagenet", boxes="xml")
    with pytest.raises(UserError, match=r"caffe.txt, line 1: a number; expected 'classes'"):
        imagenet(tmp_path, labels="caffe.txt")
    with pytest.raises(UserError, match=r"ground_truth.txt: numbers alone.*; expected the kit's meta.mat"):
        imagenet(tmp_path, labels="ground_truth.txt", classes="index.json")
    put(tmp_path / "ground_truth.txt", "7\n1001\n")
    with pytest.raises(UserError, match=r"ground_truth.txt: line 2: '1001'; expected a number of a class"):
        imagenet(tmp_path, labels="ground_truth.txt", classes="meta.mat")
    put(tmp_path / "caffe.txt", "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000001.JPEG 0\n")
    with pytest.raises(UserError, match=r"line 2: .*; expected each picture once; it is in caffe.txt, line 1 already"):
        imagenet(tmp_path, labels="caffe.txt", classes="index.json")
    for name, text, told in (
        ("names.txt", f"{TENCH} tench\n{TENCH} tench\n", f"names.txt: {TENCH} is there twice"),
        ("names.txt", "tench\n", "names.txt: line 1: 'tench'; expected a wnid, as n01440764"),
        ("index.json", "{", "index.json: .*expected JSON"),
        ("index.json", "[3]", r"index.json: \[3\]; expected a wnid and a name"),
        ("meta.mat", "no mat", "meta.mat: .*; expected the table 'synsets'"),
    ):
        put(tmp_path / name, text)
        with pytest.raises(UserError, match=told):
            imagenet(tmp_path, labels="LOC_val_solution.csv", classes=name)


# ImageNet-S


def coded(rows: list[list[int]]) -> np.ndarray:
    ids = np.array(rows)
    return np.stack([ids % 256, ids // 256, 0 * ids], axis=-1).astype("uint8")


def test_imagenet_s(tmp_path):
    wnids = [f"n{number:08d}" for number in range(1, 301)]
    put(tmp_path / "categories.txt", "".join(f"{wnid}\n" for wnid in reversed(wnids)))
    for number, wnid in ((1, wnids[2]), (2, wnids[299]), (3, wnids[299])):
        segmentation = coded([[0, 3, 300], [1000, 3, 300]])
        paint(tmp_path / "validation-segmentation" / wnid / f"ILSVRC2012_val_0000000{number}.png", segmentation)
    for name in ("1", "2"):  # flat, as the validation pictures of ImageNet are
        paint(tmp_path / "validation" / f"ILSVRC2012_val_0000000{name}.JPEG")
    source = imagenet_s(tmp_path, categories="categories.txt")
    assert source.classes == wnids
    first, second = source.pictures
    assert (first.id, first.label, first.split, first.boxes) == ("ILSVRC2012_val_00000001", 2, "test", None)
    assert first.mask().tolist() == [[False, True, False], [False, True, False]]
    assert second.mask().tolist() == [[False, False, True], [False, False, True]]
    assert source.left_out == [("ILSVRC2012_val_00000003", "its picture is not in validation")]
    assert to_sample(first, "rgb", None) == "its mask has 2 × 3 pixels, it 6 × 8"
    put(tmp_path / "imagenet.txt", f"{wnids[2]} third\n{wnids[1]} second\n")
    numbered = imagenet_s(tmp_path, categories="categories.txt", classes="imagenet.txt")
    assert facts(numbered) == {"ILSVRC2012_val_00000001": ("third", "test", None, "ILSVRC2012_val_00000001.JPEG")}
    assert numbered.classes == ["second", "third"]
    assert ("ILSVRC2012_val_00000002", f"its class {wnids[299]} is not in imagenet.txt") in numbered.left_out
    with pytest.raises(UserError, match="2 folders of wnids; expected 50, 300 or 919 of them, or the list of all"):
        imagenet_s(tmp_path)
    put(tmp_path / "categories.txt", f"{wnids[2]}\n")
    with pytest.raises(UserError, match="lies in the folder 'n00000300'; expected one of the 1 wnids"):
        imagenet_s(tmp_path, categories="categories.txt")
    put(tmp_path / "categories.txt", f"{wnids[2]}\n{wnids[2]}\n")
    with pytest.raises(
        UserError, match=r"categories.txt: line 2: 'n00000003'; expected a wnid, as n01443537, each once"
    ):
        imagenet_s(tmp_path, categories="categories.txt")
    file = tmp_path / "validation-segmentation" / wnids[2] / "ILSVRC2012_val_00000001.png"
    paint(file, np.ones((2, 3), "uint8"))
    with pytest.raises(Unusable, match=r"00000001.png has one value a pixel; expected red"):
        first.mask()
    put(file)
    with pytest.raises(Unusable, match=r"00000001.png cannot be read"):
        first.mask()
    Image.fromarray(coded([[0, 3, 300], [1000, 3, 300]])).save(file, "jpeg")
    with pytest.raises(Unusable, match=r"00000001.png is of a lossy format, which changes numbers; expected PNG"):
        first.mask()


# Oxford-IIIT Pet


def pets(root: Path) -> None:
    listing = [("Abyssinian_1", 1, 1), ("Abyssinian_2", 1, 1), ("great_pyrenees_10", 2, 2), ("great_pyrenees_11", 2, 2)]
    lines = [f"{name} {breed} {species} 1\n" for name, breed, species in listing]
    put(root / "annotations" / "list.txt", "#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines))
    put(root / "annotations" / "test.txt", lines[1] + lines[3])
    for name, _, _ in listing:
        paint(root / "images" / f"{name}.jpg")
        paint(root / "annotations" / "trimaps" / f"{name}.png", np.array([[2, 3, 1]], "uint8"))
    put(root / "annotations" / "trimaps" / "._Abyssinian_1.png")
    voc(root / "annotations" / "xmls" / "Abyssinian_1.xml", [("cat", 333, 72, 425, 158)])


def test_oxford_pet(tmp_path):
    pets(tmp_path)
    (tmp_path / "images" / "great_pyrenees_10.jpg").unlink()
    (tmp_path / "annotations" / "trimaps" / "great_pyrenees_11.png").unlink()
    source = oxford_pet(tmp_path, heads=True)
    assert source.classes == ["Abyssinian", "Great Pyrenees"]
    assert facts(source) == {
        "Abyssinian_1": ("Abyssinian", "train", [[333, 72, 425, 158]], "Abyssinian_1.jpg"),
        "Abyssinian_2": ("Abyssinian", "test", None, "Abyssinian_2.jpg"),
    }
    assert source.left_out == [
        ("great_pyrenees_10", "named in list.txt, line 4, and not in images"),
        ("great_pyrenees_11", "its trimap is not in annotations/trimaps"),
    ]
    assert [one.mask().tolist() for one in source.pictures] == [[[False, False, True]]] * 2
    assert [one.mask().tolist() for one in oxford_pet(tmp_path, border=True).pictures] == [[[False, True, True]]] * 2
    assert [one.boxes for one in oxford_pet(tmp_path).pictures] == [None, None]
    held_out = oxford_pet(tmp_path, classes="species", splits=["test"])
    assert held_out.classes == ["Cat", "Dog"]
    assert facts(held_out) == {"Abyssinian_2": ("Cat", "test", None, "Abyssinian_2.jpg")}
    paint(tmp_path / "annotations" / "trimaps" / "Abyssinian_1.png", np.array([[255]], "uint8"))
    with pytest.raises(Unusable, match="has other values than 1, 2 and 3"):
        next(iter(source.pictures)).mask()


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("list", "Abyssinian_3 1 1", "line 6: 'Abyssinian_3 1 1'; expected a name, its class"),
        ("list", "Abyssinian_3 1 3 1", "line 6: 'Abyssinian_3 1 3 1'; expected a species of 1"),
        ("list", "Abyssinian_1 1 1 1", "line 6: .*; expected each picture once; it is in line 2 already"),
        ("list", "Bengal_1 1 1 1", "line 6: 'Bengal_1'; expected a picture of Abyssinian, as class 1 is"),
        ("test", "Bengal_1 1 1 1", "test.txt names Bengal_1; expected pictures of annotations/list.txt"),
    ],
)
def test_oxford_pet_with_a_bad_line(tmp_path, file, line, told):
    pets(tmp_path)
    with (tmp_path / "annotations" / f"{file}.txt").open("a") as listing:
        listing.write(f"{line}\n")
    with pytest.raises(UserError, match=told):
        oxford_pet(tmp_path)


# ChestX-ray8

RAYS = {  # findings and patient, by picture
    "00000001_000.png": ("Effusion", 1),
    "00000001_001.png": ("Effusion|Mass", 1),
    "00000002_000.png": ("No Finding", 2),
    "00000003_000.png": ("Infiltration", 3),
    "00000004_000.png": ("Mass", 4),
    "00000005_000.png": ("Mass", 5),
}
HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,View Position,OriginalImage[Width,Height],\n"


def rays(root: Path, **replaced: str) -> None:
    rows = [f"{name},{found},0,{patient},58,PA,2682,2749\n" for name, (found, patient) in RAYS.items()]
    held_out = [name for name in RAYS if name[7] in "34"]
    boxes = (
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000003_000.png,Infiltrate,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,\n"
        "00000004_000.png,Mass,900,20,200,30,,,\n00000004_000.png,Effusion,1,2,3,4,,,\n"
    )
    texts = {
        "Data_Entry_2017.csv": "\ufeff" + HEADER + "".join(rows),
        "BBox_List_2017.csv": boxes,
        "test_list.txt": "\n".join(held_out),
        "train_val_list.txt": "\n".join(name for name in RAYS if name not in held_out and name[7] != "5"),
    }
    for name, text in {**texts, **replaced}.items():
        put(root / name, text)
    for number, name in enumerate(RAYS):
        if name != "00000004_000.png":
            paint(root / f"images_00{number % 2 + 1}" / "images" / name)


def test_chestxray8(tmp_path):
    rays(tmp_path)
    chosen = ["Effusion", "Infiltration", "Mass"]
    source = chestxray8(tmp_path, findings=chosen)
    assert source.classes == chosen
    box = [225, 547, 312, 627]  # 225.08 + 86.78 = 311.86, 547.02 + 79.19 = 626.21
    assert facts(source) == {
        "00000001_000": ("Effusion", "train", None, "00000001_000.png"),
        "00000003_000": ("Infiltration", "test", [box], "00000003_000.png"),
    }
    assert source.left_out == [
        ("00000004_000.png", "named in Data_Entry_2017.csv, line 6, and not there"),
        ("00000005_000.png", "named in Data_Entry_2017.csv, line 7, in neither train_val_list.txt nor test_list.txt"),
    ]
    each = chestxray8(tmp_path, findings=chosen, single=False, splits=["train"])
    assert [one.id for one in each.pictures] == ["00000001_000:Effusion", "00000001_001:Effusion", "00000001_001:Mass"]
    paint(tmp_path / "images_001" / "images" / "00000004_000.png")
    boxed = chestxray8(tmp_path, findings=chosen, boxed=True)
    assert [(one.id, one.boxes.tolist()) for one in boxed.pictures] == [
        ("00000003_000", [box]),
        ("00000004_000", [[900, 20, 1100, 50]]),  # beyond the picture: `collect` clips it
    ]
    with pytest.raises(UserError, match=r"no picture of Data_Entry_2017.csv has 'Atelectasis'; they have: Effusion"):
        chestxray8(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("test_list.txt", "00000001_001.png\n", "patient 1 is in both splits: 00000001_000.png in train_val_list.txt"),
        ("test_list.txt", "00000002_000.png\n", r"test_list.txt: line 1: .*; expected each picture once, in one split"),
        ("BBox_List_2017.csv", "header,,\na.png,Mass,1,2,x,4\n", "BBox_List_2017.csv: line 2: .*; expected a picture"),
        ("BBox_List_2017.csv", "header,,\na.png,Mass,1,2,0,4\n", "BBox_List_2017.csv: line 2: .*height above 0"),
        ("BBox_List_2017.csv", "header,,\na.png,Mass,1,nan,3,4\n", "BBox_List_2017.csv: line 2: "),
        (
            "Data_Entry_2017.csv",
            "Image Index,Patient ID\n",
            "line 1: .*; expected a header with the columns Finding",
        ),
        ("Data_Entry_2017.csv", HEADER + "a.png,Mass\n", "line 2: 'a.png,Mass'; expected 8 fields, as the header has"),
    ],
)
def test_chestxray8_with_bad_lists(tmp_path, name, text, told):
    changed = {"train_val_list.txt": "00000001_000.png\n00000002_000.png\n"} if "patient" in told else {}
    rays(tmp_path, **{name: text, **changed})
    with pytest.raises(UserError, match=told):
        chestxray8(tmp_path, findings=["Mass"])


# CIFAR-10


def batch(file: Path, rows: int, first: int = 0, **changed) -> None:
    data = (np.arange(rows * 3072).reshape(rows, 3072) % 251).astype("uint8")
    held = {b"data": data, b"labels": [(first + row) % 2 for row in range(rows)], b"filenames": [b"a.png"] * rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps({**held, **{name.encode(): value for name, value in changed.items()}}, 2 + 1))


def test_cifar10(tmp_path):
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"automobile"]}, 3))
    for number in range(1, 6):
        batch(tmp_path / f"data_batch_{number}", 2)
    batch(tmp_path / "test_batch", 3, first=1)
    source = cifar10(tmp_path)
    pictures = list(source.pictures)
    assert source.classes == ["airplane", "automobile"]
    assert [one.split for one in pictures] == ["train"] * 10 + ["test"] * 3
    assert [one.label for one in pictures[-3:]] == [1, 0, 1]
    assert pictures[-1].id == "test_batch/00002"
    assert pictures[1].image[:, 0, 1].tolist() == [(3072 + plane * 1024 + 1) % 251 for plane in range(3)]
    assert to_sample(pictures[0], "rgb", None).pixels.shape == (3, 32, 32)
    assert [one.id for one in cifar10(tmp_path, splits=["test"]).pictures] == [f"test_batch/0000{n}" for n in range(3)]
    for changed, told in (
        ({"labels": [0, 2, 1]}, r"test_batch: 'labels'\[1\] = 2; expected 0 to 1"),
        ({"labels": [0, 1]}, r"test_batch: 'data' is uint8 \(3, 3072\); expected bytes \(uint8\), 3072 for each"),
        ({"data": "none"}, "test_batch: 'data' is str; expected bytes"),
    ):
        batch(tmp_path / "test_batch", 3, **changed)
        with pytest.raises(UserError, match=told):
            list(cifar10(tmp_path, splits=["test"]).pictures)
    (tmp_path / "test_batch").unlink()
    with pytest.raises(
        UserError, match="test_batch: there is no such file; expected a batch of pictures, of the split"
    ):
        list(cifar10(tmp_path, splits=["test"]).pictures)


class Harm:
    def __reduce__(self):
        return print, ("run",)


def test_cifar10_runs_nothing_of_a_pickle(tmp_path, capsys):
    for content, told in (
        (pickle.dumps({b"label_names": Harm()}), r"asks for builtins.print when it is read; expected arrays"),
        (pickle.dumps({b"label_names": [b"a"]})[:-4], "no pickle that can be read"),
        (pickle.dumps([1]), "has no 'label_names'; expected a batch of CIFAR-10"),
    ):
        (tmp_path / "batches.meta").write_bytes(content)
        with pytest.raises(UserError, match=f"batches.meta: {told}"):
            cifar10(tmp_path)
    assert capsys.readouterr().out == ""


# Places365 and ISIC


def test_places365(tmp_path):
    put(tmp_path / "categories_places365.txt", "/a/airfield 0\n/a/apartment_building/outdoor 1\n")
    put(tmp_path / "val.txt", "Places365_val_00000002.jpg 1\nPlaces365_val_00000001.jpg 0\n")
    put(tmp_path / "train.txt", "/a/airfield/00000001.jpg 0\n/a/apartment_building/outdoor/00000001.jpg 1\n")
    paint(tmp_path / "val_256" / "Places365_val_00000001.jpg")
    for folder in ("airfield", "apartment_building/outdoor"):
        paint(tmp_path / "data_256" / "a" / folder / "00000001.jpg")
    at = {"images": {"test": "val_256", "train": "data_256"}, "labels": {"train": "train.txt", "test": "val.txt"}}
    source = places365(tmp_path, **at)
    assert source.classes == ["airfield", "apartment_building/outdoor"]
    assert facts(source) == {
        "a/airfield/00000001": ("airfield", "train", None, "00000001.jpg"),
        "a/apartment_building/outdoor/00000001": ("apartment_building/outdoor", "train", None, "00000001.jpg"),
        "Places365_val_00000001": ("airfield", "test", None, "Places365_val_00000001.jpg"),
    }
    assert source.left_out == [("Places365_val_00000002.jpg", "named in val.txt, line 1, and not in val_256")]
    with pytest.raises(UserError, match="images names train and labels test; expected the same splits"):
        places365(tmp_path, images={"train": "a"}, labels={"test": "b"})
    with pytest.raises(UserError, match=r"images = {}; expected train, test or both"):
        places365(tmp_path, images={}, labels={})
    for file, text, told in (
        ("val.txt", "a.jpg 2\n", "val.txt: line 1: 'a.jpg 2'; expected a picture and the number of its class, 0 to 1"),
        ("val.txt", "a.jpg 1\na.jpg 1\n", "val.txt: line 2: .*; expected each picture once; it is in val.txt, line 1"),
        ("categories_places365.txt", "/a/b 1\n", "line 1: '/a/b 1'; expected a class and its number, 0"),
    ):
        put(tmp_path / file, text)
        with pytest.raises(UserError, match=told):
            places365(tmp_path, **at)


def test_isic(tmp_path):
    header = "image,MEL,NV,BCC\n"
    put(tmp_path / "train.csv", header + "ISIC_0000001,0.0,1.0,0.0\nISIC_0000002_downsampled,1.0,0.0,0.0\n")
    put(tmp_path / "test.csv", header + "ISIC_0000003,0,0,1\nISIC_0000004,0,1,0\n")
    for split, name in (("Training", "1"), ("Training", "2_downsampled"), ("Test", "3")):
        paint(tmp_path / f"{split}_Input" / f"ISIC_000000{name}.jpg")
    put(tmp_path / "Test_Input" / "ATTRIBUTION.txt", "CC-BY-NC\n")
    paint(tmp_path / "masks" / "ISIC_0000003_segmentation.png", np.eye(6, 8, dtype="uint8") * np.uint8(255))
    at = {
        "images": {"train": "Training_Input", "test": "Test_Input"},
        "truth": {"train": "train.csv", "test": "test.csv"},
    }
    source = isic(tmp_path, **at, masks="masks")
    assert source.classes == ["MEL", "NV", "BCC"]
    assert facts(source) == {
        "ISIC_0000001": ("NV", "train", None, "ISIC_0000001.jpg"),
        "ISIC_0000002_downsampled": ("MEL", "train", None, "ISIC_0000002_downsampled.jpg"),
        "ISIC_0000003": ("BCC", "test", None, "ISIC_0000003.jpg"),
    }
    assert source.left_out == [("ISIC_0000004", "named in test.csv, line 3, and not in Test_Input")]
    assert [one.mask and one.mask.name for one in source.pictures] == [None, None, "ISIC_0000003_segmentation.png"]
    sample = to_sample(list(source.pictures)[2], "rgb", None)
    assert sample.mask.sum() == 6
    assert sample.boxes.tolist() == [[0, 0, 6, 6]]
    for text, told in (
        (
            "image,NV,MEL,BCC\nISIC_0000003,0,0,1\n",
            "test.csv: line 1: .*; expected the classes of the other split",
        ),
        (header + "ISIC_0000003,0,1,1\n", "test.csv: line 2: '0,1,1'; expected 1 for one class and 0 for all others"),
        (header + "ISIC_0000003,0,x,1\n", "test.csv: line 2: '0,x,1'; expected 1 for one class"),
        (
            header + "ISIC_0000001,0,0,1\n",
            "test.csv: line 2: .*; expected each picture once; it is in train.csv",
        ),
        ("name,MEL\n", "test.csv: line 1: 'name,MEL'; expected a header with the columns image"),
    ):
        put(tmp_path / "test.csv", text)
        with pytest.raises(UserError, match=told):
            isic(tmp_path, **at)


# COCO


def instances(file: Path, **changed) -> None:
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 6, "width": 8} for n in (139, 285, 632, 724, 776, 785)]
    square = [[1, 1, 4, 1, 4, 4, 1, 4]]
    rows = [
        (139, 24, [1, 1, 3, 3], {"segmentation": square, "area": 9.0}),
        (139, 24, [5.5, 0.2, 2, 1.5], {"segmentation": [[5, 0, 8, 0, 8, 2, 5, 2]], "area": 6.0}),
        (139, 13, [0, 0, 8, 6], {"segmentation": square, "area": 14.0}),
        (285, 1, [0, 0, 8, 6], {"segmentation": square, "area": 48.0}),
        (632, 13, [0, 2, 8, 4], {"segmentation": {"size": [6, 8], "counts": [2, 4, 38, 4]}, "iscrowd": 1, "area": 8}),
        (724, 24, [0, 0, 4, 4], {"segmentation": square}),
        (776, 13, [6, 4, 9, 9], {}),
        (785, 13, [1, 1, 0, 3], {"segmentation": []}),
    ]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}
        for number, (image, category, box, more) in enumerate(rows)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}, {"id": 24, "name": "zebra"}]
    held = {"images": images, "annotations": annotations, "categories": categories}
    put(file, json.dumps({**held, **changed}))


AT = {"images": {"test": "val2017"}, "annotations": {"test": "annotations/instances_val2017.json"}}


def photographs(root: Path) -> None:
    instances(root / "annotations" / "instances_val2017.json")
    for number in (139, 285, 632, 776, 785):
        paint(root / "val2017" / f"{number:012d}.jpg")


def test_coco(tmp_path):
    photographs(tmp_path)
    source = coco(tmp_path, **AT, categories=["zebra", "stop sign"])
    assert source.classes == ["zebra", "stop sign"]
    names = [f"{number:012d}.jpg" for number in (139, 632, 776, 785)]
    assert facts(source) == {
        "val2017/000000000139": ("zebra", "test", [[1, 1, 4, 4], [5, 0, 8, 2]], names[0]),  # 15 of 8 · 6 beat 14
        "val2017/000000000632": ("stop sign", "test", [[0, 2, 8, 6]], names[1]),
        "val2017/000000000776": ("stop sign", "test", [[6, 4, 15, 13]], names[2]),  # `collect` clips it
        "val2017/000000000785": ("stop sign", "test", [], names[3]),
    }
    assert source.left_out == [
        ("val2017/000000000724.jpg", "an image of annotations/instances_val2017.json, and not there")
    ]
    two, crowd, boxed, none = source.pictures
    due = np.zeros((6, 8), bool)
    due[1:4, 1:4] = due[0:2, 5:8] = True
    assert np.array_equal(two.mask(), due)
    assert np.argwhere(crowd.mask()).tolist() == [[2, 0], [2, 7], [3, 0], [3, 7], [4, 0], [4, 7], [5, 0], [5, 7]]
    assert (boxed.mask, none.mask) == (None, None)
    assert to_sample(two, "rgb", None).known == {"boxes", "mask"}
    each = coco(tmp_path, **AT, categories=["stop sign", "zebra"], several="each")
    assert [(one.id, one.label) for one in each.pictures][:2] == [
        ("val2017/000000000139:zebra", 1),
        ("val2017/000000000139:stop sign", 0),
    ]
    lone = coco(tmp_path, **AT, categories=["stop sign", "zebra"], several="leave_out")
    assert [one.id for one in lone.pictures] == [f"val2017/{name[:-4]}" for name in names[1:]]


def test_coco_with_bad_annotations(tmp_path):
    photographs(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    with pytest.raises(UserError, match=r"categories: 'cat' is not in .*; it has: person, stop sign, zebra"):
        coco(tmp_path, **AT, categories=["cat"])
    with pytest.raises(UserError, match="expected names, each once"):
        coco(tmp_path, **AT, categories=["zebra", "zebra"])
    image = {"id": 139, "file_name": "000000000139.jpg", "height": 6, "width": 8}
    one = {"image_id": 139, "category_id": 24, "bbox": [1, 1, 3, 3]}
    for changed, told in (
        ({"images": [image, image]}, "two of 'images' have the same id"),
        ({"images": [{**image, "width": "8"}]}, r"images\[0\] = .*; expected 'width' of type int"),
        ({"images": 3}, "expected an object with the lists 'images'"),
        ({"annotations": [{**one, "image_id": 1}]}, r"annotations\[0\]: category_id = 24, image_id = 1; expected ids"),
        ({"annotations": [{**one, "bbox": [1, 2, 3]}]}, r"annotations\[0\]: bbox = \[1, 2, 3\]; expected four numbers"),
        ({"annotations": [{**one, "bbox": [1, 2, 3, None]}]}, r"annotations\[0\]: bbox"),
        ({"annotations": [{**one, "area": "9"}]}, r"annotations\[0\]: area = '9'; expected a number"),
        (
            {"annotations": [{**one, "segmentation": [[1, 2, 3, 4]]}]},
            r"annotations\[0\]: segmentation = .*; expected",
        ),
        ({"annotations": [{**one, "segmentation": {"counts": [1.5]}}]}, r"annotations\[0\]: segmentation"),
    ):
        instances(file, **changed)
        with pytest.raises(UserError, match=told):
            coco(tmp_path, **AT, categories=["zebra"])
    put(file, "{\n]")
    with pytest.raises(UserError, match=r"instances_val2017.json: .*line 2.*; expected JSON"):
        coco(tmp_path, **AT, categories=["zebra"])


def test_masks_are_drawn_as_the_authors_code_draws_them():
    """The packed run lengths are those that pycocotools 2.0.11 makes of the polygon."""
    polygon = [2.2, 3.1, 17.8, 1.4, 20.5, 12.9, 9.3, 18.6, 1.1, 11.7]
    filled = drawn([[polygon]], 20, 24)
    assert filled.sum() == 241
    packed = {"size": [20, 24], "counts": "m03;7O1O001O1O1N2O1OO100O100O100O013L5L4Ka1"}
    assert np.array_equal(drawn([packed], 20, 24), filled)
    assert np.array_equal(drawn([[polygon], packed, {"counts": [480]}], 20, 24), filled)
    for counts, told in (([479], "479 pixels in all"), ("m03", "32 pixels in all"), ("m", "end within"), ("~", "'~'")):
        with pytest.raises(Unusable, match=told):
            drawn([{"counts": counts}], 20, 24)


# Hugging Face


def saved(folder: Path, rows: list, labels: list, feature: dict, kind: pa.DataType) -> None:
    """Write what `Dataset.save_to_disk` writes."""
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array(rows, picture), "label": pa.array(labels, kind)})
    put(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}))
    put(folder / "dataset_info.json", json.dumps({"features": {"image": {"_type": "Image"}, "label": feature}}))
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=2)


def test_huggingface(tmp_path):
    content = paint(tmp_path / "a.png", np.arange(144, dtype="uint8").reshape(6, 8, 3)).read_bytes()
    names = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    paint(tmp_path / "beans" / "test" / "b.png")
    rows = [{"bytes": content, "path": "a.png"}, None, {"bytes": None, "path": "b.png"}, {"bytes": None, "path": None}]
    outside = [{"bytes": None, "path": str(tmp_path / "a.png")}, {"bytes": None, "path": "c.png"}]
    saved(tmp_path / "beans" / "test", rows + outside + rows[:1], [1, 0, 0, 1, 1, 1, -1], names, pa.int64())
    saved(tmp_path / "beans" / "train", rows[:1] * 3, [0, 1, None], names, pa.int64())
    put(tmp_path / "beans" / "dataset_dict.json", '{"splits": ["train", "test"]}')
    source = huggingface(tmp_path / "beans")
    assert source.classes == ["cat", "dog"]
    pictures = list(source.pictures)
    assert [(one.id, one.label, one.split) for one in pictures] == [
        ("train/000000", 0, "train"),
        ("train/000001", 1, "train"),
        ("test/000000", 1, "test"),
        ("test/000002", 0, "test"),
    ]
    assert np.array_equal(
        to_sample(pictures[2], "rgb", None).pixels, np.arange(144).reshape(6, 8, 3).transpose(2, 0, 1)
    )
    assert pictures[3].image == tmp_path / "beans" / "test" / "b.png"
    assert source.left_out == [
        ("train/000002", "it has no label"),
        ("test/000001", "it has no picture"),
        ("test/000003", "it has no picture"),
        ("test/000004", f"its picture {tmp_path / 'a.png'} lies outside of the folder; expected it in the dataset"),
        ("test/000005", "its picture c.png is not there"),
        ("test/000006", "it has no label"),
    ]
    turned = huggingface(tmp_path / "beans", splits={"test": "train"})
    assert [(one.id, one.split) for one in turned.pictures] == [("train/000000", "test"), ("train/000001", "test")]
    alone = huggingface(tmp_path / "beans" / "train")
    assert [(one.id, one.split) for one in alone.pictures] == [("000000", "test"), ("000001", "test")]
    saved(tmp_path / "plain", rows[:1], ["zebra"], {"_type": "Value", "dtype": "string"}, pa.string())
    assert [one.label for one in huggingface(tmp_path / "plain").pictures] == ["zebra"]
    saved(tmp_path / "plain", rows[:1], [7], {"_type": "Value", "dtype": "int64"}, pa.int64())
    assert huggingface(tmp_path / "plain").classes is None
    assert [one.label for one in huggingface(tmp_path / "plain").pictures] == ["7"]
    for settings, told in (
        (
            {"label": "class"},
            "label = 'class': .* has image: Image, label: Value; expected a column of ClassLabel",
        ),
        ({"image": "label"}, "image = 'label': .*; expected a column of Image"),
        ({"splits": {"test": "test"}}, "has no dataset_dict.json; expected null for one dataset alone"),
    ):
        with pytest.raises(UserError, match=told):
            huggingface(tmp_path / "plain", **settings)
    with pytest.raises(UserError, match=r"splits = {'test': 'all'}, and .* has train, test; expected train, test"):
        huggingface(tmp_path / "beans", splits={"test": "all"})
    saved(tmp_path / "plain", rows[:1], [2], names, pa.int64())
    with pytest.raises(UserError, match="row 0: label = 2; expected 0 to 1"):
        huggingface(tmp_path / "plain")
    saved(tmp_path / "beans" / "train", rows[:1], [0], {"_type": "ClassLabel", "names": ["cat"]}, pa.int64())
    with pytest.raises(UserError, match=r"its classes are \['cat', 'dog'\]; expected \['cat'\]"):
        huggingface(tmp_path / "beans")
    put(tmp_path / "plain" / "data-00000-of-00001.arrow", "no arrow")
    with pytest.raises(UserError, match=r"data-00000-of-00001.arrow: cannot be read \(.*\); expected an Arrow stream"):
        huggingface(tmp_path / "plain")
    for name, text in (("state.json", "{}"), ("state.json", '{"_data_files": []}'), ("dataset_info.json", "[]")):
        put(tmp_path / "plain" / name, text)
        with pytest.raises(UserError, match=f"{name}: .*expected the "):
            huggingface(tmp_path / "plain")
    with pytest.raises(UserError, match="there is no such folder; expected a dataset that save_to_disk wrote"):
        huggingface(tmp_path / "none")


# All the way to the store


def stored(root: Path, **settings) -> zarr.Group:
    params = tiny()
    params["datasets"]["published"] = {"path": "raw", **settings}
    write(root, params)
    collect.main(root, "published")
    return zarr.open_group(root / "data/datasets/published.zarr", mode="r")


def test_boxes_and_masks_of_coco_follow_their_pictures_into_the_store(tmp_path):
    photographs(tmp_path / "raw")
    paint(tmp_path / "raw" / "val2017" / "000000000632.jpg", np.zeros((7, 8, 3), "uint8"))
    store = stored(
        tmp_path, family="coco", **AT, categories=["zebra", "stop sign"], fit={"mode": "squash", "size": [12, 16]}
    )
    assert store["image"][:].tolist() == [f"val2017/{number:012d}" for number in (139, 776, 785)]
    assert store["boxes"][:].tolist() == [[[2, 2, 8, 8], [10, 0, 16, 4]], [[12, 8, 16, 12], [-1] * 4], [[-1] * 4] * 2]
    due = np.zeros((12, 16), bool)
    due[2:8, 2:8] = due[0:4, 10:16] = True
    assert np.array_equal(store["mask"][0], due)
    due[:] = False
    due[8:12, 12:16] = True
    assert np.array_equal(store["mask"][1], due)
    assert store.attrs["left_out"] == [
        ["val2017/000000000724.jpg", "an image of annotations/instances_val2017.json, and not there"],
        ["val2017/000000000632", "its mask has 6 × 8 pixels, it 7 × 8"],
    ]


def test_a_picture_that_its_annotation_is_not_of_is_left_out(tmp_path):
    """Sizes in the XML of ImageNet are not all those of its pictures: a box may lie outside."""
    raw = tmp_path / "raw"
    for number in (1, 2):
        paint(raw / "val" / TENCH / f"ILSVRC2012_val_0000000{number}.JPEG")
    voc(raw / "Annotations" / "ILSVRC2012_val_00000001.xml", [(TENCH, 111, 108, 441, 193)])
    voc(raw / "Annotations" / "ILSVRC2012_val_00000002.xml", [(TENCH, 1, 1, 441, 4)])
    store = stored(tmp_path, family="imagenet", boxes="Annotations")
    assert store["boxes"][:].tolist() == [[[1, 1, 8, 4]]]
    told = "a box is [111, 108, 441, 193], all of it outside the image; expected x 0 to 8, y 0 to 6"
    assert store.attrs["left_out"] == [["ILSVRC2012_val_00000001", told]]


def test_boxes_and_masks_of_published_pictures_count_stored_pixels(tmp_path):
    """Whose JPEG says that it is to be turned: its annotations are of the pixels as they lie in the file."""
    photographs(tmp_path / "raw")
    file, about = tmp_path / "raw" / "val2017" / "000000000139.jpg", Image.Exif()
    about[0x0112] = 6
    Image.open(file).save(file, exif=about)
    store = stored(tmp_path, family="coco", **AT, categories=["zebra"], fit={"mode": "squash", "size": [12, 16]})
    due = np.zeros((12, 16), bool)
    due[2:8, 2:8] = due[0:4, 10:16] = True
    assert store["boxes"][0].tolist() == [[2, 2, 8, 8], [10, 0, 16, 4]]
    assert np.array_equal(store["mask"][0], due)


def test_encoded_rows_of_a_table_are_decoded_as_files_are(tmp_path):
    values = np.arange(48, dtype="uint8").reshape(6, 8)
    content = paint(tmp_path / "gray.png", values).read_bytes()
    names = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    rows = [{"bytes": part, "path": None} for part in (content, content[:45], b"")]
    saved(tmp_path / "raw", rows, [1, 0, 0], names, pa.int64())
    store = stored(tmp_path, family="huggingface", channels="gray")
    assert store["image"][:].tolist() == ["000000"]
    assert np.array_equal(store["pixels"][0], values[None])
    assert store.attrs["known"] == []
    (_, damaged), (_, empty) = store.attrs["left_out"]
    assert damaged.startswith("a damaged image")
    assert empty == "an empty file"


def test_settings_may_be_left_out_and_what_they_name_lies_in_the_folder(tmp_path):
    pets(tmp_path / "raw")
    for trimap in (tmp_path / "raw" / "annotations" / "trimaps").glob("[!.]*.png"):
        paint(trimap, np.full((6, 8), 2, "uint8") - np.eye(6, 8, dtype="uint8"))
    store = stored(tmp_path, family="oxford_pet")
    assert store["split"][:].tolist() == ["train", "test"] * 2
    assert store.attrs["boxes_from"] == "mask"
    with pytest.raises(
        UserError, match=r"dataset published: '../elsewhere' is not within .*raw; expected a file in it"
    ):
        stored(tmp_path, family="imagenet", images="../elsewhere")
    with pytest.raises(UserError, match=r"datasets.published: 'splits.0' = 'val': expected .*test"):
        stored(tmp_path, family="oxford_pet", splits=["val"])


# What is told of them


def test_the_page_of_datasets_has_an_entry_of_each_that_is_accepted():
    blocks = re.findall(r"```yaml\n(.*?)```", (HOUSE / "docs" / "datasets.md").read_text(), re.DOTALL)
    known = {name: about for block in blocks for name, about in yaml.safe_load(block).items()}
    assert all(len(block.splitlines()) <= 10 for block in blocks)
    assert sorted(dataset({"datasets": known}, name).family for name in known) == PUBLISHED


@pytest.mark.parametrize("family", PUBLISHED)
def test_a_family_says_its_layout_its_source_and_its_references(family):
    tree = ast.parse((HOUSE / "atlas" / "datasets" / f"{family}.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == family)
    told = ast.get_docstring(function)
    assert "https://" in told or "http://" in told
    assert re.search(r"^ {0,4}\S+/( .*)?$", told, re.MULTILINE), "a tree of files"
    cited = re.findall(r"\b[a-z]+\d{4}[a-z]\w*\b", told)
    assert cited or family == "huggingface"
    keys = (HOUSE / "REFERENCES.bib").read_text()
    assert [key for key in cited if "{" + key + "," not in keys] == []
