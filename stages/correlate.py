"""Correlate the maps of a classifier's methods: `python -m stages.correlate CLASSIFIER`.

Writes `data/similarity/<classifier>.zarr`: Pearson's r and Spearman's rho between the maps of each pair of methods,
image by image. A constant map correlates with nothing: NaN.
"""

from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from stages import evidence, keys
from stages.params import command, entries, load, path
from stages.rows import Field, Rows, Table, keys_of
from stages.stores import read


def main(study: Path, classifier: str) -> None:
    """Correlate what is not correlated yet, then assemble the output."""
    params = load(study)
    stores = {
        name: path(study, "maps", classifier, family, name)
        for family, listed in entries(params, "methods").items()
        for name in listed
    }
    seen = evidence.images(study, classifier, params["seed"])
    served = {
        name: store
        for name, store in sorted(stores.items())  # the order of entries is nothing to the rows
        if "unsupported" not in read(store / "images", f"the maps of {name}").attrs
    }
    with Rows(
        study, f"correlate@{classifier}", path(study, "similarity", classifier), params["stores"]["shard_rows"]
    ) as rows:
        table = plan(served, seen)
        missing = rows.missing(table)
        arrays = {name: read(store / "images", f"the maps of {name}")["attribution"] for name, store in served.items()}
        for part in (
            missing[at : at + params["engine"]["batch"]] for at in range(0, len(missing), params["engine"]["batch"])
        ):
            low, high = int(part.min()), int(part.max()) + 1
            maps = np.stack([array[low:high].reshape(high - low, -1)[part - low] for array in arrays.values()], axis=1)
            rows.put(table, part, correlations(maps.astype("float64")))
        rows.finish([table], {})
        rows.log({})


def plan(served: dict[str, Path], seen: evidence.Evidence) -> Table:
    """Say which rows there are to be: an image's is keyed by the digests of all its maps."""
    digests = [keys_of(store, "images", f"the maps of {name}")[1] for name, store in served.items()]
    shared = keys.code(("stages.correlate", "correlations"))
    made = b"".join(keys.digest(shared, *(own[i].tobytes() for own in digests)) for i in range(len(seen.ids)))
    names = np.array(list(served), dtype=np.dtypes.StringDType())
    square = (len(served), len(served))
    fields = {
        "pearson": Field(
            ("method", "other"), square, "float32", {"long_name": "Pearson's r between maps", "units": "1"}
        ),
        "spearman": Field(
            ("method", "other"), square, "float32", {"long_name": "Spearman's rho between maps", "units": "1"}
        ),
    }
    coords = {"image": seen.coords["image"], "method": (("method",), names), "other": (("other",), names)}
    return Table("", ("image",), np.frombuffer(made, "uint8").reshape(-1, keys.SIZE), fields, coords)


def correlations(maps: np.ndarray) -> dict[str, np.ndarray]:
    """Correlate maps laid out as image, method, pixel: r over pixels, and rho, which is r of ranks (ties averaged)."""
    return {"pearson": pearson(maps), "spearman": pearson(rankdata(maps, axis=2))}


def pearson(values: np.ndarray) -> np.ndarray:
    """Give the matrix of Pearson's r between rows, image by image; NaN where a row is constant."""
    found = np.full((*values.shape[:2], values.shape[1]), np.nan)
    for matrix, image in zip(found, values, strict=True):
        varied = np.flatnonzero(np.ptp(image, axis=1) > 0)
        matrix[np.ix_(varied, varied)] = np.corrcoef(image[varied]) if len(varied) else 0
    return found


if __name__ == "__main__":
    command(main)
