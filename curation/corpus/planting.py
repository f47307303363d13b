"""Whole folders of planted copies and near misses, made by several processes and continued after a kill.

    <folder>/base/<clip>.mp4               the clip as it is, of long ones the first 8 s
    <folder>/<clip>__<edit>.mp4            a copy
    <folder>/<clip>__<pair>_1.mp4, _2      two that are no copies of each other
    <folder>/degenerate__<name>.mp4        a clip that says little
    <folder>/records/…json                 of what each clip's files were made; written before them

A file that is there was written whole, from the clip and the edits that its record names. Each clip has
a process of its own, which dies with its parent and may take only so much memory and time: a clip that
cannot be decoded, kills its decoder, or wants more is told as unreadable.
"""

import json
import multiprocessing
import multiprocessing.connection
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import av

from curation import errors
from curation.corpus.edits import ALL_EDITS, edited
from curation.corpus.film import LONGEST_S, Film, read_film, write_film
from curation.corpus.near_misses import DEGENERATE, PAIRS, pair_of
from curation.files import remove, replacing, sha256_file, write_json
from curation.media.container import Limits, Unscannable, chosen_streams, opened
from curation.media.serving import die_with, limit_cpu, limit_itself

VERSION = 1  # of what the edits do; files of another version are made again
BASE, COPY, NEAR_MISS, NO_SOURCE = "base", "copy", "near_miss", "degenerate"
UNREADABLE = "unreadable"
TIMEOUT_S = 900.0  # for all that is made of one clip: about a minute on one core
_MEMORY_BYTES = 4 << 30  # a clip's pictures several times over, and an encoder
_LONGEST_ANSWER = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFile:
    """One file of the folder; `base` is the clip it was made of."""

    file: str  # below the folder, posix
    base: str | None
    what: str  # base, copy, near_miss, degenerate, or unreadable: there is no file
    edit: str | None  # of ALL_EDITS, PAIRS or DEGENERATE


@dataclass(frozen=True, slots=True)
class _Work:
    """One clip and some of what is made of it; without a clip, the degenerate ones."""

    folder: Path
    stem: str
    source: Path | None
    names: tuple[str, ...]
    longest_s: float
    timeout_s: float


def stems(sources: Iterable[Path]) -> dict[str, Path]:
    """A name for each clip: that of its file, with its extension where two are alike."""
    sources = list(sources)
    names = [path.stem for path in sources]
    made: dict[str, Path] = {}
    for path in sources:
        alone = names.count(path.stem) == 1
        name = path.stem if alone else f"{path.stem}_{path.suffix[1:]}"
        for number in range(1, len(sources) + 1):
            unique = name if number == 1 else f"{name}_{number}"
            if unique not in made:
                made[unique] = path
                break
    return made


