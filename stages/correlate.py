"""Correlate the maps of a classifier's methods: `python -m stages.correlate CLASSIFIER`.

Writes `data/similarity/<classifier>.zarr`: Pearson's r and Spearman's rho between the maps of each pair of methods,
image by image. For a constant map both are undefined: NaN.
"""

from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from atlas.cache import keys
from atlas.cache.cells import of_cell
from atlas.cache.stacks import Place, alone, keys_of, place, read_rows
from atlas.cache.tables import Field, Table
from atlas.inputs import row_inputs
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.study import Study


def main(folder: Path, classifier: str) -> None:
    """Compute the missing correlations, then assemble the output."""
    study = Study(folder)
    study.check_names(classifier=classifier)
    seen = row_inputs.images(study, classifier)
    maps = {
        name: place(study.path("maps", classifier, family), "images", name, "maps")
        for family, listed in study.methods.items()
        for name in listed
    }
    # Sorted: the order of entries must not affect keys.
    served = {name: maps[name] for name in sorted(maps) if "unsupported" not in maps[name].attrs}
    with of_cell(study, "correlate", "similarity", classifier) as rows:
        table = plan(served, seen)
        missing = rows.missing(table)
        for part in (missing[at : at + study.engine["batch"]] for at in range(0, len(missing), study.engine["batch"])):
            low, high = int(part.min()), int(part.max()) + 1
            own = [read_rows(one, "attribution", slice(low, high))[part - low] for one in served.values()]
            stacked = np.stack(own, axis=1).reshape(len(part), len(own), -1)
            rows.put(table, part, correlations(stacked.astype("float64")))
        rows.finish([alone(table)], {})
        rows.log({})


def plan(served: dict[str, Place], seen: row_inputs.Inputs) -> Table:
    """Return the planned rows: an image's key has the digests of all its maps."""
    digests = [keys_of(maps)[1] for maps in served.values()]
    for maps, own in zip(served.values(), digests, strict=True):
        if len(own) != len(seen.ids):
            raise UserError(f"{maps.folder}: has {len(own)} maps, expected {len(seen.ids)}; run stages.attribute again")
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
    """Correlate maps given as (image, method, pixel): r over pixels, and rho, the r of ranks (ties averaged)."""
    return {"pearson": pearson(maps), "spearman": pearson(rankdata(maps, axis=2))}


def pearson(values: np.ndarray) -> np.ndarray:
    """Return Pearson's r between every two rows, image by image; NaN if a row is constant."""
    found = np.full((*values.shape[:2], values.shape[1]), np.nan)
    for matrix, image in zip(found, values, strict=True):
        varied = np.flatnonzero(np.ptp(image, axis=1) > 0)
        matrix[np.ix_(varied, varied)] = np.corrcoef(image[varied]) if len(varied) else 0
    return found


if __name__ == "__main__":
    command(main, "classifier")
