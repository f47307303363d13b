"""The line on a terminal, whatever becomes of what it watches."""

import io
import time

import duckdb

from curation import progress
from curation.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _wait_for(terminal: Terminal, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in terminal.getvalue():
        assert time.monotonic() < deadline, f"{text!r} was never drawn"
        time.sleep(0.001)


def test_line_outlives_the_connection_it_watches(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)  # here: a fixture's would be taken back
    monkeypatch.setattr(progress, "_INTERVAL_S", 0.001)
    with Progress("clean") as line:
        db = duckdb.connect()
        line.query("paper", db)
        _wait_for(terminal, "clean paper")
        db.close()
        time.sleep(0.05)
        drawn = len(terminal.getvalue())
        time.sleep(0.05)
        assert len(terminal.getvalue()) > drawn, "the line stands still"
        line.item("views", 1, 2)
        _wait_for(terminal, "clean views  1 of 2")
    assert terminal.getvalue().endswith("\r\033[K")
