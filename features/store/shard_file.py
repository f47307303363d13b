"""One shard: a safetensors file of bf16 columns, a block each, and what it says about itself.

    8 bytes   length of the header
    header    JSON: the columns with shape and place, and ONE metadata key with canonical JSON, since the
              safetensors package writes several in random order; blanks up to a multiple of 64 bytes
    columns   one after another, each (rows, …), row after row; the format allows no holes between them,
              so that the first begins at a multiple of 64 bytes and every one at a multiple of 8

Nothing in it tells of time, place or machine: equal rows give equal bytes. A row's crc32 is that of its
bytes in all columns, one column after the other.

Shape suffixes: B rows, N latents, C channels, T pictures or tokens, D width.
"""

import json
import math
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from curation.closing import Closing
from curation.errors import ManifestChanged
from curation.files import canonical_json, replacing
from features.spec import CLIP_WIDTH, SYNC_WIDTH, TEXT_TOKENS, TEXT_WIDTH, SequenceSpec

FORMAT = "foleyproof-shards/1"
METADATA_KEY = "foleyproof"
SHARD_ROWS = 2048
DTYPE = "BF16"
ITEM_BYTES = 2
Kind = Literal["av", "audio", "text"]
KINDS: tuple[Kind, ...] = ("av", "audio", "text")
_ALIGNMENT_BYTES = 64  # of the first column; a multiple of 8, which other readers count on
_MAX_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8


def columns_of(kind: Kind, spec: SequenceSpec) -> dict[str, tuple[int, ...]]:
    """The columns of a shard and the shape of a row in each, in the order of the file."""
    if kind == "text":
        return {"text": (TEXT_TOKENS, TEXT_WIDTH)}
    latent_nc = (spec.num_latents, spec.audio.latent_channels)
    columns: dict[str, tuple[int, ...]] = {"latent_mean": latent_nc, "latent_std": latent_nc}
    if kind == "av":
        columns["clip"] = (spec.num_clip_frames, CLIP_WIDTH)
        columns["sync"] = (spec.num_sync_features, SYNC_WIDTH)
    return columns


