"""What files of weights were when they were first seen, so that gigabytes are hashed once and not at
each start.

`<folder>/digests.json` notes bytes, time of the last change, sha256 and md5 of each file by its path
from there. A note is believed while size and time are unchanged. A file without a published digest is
trusted at first sight, and refused when its bytes differ later.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from curation.errors import BadWeights, NotWritable
from curation.files import disk_space, holding, write_json

DIGESTS = "digests.json"
_CHUNK_BYTES = 8 << 20
Report = Callable[[str, int, int | None], None]  # of what, bytes done, bytes in all


def silent(name: str, done: int, total: int | None) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One file as it was when it was hashed; digests in hexadecimal."""

    bytes: int
    mtime_ns: int
    sha256: str
    md5: str


def read_note(path: Path, *, progress: Report = silent) -> Note:
    """Hash a file: sha256 and md5 at the same time, each in a thread of its own."""
    sha256, md5, done = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with disk_space(path), path.open("rb", buffering=0) as stream, ThreadPoolExecutor(2) as pool:
        stat = os.fstat(stream.fileno())
        while chunk := stream.read(_CHUNK_BYTES):
            for ended in [pool.submit(sha256.update, chunk), pool.submit(md5.update, chunk)]:
                ended.result()
            done += len(chunk)
            progress(f"digest of {path.name}", done, stat.st_size)
    return Note(bytes=done, mtime_ns=stat.st_mtime_ns, sha256=sha256.hexdigest(), md5=md5.hexdigest())


class Digests:
    """The notes of one folder of weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / DIGESTS

    def noted(self, path: Path) -> Note | None:
        """The note of a file as it was, whether or not it still is so."""
        return self._read().get(self._key(path))

    def believed(self, path: Path) -> Note | None:
        """The note of a file whose size and time have not changed since; None: it must be hashed."""
        note, stat = self.noted(path), path.stat()
        if note is None or (note.bytes, note.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            return None
        return note

    def write(self, path: Path, note: Note) -> None:
        """Keep a note.

        Raises:
            BadWeights: the folder cannot be written.
        """
        try:
            with holding(self._folder / f".{DIGESTS}.lock", patience_s=math.inf):
                notes = self._read() | {self._key(path): note}
                write_json(self._file, {key: asdict(note) for key, note in notes.items()})
        except NotWritable as error:
            raise not_writable(self._folder, error) from error

    def _key(self, path: Path) -> str:
        return os.path.relpath(path, self._folder)

    def _read(self) -> dict[str, Note]:
        """All notes.

        Raises:
            BadWeights: the file of notes is damaged.
        """
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(key): Note(**note) for key, note in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadWeights(
                f"{self._file}: cannot be read ({error}), expected notes about the files of weights — "
                "remove it; the files are then hashed again"
            ) from error


def not_writable(folder: Path, error: Exception) -> BadWeights:
    """Of a folder where neither notes nor converted files can be kept."""
    why = str(error).partition(";")[0]
    return BadWeights(
        f"{folder}: digests and converted weights cannot be kept here ({why}), expected a folder that "
        "can be written — make one of your own, link the files into it, and give it with --weights"
    )
