"""Rows of many files copied into one buffer: from mapped memory, or by reads.

All mapped files lie one after another in a single reserved stretch of addresses, so that a row anywhere
in them is a number of 8-byte words from its begin, and one `torch.index_select` copies a column of a
whole batch without looking at rows one by one. A page of zeros at the end stands for what is absent.

Offsets and lengths are in words of 8 bytes: rows of every column are whole numbers of words.

Shape suffixes: B rows, P pieces of a row, W words.
"""

import ctypes
import mmap
import os
import re
import resource
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from curation.errors import ManifestChanged

WORD_BYTES = 8
IO = Literal["mmap", "pread"]
Words = npt.NDArray[np.int64]
ZEROS = -1  # as a file: the row is all zeros
_PIECE_WORDS = 1 << 15  # shorter pieces are copied by one memcpy each
_OPEN_SHARE = 4  # of the files that the system lets a process open, one in so many may be shards
_OCTAL = re.compile(r"\\([0-7]{3})")  # a blank, tab, line end or backslash in a mount point
_NETWORKS = (
    "nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "fuse", "panfs",
    "wekafs", "pvfs2", "ocfs2", "orangefs", "virtiofs",
)  # fmt: skip


class Wanted(NamedTuple):
    """A column of a batch: for each row, W words at an offset in a file; ZEROS as a file gives zeros."""

    files: Words
    offsets: Words
    target_bw: torch.Tensor  # (B, W) int64


class Gather(Protocol):
    """Copies rows of several columns."""

    def fill(self, columns: Sequence[Wanted]) -> None:
        """Copy all that is wanted."""

    def close(self) -> None:
        """Give files and memory back."""


