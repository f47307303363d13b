"""Fingerprints of `curate scan` on the decode of an extraction: who rides, and where they get off.

    a task over clips ──▶ <out>/scan/<task>/ ──▶ <manifests>/fingerprints/<dataset>/, at the end of a run

A run that was killed leaves what its finished tasks made, and the next one with `--scan` takes it in.
Rows that are carried over are not decoded, so that nothing rides on them. No byte of a shard depends on
it: what the machine does to a clip that has a scan with it is tried again without.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import Locked
from curation.files import remove
from curation.media.decoder import DecoderConfig
from curation.media.ridden import Spool, take_in, unscanned
from curation.tasks import Task
from features.extraction.notes import Stamp, stamp_of
from features.inputs.prepared import InputConfig, Prepared
from features.store.index import CLIPS
from features.store.seal import alone

SCAN = "scan"
_PATIENCE_S = 600.0  # for another run that takes in its own
_CLIP = ("dataset", "clip_id", "start_s", "end_s", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What came of it."""

    clips: int  # whose fingerprints lie among the others by now
    waiting: int  # datasets on whose fingerprints somebody else works: the next run takes them in


class Ride:
    """One run: which datasets take part, and what is done at its end."""

    def __init__(self, manifests: Path, out: Path, datasets: Sequence[str], inputs: InputConfig) -> None:
        self._manifests, self._spools, self._config = manifests, out / SCAN, _decoder(inputs)
        self._clips = out / CLIPS
        self._datasets = datasets
        self._wanted = unscanned(manifests, datasets)

    def asked(self, task: Task) -> dict[str, Any]:
        """What the request of a task says of it."""
        return {"spool": str((self._spools / task.name).absolute()), "datasets": self._wanted}

    def arrive(self, tasks: Sequence[Task]) -> Arrived:
        """Take in what these tasks made, now or in a run that was killed; one run at a time does."""
        if not self._made(tasks):
            return Arrived(clips=0, waiting=0)
        try:
            with alone(self._clips, patience_s=_PATIENCE_S):
                return self._taken_in(self._made(tasks))
        except Locked:
            return Arrived(clips=0, waiting=len(self._wanted))

    def _made(self, tasks: Sequence[Task]) -> list[Path]:
        return [place for task in tasks if (place := self._spools / task.name).is_dir()]

    def _taken_in(self, spools: Sequence[Path]) -> Arrived:
        taken = [take_in(self._manifests, name, spools, self._config) for name in self._datasets]
        waiting = sum(num is None for num in taken)
        if not waiting:
            for spool in spools:
                remove(spool)
            with suppress(OSError):  # others lie there, or none did
                self._spools.rmdir()
        return Arrived(clips=sum(num or 0 for num in taken), waiting=waiting)


class Riders:
    """The clips of one task that have a scan with them."""

    def __init__(self, spool: Spool | None, datasets: frozenset[str]) -> None:
        self._spool, self._datasets = spool, datasets
        self._stamps: dict[tuple[str, str], Stamp | None] = {}

    def wants(self, row: Mapping[str, Any], path: str | None) -> bool:
        """Whether a clip has one, if it is decoded; its file is as it is now."""
        if row["dataset"] not in self._datasets:
            return False
        self._stamps[row["dataset"], row["clip_id"]] = stamp_of(path)
        return True

    def take(self, row: Mapping[str, Any], prepared: Prepared) -> None:
        """Keep what the scan of a clip said."""
        answer, prepared.scan = prepared.scan, None
        if self._spool is not None and answer is not None:
            stamp = self._stamps[row["dataset"], row["clip_id"]]
            self._spool.add({name: row[name] for name in _CLIP}, stamp, answer)

    def close(self) -> None:
        """Leave what was kept where the end of the run finds it."""
        if self._spool is not None:
            self._spool.close()


def riders_of(request: Mapping[str, Any], inputs: InputConfig) -> Riders:
    """Who rides with the clips of a task."""
    asked = request.get("scan")
    if asked is None:
        return Riders(None, frozenset())
    return Riders(Spool(Path(asked["spool"]), _decoder(inputs)), frozenset(asked["datasets"]))


def _decoder(inputs: InputConfig) -> DecoderConfig:
    return DecoderConfig(
        mode="fast",
        max_duration_s=inputs.max_duration_s,
        timeout_s=inputs.timeout_s,
        memory_bytes=inputs.memory_bytes,
    )
