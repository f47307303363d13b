"""One line on a terminal while something runs: what, how far, how fast, how long still."""

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

from curation.closing import Closing

if TYPE_CHECKING:
    import duckdb

_INTERVAL_S = 0.2


def note(text: str) -> None:
    """Say a line on stderr that stays, whatever line is being redrawn there."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{text}", file=sys.stderr, flush=True)


class Notes(logging.Handler):
    """What is logged, as such lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        note(self.format(record))


class Progress(Closing):
    """A line on stderr, redrawn while the block runs; nothing where stderr is no terminal."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._shown = sys.stderr.isatty()
        self._begun = time.monotonic()
        self._label = ""
        self._part: tuple[float, float | None] | None = None  # done and total
        self._unit = ""
        self._db: duckdb.DuckDBPyConnection | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> Self:
        if self._shown:
            self._thread.start()
        return self

    def leave(self, error: BaseException | None) -> None:
        """Wipe the line."""
        self._stop.set()
        if self._shown:
            self._thread.join()
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def item(self, label: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is worked on now, and which of how many it is.

        Args:
            label: what stands behind " (" may change while the same is worked on.
        """
        part = None if done is None or total is None else (done, total)
        if label.partition(" (")[0] != self._label.partition(" (")[0] and not self._continues(part):
            self._begun = time.monotonic()  # rate and time left are of the present work
        self._label, self._db, self._unit, self._part = label, None, "", part

    def _continues(self, part: tuple[float, float] | None) -> bool:
        """Whether it counts on towards the same total, as where each item has a label of its own."""
        former = self._part
        if part is None or former is None:
            return False
        return part[1] == former[1] and part[0] >= former[0]

    def bytes(self, label: str, done: int, total: int | None) -> None:
        """Say which file is coming, and how much of it is here."""
        if label != self._label:
            self._begun = time.monotonic()
        self._label, self._db, self._unit = label, None, " MB"
        self._part = (round(done / 1e6, 1), round(total / 1e6, 1) if total else None)

    def waiting(self, host: str, wait_s: float) -> None:
        """Say that a server asked to wait."""
        self.item(f"{host} asks to wait {wait_s:.0f} s")

    def query(self, label: str, db: "duckdb.DuckDBPyConnection") -> None:
        """Say what is worked on now, and which connection knows how far it is."""
        self._label, self._db, self._part = label, db, None
        self._begun = time.monotonic()

    def _draw(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            print(f"\r\033[K{self._line()}", end="", file=sys.stderr, flush=True)

    def _line(self) -> str:
        elapsed_s = time.monotonic() - self._begun
        told = elapsed_s >= _INTERVAL_S  # a rate of less is chance
        line = f"{self._stage} {self._label}"
        share = 0.0
        if self._part:
            done, total = self._part
            share = done / total if total else 0.0
            line += f"  {done}" + (f" of {total}" if total is not None else "") + self._unit
            if done and told:
                line += f", {done / elapsed_s:.1f}{self._unit} a second"
        elif (percent := self._percent()) > 0 and told:
            share = percent / 100
            line += f"  {percent:.0f} %, {percent / elapsed_s:.0f} % a second"
        line += f"  {elapsed_s:.0f} s"
        if share > 0.02 and told:
            line += f", about {elapsed_s * (1 - share) / share:.0f} s left"
        return line

    def _percent(self) -> float:
        """How far the query that runs is; 0 where nobody knows, as when its connection was closed."""
        db = self._db
        if db is None:
            return 0.0
        import duckdb

        try:
            return float(db.query_progress())
        except duckdb.Error:
            if self._db is db:
                self._db = None
            return 0.0
