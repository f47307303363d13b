"""Arrow columns made from plain values, by their buffers.

`pa.array` loads pandas to ask whether it was given something of pandas; that takes half a second, as
long as decoding a clip.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def column(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    """Values of one type, None where there is none; those of a list type are NumPy arrays."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _lists(values, kind)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _bytes(values, kind)
    there = np.array([value is not None for value in values], bool)
    numbers = np.array([0 if value is None else value for value in values], _numpy_type(kind))
    return pa.Array.from_buffers(kind, len(values), [_bits(there), pa.py_buffer(numbers)])


def table(rows: Sequence[dict[str, Any]], schema: "pa.Schema") -> "pa.Table":
    """Rows as a table."""
    import pyarrow as pa

    columns = [column([row[field.name] for row in rows], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _bytes(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    parts = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    there = np.array([value is not None for value in values], bool)
    content = pa.py_buffer(b"".join(parts))
    offsets = _offsets([len(part) for part in parts])
    return pa.Array.from_buffers(kind, len(values), [_bits(there), pa.py_buffer(offsets), content])


def _lists(values: Sequence[Any], kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    item = _numpy_type(kind.value_type)
    flat = np.concatenate([np.zeros(0, item), *(np.asarray(value, item) for value in values)])
    child = pa.Array.from_buffers(kind.value_type, len(flat), [None, pa.py_buffer(flat)])
    offsets = pa.py_buffer(_offsets([len(value) for value in values]))
    return pa.Array.from_buffers(kind, len(values), [None, offsets], children=[child])


def _offsets(lengths: list[int]) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    assert offsets[-1] < 1 << 31, "more than Arrow's lists of 32-bit offsets hold"
    return offsets.astype(np.int32)


def _bits(there: np.ndarray) -> "pa.Buffer | None":
    """Arrow's bitmap of what is not null; None where nothing is."""
    import pyarrow as pa

    return None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little"))


def _numpy_type(kind: "pa.DataType") -> np.dtype[Any]:
    names = {"double": "float64", "float": "float32"}
    return np.dtype(names.get(str(kind), str(kind)))
