"""What TensorBoard shows of a run."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from told import BINS, Clock, Make, numbers

from training.run.stats import read_stats


def scalars(run: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_tensorboard_shows_the_same_numbers(report: Make, clock: Clock, tmp_path: Path) -> None:
    with report() as told:
        for step in (10, 20):
            clock.now_s += 1
            told.interval(step, **numbers(loss=float(step)))
        told.validation(20, loss=1.5, loss_by_t=[0.5] * BINS, num_samples=64)
    assert scalars(tmp_path, "training/loss") == [(10, 10.0), (20, 20.0)]
    rates = [value for _, value in scalars(tmp_path, "training/learning_rate")]
    assert rates == pytest.approx([1e-4, 1e-4])
    assert scalars(tmp_path, "validation/loss") == [(20, 1.5)]
    assert scalars(tmp_path, "validation loss by t/0.50") == [(20, 0.5)]


def test_tensorboard_hides_steps_that_are_done_again(report: Make, clock: Clock, tmp_path: Path) -> None:
    with report() as told:
        for step in (10, 20, 30):
            clock.now_s += 1
            told.interval(step, **numbers(loss=float(step)))
    with report(resumed_step=20) as told:
        clock.now_s += 1
        told.interval(25, **numbers(loss=0.0))
    assert scalars(tmp_path, "training/loss") == [(10, 10.0), (20, 20.0), (25, 0.0)]


def test_a_run_without_tensorboard_says_so_once_and_goes_on(
    report: Make,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with report() as told:
        for step in (10, 20):
            clock.now_s += 1
            told.interval(step, **numbers())
    err = capsys.readouterr().err
    assert err.count("tensorboard is not installed, so nothing is written for it") == 1
    assert err.count("pip install tensorboard") == 1
    assert not (tmp_path / "tensorboard").exists()
    assert len(read_stats(tmp_path)) == 3
