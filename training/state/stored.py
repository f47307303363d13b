"""Checkpoints as a run saves them: each rank its pieces, beside training, whole or not at all.

    the loop      │ save: copy │ step │ step │ step │ …                  │ save: waits if it must
    each rank            └ its thread: write, hash, fsync ┐
    all ranks                                             └ meet ┐
    first rank                                                   └ checkpoint.json, rename, retire
    all ranks                                                                          └ meet

Whoever dies at any moment leaves a folder of a temporary name, which `folders.held` removes. An error
of a rank (a full disk) is told to all: the half written folder goes, the checkpoints before stay, and
each rank's next `save` or `wait` writes the same copy again; what fails then too is raised.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from curation.closing import Closing
from curation.errors import FoleyproofError, NotWritable, WorkerLost
from curation.files import digest_of, disk_space, fsync, remove, write_json
from curation.tables import number, size_text
from training.state.about import About
from training.state.folders import retire, step_folder
from training.state.pieces import Piece, covers, rows_of
from training.state.rank_file import Entry, type_name
from training.state.reading import FORMAT, RECORD, Stored, opened
from training.state.staging import Staged, Staging
from training.state.writing import Background, write_hashed

logger = logging.getLogger(__name__)
Gather = Callable[[Any], list[Any]]  # what every rank gives, in their order, on every rank
Then = Callable[[Stored], None]
# Beyond all process ids: who meets such a name under the lock of the run knows that nobody writes there.
_TOKENS = 1 << 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The file of a rank."""

    file: str
    num_bytes: int
    sha256: str
    entries: list[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What went wrong on a rank, for the others."""

    kind: type[FoleyproofError]
    message: str

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Self:
        """What others are told of an error."""
        if isinstance(error, FoleyproofError):
            return cls(kind=type(error), message=str(error))
        return cls(
            kind=WorkerLost,
            message=f"rank {rank} failed to save ({type(error).__name__}: {error}), expected it to "
            "write its part of the checkpoint — see its own message",
        )

    def error(self) -> FoleyproofError:
        """As it is raised."""
        return self.kind(self.message)


def alone(value: Any) -> list[Any]:
    """What every rank gives, where there is one."""
    return [value]


class Checkpoints(Closing):
    """Saves the checkpoints of a run; one of them for each rank, all with the same calls.

        with Checkpoints(run, about=about, keep=2, keep_every=40_000) as checkpoints:
            checkpoints.save(step, pieces)

    The first rank must hold the lock of the run: see `folders.held`.
    """

    def __init__(
        self,
        run: Path,
        *,
        about: About,
        keep: int,
        keep_every: int = 0,
        rank: int = 0,
        gather: Gather = alone,
    ) -> None:
        """Agree with the other ranks.

        Args:
            keep: newest ones that stay.
            keep_every: those of its multiples stay for ever; 0: none do.
            gather: how ranks meet, from this and from another thread, at times of their own: over a
                group that is used for nothing else.
        """
        self._run, self._about, self._rank, self._gather = run, about, rank, gather
        self._keep, self._keep_every = keep, keep_every
        self._token: int = gather(_TOKENS + secrets.randbelow(_TOKENS))[0]
        self._staging, self._background = Staging(), Background()
        self._write_last: Callable[[], None] = lambda: None

    def save(
        self, step: int, pieces: Iterable[Piece], *, keep: bool = True, then: Then | None = None
    ) -> None:
        """Copy pieces and have them written; waits while an earlier save is still being written.

        Args:
            step: that the run goes on with.
            pieces: this rank's; the tensors may change when this returns, on the GPU behind it.
            keep: False: the folder is removed when `then` has returned.
            then: is given the checkpoint, on the first rank and in the thread that writes, before it
                gets its name: whatever it makes is there if the checkpoint is.

        Raises:
            NoSpace, NotWritable, WorkerLost: of an earlier save.
        """
        self.wait()
        self._token += 1  # so no save meets what is left of a failed one
        self._write_last = partial(self._write, step, self._staging.take(pieces), keep, then)
        self._background.start(self._write_last)

    @property
    def has_failed(self) -> bool:
        """Whether the last save has failed, so that `wait` would try it again; not yet on all ranks."""
        return self._background.has_failed

    def wait(self) -> None:
        """Return when nothing is being written; what failed is tried again.

        Raises:
            NoSpace, NotWritable, WorkerLost: nothing is half written; the checkpoints before stay.
        """
        try:
            self._background.wait()
        except Exception as error:  # every rank has one, and tries again
            if self._rank == 0:
                logger.warning("%s; it is tried once more", error)
            self._token += 1
            self._write_last()

    @property
    def _mark(self) -> str:
        """What names end with until what they name is whole."""
        return f".tmp-{self._token}"

    def leave(self, error: BaseException | None) -> None:
        """Wait for what is being written; an error of it does not hide one that is on its way."""
        if isinstance(error, KeyboardInterrupt):
            return  # whoever asks twice does not wait: what is half written is swept
        if error is None:
            self.wait()
            return
        try:
            self._background.wait()
        except FoleyproofError as late:
            logger.warning("the last checkpoint was not written: %s", late)

    def _write(self, step: int, staged: Staged, keep: bool, then: Then | None) -> None:
        begun_s = time.monotonic()
        target = step_folder(self._run, step)
        temporary = target.with_name(target.name + self._mark)
        try:
            written = self._agreed(partial(self._write_part, target, temporary, staged))
            finish = partial(self._finish, step, temporary, written, keep, then)
            self._agreed(finish if self._rank == 0 else lambda: None)
        except BaseException:
            if self._rank == 0:
                remove(temporary)
            raise
        if self._rank == 0 and keep:
            size = size_text(sum(part.num_bytes for part in written))
            took_s = time.monotonic() - begun_s
            logger.info("%s: %s written in %.1f s", target, size, took_s)

    def _agreed(self, job: Callable[[], Any]) -> list[Any]:
        """What the job gave on each rank; raises on all where it failed on one."""
        mine: Any
        raised = None
        try:
            mine = job()
        except Exception as error:  # whatever it is, the others wait to hear of it
            mine, raised = Failed.of(error, self._rank), error
        everyone = self._gather(mine)
        if raised is not None:
            raise raised
        for theirs in everyone:
            if isinstance(theirs, Failed):
                raise theirs.error()
        return everyone

    def _write_part(self, target: Path, temporary: Path, staged: Staged) -> Written:
        path = temporary / f"rank-{self._rank}.safetensors"
        contents = staged.contents()
        with disk_space(target):
            temporary.mkdir(parents=True, exist_ok=True)
            digest = write_hashed(path, contents)
        size = sum(map(len, contents))
        return Written(file=path.name, num_bytes=size, sha256=digest, entries=staged.entries)

    def _finish(
        self, step: int, temporary: Path, written: list[Written], keep: bool, then: Then | None
    ) -> None:
        target = step_folder(self._run, step)
        for part in written:
            _refuse_unseen(temporary / part.file, part.num_bytes)
        with disk_space(target):
            write_json(temporary / RECORD, _document(step, self._about, written))
            fsync(temporary)
            if then is not None:
                then(opened(temporary))
            if not keep:
                remove(temporary)
                return
            self._put(temporary, target)
            fsync(self._run)  # where the folder of checkpoints may be new
        retire(self._run, step, keep=self._keep, keep_every=self._keep_every, mark=self._mark)

    def _put(self, temporary: Path, target: Path) -> None:
        """Give a folder its name; one that has it is removed, or put back by the sweep after a death."""
        former = target.with_name(f"{target.name}.former{self._mark}")
        if target.exists():
            os.replace(target, former)
        os.replace(temporary, target)
        fsync(target.parent)
        remove(former)


def _document(step: int, about: About, written: list[Written]) -> dict[str, Any]:
    """The contents of checkpoint.json."""
    parts: dict[str, list[Entry]] = {}
    for part in written:
        for entry in part.entries:
            parts.setdefault(entry.name, []).append(entry)
    for name, entries in parts.items():
        whole = entries[0].whole
        rows = [(entry.offset, rows_of(entry.shape)) for entry in entries]
        assert {entry.whole for entry in entries} == {whole}, f"{name}: ranks differ in its shape"
        assert covers(rows, rows_of(whole)), f"{name}: rows {rows} of {whole}, expected each row once"
    document = {
        "format": FORMAT,
        "step": step,
        "about": about.document(),
        "files": {part.file: {"bytes": part.num_bytes, "sha256": part.sha256} for part in written},
        "tensors": {
            name: {"dtype": type_name(entries[0].dtype), "shape": list(entries[0].whole)}
            for name, entries in parts.items()
        },
    }
    return {**document, "digest": digest_of(document)}


def _refuse_unseen(path: Path, size: int) -> None:
    """Raise NotWritable where a file that another rank wrote is not here: its disk is another one."""
    seen = path.stat().st_size if path.is_file() else -1
    if seen != size:
        what = "is not seen" if seen < 0 else f"has {seen:,} bytes"
        raise NotWritable(
            f"{path}: {what} on the machine of the first rank, expected the {number(size, 'byte')} "
            "that its rank wrote — give a --run on a disk that all machines share"
        )
