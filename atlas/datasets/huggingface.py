"""Datasets of Hugging Face's library `datasets`, in the format of its `save_to_disk`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from atlas.datasets.shared.lists import tree
from atlas.datasets.shared.source import Picture, Source
from atlas.study.errors import UserError
from atlas.study.schema.types import Split


def huggingface(
    path: Path,
    *,
    image: str = "image",
    label: str = "label",
    splits: dict[Split, str] | None = None,
) -> Source:
    """List the rows of a dataset, or of a dictionary of datasets, in a folder.

    beans/                                DatasetDict.save_to_disk("beans")
        dataset_dict.json
        train/{dataset_info.json,state.json,data-00000-of-00001.arrow}
        test/...
    or the three files of a single dataset, Dataset.save_to_disk: then all of it is held out.

    Source: https://huggingface.co/docs/datasets. The package itself is not needed. Pictures are a column with the
    feature `Image`, encoded in the Arrow files (as `save_to_disk` writes them) or in files of the folder. Labels are a
    column of `ClassLabel`, whose names are the classes, or of text or whole numbers, which are then the labels
    themselves. There are neither boxes nor masks. A row's id is its split and its index, as `test/000042`, or only the
    index. A row without picture or label (-1 in some test splits) is left out.

    Args:
        path: The folder.
        image: The column of pictures.
        label: The column of labels.
        splits: Which of the dictionary's splits are used for training and held out, as `{test: validation}`; null for
            `train` and `test` of a dictionary without other splits, and for a single dataset.
    """
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; expected a dataset that save_to_disk wrote")
    classes: list[str] | None = None
    rows, left_out = [], []
    parts = _parts(path, splits)
    for number, (split, name) in enumerate(parts.items()):
        folder = path / name
        own = _classes(folder, image, label)
        if number and own != classes:
            raise UserError(f"{folder}: its classes are {own}; expected {classes}, as those of the other split")
        classes = own
        pictures, labels = _columns(folder, image, label)
        for at, given in enumerate(labels.to_pylist()):
            called = f"{name}/{at:06d}" if name else f"{at:06d}"
            found = _found(path, folder, pictures[at])
            if isinstance(found, str) or given is None or given == -1:
                left_out.append((called, found if isinstance(found, str) else "it has no label"))
            elif classes is not None and not 0 <= given < len(classes):
                raise UserError(f"{folder}: row {at}: {label} = {given}; expected 0 to {len(classes) - 1}")
            else:
                rows.append((called, given if classes is not None else str(given), split, found, pictures, at))
    return Source(classes, _pictures(rows), left_out)


def _pictures(rows: list[tuple]) -> Iterator[Picture]:
    for called, given, split, file, pictures, at in rows:
        yield Picture(called, given, split, file or partial(_encoded, pictures, at))


def _encoded(pictures: pa.ChunkedArray, at: int) -> bytes:
    return pictures[at]["bytes"].as_py()


def _found(path: Path, folder: Path, given: pa.StructScalar) -> Path | str | None:
    """Return the file of a picture, None if its bytes are in the table, or the reason why it has neither."""
    if given.is_valid and given["bytes"].is_valid:
        return None
    name = given["path"].as_py() if given.is_valid else None
    if name is None:
        return "it has no picture"
    file = folder / name
    if not file.resolve().is_relative_to(path.resolve()):
        return f"its picture {name} lies outside of the folder; expected it in the dataset"
    return file if file.is_file() else f"its picture {name} is not there"


def _parts(path: Path, splits: dict[Split, str] | None) -> dict[str, str]:
    """Return the folder of each split, training first."""
    if not (path / "dataset_dict.json").is_file():
        if splits is not None:
            raise UserError(
                f"splits = {splits}, but {path} has no dataset_dict.json; expected null for one dataset alone"
            )
        return {"test": ""}
    holds = 'the names of the splits, as {"splits": ["train", "test"]}'
    read = tree(path / "dataset_dict.json", holds)
    known = read.get("splits") if isinstance(read, dict) else None
    if not isinstance(known, list) or not all(isinstance(name, str) for name in known):
        raise UserError(f"{path / 'dataset_dict.json'}: {read!r:.80}; expected {holds}")
    taken: dict[str, str] = {name: name for name in known} if splits is None else dict(splits.items())
    if not taken or not set(taken) <= {"train", "test"} or not set(taken.values()) <= set(known):
        expected = f"expected train, test or both, each with one of {', '.join(known)}"
        raise UserError(f"splits = {splits}, and {path} has {', '.join(known)}; {expected}")
    return {split: taken[split] for split in ("train", "test") if split in taken}


def _classes(folder: Path, image: str, label: str) -> list[str] | None:
    """Return the names of the classes, None if labels are themselves the names."""
    holds = "the features of the columns"
    read = tree(folder / "dataset_info.json", holds)
    features = read.get("features") if isinstance(read, dict) else None
    if not isinstance(features, dict):
        raise UserError(f"{folder / 'dataset_info.json'}: {read!r:.80}; expected {holds}")
    for setting, name, kinds in (("image", image, ["Image"]), ("label", label, ["ClassLabel", "Value"])):
        kind = (features.get(name) or {}).get("_type")
        if kind not in kinds:
            message = ", ".join(f"{one}: {(about or {}).get('_type')}" for one, about in features.items())
            raise UserError(f"{setting} = {name!r}: {folder} has {message}; expected a column of {' or '.join(kinds)}")
    if features[label]["_type"] == "ClassLabel":
        return list(features[label]["names"])
    kind = str(features[label].get("dtype"))
    if not kind.startswith(("string", "large_string", "int", "uint")):
        raise UserError(f"label = {label!r}: {folder} has {kind} there; expected text, whole numbers or ClassLabel")
    return None


def _columns(folder: Path, image: str, label: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Read pictures and labels from the Arrow files; encoded bytes stay on disk."""
    holds = 'the Arrow files, as {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
    state = tree(folder / "state.json", holds)
    try:
        names = [one["filename"] for one in state["_data_files"]]
    except (KeyError, TypeError):
        raise UserError(f"{folder / 'state.json'}: {state!r:.80}; expected {holds}") from None
    if state.get("_indices_data_files"):
        raise UserError(f"{folder}: has rows in another order than its files; expected it written by save_to_disk anew")
    tables = []
    for name in names:
        try:
            tables.append(pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all().select([image, label]))
        except (OSError, KeyError, pa.ArrowException) as error:
            message = " ".join(str(error).split())
            raise UserError(f"{folder / name}: cannot be read ({message}); expected an Arrow stream") from None
    if not tables:
        raise UserError(f"{folder / 'state.json'}: names no file; expected {holds}")
    both = pa.concat_tables(tables)
    if not pa.types.is_struct(both[image].type):
        raise UserError(f"{folder}: the column {image} is {both[image].type}; expected a struct of bytes and path")
    return both[image], both[label]
