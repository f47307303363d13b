"""All that is random about a sample: normals, its time, dropping.

32 slots of a step share streams of Philox4x64-10, in which each has its place: what it draws follows
from (seed, step, slot) alone, for any ranks, micro-batches and restarts.

    key      (seed, which use)               counter  (0, slot // 32, step, part)
    part     0  three uniforms of each slot, in [0, 1), for dropping CLIP, sync and text; then z of each,
                the normal that becomes its time
             1  the noise of the posterior, N C normals of one slot after another
             2  the noise x0 at which the path begins, likewise

Streams are shared since threads queue for the interpreter after each call of NumPy. Beside a loop of
plain Python, which keeps it 5 ms at a time, 770 samples came in a second, of a stream for each fewer
than 256; beside one of small operations of PyTorch 2,680 and 2,430 (medians of 8 on a busy machine).

Words and uniforms of Philox are the same everywhere (Random123); normals are NumPy's ziggurat, for which
a test holds values fixed.

Shape suffixes: B samples, N latents, C channels.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011; what is drawn: spec 8.2.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
GROUP = 32  # samples that share streams
_MOST_THREADS = 2  # one draws 7,000 samples a second at 16 kHz


class Stream(IntEnum):
    """What numbers are for; each use has numbers of its own."""

    TRAINING = 0  # counter: group of slots, step, part
    VALIDATION = 1  # counter: row of the index, 0, part; a sample to each
    ORDER = 2  # counter: epoch
    CAPTIONS = 3


class Piece(NamedTuple):
    """Samples of one group that lie side by side in a batch."""

    counter: tuple[int, int]  # what is not its part
    begin: int  # in the group, as is
    end: int
    place: int  # of the first one, in the batch


class Drawn(NamedTuple):
    """Where the draws of B samples go: contiguous arrays."""

    uniforms: npt.NDArray[np.float64]  # (B, 3), for CLIP, sync, text
    z: Floats  # (B,)
    noise: Floats  # (B, N, C), of the posterior
    x0: Floats  # (B, N, C)


def philox(seed: int, stream: Stream, *counter: int) -> np.random.Philox:
    """The numbers of a stream, from a counter of up to three words on."""
    words = np.zeros(4, np.uint64)
    words[1 : 1 + len(counter)] = counter
    return np.random.Philox(key=np.array([seed, stream], np.uint64), counter=words)


def pieces_of(step: int, first_slot: int, count: int) -> Iterator[Piece]:
    """Slots side by side in a step, cut where groups end."""
    slot, end = first_slot, first_slot + count
    while slot < end:
        group, begin = divmod(slot, GROUP)
        more = min(GROUP - begin, end - slot)
        yield Piece((group, step), begin, begin + more, slot - first_slot)
        slot += more


class Draws:
    """Draws by threads, which NumPy lets go of the interpreter while it fills."""

    def __init__(self, seed: int, stream: Stream, *, threads: int | None = None) -> None:
        self._threads = threads or min(_MOST_THREADS, len(os.sched_getaffinity(0)))
        self._sources = [_Source(seed, stream) for _ in range(self._threads)]
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="draws")

    def fill(self, pieces: Sequence[Piece], out: Drawn) -> None:
        """Draw all samples of these pieces."""

        def part(number: int) -> None:
            for piece in pieces[number :: self._threads]:
                self._sources[number].fill(piece, out)

        for _ in self._pool.map(part, range(self._threads)):
            pass

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class _Source:
    """One generator that is set to one stream after another."""

    def __init__(self, seed: int, stream: Stream) -> None:
        self._bits = philox(seed, stream)
        self._generator = np.random.Generator(self._bits)
        # setting the state takes 1 µs, a new generator 20
        self._state: Any = self._bits.state
        self._counter: Words = self._state["state"]["counter"]
        self._passed = np.empty(0, np.float32)

    def fill(self, piece: Piece, out: Drawn) -> None:
        here = slice(piece.place, piece.place + piece.end - piece.begin)
        draw = self._at(piece, 0)
        out.uniforms[here] = draw.random((GROUP, 3))[piece.begin : piece.end]
        out.z[here] = draw.standard_normal(GROUP, np.float32)[piece.begin : piece.end]
        for part, target in ((1, out.noise), (2, out.x0)):
            draw = self._at(piece, part)
            if piece.begin:  # of slots that others have
                self._pass(draw, piece.begin * target[0].size)
            draw.standard_normal(dtype=np.float32, out=target[here])

    def _pass(self, draw: np.random.Generator, count: int) -> None:
        if len(self._passed) < count:
            self._passed = np.empty(count, np.float32)
        draw.standard_normal(dtype=np.float32, out=self._passed[:count])

    def _at(self, piece: Piece, part: int) -> np.random.Generator:
        self._counter[1:] = (*piece.counter, part)
        self._bits.state = self._state
        return self._generator
