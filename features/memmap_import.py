"""Folders of memory-mapped tensors as shards: the same layout, records and sealing as extraction.

Text is stored once for each caption; rows whose caption is one and whose text features are not are an
error, since one of the two belongs to another caption.

Shape suffixes: B rows, T tokens, D width.
"""

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curation import tasks
from curation.errors import BadMetadata, ConfigDiffers, UsageProblem
from curation.files import disk_space
from curation.tables import number
from curation.verdict import Reason
from features import index
from features.memmap import MemmapSet
from features.seal import Report, Sealed, seal
from features.shard_file import FORMAT, SHARD_ROWS, ShardSeries
from features.spec import TEXT_TOKENS, TEXT_WIDTH
from features.statistics import Group, LatentSums

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
        BadMetadata: rows of one caption have different text features, by their ids.
        ConfigDiffers: `out` holds shards of something else.
        NoSpace: nothing is half written.
    """
    work = _Import(sets, config, report)
    clips, texts = work.clip_tasks(), work.text_tasks()
    _begin(out, work, {index.CLIPS: len(clips), index.TEXT: len(texts)})
    for stage, todo, function in (
        (index.TEXT, texts, work.write_texts),
        (index.CLIPS, clips, work.write_clips),
    ):
        busy = tasks.run(out / stage, todo, _worker(function))
        tasks.still_busy(out / stage, busy)
    return seal(out, report)


Function = Callable[[tasks.Task, Path, threading.Event], dict[str, Any]]


def _worker(function: Function) -> tasks.Worker:
    def make(stop: threading.Event) -> contextlib.AbstractContextManager[tasks.Work]:
        return contextlib.nullcontext(lambda task, folder: function(task, folder, stop))

    return make


def _begin(out: Path, work: "_Import", counts: dict[str, int]) -> None:
    """Write extract.json, or compare it with what is asked for now."""
    document = {
        "format": FORMAT,
        "about": work.about,
        "certificate": None,
        "tasks": counts,
        "imported": work.described,
    }
    path = out / index.EXTRACT_FILE
    if path.is_file():
        former = index.read_extract(out)
        if differing := sorted(key for key in document if former.get(key) != document[key]):
            raise ConfigDiffers(
                f"{out}: was made with another {', '.join(differing)}, expected the same folders and "
                "options — give another --out"
            )
        return
    with disk_space(out):
        out.mkdir(parents=True, exist_ok=True)
    if any(out.glob(f"*/*/{tasks.RECORD}")):
        raise UsageProblem(f"{out}: holds finished tasks and no {path.name}, expected an empty folder — "
                           "give another --out")  # fmt: skip
    tasks.write_sealed(path, document)


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
        self._digests = [one.rows.digest() for one in sets]
        self._places = _places(sets)  # "" first, then sorted
        self.about: dict[str, Any] = {
            "format": FORMAT,
            "sample_rate_hz": spec.sample_rate_hz,
            "duration_s": spec.duration_s,
            "encoders": {"clip": IMPORTED, "synchformer": IMPORTED, "vae": IMPORTED},
            "preprocessing": IMPORTED,
            "empty_text": self._empty_text(),
        }
        self.described = [
            {"dataset": one.dataset, "split": one.split, "digest": digest}
            for one, digest in zip(sets, self._digests, strict=True)
        ]

    def _empty_text(self) -> str:
        """Where text row 0 comes from: "rows", "zeros", or the sha256 of what was given, in bf16."""
        if self._places[""]:
            return "rows"
        given = self._config.empty_text
        if given is None:
            return "zeros"
        held = given.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        return f"sha256:{hashlib.sha256(held.tobytes()).hexdigest()}"

    # ---- text -------------------------------------------------------------------------------------

    def text_tasks(self) -> list[tasks.Task]:
        """The captions, so many a task; each with the rows that have it."""
        captions, at_once = list(self._places), self._config.shard_rows
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
        rows = []
        with ShardSeries(folder, "text", self.about, shard_rows=self._config.shard_rows) as series:
            for done, caption in enumerate(captions):
                if stop.is_set():
                    raise tasks.Stopped
                self._report(f"text {task.name}", done, len(captions))
                _, _, crc32 = series.add({"text": self._text_of(caption)})
                rows.append({"caption": caption, "crc32": crc32})
        index.write_table(folder / index.CAPTIONS_FILE, index.table_of(rows, index.TASK_CAPTIONS))
        return {"captions": len(captions)}

    def _text_of(self, caption: str) -> torch.Tensor:
        """The text features (T, D) of a caption in bf16, the same in all its rows."""
        places = self._places[caption]
        if not places:
            given = self._config.empty_text
            empty = torch.zeros(TEXT_TOKENS, TEXT_WIDTH) if given is None else given
            return empty.to(torch.bfloat16)
        first = self._read_text(places[0])
        if not bool(first.isfinite().all()):
            raise BadMetadata(
                f"{self._id(places[0])}: its text features are not finite, expected numbers — "
                "extract that row anew"
            )
        for place in places[1:]:
            text = self._read_text(place)
            same = torch.equal(text, first)
            if (
                not same
                and float((text.float() - first.float()).abs().max()) > self._config.text_tolerance
            ):
                raise BadMetadata(
                    f"{self._id(places[0])} and {self._id(place)}: one caption, {caption!r}, and "
                    "different text features, expected the same — one row belongs to another caption, "
                    "or the two were encoded apart (then allow a difference: --text-tolerance)"
                )
        return first

    def _read_text(self, place: tuple[int, int]) -> torch.Tensor:
        source, row = place
        return self._sets[source].rows.tensors["text"].read(row, row + 1)[0].to(torch.bfloat16)

    def _id(self, place: tuple[int, int]) -> str:
        source, row = place
        return f"{self._sets[source].rows.folder.name} row {row} ({self._sets[source].rows.ids[row]})"

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
                    "shard_rows": at_once,
                },
            )
            for number_of, (place, begin, end) in enumerate(parts)
        ]

    def write_clips(self, task: tasks.Task, folder: Path, stop: threading.Event) -> dict[str, Any]:
        """Write the rows of one task; those that are not finite are rejects."""
        one, (begin, end) = self._sets[task.inputs["place"]], task.inputs["rows"]
        rows, rejects, sums = list[dict[str, Any]](), list[dict[str, Any]](), LatentSums()
        kind, tensors = one.rows.kind, dict(one.rows.tensors)
        del tensors["text"]
        with ShardSeries(folder, kind, self.about, shard_rows=self._config.shard_rows) as series:
            for first in range(begin, end, _ROWS_AT_ONCE):
                if stop.is_set():
                    raise tasks.Stopped
                self._report(f"rows {task.name}", first - begin, end - begin)
                last = min(first + _ROWS_AT_ONCE, end)
                read = {
                    name: tensor.read(first, last).to(torch.bfloat16) for name, tensor in tensors.items()
                }
                for at, row in enumerate(range(first, last)):
                    values = {name: batch[at] for name, batch in read.items()}
                    if bad := [name for name, held in values.items() if not bool(held.isfinite().all())]:
                        rejects.append(_reject(one, row, bad))
                        continue
                    file, place, crc32 = series.add(values)
                    group = Group(one.dataset, one.split, kind)
                    sums.add(group, values["latent_mean"], values["latent_std"])
                    rows.append({**_row(one, row), "shard": file, "row": place, "crc32": crc32})
        index.write_table(folder / index.ROWS_FILE, index.table_of(rows, index.ROWS))
        index.write_table(folder / index.REJECTS_FILE, index.table_of(rejects, index.REJECTS))
        return {"sums": sums.facts()}


def _places(sets: Sequence[Imported]) -> dict[str, list[tuple[int, int]]]:
    """For each caption, the rows that have it; the empty one first, also where no row has it."""
    places: dict[str, list[tuple[int, int]]] = {"": []}
    for source, one in enumerate(sets):
        for row, caption in enumerate(one.rows.captions):
            places.setdefault(caption, []).append((source, row))
    return dict(sorted(places.items()))


def _row(one: Imported, row: int) -> dict[str, Any]:
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


def _reject(one: Imported, row: int, names: list[str]) -> dict[str, Any]:
    return {
        "dataset": one.dataset,
        "clip_id": one.rows.ids[row],
        "reason": str(Reason.NOT_FINITE),
        "detail": f"{number(len(names), 'column')} not finite in row {row}: {', '.join(names)}",
    }
