"""ChestX-ray8 and ChestX-ray14: chest radiographs with the findings of their reports, and boxes of some."""

from pathlib import Path

from atlas.datasets.shared.labels import within
from atlas.datasets.shared.lists import fault, files, lines, numbers, records, table, whole_boxes
from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError
from atlas.study.schema.types import Split

LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
BOXES = "BBox_List_2017.csv"
SPELLED = {"Infiltrate": "Infiltration"}  # in the list of boxes
EIGHT = "Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax"


def chestxray8(
    path: Path,
    *,
    entries: str = "Data_Entry_2017.csv",
    findings: list[str] | None = None,
    single: bool = True,
    boxed: bool = False,
    splits: list[Split] | None = None,
) -> Source:
    """List chest radiographs by their findings.

    chestxray8/
        Data_Entry_2017.csv               Image Index, Finding Labels (joined by '|'), ..., Patient ID, ...
        BBox_List_2017.csv                Image Index, Finding Label, x, y, width, height in pixels
        train_val_list.txt, test_list.txt          the names of the pictures of each split
        images_001/images/00000001_000.png ... images_012/images/..., or all in one folder

    Reference: wang2017chestxray; https://nihcc.app.box.com/v/ChestXray-NIHCC. The splits are the published ones; no
    patient may be in both, otherwise nothing is read. Findings were extracted from reports by rules, not by a
    radiologist looking at the picture. 880 pictures of the held-out split have 984 hand-drawn boxes, of eight findings;
    a picture's boxes are those of its label, unknown if there is none. Coordinates are in pixels of the published
    pictures, 1024 by 1024, and would be wrong for copies of another size. A float becomes the whole pixel that contains
    it. There are no masks but those of the boxes. A picture's id is its name without the extension. A listed picture
    that is missing, or in neither split's list, is left out.

    nieradzik2024reliable does not say how a picture of several findings gets one label; `single` is a proposal.

    Args:
        path: The folder of all.
        entries: The list of pictures: `Data_Entry_2017.csv`, or `Data_Entry_2017_v2020.csv` with corrected ages.
        findings: The classes, in this order; null for the eight of ChestX-ray8. `No Finding` may be one; there are
            fourteen others.
        single: Whether a picture must have exactly one finding; otherwise it is taken once for each of its findings
            that is a class, with a separate id (`00000001_000:Effusion`).
        boxed: Whether to take only pictures in which the finding has a box.
        splits: The splits to take; null for both.
    """
    classes = EIGHT.split() if findings is None else findings
    split_of: dict[str, str] = {}
    for part, file in LISTS.items():
        for line, name in lines(path / file, "a picture's name a line"):
            if name in split_of:
                raise fault(path / file, line, name, "each picture once, in one split")
            split_of[name] = part
    boxes, entered = _boxes(path / BOXES), within(path, entries)
    there = files(path, "the radiographs", "name")
    pictures: list[Picture] = []
    left_out: list[tuple[str, str]] = []
    patients: dict[str, tuple[str, str]] = {}
    seen: dict[str, int] = {}
    known_labels: set[str] = set()
    columns = ["Image Index", "Finding Labels", "Patient ID"]
    for line, row in table(entered, columns, "a line a picture with its findings and its patient"):
        name, joined, patient = (row[column] for column in columns)
        own = joined.split("|")
        if name in seen:
            raise fault(entered, line, name, f"each picture once; it is in line {seen[name]} already")
        seen[name] = line
        known_labels.update(own)
        split = split_of.get(name)
        if split is not None:
            first = patients.setdefault(patient, (split, name))
            if first[0] != split:
                both = f"{first[1]} in {LISTS[first[0]]} and {name} in {LISTS[split]}"
                raise UserError(f"{path}: patient {patient} is in both splits: {both}; expected each in one")
        labels = [label for label in own if label in classes and (not boxed or (name, label) in boxes)]
        if not labels or (single and len(own) > 1) or split not in (splits or (*LISTS, None)):
            continue
        if split is None or name not in there:
            reason = f"in neither {' nor '.join(LISTS.values())}" if split is None else "and not there"
            left_out.append((name, f"named in {entries}, line {line}, {reason}"))
            continue
        for label in labels:
            called = Path(name).stem if single else f"{Path(name).stem}:{label}"
            drawn = boxes.get((name, label))
            known = None if drawn is None else whole_boxes(drawn)
            pictures.append(Picture(called, classes.index(label), split, there[name], known, turned=False))
    if unknown := [label for label in classes if label not in known_labels]:
        raise UserError(
            f"findings: no picture of {entries} has {unknown[0]!r}; they have: {', '.join(sorted(known_labels))}"
        )
    return Source(list(classes), pictures, left_out)


def _boxes(file: Path) -> dict[tuple[str, str], list[list[float]]]:
    """Read corners by picture and finding."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    expected = "a picture, a finding, and x, y, width and height above 0"
    rows = records(file, 3, f"a line a box: {expected}")
    next(rows, None)  # the header has one name for the four numbers
    for line, fields in rows:
        try:
            x, y, width, height = numbers(fields[2:6])
        except ValueError:
            raise fault(file, line, ",".join(fields), expected) from None
        if width <= 0 or height <= 0:
            raise fault(file, line, ",".join(fields), expected)
        key = (fields[0], SPELLED.get(fields[1], fields[1]))
        found.setdefault(key, []).append([x, y, x + width, y + height])
    return found