def suitable_io(folder: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> tuple[IO, str]:
    """How files in `folder` are best read, and why: mapping reads network disks page by page."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "mmap", "the system does not say what is mounted"
    place, best, kind = folder.resolve(), Path("/"), "unknown"
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, after.split()[0]
    network = kind.startswith(_NETWORKS)
    return ("pread" if network else "mmap"), f"{best} is {kind}"


class Mapped:
    """Files mapped one after another; rows are copied by several threads."""

    def __init__(
        self, paths: Sequence[Path], sizes: Sequence[int], zero_bytes: int, threads: int
    ) -> None:
        page = mmap.PAGESIZE
        lengths = [_rounded(size, page) for size in sizes]
        begins = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        self._bytes = int(begins[-1]) + _rounded(zero_bytes, page)
        self._base = _map(None, self._bytes, None)
        self._release = weakref.finalize(self, _unmap, self._base, self._bytes)
        for path, size, begin in zip(paths, sizes, begins, strict=False):
            with path.open("rb") as file:
                _map(self._base + int(begin), size, file.fileno())
        # ZEROS is the last of these places
        self._begins = begins // WORD_BYTES
        memory = (ctypes.c_char * self._bytes).from_address(self._base)
        self._words = torch.frombuffer(memory, dtype=torch.int64)

        self._threads = threads
        self._pool = _serial_threads(threads)

    def fill(self, columns: Sequence[Wanted]) -> None:
        """See `Gather`."""
        num_rows = max(len(files) for files, _, _ in columns)
        some = max(1, -(-num_rows // self._threads))

        def copy(begin: int) -> None:
            part = slice(begin, begin + some)
            for files, offsets, target_bw in columns:
                self._copy(files[part], offsets[part], target_bw[part])

        for _ in self._pool.map(copy, range(0, num_rows, some)):
            pass

    def _copy(self, files: Words, offsets: Words, target_bw: torch.Tensor) -> None:
        begins = self._begins[files] + offsets
        rows, words = target_bw.shape
        pieces = _pieces(words)
        if pieces > 1:
            steps = np.arange(pieces, dtype=np.int64) * (words // pieces)
            begins = (begins[:, None] + steps).ravel()
        length = words // pieces
        # every word may begin a row: overlapping windows over all that is mapped
        windows = self._words.as_strided((len(self._words) - length + 1, length), (1, 1))
        target = target_bw.view(rows * pieces, length)
        torch.index_select(windows, 0, torch.from_numpy(begins), out=target)

    def close(self) -> None:
        """Give the memory back; no row may be copied any more."""
        self._pool.shutdown()
        self._words = torch.empty(0, dtype=torch.int64)
        self._release()


def _unmap(base: int, length: int) -> None:
    _libc().munmap(ctypes.c_void_p(base), ctypes.c_size_t(length))


def _serial_threads(count: int) -> ThreadPoolExecutor:
    """Threads in which PyTorch computes alone.

    Its own threads wait for one another by spinning, which costs most of the rate on a busy machine. How
    many they are is a setting of each thread; those that start later take over the last one that was
    given anywhere, so that it is given back at once.
    """
    before, all_there = torch.get_num_threads(), threading.Barrier(count)
    pool = ThreadPoolExecutor(count, thread_name_prefix="shards")

    def alone(number: int) -> None:
        all_there.wait()  # until then each task has a thread of its own
        torch.set_num_threads(1)

    for _ in pool.map(alone, range(count)):
        pass
    torch.set_num_threads(before)
    return pool


def _rounded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _pieces(words: int) -> int:
    """In how many equal parts a row is copied so that each is short."""
    return next(n for n in range(1, words + 1) if words % n == 0 and words // n < _PIECE_WORDS)


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    return libc


def _map(address: int | None, length: int, handle: int | None) -> int:
    """Map a file over a reserved address; without one, reserve, with zeros that take no memory."""
    if length == 0:
        return address or 0
    fixed = 0x10 if address is not None else 0  # MAP_FIXED, which the module mmap does not name
    flags = mmap.MAP_PRIVATE | fixed
    flags |= mmap.MAP_ANONYMOUS if handle is None else 0
    place = _libc().mmap(
        ctypes.c_void_p(address or 0), ctypes.c_size_t(length), mmap.PROT_READ, flags,
        -1 if handle is None else handle, ctypes.c_int64(0),
    )  # fmt: skip
    if place in (None, ctypes.c_void_p(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, f"mapping {length:,} bytes: {os.strerror(code)}")
    return int(place)


class Read:
    """Files read row by row, by several threads."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int], threads: int) -> None:
        self._paths, self._sizes = paths, sizes
        self._handles: list[int | None] = [None] * len(paths)
        self._release = weakref.finalize(self, _close_all, self._handles)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _OPEN_SHARE
        for number, path in enumerate(paths[:most]):
            self._handles[number] = os.open(path, os.O_RDONLY)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shards")

    def fill(self, columns: Sequence[Wanted]) -> None:
        """See `Gather`."""
        # plain lists and one memoryview a column: the loop below holds the GIL between its reads
        flat = [
            (files.tolist(), (offsets * WORD_BYTES).tolist(), target_bw.numpy().data.cast("B"))
            for files, offsets, target_bw in columns
        ]
        num_rows = max(len(files) for files, _, _ in flat)
        some = max(1, -(-num_rows // self._threads))

        def read(begin: int) -> None:
            for files, offsets, target in flat:
                size = len(target) // len(files)
                for at in range(begin, min(begin + some, num_rows)):
                    self._read(files[at], offsets[at], target[at * size : (at + 1) * size])

        for _ in self._pool.map(read, range(0, num_rows, some)):
            pass

    def _read(self, number: int, offset: int, target: memoryview) -> None:
        if number == ZEROS:
            target[:] = bytes(len(target))
        elif (handle := self._handles[number]) is not None:
            read_whole(handle, target, offset, self._paths[number])
        else:
            with self._paths[number].open("rb", buffering=0) as file:
                read_whole(file.fileno(), target, offset, self._paths[number])

    def close(self) -> None:
        """Close the files."""
        self._pool.shutdown()
        self._release()


def _close_all(handles: list[int | None]) -> None:
    for handle in handles:
        if handle is not None:
            os.close(handle)


def read_whole(
    handle: int,
    target: memoryview,
    offset: int,
    path: Path,
    preadv: Callable[[int, list[memoryview], int], int] = os.preadv,
) -> None:
    """Fill `target` from a file; a read may give less than was asked for, and goes on.

    Raises:
        ManifestChanged: the file ends before.
    """
    done = preadv(handle, [target], offset)
    while done < len(target):
        got = preadv(handle, [target[done:]], offset + done)
        if got == 0:
            raise ManifestChanged(
                f"{path}: ends at byte {offset + done:,}, expected {offset + len(target):,} or more — "
                "it was cut while it was read; run: features verify --full"
            )
        done += got
