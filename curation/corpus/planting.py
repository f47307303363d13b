"""Whole folders of planted copies and near misses, made by several processes and continued after a kill.

    <folder>/base/<clip>.mp4               the clip as it is, of long ones the first 8 s
    <folder>/<clip>__<edit>.mp4            a copy
    <folder>/<clip>__<pair>_1.mp4, _2      two that are no copies of each other
    <folder>/degenerate__<name>.mp4        a clip that says little
    <folder>/records/…json                 of what each clip's files were made; written before them

A file that is there was written whole, from the clip and the edits that its record names. Each clip has
a process of its own: one that cannot be decoded, or kills its decoder, is told as unreadable.
"""

import json
import multiprocessing
import multiprocessing.connection
import shutil
import signal
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

VERSION = 1  # of what the edits do; files of another version are made again
BASE, COPY, NEAR_MISS, NO_SOURCE = "base", "copy", "near_miss", "degenerate"
UNREADABLE = "unreadable"


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
) -> Iterator[list[PlantedFile]]:
    """Make what is not there yet, one clip after the other; a list of files as each is done.

    Args:
        sources: media files by the name they get, see `stems`.
        edits: of ALL_EDITS, in this order.
    """
    works = [
        _Work(folder, stem, source, tuple(edits) + tuple(pairs), longest_s)
        for stem, source in sorted(sources.items())
    ]
    if degenerate:
        works.append(_Work(folder, "degenerate", None, (), longest_s))
    yield from _side_by_side(works, workers)


def _side_by_side(works: Sequence[_Work], workers: int) -> Iterator[list[PlantedFile]]:
    """What each work made, in their order; so many processes at a time, each for one work."""
    context = multiprocessing.get_context("spawn")
    waiting = deque(enumerate(works))
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    made: dict[int, list[PlantedFile]] = {}
    told = 0
    try:
        while told < len(works):
            while waiting and len(running) < workers:
                index, work = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = (index, process)
            for answered in multiprocessing.connection.wait(list(running)):
                assert isinstance(answered, Connection), "only pipes are waited for"
                index, process = running.pop(answered)
                made[index] = _answer(answered, works[index])
                process.join()
            while told in made:
                yield made.pop(told)
                told += 1
    finally:
        for _, process in running.values():
            process.kill()


def _child(work: _Work, answer: Connection) -> None:
    """Do one work; the answer is JSON, since a decoder that was fooled could send anything."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the parent
    try:
        said: dict[str, object] = {"files": [asdict(file) for file in _made(work)]}
    except errors.FoleyproofError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    answer.send_bytes(json.dumps(said).encode())


def _answer(answer: Connection, work: _Work) -> list[PlantedFile]:
    try:
        said = json.loads(answer.recv_bytes())
    except EOFError:
        return [PlantedFile(file=work.stem, base=work.stem, what=UNREADABLE, edit=None)]
    if "error" in said:
        raise getattr(errors, said["error"])(said["message"])
    return [PlantedFile(**file) for file in said["files"]]


def _made(work: _Work) -> list[PlantedFile]:
    if work.source is None:
        return [_made_degenerate(work.folder, index) for index in range(len(DEGENERATE))]
    _forget_if_changed(work)
    try:
        return _planted(work, work.source)
    except (av.error.FFmpegError, _NothingToSee):
        return [PlantedFile(file=work.stem, base=work.stem, what=UNREADABLE, edit=None)]


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
    """Copy a media file, of a long one the packets of its first seconds, nothing encoded again."""
    with av.open(str(source.resolve())) as container, replacing(target) as temporary:
        if (container.duration or 0) / av.time_base <= longest_s + 0.5:
            shutil.copyfile(source, temporary)
            return
        format_name = {".mkv": "matroska"}.get(target.suffix, target.suffix[1:])
        with av.open(str(temporary.absolute()), "w", format=format_name) as output:
            taken = [*container.streams.video[:1], *container.streams.audio[:1]]
            copies = {stream.index: output.add_stream_from_template(stream) for stream in taken}
            for packet in container.demux(taken):
                if packet.dts is None or packet.time_base is None:
                    continue
                if float(packet.dts * packet.time_base) < longest_s:
                    packet.stream = copies[packet.stream.index]
                    output.mux(packet)
