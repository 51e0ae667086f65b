"""Make DVC, in this process, replace dvc.lock when all of it is written.

DVC empties the file and then writes it anew for every cell, which takes up to seconds in a study of many cells. A
process killed meanwhile would leave a part of it, or nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc import dvcfile

from atlas.cache.locks import PARTIAL


@contextmanager
def whole_lock() -> Iterator[None]:
    """Make DVC, inside the `with` block, write what it modifies to a copy, which then replaces the file."""
    module: Any = dvcfile
    as_dvc = module.modify_yaml

    @contextmanager
    def modify_yaml(path: str, fs: Any = None) -> Iterator[dict]:
        file, copy = Path(path), Path(path + PARTIAL)
        copy.unlink(missing_ok=True)  # of a process that was killed
        if file.exists():
            copy.write_bytes(file.read_bytes())
        with as_dvc(str(copy), fs=fs) as content:
            yield content
        _put_in_place(copy, file)

    module.modify_yaml = modify_yaml
    try:
        yield
    finally:
        module.modify_yaml = as_dvc


def replace(file: Path, text: str) -> None:
    """Replace the text of a file at once."""
    copy = file.with_name(file.name + PARTIAL)
    copy.write_text(text, encoding="utf-8")
    _put_in_place(copy, file)


def _put_in_place(copy: Path, file: Path) -> None:
    with copy.open("rb") as written:
        os.fsync(written.fileno())
    copy.replace(file)
