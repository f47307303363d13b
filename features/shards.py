"""Reading sealed shards at memory speed: rows of index.parquet, gathered into batches that are reused.

    reader = ShardReader("shards/44100")
    batch = None
    for rows in order:
        batch = reader.batch(rows, out=batch, names=False)

Shape suffixes: B rows, N latents, C channels, T pictures or tokens, D width.
"""

import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curation.closing import Closing
from curation.errors import ManifestChanged, UsageProblem
from features.store import index
from features.store.gather import IO, WORD_BYTES, ZEROS, Gather, Mapped, Read, Wanted, suitable_io
from features.store.places import Numbers, read_places
from features.store.recorded import misfits, sealed_file, sealed_table
from features.store.shard_file import ITEM_BYTES, Header, columns_of, read_header, spec_of
from features.store.statistics import Group, Sums, normalising, read_groups, total

Rows = Sequence[int] | npt.NDArray[np.integer[Any]] | torch.Tensor
Batch = dict[str, Any]
_MOST_THREADS = 4  # unless more are asked for: two fill the memory's bandwidth of most machines


class ShardReader(Closing):
    """The rows of a sealed folder; to be opened by the process that reads (it has threads of its own).

    Attributes:
        about: sample rate, duration, encoders and preprocessing.
        certificate: of the manifest; None: uncertified.
        untrained: whether an encoder had random weights.
        io: how files are read, and `io_reason` why.

    Raises:
        UsageProblem: the folder holds no shards, or is not sealed.
        ManifestChanged: a file is missing, short, of another format, or not what shards.json says.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        io: IO | Literal["auto"] = "auto",
        threads: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.sealed = index.read_sealed(self.folder)
        self.about: dict[str, Any] = self.sealed["about"]
        self.certificate = self.sealed["certificate"]
        self.untrained = index.is_untrained(self.about)
        self.io, self.io_reason = suitable_io(self.folder) if io == "auto" else (io, "as asked")
        spec = spec_of(self.about)
        self._shapes = {**columns_of("av", spec), **columns_of("text", spec)}
        self._pinned = torch.cuda.is_available()
        names = list(self.sealed["files"])
        headers = [self._header(name) for name in names]
        self._places = read_places(self.folder, self.sealed, headers)
        # the begin of each column in each file, in words; a column that a file lacks is never asked for
        self._begins = {
            name: np.array([*(_begin(header, name) for header in headers), 0], np.int64)
            for name in self._shapes
        }
        threads = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._gather = self._opened([self.folder / name for name in names], headers, threads)

    def _header(self, name: str) -> Header:
        """The header of a shard, checked against shards.json and the shapes that belong to it."""
        path = self.folder / name
        header = read_header(path)
        for what in misfits(path, header, self.sealed["files"][name], self.sealed):
            raise ManifestChanged(f"{path}: {what} — copy the file anew, or {index.advice(path)}")
        return header

    def _opened(self, paths: list[Path], headers: list[Header], threads: int) -> Gather:
        sizes = [header.file_bytes for header in headers]
        if self.io == "pread":
            return Read(paths, sizes, threads)
        return Mapped(paths, sizes, max(self._row_bytes(name) for name in self._shapes), threads)

    def _row_bytes(self, name: str) -> int:
        return math.prod(self._shapes[name]) * ITEM_BYTES

    def __len__(self) -> int:
        return len(self._places.row)

    @property
    def num_texts(self) -> int:
        """Rows of text: the unique captions, the empty one first."""
        return self._places.num_texts

    @cached_property
    def index(self) -> pa.Table:
        """index.parquet, whole."""
        return sealed_table(self.folder, self.sealed, index.INDEX_FILE)

    @cached_property
    def captions(self) -> pa.Table:
        """captions.parquet: text_index, caption, crc32."""
        return sealed_table(self.folder, self.sealed, index.CAPTIONS_FILE)

    def groups(self) -> dict[Group, Sums]:
        """Sums of latents by dataset, split and kind."""
        return read_groups(sealed_file(self.folder, self.sealed, index.STATISTICS_FILE))

    def latent_statistics(self, *groups: Group) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and unbiased std (C,) of the posterior means of these groups, float32.

        Without groups, of those that normalise latents: `mean` and `std` of statistics.safetensors.

        Raises:
            UsageProblem: there is no such group.
        """
        known = self.groups()
        if unknown := [group for group in groups if group not in known]:
            listed = ", ".join(map(_group_text, known)) or "none"
            raise UsageProblem(
                f"{_group_text(unknown[0])}: {self.folder} has no such rows, expected some of (dataset, "
                f"split, kind) {listed} — name one of these"
            )
        chosen = {group: known[group] for group in groups} if groups else normalising(known)[1]
        mean, std = total(chosen, self._shapes["latent_mean"][1]).of_means()
        return torch.from_numpy(mean).float(), torch.from_numpy(std).float()

    def allocate(self, num_rows: int) -> Batch:
        """Buffers for batches of up to so many rows, pinned where there is a GPU; see `batch`."""
        buffers: Batch = {
            name: torch.empty((num_rows, *shape), dtype=torch.bfloat16, pin_memory=self._pinned)
            for name, shape in self._shapes.items()
        }
        buffers["has_video"] = torch.empty(num_rows, dtype=torch.bool, pin_memory=self._pinned)
        return buffers

    def __getitem__(self, row: int) -> Batch:
        """Row i of index.parquet, without a batch dimension."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row}, expected {-len(self)} to {len(self) - 1}")
        batch = self.batch([row % len(self)])
        return {name: values[0] for name, values in batch.items()}

    def batch(
        self,
        rows: Rows,
        out: Batch | None = None,
        *,
        names: bool = True,
        text: Rows | None = None,
    ) -> Batch:
        """Rows of index.parquet, in the order given.

        Args:
            rows: their numbers, repeated ones too.
            out: an earlier batch, or what `allocate` gave, whose memory is used again; of as many rows
                or more.
            names: whether dataset, clip_id and caption are wanted too, as lists.
            text: the text row of each; None: of its first caption.

        Returns:
            latent_mean, latent_std (B, N, C), clip (B, T, 1024), sync (B, T, 768), text (B, 77, 1024) in
            bf16, zeros where there is no picture; has_video (B,) bool.

        Raises:
            IndexError: there is no such row.
        """
        chosen = _numbers(rows, len(self), "row")
        texts = (
            self._places.first_text[chosen]
            if text is None
            else _numbers(text, self.num_texts, "text row")
        )
        if len(texts) != len(chosen):
            raise IndexError(f"{len(texts)} text rows for {len(chosen)} rows, expected one for each")
        buffers = self.allocate(len(chosen)) if out is None else out
        if len(buffers["has_video"]) < len(chosen):
            raise IndexError(
                f"{len(chosen)} rows, expected at most the {len(buffers['has_video'])} of `out`"
            )
        batch = {name: buffers[name][: len(chosen)] for name in (*self._shapes, "has_video")}
        video = self._places.has_video[chosen]
        batch["has_video"].copy_(torch.from_numpy(video))
        files, places = self._places.file[chosen], self._places.row[chosen]
        seen = np.where(video, files, ZEROS), np.where(video, places, 0)
        where = {
            "clip": seen,
            "sync": seen,
            "text": (self._places.text_file[texts], self._places.text_row[texts]),
        }
        if len(chosen):
            self._gather.fill(
                [
                    self._wanted(name, where.get(name, (files, places)), batch[name])
                    for name in self._shapes
                ]
            )
        if names:
            batch |= self._names(chosen, texts)
        return batch

    def _wanted(self, name: str, where: tuple[Numbers, Numbers], target: torch.Tensor) -> Wanted:
        files, places = where
        words = self._row_bytes(name) // WORD_BYTES
        offsets = self._begins[name][files] + places * words
        return Wanted(files, offsets, target.view(torch.int64).view(len(target), words))

    def _names(self, rows: Numbers, texts: Numbers) -> Batch:
        named = self.index.select(["dataset", "clip_id"]).take(pa.array(rows))
        captions = self.captions.column("caption").take(pa.array(texts))
        return {**named.to_pydict(), "caption": captions.to_pylist()}

    def close(self) -> None:
        """Give files and maps back; batches stay."""
        self._gather.close()

    def leave(self, error: BaseException | None) -> None:
        """Close it."""
        self.close()


def _begin(header: Header, name: str) -> int:
    column = header.columns.get(name)
    return 0 if column is None else column.offset_bytes // WORD_BYTES


def _numbers(rows: Rows, count: int, what: str) -> Numbers:
    """Row numbers as int64, each of them below `count`."""
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise IndexError(
            f"{what}s of shape {numbers.shape} and {numbers.dtype}, expected a list of integers"
        )
    numbers = numbers.astype(np.int64)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        wrong = int(numbers[(numbers < 0) | (numbers >= count)][0])
        raise IndexError(f"{what} {wrong}, expected 0 to {count - 1}")
    return numbers


def _group_text(group: Group) -> str:
    return f"({', '.join(map(str, group))})"
