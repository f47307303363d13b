"""Clips and files: which file below a media folder is a clip's.

A folder is walked once. A clip's file is the first that fits a pattern of its card, in the order of the
patterns: at exactly that path below the folder, else in any folder below it, and where several files
end in that name at the smallest path. Whatever no clip claims is unmatched.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curation.errors import UsageProblem

# of files that hold sound and no picture, but maybe a cover
SOUND_SUFFIXES = frozenset((
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".eac3", ".flac", ".m4a",
    ".m4b", ".mka", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".tta", ".w64", ".wav", ".weba",
    ".wma", ".wv",
))  # fmt: skip
MEDIA_SUFFIXES = SOUND_SUFFIXES | frozenset((
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".flv", ".gif", ".ivf", ".m2ts", ".m2v", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".qt", ".rm", ".rmvb", ".ts",
    ".vob", ".webm", ".wmv",
))  # fmt: skip
# What stands in a name for bytes that are no UTF-8: such a name must be text in a manifest.
_NOT_TEXT = re.compile("[\ud800-\udfff]")
_PART = re.compile(r"\{[^}]*\}|[^{]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFolder:
    """The files below a folder, by their paths as text, `/` between the parts."""

    root: Path
    media: dict[str, str]  # path as text to the path that the system knows
    # the last part of paths, and the last two, to all that end in them, the smallest first
    by_name: dict[str, list[str]]
    not_media: int  # files with another suffix

    def real_path(self, path: str) -> str:
        """What the system knows the file as."""
        return os.path.join(self.root, self.media[path])


def media_folder(root: Path, *, without: Path | None = None) -> MediaFolder:
    """The media below `root`; links are followed, each folder once.

    Args:
        without: a folder that is left out, with all that is in it.

    Raises:
        UsageProblem: it is no folder that can be read.
    """
    if not root.is_dir():
        raise UsageProblem(
            f"{root}: no such folder, expected one with video or sound files — check the path"
        )
    found: list[str] = []
    not_media = 0
    skipped = None if without is None else _identity(without)
    seen = set() if skipped is None else {skipped}
    waiting = [""]  # folders, as the start of the paths in them
    while waiting:
        inside = waiting.pop()
        place = root / inside
        here = _identity(place)  # None: gone or closed, which is told where it is opened
        if here in seen:
            continue
        if here is not None:
            seen.add(here)
        for entry in _entries(place):
            path = inside + entry.name
            is_folder, is_file = _kind(entry)
            if is_folder:
                waiting.append(f"{path}/")
            elif is_file and os.path.splitext(entry.name)[1].lower() in MEDIA_SUFFIXES:
                found.append(path)
            else:  # pipes and links to nowhere are none either
                not_media += 1
    media = dict(sorted(_texts(found).items()))
    by_name: dict[str, list[str]] = {}
    for path in media:
        for parts in (1, 2):
            if path.count("/") >= parts - 1:
                by_name.setdefault(_end(path, parts), []).append(path)
    return MediaFolder(root=root, media=media, by_name=by_name, not_media=not_media)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _entries(folder: Path) -> "list[os.DirEntry[str]]":
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise UsageProblem(
            f"{folder}: {error.strerror}, expected a folder that can be read — allow it, or give another"
        ) from error


def _kind(entry: "os.DirEntry[str]") -> tuple[bool, bool]:
    """Whether it is a folder, and whether a file; a link to itself is neither."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:
        return False, False


def _texts(paths: list[str]) -> dict[str, str]:
    """Paths by their texts; one that is no text, and whose `\\xNN` is another's name, gets a number."""
    texts: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (_NOT_TEXT.search(path) is not None, path)):
        text, number = as_text(path), 1
        stem, suffix = os.path.splitext(text)
        while text in texts:
            number += 1
            text = f"{stem}~{number}{suffix}"
        texts[text] = path
    return texts


def as_text(path: str) -> str:
    """A path as text: bytes that are no UTF-8 become `\\xNN`."""
    if not _NOT_TEXT.search(path):
        return path
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A clip, by what the patterns of cards are made of."""

    clip_id: str
    source_id: str | None = None
    start_s: float | None = None
    end_s: float | None = None


def _start(clip: Wanted) -> str | None:
    if clip.start_s is None:
        return None
    return str(int(clip.start_s)) if clip.start_s % 1 == 0 else repr(clip.start_s)


def _six_digits(clip: Wanted) -> str | None:
    return None if clip.start_s is None or clip.start_s % 1 else f"{int(clip.start_s):06d}"


def _ms(time_s: float | None) -> str | None:
    return None if time_s is None else str(round(time_s * 1000))


# as in catalog/filenames.py, where they stand in SQL
_PLACEHOLDERS: dict[str, Callable[[Wanted], str | None]] = {
    "{clip_id}": lambda clip: clip.clip_id,
    "{id}": lambda clip: clip.source_id,
    "{start:06d}": _six_digits,
    "{start}": _start,
    "{start_ms}": lambda clip: _ms(clip.start_s),
    "{end_ms}": lambda clip: _ms(clip.end_s),
}


def file_name(pattern: str, clip: Wanted) -> str | None:
    """The path that a pattern of a card means for a clip; None where the clip lacks a part."""
    said = []
    for part in _PART.findall(pattern):
        text = _PLACEHOLDERS[part](clip) if part in _PLACEHOLDERS else part
        if text is None:
            return None
        said.append(text)
    return "".join(said)


@dataclass(slots=True)
class Located:
    """Which file is whose."""

    files: list[str | None] = field(default_factory=list)  # of each clip, in the order given

    @property
    def found(self) -> int:
        """Clips with a file."""
        return sum(file is not None for file in self.files)

    @property
    def missing(self) -> int:
        """Clips without."""
        return len(self.files) - self.found


def locate(clips: Iterable[Wanted], patterns: Sequence[str], folder: MediaFolder) -> Located:
    """The file of each clip, by the patterns of its card."""
    located = Located()
    for clip in clips:
        names = (file_name(pattern, clip) for pattern in patterns)
        paths = (_find(name, folder) for name in names if name)
        located.files.append(next((path for path in paths if path is not None), None))
    return located


def of_list(paths: Iterable[str | None], folder: MediaFolder) -> Located:
    """The file of each clip of a list that names them by their paths."""
    return Located([_find(path, folder) if path else None for path in paths])


def _find(name: str, folder: MediaFolder) -> str | None:
    if name in folder.media:
        return name
    # a name with folders is that of a file in such folders, wherever they lie
    paths = folder.by_name.get(_end(name, 2), [])
    return next((path for path in paths if path.endswith(f"/{name}") or "/" not in name), None)


def _end(path: str, parts: int) -> str:
    """Its last parts."""
    return "/".join(path.split("/")[-parts:])


def unmatched(folder: MediaFolder, located: Iterable[Located]) -> int:
    """Media files that no clip claims."""
    claimed = {file for one in located for file in one.files}
    return sum(path not in claimed for path in folder.media)
