"""Store rows by key: reuse known rows, journal computed ones, assemble the output and put it in place.

A row is one image's map by one method, or one map's scores. Its key covers everything its value depends on, so a row
found under its key can be reused. Rows are looked for in the cell's journal (after an interrupted run), in the output
last assembled, and in the output that dvc.lock records, read from DVC's cache. These memos only save time: a row
whose bytes do not match their own digest is not used.
"""

import json
import os
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from atlas.cache.assembly import assemble, check
from atlas.cache.keys import SIZE, digest
from atlas.cache.locks import take
from atlas.cache.memos import BATCH, DIGEST, Memos
from atlas.cache.recorded import fetch, recorded
from atlas.cache.remote import pulling
from atlas.cache.stacks import Stack
from atlas.cache.stores import group_at, place, replace
from atlas.cache.tables import KEY, Table, digests_of, is_index, parts
from atlas.study import unedited
from atlas.study.errors import UserError
from atlas.study.peak import peak_memory

Others = Callable[[], list[str]]


class RowStore:
    """The open store of a cell's keyed rows: memos to read, a journal to write, an output to assemble.

    Only one process works on a cell at a time; others wait until it closes the store.

    Args:
        folder: The folder of params.yaml.
        cell: The cell's name.
        output: Where the assembled output is put.
        shard_rows: Rows per shard, at most.
        wait: Whether to wait for another process that holds the cell.
        others: Returns other cells whose recorded outputs may hold rows of this one; called when rows are missing.

    Raises:
        BlockingIOError: another process holds the cell, and `wait` is False.
    """

    def __init__(
        self, folder: Path, cell: str, output: Path, shard_rows: int, *, wait: bool = True, others: Others = list
    ):
        self.cell, self.output, self.shard_rows = cell, output, shard_rows
        self.atlas = folder / ".atlas"
        self.scratch = self.atlas / "cells" / cell
        self.journal = self.scratch / "journal"
        self._lock = take(self.scratch / "lock", wait=wait)
        self._memos, self._others = Memos(), others
        self._started = time.monotonic()
        self._reported = self._started
        self.wanted = self.reused = self.computed = self.left = 0
        self.made: dict[str, int] = {}
        try:
            self._remember(recorded(folder, cell, output, self.scratch / "recorded", is_index))
        except BaseException:
            os.close(self._lock)
            raise

    def missing(self, table: Table) -> np.ndarray:
        """Return the positions, in the flattened table, of the rows that no memo holds intact."""
        keys = table.keys.reshape(-1, SIZE)
        positions = [i for i in range(len(keys)) if keys[i].any()]
        self._fetch(table, positions)
        absent = self._absent(table, positions)
        if absent and self._look_further():
            self._fetch(table, absent)
            absent = self._absent(table, absent)
        self.wanted += len(positions)
        self.reused += len(positions) - len(absent)
        self.left += len(absent)
        return np.array(absent, dtype=int)

    def count_missing(self, tables: list[Table]) -> tuple[int, int]:
        """Return the number of planned rows, and of those that no memo seems to hold: looked up by key, not read."""
        keys = [key.tobytes() for table in tables for key in table.keys.reshape(-1, SIZE) if key.any()]
        missing = [key for key in keys if key not in self._memos]
        if missing and self._look_further():
            missing = [key for key in missing if key not in self._memos]
        return len(keys), len(missing)

    def put(self, table: Table, positions: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Journal computed rows; they are safely on disk when this returns."""
        unedited.check()
        fields = {name: np.asarray(values[name], field.dtype) for name, field in table.fields.items()}
        keys = table.keys.reshape(-1, SIZE)[positions]
        file = self.journal / f"{uuid.uuid4().hex}{BATCH}"
        partial = file.with_suffix(".partial")
        with partial.open("wb") as out:
            arrays: dict[str, Any] = {KEY: keys, DIGEST: digests_of(fields, len(keys)), **fields}
            np.savez(out, **arrays)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(file)
        self._memos.add_batch(file)
        self.computed += len(keys)
        self.made[table.name] = self.made.get(table.name, 0) + len(keys)
        self.left -= len(keys)
        self._report_progress()

    def refuse(self, shared: bytes, reason: str) -> None:
        """Journal that a function cannot serve a classifier; `shared` digests all that its rows have in common."""
        partial = self.journal / f"{_refusal(shared)}.partial"
        partial.write_text(reason)
        partial.rename(partial.with_suffix(".refused"))
        self._memos.refused[_refusal(shared)] = reason

    def refusal(self, shared: bytes) -> str | None:
        """Return the reason why a function cannot serve a classifier, if that is known."""
        return self._memos.refused.get(_refusal(shared))

    def without_unsupported(self, table: Table, shared: bytes) -> Table:
        """Return the table, emptied and with the reason on it if its function cannot serve the classifier."""
        reason = self.refusal(shared)
        if reason is None:
            return table
        attrs = {**table.attrs, "unsupported": reason, "refused": {_refusal(shared): reason}}
        return table._replace(keys=np.zeros_like(table.keys), attrs=attrs)

    def without_unsupported_by(self, table: Table, tokens: dict[str, bytes]) -> Table:
        """Empty the rows of functions that cannot serve the classifier, and record the reasons on the table.

        Args:
            table: Each index of its first dimension belongs to one function.
            tokens: By function name, the digest of what all its rows share.
        """
        reasons = {name: reason for name, token in tokens.items() if (reason := self.refusal(token)) is not None}
        if not reasons:
            return table
        keys = table.keys.copy()
        keys[[place for place, name in enumerate(tokens) if name in reasons]] = 0
        refused = {_refusal(tokens[name]): reason for name, reason in reasons.items()}
        unsupported = {**table.attrs.get("unsupported", {}), **reasons}
        return table._replace(keys=keys, attrs={**table.attrs, "unsupported": unsupported, "refused": refused})

    def finish(self, stacks: list[Stack], groups: dict[str, dict]) -> None:
        """Assemble the output from the memos and, as the last act, rename it into place.

        The output is a function of the stacks alone. It is kept in the scratch, too, as links to the same files, until
        the next one: DVC may die before it records its outputs.

        Raises:
            UserError: a table or some of its rows are missing from the output; the memos still have them.
        """
        fresh = self.scratch / "assembling"
        shutil.rmtree(fresh, ignore_errors=True)
        self.draft(stacks, groups, fresh)
        check(fresh, stacks, groups)
        replace(fresh, self.scratch / "output")
        place(self.scratch / "output", self.output)
        shutil.rmtree(self.journal)
        for memo in (*self.scratch.glob("recorded*"), *self.scratch.glob(".output.*.partial")):
            shutil.rmtree(memo, ignore_errors=True)

    def draft(self, stacks: list[Stack], groups: dict[str, dict], root: Path) -> None:
        """Assemble stacks from the memos in a new folder; the memos are kept.

        Args:
            stacks: The stacks.
            groups: The attributes of the groups that contain groups; the empty name is the output itself.
            root: The folder.
        """
        root.mkdir()
        for group, attrs in groups.items():
            group_at(root / group, attrs)
        for stack in stacks:
            assemble(stack, self._memos, root, self.shard_rows)

    def log(self, passes: dict[str, dict[str, int]]) -> None:
        """Append the cost of this visit to `.atlas/log.jsonl`, as one line."""
        line = {
            "cell": self.cell,
            "rows_wanted": self.wanted,
            "rows_reused": self.reused,
            "rows_computed": self.computed,
            "computed": self.made,
            "assembled": not self.journal.exists(),
            "seconds": round(time.monotonic() - self._started, 3),
            "peak_mb": peak_memory(),
            "passes": passes,
            "versions": {name: metadata.version(name) for name in ("torch", "numpy", "zarr")},
            "machine": f"{platform.machine()} {platform.system()} python {platform.python_version()}",
        }
        with (self.atlas / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def __enter__(self) -> "RowStore":
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)

    def _remember(self, recorded: Path) -> None:
        """Collect the memos: recorded outputs, and what this cell's scratch holds."""
        self.journal.mkdir(exist_ok=True)
        # An output that was being replaced when the process died is still a memo.
        aside = sorted(self.scratch.glob(".output.*.partial"))
        for memo in (recorded, *aside, self.scratch / "output"):
            self._memos.add_output(memo)
        for file in sorted(self.journal.glob(f"*{BATCH}")):
            self._memos.add_batch(file)
        for file in self.journal.glob("*.refused"):
            self._memos.refused[file.stem] = file.read_text()

    def _absent(self, table: Table, positions: list[int]) -> list[int]:
        """Return those positions of the flattened table whose rows no memo holds intact."""
        keys, absent = table.keys.reshape(-1, SIZE), []
        for part in parts(positions, table, self.shard_rows):
            intact = self._memos.intact([keys[i].tobytes() for i in part], table.fields)
            absent += [i for i, good in zip(part, intact, strict=True) if not good]
        return absent

    def _fetch(self, table: Table, positions: list[int]) -> None:
        """Fetch the files of rows that are recorded but not in the local cache, if `--pull` is on."""
        if pulling():
            keys = table.keys.reshape(-1, SIZE)
            links = self._memos.absent([keys[i].tobytes() for i in positions], table.fields)
            fetch(self.atlas.parent, [link.readlink() for link in links])
            self._memos.forget_arrays()

    def _look_further(self) -> bool:
        """Add other cells' recorded outputs to the memos, once; return whether there are any."""
        others, self._others = self._others(), list
        for number, other in enumerate(others):
            try:
                laid = recorded(self.atlas.parent, other, None, self.scratch / f"recorded.{number}", is_index)
            except UserError as problem:  # concerns another cell, which this one does not need
                print(f"warning: {self.cell}: rows of {other} are not looked at: {problem}", file=sys.stderr)
            else:
                self._memos.add_output(laid, last=True)
        return bool(others)

    def _report_progress(self) -> None:
        """Print progress every few seconds: rows done, rows per second, time left."""
        now = time.monotonic()
        if now - self._reported > 5:
            self._reported = now
            rate = self.computed / (now - self._started)
            done = f"{self.computed} of {self.computed + self.left} rows"
            print(f"{self.cell}: {done}, {rate:.1f} rows/s, {self.left / rate:.0f} s left", file=sys.stderr, flush=True)


def _refusal(shared: bytes) -> str:
    return digest("refused", shared).hex()
