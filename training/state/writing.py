"""The thread that writes while training goes on, and files whose digest is taken as they are written."""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Bytes = memoryview


class Background:
    """One job at a time in a thread of its own; an error in it reaches whoever asks next."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Begin a job; the one before must have ended: see `wait`."""
        assert self._thread is None, "the job before was not waited for"
        # a process whose training failed ends without it: what is half written is swept
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Whether the last job ended with an error that nobody was told of."""
        return self._error is not None

    def wait(self) -> None:
        """Return when nothing is being done; raise what the last job raised, once."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error


def write_hashed(path: Path, contents: Sequence[Bytes]) -> str:
    """Write a new file and have it on the disk; its sha256, taken from memory in a thread beside.

    Both are slow and wait for each other as little as two cores allow: neither holds the interpreter.
    """
    with ThreadPoolExecutor(1) as beside, path.open("xb", buffering=0) as stream:
        digest = beside.submit(_sha256, contents)
        for part in contents:
            left = part
            while len(left):
                left = left[stream.write(left) :]
        os.fsync(stream.fileno())
        return digest.result()


def _sha256(contents: Sequence[Bytes]) -> str:
    digest = hashlib.sha256()
    for part in contents:
        digest.update(part)
    return digest.hexdigest()
