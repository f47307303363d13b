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


def test_rate_is_of_the_present_work(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    line = Progress("extract")

    def told(after_s: float, *words: object) -> str:
        now_s[0] += after_s
        line.item(*words)
        return line._line()

    assert told(50.0, "captions", 100, 200).endswith("captions  100 of 200  0 s")
    told(100.0, "captions", 200, 200)
    told(0.0, "clips", 0, 1000)
    said = told(10.0, "clips (encoders wait 1 %, decoders 2 %)", 20, 1000)
    assert "20 of 1000, 2.0 a second  10 s" in said
    said = told(10.0, "clips (encoders wait 9 %, decoders 3 %)", 40, 1000)
    assert said.endswith("40 of 1000, 2.0 a second  20 s, about 480 s left")


def test_names_of_items_on_the_way_to_one_total_do_not_restart_the_clock(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s[0])
    line = Progress("verify")
    line.item("a.safetensors", 1, 40)
    now_s[0] = 10.0
    line.item("b.safetensors", 2, 40)
    assert line._line().startswith("verify b.safetensors  2 of 40, 0.2 a second  10 s")


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
