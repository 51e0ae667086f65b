"""Tables as papers print them: numbers in tests/golden, whose headers name their columns and rows."""

from pathlib import Path

import numpy as np
import pandas as pd

PRINTED = Path(__file__).parents[1] / "golden"


def numbers(name: str) -> np.ndarray:
    return np.loadtxt(PRINTED / f"{name}.txt")


def table(name: str) -> pd.DataFrame:
    lines = (PRINTED / f"{name}.txt").read_text().splitlines()
    columns, rows = (
        next(line for line in lines if line.startswith(start)).removeprefix(start).rstrip(".").split()
        for start in ("# Columns: ", "# Rows: ")
    )
    return pd.DataFrame(numbers(name), rows, columns)
