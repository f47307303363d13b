"""Folders of memory-mapped tensors with the TSV of their rows: MMAudio@974010a trains on them.

    <name>.tsv            `id` and `caption` (`label` for videos), a line for each row
    <name>/meta.json      dtype and shape of each tensor, as TensorDict writes it
    <name>/<key>.memmap   mean, std, text_features; with pictures also clip_features, sync_features

Rows and lines belong together by their position alone, so their numbers are checked against each other.

Shape suffixes: B rows.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curation.errors import BadMetadata, UsageProblem
from curation.files import digest_of, disk_space, sha256_file
from features.exchange.tsv import read_tsv
from features.spec import SAMPLE_RATES_HZ, TEXT_TOKENS, TEXT_WIDTH, SequenceSpec, audio_spec
from features.store.shard_file import Kind, columns_of
from features.weights.checkpoint_files import read_tensors

META = "meta.json"
# the column of a shard for each tensor
TENSORS = {
    "mean": "latent_mean",
    "std": "latent_std",
    "clip_features": "clip",
    "sync_features": "sync",
    "text_features": "text",
}
_KEYS = {column: key for key, column in TENSORS.items()}
_DTYPES = {
    "torch.float32": torch.float32,
    "torch.float16": torch.float16,
    "torch.bfloat16": torch.bfloat16,
}
_TOGETHER = "give the folder and the TSV that were written together"
_SAMPLED_ROWS = 64  # of each tensor, for the digest of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class MemmapTensor:
    """One tensor of a folder."""

    path: Path
    shape: tuple[int, ...]  # with the rows
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        """Of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, begin: int, end: int) -> torch.Tensor:
        """Rows [begin, end), with the dtype of the file; nothing stays mapped."""
        count = (end - begin) * self.row_bytes
        held = np.fromfile(self.path, np.uint8, count, offset=begin * self.row_bytes)
        if len(held) != count:
            raise BadMetadata(
                f"{self.path}: ended at row {begin} or after, expected {self.shape[0]} rows — it was "
                "changed while it was read; run again"
            )
        return torch.from_numpy(held).view(self.dtype).view(end - begin, *self.shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class MemmapSet:
    """A folder and its TSV."""

    folder: Path
    tsv: Path
    kind: Kind  # "av" or "audio"
    spec: SequenceSpec
    tensors: dict[str, MemmapTensor]  # by column of a shard
    ids: list[str]
    captions: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Of the TSV, of what meta.json says and of rows spread over each tensor.

        Not of all bytes: hundreds of gigabytes would be read twice. It tells folders apart; whether one
        was damaged, nobody can say, as it has no checksums.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, _SAMPLED_ROWS).astype(int)).tolist()
        held = {
            name: [_crc32(tensor.read(row, row + 1)) for row in rows]
            for name, tensor in self.tensors.items()
        }
        shapes = {name: [*tensor.shape, str(tensor.dtype)] for name, tensor in self.tensors.items()}
        return digest_of({"tsv": sha256_file(self.tsv), "shapes": shapes, "rows": held})


def _crc32(values: torch.Tensor) -> int:
    return zlib.crc32(values.view(torch.uint8).numpy().tobytes())


def open_memmap(folder: Path, tsv: Path, *, duration_s: float) -> MemmapSet:
    """A folder of tensors with its rows' ids and captions.

    Raises:
        UsageProblem: there is no such folder or TSV.
        BadMetadata: tensors and TSV have different numbers of rows, or none; a shape is none of the
            model's, a file is missing or of another size, or an id stands twice.
    """
    _refuse_absent(folder, tsv)
    tensors = _tensors(folder)
    ids, captions = read_tsv(tsv)
    if not ids:
        raise _wrong(folder, f"{tsv.name} has no rows", "a line for each row of the tensors")
    kind: Kind = "av" if "clip" in tensors else "audio"
    channels = tensors["latent_mean"].shape[-1]
    rates = [rate for rate in SAMPLE_RATES_HZ if audio_spec(rate).latent_channels == channels]
    if not rates:
        raise _wrong(folder, f"mean has {channels} channels", "20 (16 kHz) or 40 (44.1 kHz)")
    spec = SequenceSpec(sample_rate_hz=rates[0], duration_s=duration_s)
    expected = {**columns_of(kind, spec), **columns_of("text", spec)}
    if missing := sorted(_KEYS[name] for name in expected.keys() ^ tensors.keys()):
        raise _wrong(folder, f"{', '.join(missing)} is missing or alone", "all tensors of its kind")
    for name, tensor in tensors.items():
        if tensor.shape != (len(ids), *expected[name]):
            raise _wrong(
                folder,
                f"{tensor.path.stem} has shape {list(tensor.shape)}",
                f"{[len(ids), *expected[name]]}: the rows of {tsv.name}, {duration_s:g} s each",
                _remedy(tensor.shape, (len(ids), *expected[name])),
            )
    return MemmapSet(
        folder=folder, tsv=tsv, kind=kind, spec=spec, tensors=tensors, ids=ids, captions=captions
    )


