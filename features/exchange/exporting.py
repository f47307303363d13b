"""Shards as folders of memory-mapped fp32 tensors with their TSVs: for MMAudio and its descendants.

A folder for each split of each dataset and kind of row: `<dataset>-<split>` with pictures, and
`<dataset>-<split>-audio` without. bf16 becomes fp32 exactly; a row has its first caption.

Shape suffixes: B rows.
"""

import contextlib
import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from curation.errors import BadManifest, ConfigDiffers, NoSpace, UsageProblem
from curation.files import (
    canonical_json,
    disk_space,
    free_bytes,
    replacing,
    replacing_folder,
    write_json,
)
from curation.tables import size_text
from features.exchange.memmap import META, TENSORS, meta_json
from features.exchange.tsv import write_tsv
from features.shards import ShardReader
from features.store import index
from features.store.seal import Report, alone
from features.store.shard_file import Kind

EXPORT_FILE = "export.json"  # which shards the folders beside it were made from
_ROWS_AT_ONCE = 64
_FP32_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One folder that is written."""

    name: str
    kind: Kind
    rows: npt.NDArray[np.int64]  # of the index, in its order
    ids: list[str]


def export_memmap(
    out: Path,
    target: Path,
    *,
    dataset: str | None = None,
    split: str | None = None,
    report: Report = lambda label, done, total: None,
) -> dict[str, int]:
    """Write the rows of sealed shards, or of one dataset or split; the rows of each folder by name.

    What an earlier run made whole of the same shards stays as it is.

    Raises:
        UsageProblem: no row is of that dataset and split.
        ConfigDiffers: `target` holds what was made from other shards; nothing is written.
        BadManifest: what an export wrote there of itself is damaged.
        NoSpace: the disk has no room for all; nothing is half written.
    """
    with disk_space(target):
        target.mkdir(parents=True, exist_ok=True)
    _refuse_strangers(out, target)
    with ShardReader(out) as reader, alone(target, option="--to"):
        sets = _sets(reader.index, dataset, split)
        if not sets:
            raise UsageProblem(
                f"{out}: has no rows of dataset {dataset or 'any'} and split {split or 'any'}, "
                f"expected some — see: features info {shlex.quote(str(out))}"
            )
        parts = {one.name: len(one.rows) for one in sets}
        total = sum(len(one.rows) for one in sets)
        assert sum(parts.values()) == total, f"{parts}, expected {total} rows: folders share a name"
        record, digest = _begun(out, reader.sealed, target, sets), reader.sealed["digest"]
        left = [one for one in sets if record["sets"].get(one.name) != _noted(target, one, digest)]
        _check_room(reader, left, target)
        done = total - sum(len(one.rows) for one in left)
        write_json(target / EXPORT_FILE, record)
        for one in left:
            for written in _write(reader, one, target):
                report(one.name, done + written, total)
            done += len(one.rows)
            record["sets"][one.name] = _noted(target, one, digest)
            write_json(target / EXPORT_FILE, record)
    return parts


def _refuse_strangers(out: Path, target: Path) -> None:
    """Raise ConfigDiffers where a folder that no export made holds something; nothing is left there."""
    there = sorted(path.name for path in target.iterdir() if not path.name.startswith("."))
    if there and EXPORT_FILE not in there:
        raise ConfigDiffers(
            f"{target}: holds {', '.join(there[:3])}, which no export there tells of, expected an empty "
            f"folder or an export of {out} — give another --to"
        )


def _begun(out: Path, sealed: dict[str, Any], target: Path, sets: list[Exported]) -> dict[str, Any]:
    """What export.json says: which shards a folder is made from, and which sets are whole in it.

    Raises:
        ConfigDiffers: from others, which would be mixed.
    """
    about = sealed["about"]
    source = {
        "sample_rate_hz": about["sample_rate_hz"],
        "duration_s": about["duration_s"],
        "index": sealed["tables"][index.INDEX_FILE]["sha256"],
        "captions": sealed["tables"][index.CAPTIONS_FILE]["sha256"],
    }
    former = _read_former(target / EXPORT_FILE)
    known = former.get("sets", {})
    unknown = [one.name for one in sets if one.name not in known]
    names = [name for one in unknown for name in (one, f"{one}.tsv")]
    differing = [f"{key} {former.get(key)}" for key in source if former.get(key) != source[key]]
    if former and differing:
        found = f"was exported from other shards ({', '.join(differing)})"
    elif there := [name for name in names if (target / name).exists()]:
        found = f"holds {', '.join(there[:3])}, which no export there tells of"
    else:
        return {**source, "sets": {**dict.fromkeys(unknown), **known}}
    raise ConfigDiffers(
        f"{target}: {found}, expected an empty folder or an export of {out} ({source['sample_rate_hz']} "
        f"Hz, {source['duration_s']:g} s, index {source['index'][:12]}) — give another --to"
    )


def _read_former(path: Path) -> dict[str, Any]:
    """What an export wrote of its shards, and of each set it has or will have; empty: nothing.

    Raises:
        BadManifest: the file is damaged.
    """
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(former["sets"], dict):
            raise TypeError(f"sets are {former['sets']!r}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadManifest(
            f"{path}: cannot be read ({type(error).__name__}: {error}), expected what an export wrote — "
            "remove it and what was exported beside it, or give another --to"
        ) from error
    return dict(former)


def _noted(target: Path, one: Exported, digest: str) -> dict[str, Any]:
    """What export.json says of a set that is whole: rows, the digest of its shards, and sizes."""
    paths = [*sorted((target / one.name).glob("*")), target / f"{one.name}.tsv"]
    sizes = {
        path.relative_to(target).as_posix(): path.stat().st_size for path in paths if path.is_file()
    }
    return {"rows": len(one.rows), "shards": digest, "bytes": sizes}


def _sets(table: pa.Table, dataset: str | None, split: str | None) -> list[Exported]:
    """The folders, by name, with their rows; what is left out changes no name."""
    keys = table.select(["dataset", "split", "has_video"]).append_column(
        "place", pa.array(np.arange(table.num_rows))
    )
    groups = keys.group_by(["dataset", "split", "has_video"]).aggregate([("place", "list")]).to_pylist()
    names = _folders([(group["dataset"], group["split"], group["has_video"]) for group in groups])
    sets = []
    for name, group in zip(names, groups, strict=True):
        if dataset not in (None, group["dataset"]) or split not in (None, group["split"]):
            continue
        rows = np.sort(np.array(group["place_list"], np.int64))
        kind: Kind = "av" if group["has_video"] else "audio"
        sets.append(Exported(name=name, kind=kind, rows=rows, ids=_ids(table, rows, name)))
    return sorted(sets, key=lambda one: one.name)


def _folders(keys: Sequence[tuple[str, str, bool]]) -> list[str]:
    """A name for each (dataset, split, with pictures); with a digest where several would have one."""
    plain = ["-".join(filter(None, (*key[:2], "" if key[2] else "audio"))) for key in keys]
    taken = Counter([EXPORT_FILE, *plain, *(f"{name}.tsv" for name in plain)])
    return [
        _safe(name, of=key if max(taken[name], taken[f"{name}.tsv"]) > 1 else None)
        for name, key in zip(plain, keys, strict=True)
    ]


def _safe(name: str, of: tuple[str, str, bool] | None) -> str:
    """A name of a folder: names of datasets are somebody else's; `of`: what it alone does not tell."""
    if of is None and re.fullmatch(r"(?!.*\.tmp-)[A-Za-z0-9_][A-Za-z0-9_.@-]*", name):
        return name
    whole = name if of is None else canonical_json(of)
    return re.sub(r"[^A-Za-z0-9_-]", "_", name) + "-" + hashlib.sha256(whole.encode()).hexdigest()[:8]


