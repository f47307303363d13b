"""What of the published weights is in a folder, and fetching the rest on request.

A file is looked at before it takes its name: what comes is compared with the published size and md5,
and its sha256 is noted, so that it is known at once and later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.errors import FoleyproofError, NoSpace
from curation.files import free_bytes
from curation.tables import size_text
from features.weights.checkpoint_kind import kind_of
from features.weights.digests import Digests, Note, Report, read_note, silent
from features.weights.published import (
    checked_file,
    convert,
    converted_path,
    fetch_again,
    locate,
    refuse_other_tensors,
    refuse_others,
)
from features.weights.table import WeightFile

if TYPE_CHECKING:
    from curation.transport import Transport  # needs much of the library; loaded where files are fetched

STATES = ("checked", "there", "wrong", "begun", "missing")
FETCH_STATES = ("fetched", "at hand", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One file of weights, as it is in the folder."""

    file: WeightFile
    state: str  # of STATES: "there" was not hashed yet, of "begun" a part is there
    path: Path | None = None
    bytes: int = 0
    sha256: str | None = None
    converted: bool = False  # whether its safetensors copy is there
    detail: str = ""  # why it is wrong
    code: int = 0  # of the error it would end in


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one file."""

    file: WeightFile
    state: str  # of FETCH_STATES
    path: Path | None = None
    bytes: int = 0
    sha256: str | None = None
    detail: str = ""  # why it failed
    code: int = 0


def survey(
    folder: Path, files: Sequence[WeightFile], *, check: bool = False, progress: Report = silent
) -> list[Found]:
    """What is there of each file; nothing is loaded, and without `check` nothing is hashed.

    Args:
        check: read every file that is there: digests, and the conversion to safetensors.
    """
    return [_look(folder, file, check, progress) for file in files]


def _look(folder: Path, file: WeightFile, check: bool, progress: Report) -> Found:
    path = locate(folder, file)
    if path is None:
        part = _part(target_of(folder, file))
        if not part.is_file():
            return Found(file=file, state="missing")
        return Found(file=file, state="begun", path=part, bytes=part.stat().st_size)
    size = path.stat().st_size
    try:
        note = _believed(folder, path, file)
        if check:
            note = checked_file(folder, path, file, progress=progress)
            convert(folder, path, note, file, progress=progress)
    except FoleyproofError as error:
        if error.exit_code == 14:
            raise
        wrong, code = str(error), error.exit_code
        return Found(file=file, state="wrong", path=path, bytes=size, detail=wrong, code=code)
    if note is None:
        return Found(file=file, state="there", path=path, bytes=size)
    return Found(
        file=file,
        state="checked",
        path=path,
        bytes=size,
        sha256=note.sha256,
        converted=converted_path(folder, path, note).is_file(),
    )


def _believed(folder: Path, path: Path, file: WeightFile) -> Note | None:
    """The note of a file that still is as it was; what can be no checkpoint raises WrongWeights."""
    note = Digests(folder).believed(path)
    if note is not None:
        refuse_others(path, file, note, remedy=fetch_again(folder, path, file))
        return note
    kind_of(path)
    return None


def target_of(folder: Path, file: WeightFile) -> Path:
    """Where a file is put when it is fetched."""
    return folder / file.folders[0] / file.name if file.folders else folder / file.name


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToCome:
    """What a fetch of some files still brings."""

    files: list[WeightFile]  # over the network
    fetched_bytes: int  # likewise
    converted_bytes: int  # of safetensors copies, also of files that are there

    @property
    def disk_bytes(self) -> int:
        """That must be free."""
        return self.fetched_bytes + self.converted_bytes


def to_come(found: Sequence[Found]) -> ToCome:
    """What is not there yet of files and of their safetensors copies, which are as large."""
    wanted = [entry for entry in found if entry.state in ("begun", "missing")]
    converted = [e.file for e in found if e.state != "wrong" and not e.converted and not _is_own_copy(e)]
    return ToCome(
        files=[entry.file for entry in wanted],
        fetched_bytes=sum(max(0, entry.file.num_bytes - entry.bytes) for entry in wanted),
        converted_bytes=sum(file.num_bytes for file in converted),
    )


def _is_own_copy(entry: Found) -> bool:
    """Whether a file that is there is safetensors, of which no copy is made."""
    return entry.path is not None and entry.path.suffix == ".safetensors"


def refuse_full_disk(folder: Path, found: Sequence[Found]) -> None:
    """Raise NoSpace where what is still to come does not fit."""
    more = to_come(found)
    free = free_bytes(folder)
    if more.disk_bytes > free:
        raise NoSpace(
            f"{folder}: {size_text(free)} are free, expected {size_text(more.disk_bytes)} that are "
            f"still to come ({size_text(more.fetched_bytes)}, and {size_text(more.converted_bytes)} of "
            "safetensors copies) — free some space, name fewer files, or use another --weights"
        )


def fetch(
    folder: Path,
    files: Sequence[WeightFile],
    transport: "Transport",
    *,
    progress: Report = silent,
) -> list[Fetched]:
    """Fetch every file that is not there, check it, and convert it to safetensors.

    One bad file costs no other; what was cut off is continued by the next run.
    """
    return [_fetch(folder, file, transport, progress) for file in files]


def _fetch(folder: Path, file: WeightFile, transport: "Transport", progress: Report) -> Fetched:
    path, state = locate(folder, file), "at hand"
    try:
        if path is None:
            path, state = target_of(folder, file), "fetched"
            _bring(folder, file, path, transport, progress)
        note = checked_file(folder, path, file, progress=progress)
        convert(folder, path, note, file, progress=progress)
    except FoleyproofError as error:
        if error.exit_code == 14:
            raise
        wrong, code = str(error), error.exit_code
        return Fetched(file=file, state="failed", path=path, detail=wrong, code=code)
    return Fetched(file=file, state=state, path=path, bytes=note.bytes, sha256=note.sha256)


def _bring(
    folder: Path, file: WeightFile, target: Path, transport: "Transport", progress: Report
) -> None:
    seen: list[Note] = []

    def check(part: Path) -> None:
        kind_of(part)
        seen.append(read_note(part, progress=progress))
        refuse_others(
            part,
            file,
            seen[0],
            remedy=f"what {file.url} sent was thrown away; run the same command again",
        )
        refuse_other_tensors(part, file, seen[0])

    progress(file.name, 0, None)
    transport.fetch(
        file.url, target, check=check, progress=lambda done, total: progress(file.name, done, total)
    )
    Digests(folder).write(target, seen[0])
