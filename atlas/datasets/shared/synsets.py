"""Read the names of ImageNet's classes, in the order of its networks' outputs: sorted by wnid."""

from collections import Counter
from pathlib import Path
from typing import Any

from atlas.datasets.shared.lists import WNID, content, fault, lines, tree
from atlas.study.errors import UserError


def synsets(file: Path) -> dict[str, str]:
    """Return the names of classes by wnid, in the order of the wnids.

    Of several names, as `tench, Tinca tinca`, the first is used; if two classes share it (`crane`), the wnid is added.

    Args:
        file: Lines of `n01440764` or `n01440764 tench, Tinca tinca` (`LOC_synset_mapping.txt`), JSON as
            `{"0": ["n01440764", "tench"]}` (`imagenet_class_index.json`), or the `meta.mat` of ILSVRC2012's kit.

    Raises:
        UserError: it is none of these, or contains a wnid twice.
    """
    if file.suffix == ".mat":
        named = [(wnid, words) for _, wnid, words in _meta(file)]
    elif file.suffix == ".json":
        named = _indexed(file)
    else:
        named = _listed(file)
    called = {wnid: words.partition(",")[0].strip() or wnid for wnid, words in sorted(named)}
    if len(called) < len(named):
        twice = next(wnid for wnid, count in Counter(wnid for wnid, _ in named).items() if count > 1)
        raise UserError(f"{file}: {twice} is there twice; expected each wnid once")
    if not called:
        raise UserError(f"{file}: names no class; expected a line a class: its wnid and its name")
    times = Counter(called.values())
    return {wnid: name if times[name] == 1 else f"{name} ({wnid})" for wnid, name in called.items()}


def numbered(file: Path) -> dict[int, str]:
    """Return wnids by ILSVRC2012_ID, which the kit's ground truth uses: another order than that of the wnids."""
    return {number: wnid for number, wnid, _ in _meta(file)}


def _listed(file: Path) -> list[tuple[str, str]]:
    found = []
    for line, given in lines(file, "a line a class: its wnid and its name"):
        wnid, _, words = given.partition(" ")
        if not WNID.fullmatch(wnid):
            raise fault(file, line, given, "a wnid, as n01440764, and the name of the class")
        found.append((wnid, words))
    return found


def _indexed(file: Path) -> list[tuple[str, str]]:
    read = tree(file, 'a class a number, as {"0": ["n01440764", "tench"]}')
    rows: list[Any] = [*read.values()] if isinstance(read, dict) else [read]
    for row in rows:
        plain = isinstance(row, list) and len(row) == 2 and all(isinstance(one, str) for one in row)
        if not plain or not WNID.fullmatch(row[0]):
            raise UserError(f'{file}: {row!r:.100}; expected a wnid and a name, as ["n01440764", "tench"]')
    return [(wnid, words) for wnid, words in rows]


def _meta(file: Path) -> list[tuple[int, str, str]]:
    """Read the number, wnid and words of the classes that have pictures."""
    from io import BytesIO

    from scipy.io import loadmat

    holds = "the table 'synsets' of ILSVRC2012's kit"
    try:
        rows = loadmat(BytesIO(content(file, holds)), squeeze_me=True)["synsets"]
        fields = rows[["ILSVRC2012_ID", "WNID", "words", "num_children"]]
        return [(int(number), str(wnid), str(words)) for number, wnid, words, below in fields if int(below) == 0]
    except UserError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{file}: {error}; expected {holds}") from None
