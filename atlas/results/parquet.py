"""Results as Parquet files: every score, and every other table in long form."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from atlas.statistics.tables import MetricScores


def write(scored: list[MetricScores], path: Path) -> None:
    """Write one row per requested score, metric by metric, so that a large study fits in memory."""
    names = pa.dictionary(pa.int32(), pa.string())
    words = ("classifier", "method", "metric", "image", "grid")
    schema = pa.schema([*((word, names) for word in words), ("tile", pa.int32()), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for one in scored:
            asked = one.asked.values
            at = dict(zip(one.asked.dims, asked.nonzero(), strict=True))
            columns = {name: _words(one.asked[name].values, at[name]) for name in words if name in at}
            for name in ("classifier", "metric"):
                columns[name] = _words(np.array([getattr(one, name)]), np.zeros(asked.sum(), int))
            if "tile" in at:
                columns["tile"] = pa.array(one.asked["tile"].values[at["tile"]], pa.int32())
            columns["score"] = pa.array(one.scores.values[asked].astype(np.float32), from_pandas=True)  # NaN is null
            absent = {field.name: pa.nulls(asked.sum(), field.type) for field in schema if field.name not in columns}
            writer.write_table(pa.table({**columns, **absent}).select(schema.names))


def write_table(table: xr.Dataset, path: Path) -> None:
    """Write a row for each cell of a table, with the coordinates of its labels; undefined numbers are null.

    Variables over other dimensions have rows of their own, below one another: a row is null in the columns of other
    variables and dimensions. Along curves and certificates, each metric has rows only at labels where it is defined for
    any method and classifier; the array has the other labels only because of other metrics.
    """
    groups: dict[tuple, list] = {}
    for name, variable in table.data_vars.items():
        groups.setdefault(variable.dims, []).append(name)
    with_rows = [_rows(table[names], dims) for dims, names in groups.items()]
    pq.write_table(pa.concat_tables(with_rows, promote_options="default"), path)


def _rows(table: xr.Dataset, dims: tuple) -> pa.Table:
    if not dims:
        return pa.table({name: [one.item()] for name, one in table.data_vars.items()})
    rows = table.to_dataframe(dim_order=list(dims)).reset_index()
    if along := [name for name in dims if name in ("fraction", "radius", "level")]:
        rows = rows[rows.groupby(["metric", *along])["mean"].transform("count") > 0]
    return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)


def _words(labels: np.ndarray, places: np.ndarray) -> pa.DictionaryArray:
    """Encode the labels at some positions; the dictionary is sorted and holds only these."""
    used, codes = np.unique(places, return_inverse=True)
    words, order = np.unique(labels[used].astype(object), return_inverse=True)
    return pa.DictionaryArray.from_arrays(order[codes].astype(np.int32), pa.array(words, pa.string()))
