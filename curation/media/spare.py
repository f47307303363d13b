"""Pictures that nobody will look at and that no other picture is made from: they need not be decoded.

Of 25 to 60 pictures a second, hashes and thumbnails look at a few. H.264 says of a packet whether
another one refers to its picture (HEVC only whether one of its own layer does, which is not enough);
those that are spare are handed to the decoder with the word that it may drop them. Which pictures are
looked at is known exactly from the presentation times of the packets that follow, so that what is
looked at is bit for bit what a full decode gives. Nothing is left out until a picture came: of a stream
that begins amid a group of pictures the first packets give none, and only the decoder knows which. Nor
is it after times that are missing, come twice or leap, which a full decode mends from one picture to
the next.
"""

import bisect
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

KNOWS_SPARE = frozenset(("h264",))
_AHEAD = 24  # packets: more than pictures are ever out of order (16)
_LATE_S = 1e-6  # as in frames.py
_LEAP_S = 5.0  # less than decode.py takes for one


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
        self._last: int | None = None  # presentation time of the latest packet seen
        self._in_order = True  # whether all had times that can be trusted, and …
        self._odd: Any = None  # … the first packet that had none
        self._counts = True  # whether all that came are from before that one
        self._began = False  # whether a picture came, of the clip or before it
        self._zero_s: float | None = None  # of the clip's clock, in the file
        self._first = 0  # presentation time of the clip's first picture
        self._told = "DEFAULT"
        self.leaves_none = False  # whether somebody wants every picture for now
        self._left_out: set[int] = set()  # presentation times of pictures that may be left out

    def ordered(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The same packets; those of pictures come when the ones after them are known."""
        held: deque[Any] = deque()
        for packet in packets:
            if packet.stream is not self._stream:
                yield packet
                continue
            self._note(packet)
            held.append(packet)
            if len(held) > _AHEAD:
                yield self._told_of(held.popleft())
        while held:
            yield self._told_of(held.popleft())

    def came(self, pts: int | None) -> None:
        """Say that a picture was decoded all the same."""
        self._began = True
        self._was_not_left_out(pts)

    def starts(self, zero_s: float, pts: int | None) -> None:
        """Say that the clip's first picture came.

        Args:
            zero_s: when the clip's clock begins, in the file.
        """
        self._in_order = self._in_order and pts is not None
        self._zero_s, self._first = zero_s, pts or 0

    def was_refused(self, pts: int | None) -> None:
        """Say that a packet was not left out but could not be decoded."""
        self._was_not_left_out(pts)

    @property
    def num_left_out(self) -> int:
        """Pictures that were not decoded."""
        return len(self._left_out)

    def _was_not_left_out(self, pts: int | None) -> None:
        if pts is not None and self._counts:  # afterwards times come again
            self._left_out.discard(pts)

    def _note(self, packet: Any) -> None:
        """Remember the time of a packet that was just read."""
        pts, last = packet.pts, self._last
        if pts is None:
            if packet.size:  # the last one is empty
                self._distrust(packet)
            return
        if last is not None and abs(pts - last) * self._base_s > _LEAP_S:
            self._distrust(packet)
        self._last = pts
        if packet.is_discard:
            return
        at = bisect.bisect_left(self._times, pts)
        comes_again = at < len(self._times) and self._times[at] == pts
        if comes_again or len(self._times) - at > _AHEAD:
            self._distrust(packet)
        self._times.insert(at, pts)

    def _distrust(self, packet: Any) -> None:
        if self._in_order:
            self._in_order, self._odd = False, packet

    def _told_of(self, packet: Any) -> Any:
        self._counts = self._counts and packet is not self._odd
        wanted = self.leaves_none or self._is_wanted(packet)
        if not wanted and self._zero_s is not None and self._first < packet.pts < self._until:
            self._left_out.add(packet.pts)
        say = "DEFAULT" if wanted else "NONREF"
        if say != self._told:
            self._context.skip_frame = self._told = say
        return packet

    def _is_wanted(self, packet: Any) -> bool:
        pts = packet.pts
        if pts is None or packet.is_discard or not self._began or not self._in_order:
            return True
        if self._from is not None and pts < self._from:
            return False  # before the clip
        if self._zero_s is None or pts <= self._first:
            return True
        after = bisect.bisect_right(self._times, pts)
        if after == len(self._times) or pts < self._until <= self._times[after]:
            return True  # the last one says when the pictures end
        times = (time * self._base_s - self._zero_s - _LATE_S for time in (pts, self._times[after]))
        begin, end = (math.ceil(time_s * self._fps) for time_s in times)
        return begin < end
