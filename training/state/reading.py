"""A checkpoint on the disk: what is in it, whether it is whole, and its tensors for any number of ranks.

    step-00010000/
      checkpoint.json        format, step, about, files with bytes and sha256, tensors with whole shapes
      rank-0.safetensors …   pieces, of one rank each

See `rank_file` for these, and `folders` for where it lies.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.errors import BadWeights
from curation.files import digest_of, sha256_file
from training.state.about import About
from training.state.pieces import Piece, Shape, covers, rows_of
from training.state.rank_file import read_header, type_name
from training.state.rows import THREADS, Kept, Part, Reading, existing, wrong

FORMAT = "foleyproof-checkpoint/1"
RECORD = "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A checkpoint whose files are there, with the sizes they were written with.

    Attributes:
        files: sha256 of each.
        tensors: by name; see `pieces` for names.
    """

    folder: Path
    step: int
    about: About
    files: Mapping[str, str]
    tensors: Mapping[str, Kept]

    def verify(self) -> None:
        """Read all bytes; raises ManifestChanged where they are not those that were written."""
        with ThreadPoolExecutor(THREADS) as threads:
            found = threads.map(lambda name: _digest(self.folder / name), self.files)
            for (name, expected), digest in zip(self.files.items(), found, strict=True):
                if digest != expected:
                    raise wrong(
                        self.folder / name, f"its sha256 is {digest[:12]}…, not {expected[:12]}…"
                    )

    def begins(self, prefix: str) -> dict[str, str]:
        """The tensors whose names begin so: names without it, with the names here."""
        return {name.removeprefix(prefix): name for name in self.tensors if name.startswith(prefix)}

    def read(self, wanted: Mapping[str, slice | None]) -> dict[str, Tensor]:
        """Tensors by name on the CPU: the rows of each, or None for all.

        Raises:
            BadWeights: it holds no such tensor.
            ManifestChanged: a file is shorter than it was.
        """
        pieces = [self._empty(name, rows) for name, rows in wanted.items()]
        self.read_into(pieces)
        return {piece.name: piece.tensor for piece in pieces}

    def read_into(self, pieces: Iterable[Piece]) -> None:
        """Fill tensors, on any device, with the rows that they are of.

        Raises:
            BadWeights: it holds no such tensor, or one of another shape or type.
            ManifestChanged: a file is shorter than it was.
        """
        given = list(pieces)
        for piece in given:
            self._refuse_misfit(piece)
        with Reading() as reading:
            for piece in given:
                reading.fill(piece, self.tensors[piece.name])

    def _empty(self, name: str, rows: slice | None) -> Piece:
        kept = self._kept(name)
        if rows is None:
            first, shape = 0, kept.shape
        else:
            first, end, step = rows.indices(rows_of(kept.shape))
            assert step == 1, f"{name}: rows {rows}, expected all between two"
            assert kept.shape, f"{name}: rows {rows} of a scalar, expected None"
            shape = (max(end - first, 0), *kept.shape[1:])
        return Piece(
            name=name, tensor=torch.empty(shape, dtype=kept.dtype), shape=kept.shape, offset=first
        )

    def _kept(self, name: str) -> Kept:
        if name not in self.tensors:
            raise BadWeights(
                f"{self.folder}: holds no tensor {name} among {len(self.tensors):,}, expected the state "
                "of the same network and settings — give the --run of this network, or another one"
            )
        return self.tensors[name]

    def _refuse_misfit(self, piece: Piece) -> None:
        kept = self._kept(piece.name)
        if (kept.shape, kept.dtype) != (piece.shape, piece.tensor.dtype):
            raise BadWeights(
                f"{self.folder}: {piece.name} is {type_name(kept.dtype)} {kept.shape}, expected "
                f"{type_name(piece.tensor.dtype)} {piece.shape} — give the --run of this network, or "
                "another one"
            )


def opened(folder: Path) -> Stored:
    """The checkpoint in a folder; its bytes were not read, see `Stored.verify`.

    Raises:
        ManifestChanged: it is not whole: a file is missing or of another size, or not what was written.
    """
    record = folder / RECORD
    document = _record(record)
    try:
        about = About.of_document(document["about"])
        files = {
            str(name): (facts["bytes"], facts["sha256"]) for name, facts in document["files"].items()
        }
        shapes = {
            name: (facts["dtype"], tuple(facts["shape"])) for name, facts in document["tensors"].items()
        }
        step = int(document["step"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong(record, f"lacks what it should say ({type(error).__name__}: {error})") from error
    for name, (size, _) in files.items():
        _refuse_size(folder / name, size)
    parts: dict[str, list[Part]] = {name: [] for name in shapes}
    for name in files:
        for entry in read_header(folder / name):
            parts.setdefault(entry.name, []).append(Part(folder / name, entry))
    return Stored(
        folder=folder, step=step, about=about, files={name: sha for name, (_, sha) in files.items()},
        tensors={name: _kept(record, name, shapes.get(name), found) for name, found in parts.items()},
    )  # fmt: skip


def _record(path: Path) -> dict[str, Any]:
    """checkpoint.json, if it is what was written."""
    with existing(path):
        content = path.read_bytes()
    try:
        document = json.loads(content)
        if document["format"] != FORMAT:
            raise wrong(path, f"its format is {document['format']!r}, not {FORMAT}")
        if document["digest"] != digest_of(document):
            raise wrong(path, "its digest is not that of its content")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise wrong(path, f"is not readable ({type(error).__name__}: {error})") from error
    return dict(document)


def _kept(record: Path, name: str, said: tuple[str, Shape] | None, parts: list[Part]) -> Kept:
    """A tensor by its parts, which must agree with the record and be all of it."""
    rows = [(part.entry.offset, rows_of(part.entry.shape)) for part in parts]
    kinds = {(type_name(part.entry.dtype), part.entry.whole) for part in parts}
    if said is None or kinds != {said} or not covers(rows, rows_of(said[1])):
        raise wrong(record, f"says {said} of {name}, the files hold {sorted(kinds)} in rows {rows}")
    ordered = sorted(parts, key=lambda part: part.entry.offset)
    return Kept(dtype=parts[0].entry.dtype, shape=said[1], parts=tuple(ordered))


def _refuse_size(path: Path, size: int) -> None:
    with existing(path):
        found = path.stat().st_size
    if found != size:
        raise wrong(path, f"has {found:,} bytes, not the {size:,} that were written")


def _digest(path: Path) -> str:
    with existing(path):
        return sha256_file(path)
