"""Folders of memory-mapped tensors as shards: the same layout, records and sealing as extraction.

Text is stored once for each caption; see `captions.py`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curation import tasks
from curation.errors import UsageProblem
from curation.tables import number
from curation.verdict import Reason
from features.exchange.captions import Captions
from features.exchange.memmap import MemmapSet
from features.extraction import begun
from features.store import index
from features.store.rows import Row, reject_row, write_tables
from features.store.seal import PATIENCE_S, Report, Sealed, seal
from features.store.shard_file import FORMAT, SHARD_ROWS, ShardSeries
from features.store.statistics import Group, LatentSums

_ROWS_AT_ONCE = 64
IMPORTED = "imported"  # the identity of encoders that nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A folder under the name it gets."""

    dataset: str
    split: str
    rows: MemmapSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """How folders become shards."""

    shard_rows: int = SHARD_ROWS
    text_tolerance: float = 0.0  # by how much text features of one caption may differ
    empty_text: torch.Tensor | None = None  # (77, 1024), of the empty caption; None: zeros


def import_memmap(
    sets: Sequence[Imported],
    out: Path,
    config: ImportConfig,
    report: Report = lambda label, done, total: None,
) -> Sealed:
    """Write shards of all these folders to `out`, and seal them; run again, it continues.

    Raises:
        UsageProblem: two folders of one dataset have an id in common, or are of several rates.
        BadMetadata: rows of one caption have different text features, by their ids.
        ConfigDiffers: `out` holds shards of something else.
        Locked: another process works on the same tasks.
        NoSpace: nothing is half written.
    """
    _refuse_shared_ids(sets)
    work = _Import(sets, config, report)
    stages = {
        out / index.TEXT: (work.text_tasks(), work.write_texts),
        out / index.CLIPS: (work.clip_tasks(), work.write_clips),
    }
    counts = {stage.name: len(todo) for stage, (todo, _) in stages.items()}
    changes = not all(tasks.is_done(stage, task) for stage, (todo, _) in stages.items() for task in todo)
    begun.begin(out, work.origin(counts), changes=changes)
    busy = {
        stage: tasks.run(stage, todo, _worker(function)) for stage, (todo, function) in stages.items()
    }
    for stage, left in busy.items():
        tasks.still_busy(stage, left)
    return seal(out, report, patience_s=PATIENCE_S)


def _refuse_shared_ids(sets: Sequence[Imported]) -> None:
    """Raise UsageProblem where two folders would give a dataset one id twice."""
    seen: dict[tuple[str, str], Imported] = {}
    for one in sets:
        keys = [(one.dataset, clip_id) for clip_id in one.rows.ids]
        if shared := [key for key in keys if key in seen]:
            dataset, clip_id = shared[0]
            raise UsageProblem(
                f"{clip_id}: is a row of {seen[shared[0]].rows.folder} and of {one.rows.folder}, both "
                f"called {dataset} ({number(len(shared), 'such id')}), expected each id once in a "
                "dataset — give each DIR a name of its own with --dataset"
            )
        seen |= dict.fromkeys(keys, one)


Function = Callable[[tasks.Task, Path, threading.Event], dict[str, Any]]


def _worker(function: Function) -> tasks.Worker:
    def make(stop: threading.Event) -> contextlib.AbstractContextManager[tasks.Work]:
        return contextlib.nullcontext(lambda task, folder: function(task, folder, stop))

    return make


