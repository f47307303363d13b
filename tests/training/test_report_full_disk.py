"""Lines of a run on a disk that is full."""

import contextlib
import sys
from pathlib import Path

import pytest
from small_disk import mounted
from told import Clock, Make, numbers

from curation.errors import NoSpace
from training.run.report import BOARD


def fill(folder: Path) -> None:
    """Take what room is left on the disk of a folder."""
    with contextlib.suppress(OSError), (folder / "rest").open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


def told_on_a_full_disk(report: Make, clock: Clock, disk: Path) -> None:
    with report() as told:
        fill(disk)
        for step in range(1, 100):
            clock.now_s += 1
            told.interval(step, **numbers())


def test_a_disk_that_stays_full_ends_with_14(
    report: Make,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with mounted(tmp_path, 64), pytest.raises(NoSpace, match=r"stats\.jsonl: no space left") as raised:
        told_on_a_full_disk(report, clock, tmp_path)
    assert raised.value.exit_code == 14
    assert "the last numbers were not written" in caplog.text


def test_tensorboard_on_a_full_disk_ends_with_14(report: Make, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / BOARD).mkdir()
    with mounted(tmp_path / BOARD, 64), pytest.raises(NoSpace, match=r"tfevents.*: no space left"):
        told_on_a_full_disk(report, clock, tmp_path / BOARD)


def test_a_disk_that_is_full_at_the_end_ends_with_14(report: Make, tmp_path: Path) -> None:
    (tmp_path / BOARD).mkdir()
    with mounted(tmp_path / BOARD, 64):
        told = report()  # the first records are held still
        fill(tmp_path / BOARD)
        with pytest.raises(NoSpace, match=r"tfevents.*: no space left"):
            told.close()
        told.close()  # nothing is held any more


def test_a_disk_that_is_full_at_the_beginning_ends_with_14(report: Make, tmp_path: Path) -> None:
    with mounted(tmp_path, 64):
        fill(tmp_path)
        with pytest.raises(NoSpace, match="no space left"):
            report()


def test_an_error_of_training_is_not_hidden_by_a_full_disk(
    report: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train() -> None:
        with report():
            fill(tmp_path / BOARD)
            raise ZeroDivisionError

    (tmp_path / BOARD).mkdir()
    with mounted(tmp_path / BOARD, 64), pytest.raises(ZeroDivisionError):
        train()
    assert "the last numbers were not written" in caplog.text
