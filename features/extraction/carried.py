"""Rows that lie in the former part of a task, for clips whose files are as they were.

The former part is read where it lies while the new one is made beside it. What the machine did to a
clip, such as a timeout, is not carried over: it may go better now. Nor are rows whose bytes are not
those that were written.
"""

import contextlib
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curation.errors import ManifestChanged
from curation.verdict import BY_MACHINE
from features.extraction.lanes import Entry, Row
from features.store import index
from features.store.rows import reject_row
from features.store.shard_file import ITEM_BYTES, Header, columns_of, read_header, spec_of

_FROM_INPUTS = ("split", "captions")
_PLACE = ("shard", "row", "crc32")


class Former:
    """The rows and rejects of a former part, by clip."""

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._folder, self._spec = folder, spec_of(about)
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self._rejects: dict[tuple[str, str], list[Row]] = {}
        self._headers: dict[str, Header] = {}
        if folder is not None:
            with contextlib.suppress(ManifestChanged):  # damaged: all is decoded again
                rows = index.read_table(folder / index.ROWS_FILE, index.ROWS)
                rejects = index.read_table(folder / index.REJECTS_FILE, index.REJECTS)
                self._take(rows, self._rows)
                self._take(rejects, self._rejects)

    def _take(self, table: pa.Table, to: dict[tuple[str, str], list[Row]]) -> None:
        for row in table.to_pylist():
            to.setdefault((row["dataset"], row["clip_id"]), []).append(row)

    def find(self, inputs: Mapping[str, Any]) -> tuple[list[Entry], list[Row]] | None:
        """The rows and the rejects of a clip; None where it must be decoded.

        Args:
            inputs: the row of the task, by the names of `plan.ROW`.
        """
        key = (inputs["dataset"], inputs["clip_id"])
        rows, rejects = self._rows.get(key, []), self._rejects.get(key, [])
        if not (rows or rejects) or any(row["reason"] in BY_MACHINE for row in rejects):
            return None
        if not all(self._is_whole(row) for row in rows):
            return None
        entries = []
        for row in rows:
            said = {name: value for name, value in row.items() if name not in _PLACE}
            said |= {name: inputs[name] for name in _FROM_INPUTS}
            said["caption_digest"] = index.caption_digest(inputs["captions"])
            entries.append(Entry(row=said, tensors=partial(self._tensors, row)))
        told = [reject_row(inputs, row["part"], row["reason"], row["detail"]) for row in rejects]
        return entries, told

    def _is_whole(self, row: Row) -> bool:
        """Whether the bytes of a row are those that were written."""
        try:
            columns = self._read(row)
        except (OSError, ManifestChanged):
            return False
        crc32 = 0
        for values in columns.values():
            crc32 = zlib.crc32(values.data, crc32)
        return bool(crc32 == row["crc32"])

    def _tensors(self, row: Row) -> dict[str, torch.Tensor]:
        """The columns of a row, bf16."""
        shapes = self._shapes(row)
        return {
            name: torch.from_numpy(values).view(torch.bfloat16).reshape(shapes[name])
            for name, values in self._read(row).items()
        }

    def _shapes(self, row: Row) -> dict[str, tuple[int, ...]]:
        return columns_of("av" if row["has_video"] else "audio", self._spec)

    def _read(self, row: Row) -> dict[str, np.ndarray]:
        """The bits of a row, int16, by column in the order of the file.

        Raises:
            ManifestChanged: its shard cannot be read, or is another.
        """
        assert self._folder is not None, "it has rows"
        path = self._folder / row["shard"]
        if path.name not in self._headers:
            self._headers[path.name] = read_header(path)
        header = self._headers[path.name]
        if {name: column.shape for name, column in header.columns.items()} != self._shapes(row):
            raise ManifestChanged(
                f"{path}: holds other columns, expected those of its rows — run extract again"
            )
        bits = {}
        with path.open("rb") as stream:
            for name, column in header.columns.items():
                stream.seek(column.offset_bytes + row["row"] * column.row_bytes)
                bits[name] = np.fromfile(stream, np.int16, column.row_bytes // ITEM_BYTES)
        return bits
