"""Small sealed shards with known rows, as extraction writes them, for tests of what reads them."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from curation import tasks
from features.store import index
from features.store.seal import seal
from features.store.shard_file import FORMAT, ShardSeries, columns_of, spec_of
from features.store.statistics import Group, LatentSums

ABOUT: dict[str, Any] = {
    "sample_rate_hz": 16000,
    "duration_s": 1.0,  # 32 latents, 8 pictures, 16 features of synchronisation
    "encoders": {"vae": "sha256:11", "clip": "sha256:22", "synchformer": "sha256:33"},
    "preprocessing": {"version": "test/1"},
}
CERTIFICATE = "sha256:" + "c" * 64
Row = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class Planned:
    """A row that is to be written."""

    clip_id: str
    kind: str = "av"
    dataset: str = "tones"
    split: str = "train"
    part: int = 0
    captions: list[str] = field(default_factory=lambda: [""])


def values_of(planned: Planned, about: dict[str, Any] = ABOUT) -> Row:
    """The tensors of a row: its own, and the same each time."""
    seed = int.from_bytes(f"{planned.dataset}/{planned.clip_id}/{planned.part}".encode()) % 2**31
    return _random(columns_of(planned.kind, spec_of(about)), seed)  # type: ignore[arg-type]


def text_of(caption: str, about: dict[str, Any] = ABOUT) -> torch.Tensor:
    """The text features of a caption."""
    seed = int.from_bytes(f"text {caption}".encode()) % 2**31
    return _random(columns_of("text", spec_of(about)), seed)["text"]


def _random(columns: dict[str, tuple[int, ...]], seed: int) -> Row:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator).to(torch.bfloat16)
        for name, shape in columns.items()
    }


def some_rows(av: int = 5, audio: int = 4) -> list[Planned]:
    """Rows of two datasets, with shared and several captions, unsorted."""
    rows = [Planned(clip_id=f"v{i:03d}", captions=["a dog", f"take {i % 2}"]) for i in range(av)]
    rows += [
        Planned(clip_id=f"s{i // 2:03d}", kind="audio", dataset="rain", part=i % 2, captions=["a dog"])
        for i in range(audio)
    ]
    rows[0].captions = [""]
    return rows[::-1]


def write_tasks(
    out: Path,
    rows: Sequence[Planned],
    *,
    about: dict[str, Any] = ABOUT,
    certificate: Any = CERTIFICATE,
    shard_rows: int = 3,
    task_rows: int = 4,
    rejects: Sequence[dict[str, Any]] = (),
    change: Callable[[str, Any], None] = lambda what, value: None,
) -> None:
    """All that extraction leaves before it is sealed; `change` may spoil rows and captions."""
    captions = sorted({"", *(caption for row in rows for caption in row.captions)})
    parts = [rows[begin : begin + task_rows] for begin in range(0, len(rows), task_rows)]
    out.mkdir(parents=True)
    document = {
        "format": FORMAT,
        "about": about,
        "certificate": certificate,
        "tasks": {"clips": len(parts), "text": 2},
    }
    tasks.write_sealed(out / index.EXTRACT_FILE, document)

    def clips(task: tasks.Task, folder: Path) -> dict[str, Any]:
        sums, listed = LatentSums(), []
        series = {
            kind: ShardSeries(folder, kind, about, certificate, shard_rows=shard_rows)
            for kind in ("av", "audio")
        }
        for planned in parts[task.index]:
            values = values_of(planned, about)
            file, row, crc32 = series[planned.kind].add(values)
            sums.add(
                Group(planned.dataset, planned.split, planned.kind),
                values["latent_mean"],
                values["latent_std"],
            )
            listed.append(_row(planned, file, row, crc32))
        for one in series.values():
            one.close()
        change("rows", listed)
        index.write_table(folder / index.ROWS_FILE, index.table_of(listed, index.ROWS))
        bad = index.table_of(rejects if task.index == 0 else (), index.REJECTS)
        index.write_table(folder / index.REJECTS_FILE, bad)
        return {"sums": sums.facts()}

    def text(task: tasks.Task, folder: Path) -> dict[str, Any]:
        half = -(-len(captions) // 2)
        mine = captions[task.index * half : (task.index + 1) * half]
        with ShardSeries(folder, "text", about, certificate, shard_rows=shard_rows) as series:
            listed = [
                {"caption": caption, "crc32": series.add({"text": text_of(caption, about)})[2]}
                for caption in mine
            ]
        change("captions", listed)
        index.write_table(folder / index.CAPTIONS_FILE, index.table_of(listed, index.TASK_CAPTIONS))
        return {}

    for stage, count, work in (("clips", len(parts), clips), ("text", 2, text)):
        todo = [tasks.Task(number, count, {"number": number}) for number in range(count)]
        tasks.run(out / stage, todo, _worker(work))


def _worker(work: tasks.Work) -> tasks.Worker:
    def make(stop: threading.Event) -> contextlib.AbstractContextManager[tasks.Work]:
        return contextlib.nullcontext(work)

    return make


def _row(planned: Planned, file: str, row: int, crc32: int) -> dict[str, Any]:
    return {
        "dataset": planned.dataset,
        "clip_id": planned.clip_id,
        "part": planned.part,
        "start_sample": 0,
        "end_sample": 16000,
        "source_rate_hz": 16000,
        "split": planned.split,
        "shard": file,
        "row": row,
        "has_video": planned.kind == "av",
        "captions": planned.captions,
        "caption_digest": index.caption_digest(planned.captions),
        "key_digest": index.key_digest(planned.dataset, planned.clip_id, "youtube", planned.clip_id),
        "content_digest": "sha256:" + "0" * 64,
        "crc32": crc32,
        "flags": ["still"] if planned.clip_id == "v001" else [],
        "av_offset_s": 0.02 if planned.kind == "av" else None,
        "peak": 0.5,
        "bandwidth_hz": 8000.0,
        "silent_share": 0.0,
        "still_share": None,
    }


def sealed_folder(out: Path, rows: Sequence[Planned] | None = None, **options: Any) -> list[Planned]:
    """Sealed shards of these rows; the rows in the order of the index."""
    chosen = some_rows() if rows is None else list(rows)
    write_tasks(out, chosen, **options)
    seal(out)
    return sorted(chosen, key=lambda row: (row.dataset, row.clip_id, row.part))
