"""The function of a task: its clips decoded, encoded and written in the order of their rows.

Everything that it writes follows from its request and from the files: which process, on which machine,
does it, beside which others and after which, changes no byte. Decoding runs ahead in processes of its
own while the encoders work.
"""

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from curation.errors import BadWeights, FoleyproofError, WrongWeights
from curation.media.locate import as_text
from curation.verdict import Reason
from features.extraction.ahead import Ahead
from features.extraction.carried import Former
from features.extraction.job import Effort, Facts, Job
from features.extraction.lanes import Batch, Buffers, Cutter, Entry, Row
from features.extraction.plan import ROW
from features.extraction.riding import riders_of
from features.extraction.suite import Suite, load_suite
from features.inputs.feeding import Feed, feed
from features.inputs.prepared import Part, Prepared, Request
from features.store import index
from features.store.rows import Counts, index_row, reject_row, write_tables
from features.store.shard_file import Kind, ShardSeries
from features.store.statistics import Group, LatentSums

_TEXTS_AT_ONCE = 64  # captions between two words of progress
Tell = Callable[[Effort], Any]
Tensors = dict[str, torch.Tensor]


class TaskEncoder:
    """The encoders of one device, and what is done with them; for one task at a time."""

    def __init__(self, job: Job, tell: Tell = lambda effort: None) -> None:
        self.job, self.tell = job, tell
        self._suite: Suite | None = None
        self._asked: dict[str, str] = {}  # what the shards will say of the encoders
        self.sizes: dict[Kind, int] = {"av": job.video_batch, "audio": job.audio_batch}
        self.buffers = Buffers(self.sizes)

    @property
    def suite(self) -> Suite:
        """The encoders; loaded when they are first needed."""
        if self._suite is None:
            job = self.job
            suite = load_suite(
                job.weights,
                sample_rate_hz=job.sample_rate_hz,
                device=job.device,
                precision=job.precision,
            )
            if suite.identity != self._asked:
                raise WrongWeights(
                    f"{job.weights.folder}: holds other weights ({suite.identity}), expected those that "
                    f"this run began with ({self._asked}) — put them back, or give another --out"
                )
            self._suite = suite
        return self._suite

    def work(self, request: dict[str, Any], folder: Path) -> Facts:
        """Fill the folder of a task; what goes into its record.

        Args:
            request: the inputs of the task; for clips also `paths`, where the files are, and `carried`,
                for each row the digest of its file where that is as it was in the former part.

        Raises:
            FoleyproofError: the device has too little memory for a batch.
            WrongWeights: files of weights were changed after the run began.
            BadWeights: the feature of a caption is not finite.
        """
        self._asked = request["about"]["encoders"]
        torch.set_num_threads(self.job.threads)  # of the present thread alone; it decides the last bits
        work = self._texts if "captions" in request else self._clips
        try:
            with torch.inference_mode():
                return work(request, folder)
        except torch.OutOfMemoryError as error:
            raise FoleyproofError(self._out_of_memory(error)) from error

    def _out_of_memory(self, error: Exception) -> str:
        what = str(error).splitlines()[0].rstrip(".")
        return (
            f"{self.job.device}: {what}, expected room for the encoders and a batch of "
            f"{self.job.video_batch} clips — end what else is on the device and run the same command "
            "again, or give a smaller --batch and another --out"
        )

    def _texts(self, request: dict[str, Any], folder: Path) -> Facts:
        captions: list[str] = request["captions"]
        rows = []
        with self._series(request, folder, "text") as series:
            for begin in range(0, len(captions), _TEXTS_AT_ONCE):
                some = captions[begin : begin + _TEXTS_AT_ONCE]
                begun_s = time.monotonic()
                for caption, text_td in zip(some, self.suite.encode_text(some), strict=True):
                    self._check_finite(caption, text_td)
                    _, _, crc32 = series.add({"text": text_td})
                    rows.append({"caption": caption, "crc32": crc32})
                self.tell(Effort(texts=len(some), busy_s=time.monotonic() - begun_s))
        table = index.table_of(rows, index.TASK_CAPTIONS)
        index.write_table(folder / index.CAPTIONS_FILE, table)
        return {"captions": len(captions)}

    def _check_finite(self, caption: str, text_td: torch.Tensor) -> None:
        if not bool(text_td.isfinite().all()):
            raise BadWeights(
                f"caption {caption!r}: its feature came out of CLIP not finite in {self.job.precision}, "
                "expected numbers — check the files of weights with features weights --check --weights "
                f"{shlex.quote(str(self.job.weights.folder))}, and extract with --precision fp32 and "
                "another --out"
            )

    def _clips(self, request: dict[str, Any], folder: Path) -> Facts:
        series: dict[Kind, ShardSeries] = {
            "av": self._series(request, folder, "av"),
            "audio": self._series(request, folder, "audio"),
        }
        with series["av"], series["audio"]:
            task = _ClipTask(self, request, folder, series)
            task.run()
        return task.finish()

    def _series(self, request: dict[str, Any], folder: Path, kind: Any) -> ShardSeries:
        return ShardSeries(
            folder, kind, request["about"], request["certificate"], shard_rows=self.job.shard_rows
        )


