"""Signals to a run: SIGTERM and SIGINT save and end it, SIGUSR1 saves and it goes on.

All ranks act at the same step, as the watch tells each of the others' signals.
"""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from curation.progress import note

_ENDS = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class Wishes:
    """What signals asked for, on this rank."""

    stop: bool = False
    save: bool = False

    def taken(self) -> "Wishes":
        """What is asked for; it is told once. The end is asked for until it comes."""
        told = Wishes(self.stop, self.save)
        self.save = False
        return told


@contextlib.contextmanager
def listening() -> Iterator[Wishes]:
    """Take signals for wishes; a second one that ends does so at once."""
    wishes = Wishes()

    def heard(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            wishes.save = True
            return
        if wishes.stop:
            raise KeyboardInterrupt
        wishes.stop = True
        note("the step is finished and a checkpoint saved; once more ends it at once")

    former = {number: signal.signal(number, heard) for number in (*_ENDS, signal.SIGUSR1)}
    try:
        yield wishes
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
