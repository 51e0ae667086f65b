"""Every score as a row of a Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.statistics.tables import Judged


def write(judged: list[Judged], path: Path) -> None:
    """Write one row a score that was asked for, metric by metric, so that a large study fits in memory."""
    names = pa.dictionary(pa.int32(), pa.string())
    words = ("classifier", "method", "metric", "image", "grid")
    schema = pa.schema([*((word, names) for word in words), ("tile", pa.int32()), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for one in judged:
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


def _words(labels: np.ndarray, places: np.ndarray) -> pa.DictionaryArray:
    """Encode the labels at some places; the dictionary is sorted and holds no others."""
    used, codes = np.unique(places, return_inverse=True)
    words, order = np.unique(labels[used].astype(object), return_inverse=True)
    return pa.DictionaryArray.from_arrays(order[codes].astype(np.int32), pa.array(words, pa.string()))