def _refuse_absent(folder: Path, tsv: Path) -> None:
    """Raise UsageProblem where there is no folder of tensors, or no TSV of it."""
    if not (folder / META).is_file():
        what = "holds no meta.json" if folder.is_dir() else "there is no such folder"
        raise UsageProblem(
            f"{folder}: {what}, expected a TensorDict memmap folder — give the folder that holds "
            f"{META} and the .memmap files"
        )
    if not tsv.is_file():
        raise UsageProblem(
            f"{tsv}: there is no such file, expected the TSV with the ids of the rows of {folder} — "
            "give it with --tsv"
        )


def _remedy(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What to do about a tensor of a wrong shape: where only its length is another one, say which."""
    if len(shape) == len(expected) and (shape[0], *shape[2:]) == (expected[0], *expected[2:]):
        return "give the length of the clips with --duration SECONDS"
    return _TOGETHER


def _wrong(folder: Path, what: str, expected: str, remedy: str = _TOGETHER) -> BadMetadata:
    return BadMetadata(f"{folder}: {what}, expected {expected} — {remedy}")


def _tensors(folder: Path) -> dict[str, MemmapTensor]:
    """The tensors that meta.json names, with the files checked by their sizes."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        named = {key: (tuple(meta[key]["shape"]), meta[key]["dtype"]) for key in TENSORS if key in meta}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _wrong(folder, f"{META} cannot be read ({error!r})", "what TensorDict writes") from error
    tensors = {}
    for key, (shape, dtype) in named.items():
        path = folder / f"{key}.memmap"
        if str(dtype) not in _DTYPES or not shape or not all(isinstance(n, int) for n in shape):
            raise _wrong(folder, f"{key} is {dtype} {list(shape)}", f"one of {', '.join(_DTYPES)}")
        tensor = MemmapTensor(path=path, shape=shape, dtype=_DTYPES[dtype])
        size = path.stat().st_size if path.is_file() else None
        if size != shape[0] * tensor.row_bytes:
            found = "is missing" if size is None else f"has {size:,} bytes"
            raise _wrong(folder, f"{path.name} {found}", f"{shape[0] * tensor.row_bytes:,} bytes")
        tensors[TENSORS[key]] = tensor
    if "latent_mean" not in tensors:
        raise _wrong(folder, f"{META} names no tensor `mean`", f"some of {', '.join(TENSORS)}")
    return tensors


def meta_json(shapes: dict[str, tuple[int, ...]]) -> str:
    """The meta.json of float32 tensors, as TensorDict's `memmap_` writes it.

    Source: tensordict 0.15.3; the folders of MMAudio@974010a.
    """
    meta: dict[str, Any] = {
        name: {"device": "cpu", "shape": list(shape), "dtype": "torch.float32", "is_nested": False}
        for name, shape in shapes.items()
    }
    meta |= {
        "shape": [],
        "device": "cpu",
        "_type": "<class 'tensordict._td.TensorDict'>",
        "_format_version": 1,
        "_class": "tensordict:TensorDict",
    }
    return json.dumps(meta)


def read_empty_text(path: Path) -> torch.Tensor:
    """The text features (77, 1024) of the empty caption, from a checkpoint of one tensor.

    That of the release has a batch axis, (1, 77, 1024). Source: MMAudio's `empty_string.pth`@974010a.

    Raises:
        BadMetadata: there is no such file, or it holds something else.
        WrongWeights: truncated, damaged, no checkpoint at all; it asks to run code, or holds other
            things than tensors.
    """
    expected = f"expected one tensor of {TEXT_TOKENS} x {TEXT_WIDTH} — give empty_string.pth of MMAudio"
    try:
        with disk_space(path):
            tensors = list(read_tensors(path).values())
    except OSError as error:
        raise BadMetadata(f"{path}: cannot be read ({error.strerror}), {expected}") from error
    if len(tensors) != 1:
        raise BadMetadata(f"{path}: holds {len(tensors)} tensors, {expected}")
    (found,) = tensors
    shape = tuple(found.shape)
    if shape not in ((TEXT_TOKENS, TEXT_WIDTH), (1, TEXT_TOKENS, TEXT_WIDTH)):
        raise BadMetadata(f"{path}: is a tensor of shape {shape}, {expected}")
    text = found.reshape(TEXT_TOKENS, TEXT_WIDTH).to(torch.float32, copy=True)
    if not bool(text.isfinite().all()):
        raise BadMetadata(f"{path}: is not finite, {expected}")
    return text
