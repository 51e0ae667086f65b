"""Measure the stores of a large family of maps, and looking up many rows of scores.

    uv run python benchmarks/stores.py [--methods 20] [--images 5000] [--side 224] [--rows 1000000] [--folder F]

Smooth random maps in float16 are journaled as `stages.attribute` does it, batch by batch, and assembled; then the store
is tracked by DVC and pushed to a folder, and pushed again after the last method was changed and after ten images were
added: files, bytes and seconds of each step are printed. Then as many rows of scores are keyed, journaled, looked up in
the journal as after a kill, and assembled. 20 methods on 5,000 images take 40 GB of disk while this runs.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from atlas.cache import keys
from atlas.cache.rows import RowStore
from atlas.cache.score_store import stacked
from atlas.cache.stacks import stack
from atlas.cache.tables import Field, Table

BATCH, SHARD_ROWS, METRICS, METHODS = 64, 1024, 45, 20


def main() -> None:
    """Print what each step takes."""
    parser = ArgumentParser(description="Measure stores of many rows.")
    for name, default in (("methods", 20), ("images", 5000), ("side", 224), ("rows", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where to write, and to delete again; the system's own if not said")
    given = parser.parse_args()
    with TemporaryDirectory(dir=given.folder) as folder:
        study = Path(folder)
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            subprocess.run(command, cwd=study, check=True)
        remote = ["remote", "add", "--default", "shared", str(study / "remote")]
        subprocess.run([sys.executable, "-m", "dvc", *remote], cwd=study, check=True, stdout=subprocess.DEVNULL)
        print(f"maps of {given.methods} methods on {given.images} images of {given.side} x {given.side}, float16")
        family(study, given.methods, given.images, given.side, [0] * given.methods)
        family(study, given.methods, given.images, given.side, [0] * (given.methods - 1) + [1])
        family(study, given.methods, given.images + 10, given.side, [0] * (given.methods - 1) + [1])
    with TemporaryDirectory(dir=given.folder) as folder:
        scores(Path(folder), given.rows)


def family(study: Path, methods: int, images: int, side: int, versions: list[int]) -> None:
    """Make the maps that are missing, assemble, track and push them."""
    output = study / "data" / "maps.zarr"
    names = np.array([f"image_{number:06}" for number in range(images)], np.dtypes.StringDType())
    coords = {"image": (("image",), names)}
    fields = {"attribution": Field(("y", "x"), (side, side), "float16")}
    tables = {}
    for at, version in zip(range(methods), versions, strict=True):
        made = b"".join(keys.digest(at, version, number) for number in range(images))
        own = np.frombuffer(made, "uint8").reshape(-1, keys.SIZE)
        tables[f"method_{at}"] = Table(f"method_{at}/images", ("image",), own, fields, coords)
    with RowStore(study, "attribute@maps", output, SHARD_ROWS) as rows:
        with timed("look up and journal"):
            for at, (table, version) in enumerate(zip(tables.values(), versions, strict=True)):
                missing = rows.missing(table)
                for start in range(0, len(missing), BATCH):
                    part = missing[start : start + BATCH]
                    maps = np.stack([smooth(at, version, number, side) for number in part.tolist()])
                    rows.put(table, part, {"attribution": maps})
        with timed(f"assemble ({rows.computed} maps were missing)"):
            rows.finish([stack("images", "method", tables, coords)], {"": {"family": "maps"}})
    with timed("dvc add"):
        subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/maps.zarr"], cwd=study, check=True)
    before = size(study / "remote")
    with timed("dvc push"):
        subprocess.run([sys.executable, "-m", "dvc", "push", "-q"], cwd=study, check=True)
    files, total = size(output)
    pushed = size(study / "remote")
    print(f"  {files} files, {total / 1e6:.0f} MB; pushed: {pushed[0] - before[0]} files, ", end="")
    print(f"{(pushed[1] - before[1]) / 1e6:.1f} MB", flush=True)


def smooth(method: int, version: int, number: int, side: int) -> np.ndarray:
    """Return a random smooth map, other for each method, version and image."""
    rng = np.random.default_rng([method, version, number])
    coarse = rng.normal(size=(8, 8))
    along = np.linspace(0, 7, side)
    low = np.minimum(along.astype(int), 6)
    weight = (along - low)[:, None]
    rows = coarse[low] * (1 - weight) + coarse[low + 1] * weight
    return (rows[:, low] * (1 - weight.T) + rows[:, low + 1] * weight.T).astype("float16")


def scores(study: Path, number: int) -> None:
    """Key so many scores, journal, look them up as after a kill, and assemble them."""
    images = number // (METRICS * METHODS)
    names = np.array([f"image_{one:06}" for one in range(images)], np.dtypes.StringDType())
    methods = np.array([f"method_{one}" for one in range(METHODS)], np.dtypes.StringDType())
    coords = {"method": (("method",), methods), "image": (("image",), names)}
    print(f"scores of {METRICS} metrics of {METHODS} methods on {images} images: {METRICS * METHODS * images} rows")
    tables = []
    with timed("keys"):
        for metric in range(METRICS):
            made = b"".join(keys.digest(metric, method, one) for method in range(METHODS) for one in range(images))
            own = np.frombuffer(made, "uint8").reshape(METHODS, images, keys.SIZE)
            about = {"unsupported": {}, "methods": methods.tolist(), "count": images, "along": {}}
            fields = {"score": Field((), (), "float32")}
            tables.append(Table(f"metric_{metric}", ("method", "image"), own, fields, coords, about))
    output, rng = study / "scores.zarr", np.random.default_rng(0)
    with timed("journal, batches of 64"), RowStore(study, "score@scores", output, SHARD_ROWS) as rows:
        for table in tables:
            missing = rows.missing(table)
            for start in range(0, len(missing), BATCH):
                part = missing[start : start + BATCH]
                rows.put(table, part, {"score": rng.normal(size=len(part)).astype("float32")})
    for left in ("the journal", "the output"):
        with RowStore(study, "score@scores", output, SHARD_ROWS) as rows:
            with timed(f"look up all rows in {left}"):
                assert not any(len(rows.missing(table)) for table in tables)
            with timed("assemble"):
                rows.finish([stacked("images", tables, methods.tolist(), coords)], {"": {"family": "scores"}})
    files, total = size(output)
    print(f"  {files} files, {total / 1e6:.1f} MB")


def size(folder: Path) -> tuple[int, int]:
    """Return the number of files and their bytes."""
    found = [one.stat().st_size for one in folder.rglob("*") if one.is_file()]
    return len(found), sum(found)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the seconds that a step takes."""
    begun, cpu = perf_counter(), os.times()
    yield
    now = os.times()
    spent = sum(now[:4]) - sum(cpu[:4])
    print(f"  {what}: {perf_counter() - begun:.1f} s ({spent:.1f} s of CPU)", flush=True)


if __name__ == "__main__":
    main()
