"""Folders of memory-mapped tensors as TensorDict writes them: read, and copied without some rows.

`meta.json` names the tensors with dtype and shape; `<tensor>.memmap` has the rows one after another.
"""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from curation.errors import BadMetadata, UsageProblem
from curation.files import replacing_folder

META = "meta.json"
_CHUNK_BYTES = 8 << 20
_ITEM_BYTES = {
    "torch.float64": 8, "torch.float32": 4, "torch.float16": 2, "torch.bfloat16": 2,
    "torch.int64": 8, "torch.int32": 4, "torch.int16": 2, "torch.int8": 1, "torch.uint8": 1,
    "torch.bool": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One memory-mapped tensor: its rows lie one after another."""

    name: str
    path: Path
    row_bytes: int


def read_meta(folder: Path, rows: int, tsv: str) -> tuple[list[Tensor], dict[str, Any]]:
    """The tensors of a memmap folder, all of `rows` rows, and what its meta.json says.

    Args:
        tsv: the name of the file with the rows' ids.

    Raises:
        BadMetadata: the folder is not what TensorDict writes, or has other rows.
    """

    def fail(what: str, expected: str) -> BadMetadata:
        return BadMetadata(
            f"{folder}: {what}, expected {expected} — give the folder that was written with {tsv}"
        )

    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise fail(f"{META} cannot be read ({error})", "the JSON that TensorDict writes") from error
    if not isinstance(meta, dict):
        raise fail(f"{META} is no object", "the JSON that TensorDict writes")
    tensors = []
    for name, entry in meta.items():
        if not isinstance(entry, dict):
            continue  # of the folder as a whole: shape, device, version
        shape, kind = entry.get("shape"), entry.get("dtype")
        if Path(name).name != name or kind not in _ITEM_BYTES or not _is_shape(shape):
            raise fail(f"{name!r} has dtype {kind!r} and shape {shape!r}", "tensors of numbers")
        if not shape or shape[0] != rows:
            raise fail(f"{name} has shape {shape}", f"{rows:,} rows, as many as {tsv}")
        row_bytes = math.prod(shape[1:]) * _ITEM_BYTES[kind]
        path = folder / f"{name}.memmap"
        size = path.stat().st_size if path.is_file() else -1
        if size != rows * row_bytes:
            found = "is missing" if size < 0 else f"has {size:,} bytes"
            raise fail(f"{path.name} {found}", f"{rows * row_bytes:,} bytes, {rows:,} rows")
        tensors.append(Tensor(name=name, path=path, row_bytes=row_bytes))
    if not tensors:
        raise fail(f"{META} names no tensor", "at least one")
    strange = {path.name for path in folder.iterdir()} - {META, *(t.path.name for t in tensors)}
    if strange:
        raise fail(f"also holds {min(strange)}", f"{META} and the tensors it names, nothing else")
    return tensors, meta


def check_replaceable(folder: Path) -> None:
    """Raise UsageProblem where a folder is there that holds more than such a copy."""
    if not folder.is_dir():
        return
    strange = [p.name for p in folder.iterdir() if p.name != META and p.suffix != ".memmap"]
    if strange:
        raise UsageProblem(
            f"{folder}: is there and holds {min(strange)}, expected a new folder or an earlier copy, "
            f"{META} and *.memmap alone — give another --extracted-out"
        )


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)


def write_rows(
    tensors: list[Tensor],
    meta: dict[str, Any],
    mask: Any,
    target_folder: Path,
    progress: Callable[[str, int, int | None], Any],
) -> None:
    """Write the kept rows of every tensor, streamed, and meta.json with their number."""
    kept = int(mask.sum())
    with replacing_folder(target_folder) as folder:
        for tensor in tensors:
            total, done = kept * tensor.row_bytes, 0
            with tensor.path.open("rb") as source, (folder / tensor.path.name).open("wb") as target:
                for first, end in _runs(mask):
                    source.seek(first * tensor.row_bytes)
                    for size in _chunks((end - first) * tensor.row_bytes):
                        part = source.read(size)
                        if len(part) != size:
                            raise BadMetadata(
                                f"{tensor.path}: ended early, expected the bytes it had before — it was "
                                "changed while it was read; run again"
                            )
                        target.write(part)
                        done += size
                        progress(f"{target_folder.name}/{tensor.path.name}", done, total)
        text = json.dumps(_with_rows(meta, len(mask), kept, tensors), ensure_ascii=False)
        (folder / META).write_text(text, encoding="utf-8")


def _runs(mask: Any) -> Iterator[tuple[int, int]]:
    """The stretches of kept rows, half open."""
    position = 0
    for kept, group in groupby(mask.tolist()):
        length = sum(1 for _ in group)
        if kept:
            yield position, position + length
        position += length


def _chunks(total: int) -> Iterator[int]:
    for start in range(0, total, _CHUNK_BYTES):
        yield min(_CHUNK_BYTES, total - start)


def _with_rows(meta: dict[str, Any], former: int, kept: int, tensors: list[Tensor]) -> dict[str, Any]:
    """`meta` for another number of rows; what we do not know stays as it is."""
    changed = dict(meta)
    for tensor in tensors:
        entry = meta[tensor.name]
        changed[tensor.name] = {**entry, "shape": [kept, *entry["shape"][1:]]}
    batch = meta.get("shape")
    if isinstance(batch, list) and batch and batch[0] == former:
        changed["shape"] = [kept, *batch[1:]]
    return changed