class _ClipTask:
    """One task over clips, from its rows to its files."""

    def __init__(
        self,
        encoder: TaskEncoder,
        request: dict[str, Any],
        folder: Path,
        series: dict[Kind, ShardSeries],
    ) -> None:
        self._encoder, self._request, self._folder, self._series = encoder, request, folder, series
        self._inputs = [dict(zip(ROW, row, strict=True)) for row in request["rows"]]
        self._former = Former(
            Path(request["former"]) if request.get("former") else None, request["about"]
        )
        self._cutter = Cutter(encoder.sizes, encoder.buffers, self._row_of, self._reject_of)
        self._rows: list[Row] = []
        self._not_finite: list[Row] = []
        self._sums = LatentSums()
        self._riders = riders_of(request, encoder.job.inputs)
        self._stop = threading.Event()
        self._feed: Feed | None = None

    def run(self) -> None:
        """Decode, encode and write all rows."""
        batches = self._cutter.batches(self._decoded())
        with Ahead(batches, self._stop) as ahead:
            begun_s, told = time.monotonic(), Effort()
            for batch in ahead:
                self._write(batch)
                if batch.buffer is not None:
                    self._encoder.buffers.give_back(batch.kind, batch.buffer)
                effort = Effort(
                    clips=batch.clips,
                    busy_s=time.monotonic() - begun_s - told.busy_s,
                    encoder_wait_s=ahead.user_wait_s - told.encoder_wait_s,
                    decoder_wait_s=self._decoder_wait_s() - told.decoder_wait_s,
                )
                told.add(effort)
                self._encoder.tell(effort)
        self._encoder.tell(Effort(clips=self._cutter.clips_left()))

    def _decoder_wait_s(self) -> float:
        """What one decoder waited for room on the average."""
        return 0.0 if self._feed is None else self._feed.waited_s / self._encoder.job.decoders

    # ---- from rows to decoded clips ---------------------------------------------------------------

    def _decoded(self) -> Iterator[tuple[Request, Prepared | list[Entry]]]:
        """Every row of the task in order; those that need it through the decoders."""
        requests = [self._request_of(number) for number in range(len(self._inputs))]
        ready = {
            request.number: entries
            for request in requests
            if (entries := self._ready(request)) is not None
        }
        job = self._encoder.job
        asked = [request for request in requests if request.number not in ready]
        self._feed = feed(
            asked, job.inputs, processes=job.decoders, stop=self._stop, ahead=2 * job.decoders
        )
        with contextlib.closing(self._feed) as decoded:
            for request in requests:
                if request.number in ready:
                    yield request, ready[request.number]
                else:
                    answered, prepared = next(decoded)
                    assert answered.number == request.number, "answers come in the order of requests"
                    self._riders.take(self._inputs[request.number], prepared)
                    yield request, prepared

    def _request_of(self, number: int) -> Request:
        row = self._inputs[number]
        return Request(
            clip_id=row["clip_id"],
            path=self._request["paths"][number] or "",
            start_s=row["start_s"],
            end_s=row["end_s"],
            split=row["role"],  # a split trains or does not by its role, whatever it is called
            sound_only=row["sound_only"],
            number=number,
            scan=self._riders.wants(row, self._request["paths"][number]),
        )

    def _ready(self, request: Request) -> list[Entry] | None:
        """What needs no decoding: a clip without a file, and one that is carried over."""
        row = self._inputs[request.number]
        if row["file"] is None:
            self._cutter.rejects.append(
                self._reject_of(request, None, Reason.NO_MEDIA, "no file of it in the folder")
            )
            return []
        if not self._request["carried"][request.number]:
            return None
        found = self._former.find(row)
        if found is None:
            return None
        entries, rejects = found
        self._cutter.rejects += rejects
        self._cutter.content[request.number] = self._request["carried"][request.number]
        return entries

    def _row_of(self, request: Request, prepared: Prepared, part: Part) -> Row:
        return index_row(self._inputs[request.number], prepared, part)

    def _reject_of(self, request: Request, part: int | None, reason: Reason, detail: str | None) -> Row:
        said = None if detail is None else as_text(detail)  # it may quote a name or bytes of the file
        return reject_row(self._inputs[request.number], part, reason, said)

    # ---- from batches to files --------------------------------------------------------------------

    def _write(self, batch: Batch) -> None:
        encoded = self._encoded(batch)
        for entry in batch.entries:
            tensors = entry.tensors() if entry.tensors is not None else next(encoded)
            if not all(bool(values.isfinite().all()) for values in tensors.values()):
                names = [name for name, values in tensors.items() if not bool(values.isfinite().all())]
                inputs = {**entry.row, "file": self._file_of(entry.row)}
                said = f"{', '.join(names)} came out of the encoder not finite"
                self._not_finite.append(reject_row(inputs, entry.row["part"], Reason.NOT_FINITE, said))
                continue
            name, at, crc32 = self._series[batch.kind].add(tensors)
            self._sums.add(
                Group(entry.row["dataset"], entry.row["split"], batch.kind),
                tensors["latent_mean"],
                tensors["latent_std"],
            )
            self._rows.append({**entry.row, "shard": name, "row": at, "crc32": crc32})

    def _file_of(self, row: Row) -> str | None:
        key = (row["dataset"], row["clip_id"])
        inputs = (one for one in self._inputs if (one["dataset"], one["clip_id"]) == key)
        file: str | None = next(inputs)["file"]
        return file

    def _encoded(self, batch: Batch) -> Iterator[Tensors]:
        """The columns of each row that needs an encoder, bf16."""
        inputs, num = batch.buffer, batch.num_new
        if inputs is None:
            return
        suite = self._encoder.suite
        mean_bnc, std_bnc = suite.encode_audio(inputs.wave_bs[:num])
        columns = {"latent_mean": mean_bnc, "latent_std": std_bnc}
        if inputs.clip_btchw is not None and inputs.sync_btchw is not None:
            columns["clip"] = suite.encode_clip(inputs.clip_btchw[:num])
            columns["sync"] = suite.encode_sync(inputs.sync_btchw[:num])
        for at in range(len(mean_bnc)):
            yield {name: values[at] for name, values in columns.items()}

    def finish(self) -> Facts:
        """Write what the rows are; what goes into the record, and `content` beside it."""
        rejects = [*self._cutter.rejects, *self._not_finite]
        counts = Counts.of(self._inputs, self._rows, rejects)
        write_tables(self._folder, self._rows, rejects)
        self._riders.close()
        content = [self._cutter.content.get(number) for number in range(len(self._inputs))]
        return {"counts": asdict(counts), "sums": self._sums.facts(), "content": content}