def _ids(table: pa.Table, rows: npt.NDArray[np.int64], name: str) -> list[str]:
    """The ids of a TSV: those of the clips; with the part, `{id}_{part}`, where one has several."""
    chosen = table.select(["clip_id", "part"]).take(pa.array(rows))
    clips, parts = chosen.column("clip_id").to_pylist(), chosen.column("part").to_pylist()
    ids = [f"{clip}_{part}" for clip, part in zip(clips, parts, strict=True)] if any(parts) else clips
    assert len(set(ids)) == len(ids), f"{name}: ids repeat, although (clip_id, part) is a key"
    return ids


def _names(kind: Kind) -> dict[str, str]:
    """The column of each tensor that a folder of this kind has."""
    left_out = () if kind == "av" else ("clip", "sync")
    return {key: column for key, column in TENSORS.items() if column not in left_out}


def _check_room(reader: ShardReader, sets: list[Exported], target: Path) -> None:
    buffers = reader.allocate(1)
    needed = sum(
        len(one.rows)
        * sum(buffers[column].numel() for column in _names(one.kind).values())
        * _FP32_BYTES
        for one in sets
    )
    free = free_bytes(target)
    if needed > free:
        raise NoSpace(
            f"{target}: {size_text(free)} are free, expected the {size_text(needed)} that fp32 "
            "takes — free some space, or export one --dataset or --split at a time"
        )


def _write(reader: ShardReader, one: Exported, target: Path) -> Iterator[int]:
    """Write one folder and its TSV, a batch at a time; yields how many rows are written."""
    names = _names(one.kind)
    buffers = reader.allocate(min(_ROWS_AT_ONCE, len(one.rows)))
    captions: list[str] = []
    with replacing_folder(target / one.name) as folder:
        with contextlib.ExitStack() as opened:
            files: dict[str, Any] = {
                key: opened.enter_context((folder / f"{key}.memmap").open("wb")) for key in names
            }
            for begin in range(0, len(one.rows), _ROWS_AT_ONCE):
                rows = one.rows[begin : begin + _ROWS_AT_ONCE]
                batch = reader.batch(rows, out=buffers)
                captions += batch["caption"]
                for key, column in names.items():
                    files[key].write(batch[column].to(torch.float32).numpy().data)
                yield begin + len(rows)
        shapes = {key: (len(one.rows), *buffers[column].shape[1:]) for key, column in names.items()}
        (folder / META).write_text(meta_json(shapes), encoding="utf-8")
    with replacing(target / f"{one.name}.tsv") as temporary:
        header = ("id", "label" if one.kind == "av" else "caption")
        write_tsv(temporary, header, list(zip(one.ids, captions, strict=True)))
