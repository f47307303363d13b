"""Pictures that nobody will look at and that no other picture is made from: they need not be decoded.

Of 25 to 60 pictures a second, hashes and thumbnails look at a few. H.264 says of a packet whether
another one refers to its picture (HEVC only whether one of its own layer does, which is not enough);
those that are spare are handed to the decoder with the word that it may drop them. Which pictures are
looked at is known exactly from the presentation times of the packets that follow, so that what is
looked at is bit for bit what a full decode gives.
"""

import bisect
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

KNOWS_SPARE = frozenset(("h264",))
_AHEAD = 24  # packets: more than pictures are ever out of order (16)
_LATE_S = 1e-6  # as in frames.py


class SparePictures:
    """Passes packets on, some later, and tells the decoder before each whether it may drop it."""

    def __init__(
        self, stream: Any, fps: int, start_s: float | None = None, end_s: float | None = None
    ) -> None:
        """How often pictures are looked at.

        Args:
            fps: pictures are looked at each 1 / fps s after the first one.
            start_s, end_s: where in the file the clip is; None: all of it.
        """
        self._stream, self._context, self._fps = stream, stream.codec_context, fps
        self._base_s = float(stream.time_base)
        self._from = None if start_s is None else math.ceil(start_s / self._base_s)
        self._until = math.inf if end_s is None else end_s / self._base_s
        self._times: list[int] = []  # presentation times of packets seen so far, sorted
        self._zero: int | None = None
        self._told = "DEFAULT"
        self._left_out: set[int] = set()  # presentation times of pictures that may be left out

    def ordered(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The same packets; those of pictures come when the ones after them are known."""
        held: deque[Any] = deque()
        for packet in packets:
            if packet.stream is not self._stream:
                yield packet
                continue
            if packet.pts is not None and not packet.is_discard:
                bisect.insort(self._times, packet.pts)
            held.append(packet)
            if len(held) > _AHEAD:
                yield self._told_of(held.popleft())
        while held:
            yield self._told_of(held.popleft())

    def came(self, pts: int | None) -> None:
        """Say that a picture was decoded all the same."""
        if pts is not None:
            self._left_out.discard(pts)

    @property
    def num_left_out(self) -> int:
        """Pictures that were not decoded."""
        return len(self._left_out)

    def _told_of(self, packet: Any) -> Any:
        wanted = self._is_wanted(packet.pts)
        zero = math.inf if self._zero is None else self._zero
        if not wanted and not packet.is_discard and zero < packet.pts < self._until:
            self._left_out.add(packet.pts)
        say = "DEFAULT" if wanted else "NONREF"
        if say != self._told:
            self._context.skip_frame = self._told = say
        return packet

    def _is_wanted(self, pts: int | None) -> bool:
        if pts is None:
            return True
        if self._zero is None:
            first = 0 if self._from is None else bisect.bisect_left(self._times, self._from)
            if first >= len(self._times):
                return False  # before the clip
            self._zero = self._times[first]
        after = bisect.bisect_right(self._times, pts)
        if after == len(self._times) or pts <= self._zero:
            return pts >= self._zero
        begins = ((time - self._zero) * self._base_s - _LATE_S for time in (pts, self._times[after]))
        begin, end = (math.ceil(time_s * self._fps) for time_s in begins)
        return begin < end
