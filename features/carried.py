"""Rows that lie in the former part of a task, for clips whose files are as they were.

The former part is read where it lies while the new one is made beside it. What the machine did to a
clip, such as a timeout, is not carried over: it may go better now.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from features import index
from features.lanes import Entry, Row
from features.rows import BY_MACHINE, reject_row

_FROM_INPUTS = ("split", "captions")
_PLACE = ("shard", "row", "crc32")


class Former:
    """The rows and rejects of a former part, by clip."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._rows: dict[tuple[str, str], list[Row]] = {}
        self._rejects: dict[tuple[str, str], list[Row]] = {}
        self._files: dict[str, Any] = {}
        if folder is not None:
            for name, schema, found in (
                (index.ROWS_FILE, index.ROWS, self._rows),
                (index.REJECTS_FILE, index.REJECTS, self._rejects),
            ):
                for row in index.read_table(folder / name, schema).to_pylist():
                    found.setdefault((row["dataset"], row["clip_id"]), []).append(row)

    def find(self, inputs: Mapping[str, Any]) -> tuple[list[Entry], list[Row]] | None:
        """The rows and the rejects of a clip; None where it must be decoded.

        Args:
            inputs: the row of the task, by the names of `plan.ROW`.
        """
        key = (inputs["dataset"], inputs["clip_id"])
        rows, rejects = self._rows.get(key, []), self._rejects.get(key, [])
        if not (rows or rejects) or any(row["reason"] in BY_MACHINE for row in rejects):
            return None
        entries = []
        for row in rows:
            said = {name: value for name, value in row.items() if name not in _PLACE}
            said |= {name: inputs[name] for name in _FROM_INPUTS}
            said["caption_digest"] = index.caption_digest(inputs["captions"])
            entries.append(Entry(row=said, tensors=self._tensors(row)))
        told = [reject_row(inputs, row["part"], row["reason"], row["detail"]) for row in rejects]
        return entries, told

    def _tensors(self, row: Row) -> dict[str, torch.Tensor]:
        assert self._folder is not None, "it has rows"
        if row["shard"] not in self._files:
            self._files[row["shard"]] = safe_open(self._folder / row["shard"], framework="pt")
        file = self._files[row["shard"]]
        return {name: file.get_slice(name)[row["row"]] for name in file.keys()}  # noqa: SIM118 - no dict