class _Import:
    """The work of an import, as tasks."""

    def __init__(self, sets: Sequence[Imported], config: ImportConfig, report: Report) -> None:
        self._sets, self._config, self._report = sets, config, report
        specs = {one.rows.spec for one in sets}
        if len(specs) != 1:
            raise UsageProblem(
                f"the folders have {len(specs)} sample rates, expected one — import them into a folder "
                "each"
            )
        (spec,) = specs
        self._captions = Captions(
            [one.rows for one in sets], tolerance=config.text_tolerance, empty=config.empty_text
        )
        self.about: dict[str, Any] = {
            "format": FORMAT,
            "sample_rate_hz": spec.sample_rate_hz,
            "duration_s": spec.duration_s,
            "encoders": {"clip": IMPORTED, "synchformer": IMPORTED, "vae": IMPORTED},
            "preprocessing": IMPORTED,
            "shard_rows": config.shard_rows,
            "empty_text": self._captions.empty_text(),
        }
        self.described = [
            {"dataset": one.dataset, "split": one.split, "digest": one.rows.digest()} for one in sets
        ]

    def origin(self, counts: dict[str, int]) -> begun.Origin:
        """What the shards are made from; `counts`: tasks of each stage."""
        document = {
            "format": FORMAT,
            "about": self.about,
            "certificate": None,
            "tasks": counts,
            "imported": self.described,
        }
        return begun.Origin(document=document, source="list of folders", differing=self._differing)

    def _differing(self, former: Mapping[str, Any]) -> list[str]:
        was = [_set_text(one) for one in former.get("imported", [])]
        now = [_set_text(one) for one in self.described]
        return [] if was == now else [f"was {', '.join(was) or 'a manifest'}, now {', '.join(now)}"]

    # ---- text -------------------------------------------------------------------------------------

    def text_tasks(self) -> list[tasks.Task]:
        """The captions, so many a task; each with the rows that have it."""
        captions, at_once = self._captions.all, self._config.shard_rows
        begins = range(0, len(captions), at_once)
        return [
            tasks.Task(
                number_of,
                len(begins),
                {
                    "about": self.about,
                    "captions": captions[begin : begin + at_once],
                    "sets": self.described,
                    "tolerance": self._config.text_tolerance,
                },
            )
            for number_of, begin in enumerate(begins)
        ]

    def write_texts(self, task: tasks.Task, folder: Path, stop: threading.Event) -> dict[str, Any]:
        """Write one text row for each caption, after a look at all rows that have it."""
        captions: list[str] = task.inputs["captions"]
        listed = []
        with ShardSeries(folder, "text", self.about, shard_rows=self._config.shard_rows) as series:
            for done, caption in enumerate(captions):
                if stop.is_set():
                    raise tasks.Stopped
                self._report(f"text {task.name}", done, len(captions))
                text = self._captions.text_of(caption)
                if text is not None:
                    _, _, crc32 = series.add({"text": text})
                    listed.append({"caption": caption, "crc32": crc32})
        index.write_table(folder / index.CAPTIONS_FILE, index.table_of(listed, index.TASK_CAPTIONS))
        return {"captions": len(listed)}

    # ---- clips ------------------------------------------------------------------------------------

    def clip_tasks(self) -> list[tasks.Task]:
        """Consecutive rows of one folder, so many a task."""
        at_once = self._config.shard_rows
        parts = [
            (place, begin, min(begin + at_once, len(one.rows)))
            for place, one in enumerate(self._sets)
            for begin in range(0, len(one.rows), at_once)
        ]
        return [
            tasks.Task(
                number_of,
                len(parts),
                {
                    "about": self.about,
                    "place": place,
                    "set": self.described[place],
                    "rows": [begin, end],
                },
            )
            for number_of, (place, begin, end) in enumerate(parts)
        ]

    def write_clips(self, task: tasks.Task, folder: Path, stop: threading.Event) -> dict[str, Any]:
        """Write the rows of one task; those that are not finite, in the text too, are rejects."""
        one, (begin, end) = self._sets[task.inputs["place"]], task.inputs["rows"]
        listed, rejects, sums = list[Row](), list[Row](), LatentSums()
        group = Group(one.dataset, one.split, one.rows.kind)
        with ShardSeries(
            folder, one.rows.kind, self.about, shard_rows=self._config.shard_rows
        ) as series:
            for first in range(begin, end, _ROWS_AT_ONCE):
                if stop.is_set():
                    raise tasks.Stopped
                self._report(f"rows {task.name}", first - begin, end - begin)
                last = min(first + _ROWS_AT_ONCE, end)
                for row, values, bad in _rows_of(one.rows, first, last):
                    if bad:
                        rejects.append(_reject(one, row, bad))
                        continue
                    file, place, crc32 = series.add(values)
                    sums.add(group, values["latent_mean"], values["latent_std"])
                    listed.append({**_row(one, row), "shard": file, "row": place, "crc32": crc32})
        write_tables(folder, listed, rejects)
        return {"sums": sums.facts()}


def _rows_of(
    rows: MemmapSet, begin: int, end: int
) -> Iterator[tuple[int, dict[str, torch.Tensor], list[str]]]:
    """Rows [begin, end) with their tensors but the text in bf16, and which columns are not finite."""
    read = {name: tensor.read(begin, end).to(torch.bfloat16) for name, tensor in rows.tensors.items()}
    finite = {name: batch.isfinite().flatten(1).all(1).tolist() for name, batch in read.items()}
    del read["text"]
    for at in range(end - begin):
        bad = [name for name, good in finite.items() if not good[at]]
        yield begin + at, {name: batch[at] for name, batch in read.items()}, bad


def _set_text(one: Mapping[str, Any]) -> str:
    """A folder as `extract.json` describes it, for people."""
    return f"{one['dataset']}/{one['split']} {one['digest'].removeprefix('sha256:')[:12]}"


def _row(one: Imported, row: int) -> Row:
    clip_id, caption = one.rows.ids[row], one.rows.captions[row]
    return {
        "dataset": one.dataset,
        "clip_id": clip_id,
        "part": 0,
        "split": one.split,
        "has_video": one.rows.kind == "av",
        "captions": [caption],
        "caption_digest": index.caption_digest([caption]),
        "key_digest": index.key_digest(one.dataset, clip_id, None, None),
        "flags": [],
    }


def _reject(one: Imported, row: int, names: list[str]) -> Row:
    clip = {"dataset": one.dataset, "clip_id": one.rows.ids[row], "file": None}
    detail = f"{number(len(names), 'column')} not finite in row {row}: {', '.join(names)}"
    return reject_row(clip, None, Reason.NOT_FINITE, detail)
