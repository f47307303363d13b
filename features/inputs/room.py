"""Memory that a child fills and its parent reads, without a copy and without a name on disk.

A room is an anonymous file of the system (memfd) of fixed size, big enough for one clip. It ends with
the last process that has it open, so that nothing is left behind whoever is killed. A room is used
again when nobody holds an array in it any more.
"""

import fcntl
import mmap
import os
import threading
import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np

from features.inputs.prepared import InputConfig
from features.spec import CLIP_SIDE_PX, SYNC_SIDE_PX

_ALIGNED_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What lies in a room."""

    clip_tchw: np.ndarray  # uint8 (T, 3, 384, 384)
    sync_tchw: np.ndarray  # uint8 (T, 3, 224, 224)
    waves_ps: np.ndarray  # float32 (parts, S)


class Layout:
    """Where in a room everything lies."""

    def __init__(self, config: InputConfig) -> None:
        sequence = config.sequence
        self._clip = (sequence.num_clip_frames, 3, CLIP_SIDE_PX, CLIP_SIDE_PX)
        self._sync = (sequence.num_sync_frames, 3, SYNC_SIDE_PX, SYNC_SIDE_PX)
        self._waves = (config.max_parts, sequence.num_samples)
        shapes = ((self._clip, np.uint8), (self._sync, np.uint8), (self._waves, np.float32))
        self._begins, end = [], 0
        for shape, kind in shapes:
            self._begins.append(end)
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            end += -(-size // _ALIGNED_BYTES) * _ALIGNED_BYTES
        self.num_bytes = end

    def views(self, content: np.ndarray) -> Views:
        """The arrays in the bytes of a room; they keep it."""
        clip, sync, waves = (
            content[begin : begin + int(np.prod(shape)) * np.dtype(kind).itemsize]
            .view(kind)
            .reshape(shape)
            for begin, shape, kind in zip(
                self._begins,
                (self._clip, self._sync, self._waves),
                (np.uint8, np.uint8, np.float32),
                strict=True,
            )
        )
        return Views(clip_tchw=clip, sync_tchw=sync, waves_ps=waves)


class Room:
    """One of them."""

    def __init__(self, num_bytes: int) -> None:
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self.file = os.memfd_create("clip", flags)
        weakref.finalize(self, os.close, self.file)
        os.ftruncate(self.file, num_bytes)
        # A child that cut it short would take its parent with it.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, seals)
        self._map = mmap.mmap(self.file, num_bytes)

    def content(self) -> np.ndarray:
        """All its bytes, uint8; every array in the room is a view of what is returned."""
        return np.frombuffer(self._map, np.uint8)


class Rooms:
    """Rooms that are free, and new ones where there are none; for several threads."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._free: deque[Room] = deque()
        self._lock = threading.RLock()  # arrays may go, and give back, at any moment
        self._closed = False

    def take(self) -> Room:
        """A room that nobody uses."""
        with self._lock:
            if self._free:
                return self._free.popleft()
        return Room(self._num_bytes)

    def give_back(self, room: Room) -> None:
        """Let a room be used again."""
        with self._lock:
            if not self._closed:
                self._free.append(room)

    def close(self) -> None:
        """Let go of all rooms that are free, and of the others when they are."""
        with self._lock:
            self._closed = True
            self._free.clear()

    def lend(self, room: Room) -> np.ndarray:
        """The bytes of a room, which is given back when the last array in it is gone."""
        content = room.content()
        weakref.finalize(content, self.give_back, room).atexit = False
        return content