def plant_all(
    sources: dict[str, Path],
    folder: Path,
    *,
    edits: Sequence[str],
    pairs: Sequence[str] = tuple(PAIRS),
    degenerate: bool = True,
    workers: int = 2,
    longest_s: float = LONGEST_S,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[list[PlantedFile]]:
    """Make what is not there yet, one clip after the other; a list of files as each is done.

    Args:
        sources: media files by the name they get, see `stems`.
        edits: of ALL_EDITS, in this order.
        timeout_s: after which a clip of which not all is made is given up as unreadable.
    """
    works = [
        _Work(folder, stem, source, tuple(edits) + tuple(pairs), longest_s, timeout_s)
        for stem, source in sorted(sources.items())
    ]
    if degenerate:
        works.append(_Work(folder, "degenerate", None, (), longest_s, timeout_s))
    yield from _side_by_side(works, workers)


@dataclass(frozen=True, slots=True)
class _Running:
    """A process and what it does."""

    index: int
    work: _Work
    process: SpawnProcess
    until_s: float  # of the monotonic clock

    @classmethod
    def begun(cls, index: int, work: _Work) -> "tuple[Connection, _Running]":
        """The process, and where its answer comes from."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(work, theirs), daemon=True)
        process.start()
        theirs.close()
        return ours, cls(index, work, process, time.monotonic() + work.timeout_s)

    def end(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()


def _side_by_side(works: Sequence[_Work], workers: int) -> Iterator[list[PlantedFile]]:
    """What each work made, in their order; so many processes at a time, each for one work."""
    waiting = deque(enumerate(works))
    running: dict[Connection, _Running] = {}
    made: dict[int, list[PlantedFile]] = {}
    told = 0
    try:
        while told < len(works):
            while waiting and len(running) < workers:
                answer, begun = _Running.begun(*waiting.popleft())
                running[answer] = begun
            for ended, files in _ended(running):
                one = running.pop(ended)
                one.end()
                ended.close()
                made[one.index] = files
            while told in made:
                yield made.pop(told)
                told += 1
    finally:
        for one in running.values():
            one.end()


def _ended(running: dict[Connection, _Running]) -> list[tuple[Connection, list[PlantedFile]]]:
    """Those that answered or took too long, and what they made; waits until there are some."""
    rest_s = min((one.until_s for one in running.values()), default=0.0) - time.monotonic()
    answered = multiprocessing.connection.wait(list(running), max(0.0, rest_s)) if running else []
    now_s = time.monotonic()
    return [
        (answer, _answer(answer, one.work) if answer in answered else [_unreadable(one.work)])
        for answer, one in running.items()
        if answer in answered or one.until_s <= now_s
    ]


def _child(work: _Work, answer: Connection) -> None:
    """Do one work; the answer is JSON, since a decoder that was fooled could send anything."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is a process of its own"
    assert parent.pid is not None, "it was started"
    die_with(parent.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent
    limit_itself(_MEMORY_BYTES)
    limit_cpu(work.timeout_s)
    try:
        said: dict[str, object] = {"files": [asdict(file) for file in _made(work)]}
    except errors.FoleyproofError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    answer.send_bytes(json.dumps(said).encode())


def _answer(answer: Connection, work: _Work) -> list[PlantedFile]:
    try:
        said = json.loads(answer.recv_bytes(_LONGEST_ANSWER))
    except (EOFError, OSError):  # it ended before, or said too much
        return [_unreadable(work)]
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return [PlantedFile(**file) for file in said["files"]]


def _unreadable(work: _Work) -> PlantedFile:
    return PlantedFile(file=work.stem, base=work.stem, what=UNREADABLE, edit=None)


def _made(work: _Work) -> list[PlantedFile]:
    if work.source is None:
        return [_made_degenerate(work.folder, index) for index in range(len(DEGENERATE))]
    _forget_if_changed(work)
    try:
        return _planted(work, work.source)
    except (av.error.FFmpegError, Unscannable, MemoryError, _NothingToSee):
        return [_unreadable(work)]


def _planted(work: _Work, source: Path) -> list[PlantedFile]:
    files = [_base(work)]
    film: Film | None = None
    for name in work.names:
        targets = _targets(work, name)
        what = COPY if name in ALL_EDITS else NEAR_MISS
        if not all(target.exists() for target in targets) and not _nothing(work, name).exists():
            film = film or _read(source, work.longest_s)
            films = [edited(film, name)] if what == COPY else pair_of(film, name)
            for target, one in zip(targets, films or (None,) * len(targets), strict=True):
                if one is None:
                    write_json(_nothing(work, name), {"made": False})
                else:
                    write_film(one, target)
        files += [
            PlantedFile(file=target.name, base=work.stem, what=what, edit=name)
            for target in targets
            if target.exists()
        ]
    return files


class _NothingToSee(Exception):
    """A clip has neither pictures nor sound."""


def _read(source: Path, longest_s: float) -> Film:
    film = read_film(source, longest_s=longest_s)
    if not film.frames and film.wave is None:
        raise _NothingToSee(source)
    return film


def _targets(work: _Work, name: str) -> list[Path]:
    if name in ALL_EDITS:
        return [work.folder / f"{work.stem}__{name}{ALL_EDITS[name].suffix}"]
    return [work.folder / f"{work.stem}__{name}_{k}.mp4" for k in (1, 2)]


def _nothing(work: _Work, name: str) -> Path:
    """Where it is noted that a clip gives no such copy, as one without sound gives no sound."""
    return work.folder / "records" / f"{work.stem}__{name}.json"


def _forget_if_changed(work: _Work) -> None:
    """Remove what was made of another file of this name, or by another version of the edits."""
    assert work.source is not None, "there is a clip"
    key = {
        "version": VERSION,
        "clip": sha256_file(work.source),
        "longest_s": work.longest_s,
        "av": av.__version__,
    }
    record = work.folder / "records" / f"{work.stem}.json"
    if record.exists() and json.loads(record.read_text(encoding="utf-8")) == key:
        return
    for name in (*ALL_EDITS, *PAIRS):
        for path in (*_targets(work, name), _nothing(work, name)):
            remove(path)
    remove(_base_target(work))
    write_json(record, key)


def _base_target(work: _Work) -> Path:
    assert work.source is not None, "there is a clip"
    return work.folder / "base" / f"{work.stem}{work.source.suffix}"


def _base(work: _Work) -> PlantedFile:
    assert work.source is not None, "there is a clip"
    target = _base_target(work)
    if not target.exists():
        copy_beginning(work.source, target, work.longest_s)
    return PlantedFile(file=f"base/{target.name}", base=work.stem, what=BASE, edit=None)


def _made_degenerate(folder: Path, index: int) -> PlantedFile:
    one = DEGENERATE[index]
    target = folder / f"degenerate__{one.name}.mp4"
    if not target.exists():
        write_film(one.film(), target)
    return PlantedFile(file=target.name, base=None, what=NO_SOURCE, edit=one.name)


def copy_beginning(source: Path, target: Path, longest_s: float = LONGEST_S) -> None:
    """Copy a media file, of a long one the packets of its first seconds, nothing encoded again.

    Raises:
        Unscannable: it is no media, or asks for too much.
    """
    limits = Limits()
    with opened(str(source), limits) as container, replacing(target) as temporary:
        taken = [stream for stream in chosen_streams(container, limits) if stream is not None]
        if (container.duration or 0) / av.time_base <= longest_s + 0.5:
            shutil.copyfile(source, temporary)
            return
        format_name = {".mkv": "matroska"}.get(target.suffix, target.suffix[1:])
        with av.open(str(temporary.absolute()), "w", format=format_name) as output:
            copies = {stream.index: output.add_stream_from_template(stream) for stream in taken}
            for packet in container.demux(taken):
                if packet.dts is None or packet.time_base is None:
                    continue
                if float(packet.dts * packet.time_base) < longest_s:
                    packet.stream = copies[packet.stream.index]
                    output.mux(packet)
