"""The file that a rank writes: its pieces, one after another, as safetensors.

    8 bytes   length of the header
    header    JSON: each piece by its name, with its own shape and place, and ONE metadata key, whose
              value says where pieces of larger tensors belong; blanks up to a multiple of 64 bytes
    data      pieces without holes; those of wide numbers first, so that each begins at a multiple of
              the size of its numbers

Equal pieces give equal bytes.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curation.errors import ManifestChanged
from curation.files import canonical_json
from training.state.pieces import Piece, Shape

METADATA_KEY = "foleyproof"
_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 64  # of the first piece
_MAX_HEADER_BYTES = 64 << 20
# Source: safetensors 0.8, `safetensors/torch.py`
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A piece in a file.

    Attributes:
        shape: its own.
        whole: that of the tensor it is of.
        offset: its first row in that tensor.
        begin_bytes: where it begins; in a file that is to be written, among the data.
    """

    name: str
    dtype: torch.dtype
    shape: Shape
    whole: Shape
    offset: int
    begin_bytes: int

    @property
    def num_bytes(self) -> int:
        """Of all its values."""
        return math.prod(self.shape) * self.dtype.itemsize


def laid_out(pieces: Iterable[Piece]) -> list[tuple[Entry, Piece]]:
    """Pieces with their places, in the order of the file; those that hold nothing are left out."""
    given = [piece for piece in pieces if not piece.is_nothing]
    given.sort(key=lambda piece: (-piece.tensor.dtype.itemsize, piece.name))
    found, end = [], 0
    for piece in given:
        tensor = piece.tensor
        assert tensor.dtype in _NAMES, f"{piece.name}: {tensor.dtype} has no name in safetensors"
        entry = Entry(
            name=piece.name, dtype=tensor.dtype, shape=tuple(tensor.shape), whole=piece.shape,
            offset=piece.offset, begin_bytes=end,
        )  # fmt: skip
        found.append((entry, piece))
        end += entry.num_bytes
    names = {entry.name for entry, _ in found}
    assert len(names) == len(found), "two pieces of one name, expected one of each tensor from a rank"
    return found


def type_name(dtype: torch.dtype) -> str:
    """As files name it."""
    return _NAMES[dtype]


def encode_header(entries: Iterable[Entry]) -> bytes:
    """All that stands before the data."""
    listed = list(entries)
    parts = {e.name: [e.offset, *e.whole] for e in listed if e.shape != e.whole}
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: canonical_json({"parts": parts})}}
    for entry in listed:
        begin = entry.begin_bytes
        header[entry.name] = {
            "dtype": _NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, begin + entry.num_bytes],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def read_header(path: Path) -> list[Entry]:
    """The pieces of a file, by name; their places are those in the file.

    Raises:
        ManifestChanged: it is missing, or was not written by a rank.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            text = stream.read(length) if length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise _unreadable(path, f"cannot be read ({error.strerror})") from error
    try:
        header = json.loads(text)
        parts = json.loads(header.pop("__metadata__")[METADATA_KEY])["parts"]
        begin = _LENGTH_BYTES + length
        return [_entry(name, facts, parts.get(name), begin) for name, facts in header.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"has no readable header ({type(error).__name__}: {error})") from error


def _entry(name: str, facts: Any, part: list[int] | None, data_begin: int) -> Entry:
    shape = tuple(map(int, facts["shape"]))
    entry = Entry(
        name=name, dtype=_TYPES[facts["dtype"]], shape=shape,
        whole=shape if part is None else tuple(part[1:]), offset=0 if part is None else part[0],
        begin_bytes=data_begin + facts["data_offsets"][0],
    )  # fmt: skip
    if facts["data_offsets"][1] - facts["data_offsets"][0] != entry.num_bytes:
        raise ValueError(f"{name} is {shape} at {facts['data_offsets']}")
    return entry


def _unreadable(path: Path, what: str) -> ManifestChanged:
    return ManifestChanged(
        f"{path}: {what}, expected what a rank wrote — its checkpoint is damaged: remove its folder to "
        "go on from the one before"
    )
