"""Correlate the maps of a classifier's methods: `python -m stages.correlate CLASSIFIER`.

Writes `data/similarity/<classifier>.zarr`: Pearson's r and Spearman's rho between the maps of each pair of methods,
image by image. For a constant map both are undefined: NaN.
"""

from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from atlas.cache import keys
from atlas.cache.cells import of_cell
from atlas.cache.stores import read, values
from atlas.cache.tables import Field, Table, keys_of
from atlas.inputs import row_inputs
from atlas.study.command import command
from atlas.study.errors import UserError
from atlas.study.study import Study


def main(folder: Path, classifier: str) -> None:
    """Compute the missing correlations, then assemble the output."""
    study = Study(folder)
    study.check_names(classifier=classifier)
    stores = {
        name: study.path("maps", classifier, family, name)
        for family, listed in study.methods.items()
        for name in listed
    }
    seen = row_inputs.images(study, classifier)
    # Sorted: the order of entries must not affect keys.
    opened = {name: read(stores[name] / "images", f"the maps of {name}") for name in sorted(stores)}
    opened = {name: maps for name, maps in opened.items() if "unsupported" not in maps.attrs}
    with of_cell(study, "correlate", "similarity", classifier) as rows:
        table = plan({name: stores[name] for name in opened}, seen)
        missing = rows.missing(table)
        for part in (missing[at : at + study.engine["batch"]] for at in range(0, len(missing), study.engine["batch"])):
            low, high = int(part.min()), int(part.max()) + 1
            own = [values(maps, "attribution", slice(low, high))[part - low] for maps in opened.values()]
            maps = np.stack(own, axis=1).reshape(len(part), len(own), -1)
            rows.put(table, part, correlations(maps.astype("float64")))
        rows.finish([table], {})
        rows.log({})


def plan(served: dict[str, Path], seen: row_inputs.Inputs) -> Table:
    """Return the planned rows: an image's key has the digests of all its maps."""
    digests = [keys_of(store, "images", f"the maps of {name}")[1] for name, store in served.items()]
    for store, own in zip(served.values(), digests, strict=True):
        if len(own) != len(seen.ids):
            raise UserError(
                f"{store}/images: has {len(own)} maps, expected {len(seen.ids)}; run stages.attribute again"
            )
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
