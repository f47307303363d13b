"""The datum: a clip, a stretch of one recording as one dataset lists it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The unit that is kept, dropped, encoded and trained on; a row of `clips.parquet`."""

    dataset: str
    clip_id: str  # unique in its dataset; never parsed back
    source: str  # "youtube", "freesound", ...
    source_id: str | None  # canonical; None: the files at hand do not say
    start_s: float | None = None  # in the source; None: unknown, the whole recording
    end_s: float | None = None  # exclusive; None: unknown, to the end of the recording

    def shares_source_with(self, other: "Clip") -> bool:
        """Whether both are known to be cut from the same recording."""
        return self.source_id is not None and (
            (self.source, self.source_id) == (other.source, other.source_id)
        )

    def shares_time_with(self, other: "Clip", *, margin_s: float = 0.0) -> bool:
        """Whether both cover a common moment of one recording, times rounded to 1 ms.

        An unknown time may be any time, so it meets every interval of its source.
        """
        if not self.shares_source_with(other):
            return False
        start, end = (_ms(t, unknown) for t, unknown in self._bounds())
        other_start, other_end = (_ms(t, unknown) for t, unknown in other._bounds())
        margin_ms = _ms(margin_s, 0.0)
        return start < other_end + margin_ms and other_start < end + margin_ms

    def _bounds(self) -> tuple[tuple[float | None, float], tuple[float | None, float]]:
        return (self.start_s, float("-inf")), (self.end_s, float("inf"))


def _ms(time_s: float | None, unknown: float) -> float:
    """Whole milliseconds; a half counts up, as in SQL (Python's `round` would go to the even one)."""
    if time_s is None:
        return unknown
    below = math.floor(time_s * 1000)
    return below + (time_s * 1000 - below >= 0.5)