def spec_of(about: Mapping[str, Any]) -> SequenceSpec:
    """The lengths that a shard's description asks for."""
    return SequenceSpec(sample_rate_hz=about["sample_rate_hz"], duration_s=about["duration_s"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A block of a shard: row i begins at `offset_bytes` + i * `row_bytes` of the file."""

    shape: tuple[int, ...]  # of a row
    offset_bytes: int

    @property
    def row_bytes(self) -> int:
        """Of a row in this column."""
        return math.prod(self.shape) * ITEM_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a shard says about itself."""

    kind: str
    rows: int
    columns: dict[str, Column]
    about: dict[str, Any]
    certificate: Any
    format: str
    file_bytes: int  # that a whole file has


def describe(kind: Kind, rows: int, about: Mapping[str, Any], certificate: Any) -> str:
    """The value of the one metadata key."""
    return canonical_json(
        {"format": FORMAT, "about": about, "certificate": certificate, "kind": kind, "rows": rows}
    )


def encode_header(columns: Mapping[str, tuple[int, ...]], rows: int, description: str) -> bytes:
    """All that stands before the first column."""
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: description}}
    end = 0
    for name, shape in columns.items():
        begin, end = end, end + rows * math.prod(shape) * ITEM_BYTES
        header[name] = {"dtype": DTYPE, "shape": [rows, *shape], "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_header(path: Path) -> Header:
    """What a shard says about itself; the file may still be shorter than `file_bytes`.

    Raises:
        ManifestChanged: it is missing, or no shard of this format version.
    """

    def wrong(what: str) -> ManifestChanged:
        return ManifestChanged(
            f"{path}: {what}, expected a shard of format {FORMAT} — remove the folder of its task and "
            "run extract again, or copy the file anew"
        )

    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            text = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise wrong(f"cannot be read ({error.strerror})") from error
    if len(text) != length or not length:
        raise wrong("ends within its header")
    try:
        entries = json.loads(text)
        document = json.loads(entries.pop("__metadata__")[METADATA_KEY])
        if document["format"] != FORMAT:
            raise wrong(f"its format is {document['format']!r}")
        columns, end = _columns(entries, document["rows"], _LENGTH_BYTES + length)
        return Header(columns=columns, file_bytes=end, **document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise wrong(f"its header is not readable ({type(error).__name__}: {error})") from error


def _columns(entries: Any, rows: int, data_begin: int) -> tuple[dict[str, Column], int]:
    """The columns by their place in the file, and where the last one ends."""
    columns, end = {}, 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (begin, after) = tuple(entry["shape"]), entry["data_offsets"]
        size = math.prod(shape) * ITEM_BYTES
        if entry["dtype"] != DTYPE or begin != end or after - begin != size or shape[:1] != (rows,):
            raise ValueError(f"column {name} is {entry['dtype']} {shape} at {begin}–{after}")  # noqa: RUF001
        columns[name] = Column(shape=shape[1:], offset_bytes=data_begin + begin)
        end = after
    return columns, data_begin + end


class _Written(Closing):
    """What is written at the end of a block, and not at all where that failed."""

    @abstractmethod
    def close(self) -> None:
        """Write what is in memory."""

    def leave(self, error: BaseException | None) -> None:
        """Write what is in memory, where all went well."""
        if error is None:
            self.close()


class ShardWriter(_Written):
    """Collects the rows of one shard in memory and writes the file at once, when closed.

    A shard without rows is no file.
    """

    def __init__(
        self,
        path: Path,
        kind: Kind,
        columns: Mapping[str, tuple[int, ...]],
        about: Mapping[str, Any],
        certificate: Any = None,
    ) -> None:
        self.path, self.rows = path, 0
        self._kind, self._columns = kind, dict(columns)
        self._about, self._certificate = about, certificate
        self._blocks: dict[str, list[np.ndarray]] = {name: [] for name in columns}

    def add(self, row: Mapping[str, torch.Tensor]) -> int:
        """Take one row, bf16 without a batch dimension; its crc32."""
        return self.add_batch({name: values[None] for name, values in row.items()})[0]

    def add_batch(self, batch: Mapping[str, torch.Tensor]) -> list[int]:
        """Take rows (B, …) in bf16, copied; their crc32s."""
        blocks = {name: self._block(name, batch) for name in self._columns}
        assert batch.keys() == blocks.keys(), f"{self.path}: given {set(batch)}, expected {set(blocks)}"
        (num_rows,) = {len(block) for block in blocks.values()}
        crcs = [0] * num_rows
        for name, block in blocks.items():
            self._blocks[name].append(block)
            crcs = [zlib.crc32(row, crc) for row, crc in zip(block, crcs, strict=True)]
        self.rows += num_rows
        return crcs

    def _block(self, name: str, batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        values, shape = batch[name], self._columns[name]
        assert values.dtype == torch.bfloat16, f"{name} is {values.dtype}, expected bfloat16"
        assert tuple(values.shape[1:]) == shape, (
            f"{name} is {tuple(values.shape)}, expected rows {shape}"
        )
        bits: np.ndarray = values.contiguous().view(torch.int16).numpy(force=True)
        return bits.reshape(len(bits), -1).copy()

    def close(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            NoSpace, NotWritable: nothing is half written.
        """
        if self.rows:
            description = describe(self._kind, self.rows, self._about, self._certificate)
            with replacing(self.path) as temporary, temporary.open("wb") as stream:
                stream.write(encode_header(self._columns, self.rows, description))
                for blocks in self._blocks.values():
                    for block in blocks:
                        stream.write(block.data)
        self._blocks = {name: [] for name in self._columns}


class ShardSeries(_Written):
    """The shards of one kind that a task writes: `av-0000.safetensors`, `av-0001.safetensors`, …"""

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        about: Mapping[str, Any],
        certificate: Any = None,
        *,
        shard_rows: int = SHARD_ROWS,
    ) -> None:
        self._folder, self._kind, self._shard_rows = folder, kind, shard_rows
        self._about, self._certificate = about, certificate
        self._writer: ShardWriter | None = None
        self.files: list[str] = []

    def add(self, row: Mapping[str, torch.Tensor]) -> tuple[str, int, int]:
        """Take one row, bf16; the name of its file, its row there and its crc32."""
        if self._writer is None or self._writer.rows >= self._shard_rows:
            self.close()
            self.files.append(f"{self._kind}-{len(self.files):04d}.safetensors")
            self._writer = ShardWriter(
                self._folder / self.files[-1],
                self._kind,
                columns_of(self._kind, spec_of(self._about)),
                self._about,
                self._certificate,
            )
        crc = self._writer.add(row)
        return self.files[-1], self._writer.rows - 1, crc

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
