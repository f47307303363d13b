"""The files of TensorBoard: scalars by step, written by the thread that has them.

Its own writers write from a thread of theirs, where a full disk ends the thread with a traceback and is
told at the next call, if there is one.
"""

import os
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from curation.files import disk_space
from curation.progress import note

_numbers = count()


class Board:
    """One file in a folder; TensorBoard shows all that lie there as one run."""

    def __init__(self, folder: Path, *, resumed_step: int) -> None:
        """Begin a file, which hides what was told of later steps.

        Raises:
            ImportError: TensorBoard is missing.
            NoSpace: the disk is full.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # named as TensorBoard knows its files
        name = f"{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._path = folder / f"events.out.tfevents.{name}"
        with disk_space(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self._path.open("wb"))
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=resumed_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write numbers by their tags; they are there when this returns.

        Raises:
            NoSpace: the disk is full.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=found)))
        with disk_space(self._path):
            self._records.flush()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        with disk_space(self._path):
            self._records.write(event.SerializeToString())

    def close(self) -> None:
        """Write what is still held, and let go of the file also where there is no room.

        Raises:
            NoSpace: the disk is full.
        """
        with disk_space(self._path):
            self._records.close()


def board_of(folder: Path, *, resumed_step: int) -> Board | None:
    """None, which is told, where TensorBoard is missing."""
    try:
        return Board(folder, resumed_step=resumed_step)
    except ImportError:
        note(
            "tensorboard is not installed, so nothing is written for it; stats.jsonl has the same "
            "numbers — pip install tensorboard"
        )
        return None
