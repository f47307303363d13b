"""A file that grows as `<name>.part` and is hashed while it comes; `<name>.part.json` tells of what."""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.files import remove

CHUNK_BYTES = 1 << 20
_BUFFERS = 4


@contextmanager
def hashing() -> Iterator[
    tuple[Callable[[], bytearray], Callable[[bytearray, int], None], Callable[[], str]]
]:
    """sha256 in a thread of its own, beside the network: a free buffer, its hashing, the digest."""
    sha256, filled = hashlib.sha256(), queue.Queue[tuple[bytearray, int] | None]()
    free = queue.Queue[bytearray]()
    for _ in range(_BUFFERS):
        free.put(bytearray(CHUNK_BYTES))

    def work() -> None:
        while (entry := filled.get()) is not None:
            sha256.update(memoryview(entry[0])[: entry[1]])
            free.put(entry[0])

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def digest() -> str:
        filled.put(None)
        thread.join()
        return sha256.hexdigest()

    try:
        yield free.get, lambda buffer, size: filled.put((buffer, size)), digest
    finally:
        if thread.is_alive():
            filled.put(None)


def write_out(handle: int, begin: int, end: int) -> None:
    """Have the system write these bytes to the disk while more are coming, where it knows how."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, begin, end - begin, os.POSIX_FADV_DONTNEED)


def about_part(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def read_about(part: Path) -> dict[str, Any]:
    try:
        found = json.loads(about_part(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def size_of(part: Path | None) -> int:
    return part.stat().st_size if part is not None and part.is_file() else 0


def forget(part: Path) -> None:
    remove(part)
    remove(about_part(part))
