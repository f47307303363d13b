"""What a run tells: the line, stats.jsonl, validation and its alarm."""

import json
from pathlib import Path

import pytest
from told import BINS, CONFIG, Clock, Make, numbers

from training.config import PRESETS
from training.run.report import overfits, time_text
from training.run.stats import FILE, read_stats


def test_line_tells_rates_of_the_interval(
    report: Make, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with report() as told:
        clock.now_s += 10
        # 50 steps of 100 samples in 10 s: 500 samples/s, 5e14 of 2e14 operations a second
        told.interval(50, **numbers(waited_s=0.1))
    assert capsys.readouterr().err == (
        "step 50 of 1,000 (5.0 %): loss 1.2500, lr 1.0e-04, norm 0.5, 500 samples/s, MFU 250.0 %, "
        "data wait 1.0 %, 61.2 GB, about 3 min 10 s left\n"
    )


def test_line_leaves_out_what_is_not_known(
    report: Make, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with report(peak_flops=None) as told:
        clock.now_s += 100
        told.interval(10, **numbers(memory_bytes=None))
    line = capsys.readouterr().err
    assert "10.0 samples/s, data wait 0.0 %, about 2 h 45 min left" in line
    assert "MFU" not in line


def test_what_is_aside_counts_for_what_is_left_and_not_for_the_rate(
    report: Make, clock: Clock, tmp_path: Path
) -> None:
    with report() as told:
        clock.now_s += 100
        with told.aside():
            clock.now_s += 300
        told.interval(100, **numbers())
    (_, line) = read_stats(tmp_path)
    assert line["samples_per_s"] == pytest.approx(100)
    assert line["interval_s"] == pytest.approx(400)
    assert line["left_s"] == pytest.approx(900 * 4)


def test_waiting_is_that_of_the_interval_alone(report: Make, clock: Clock, tmp_path: Path) -> None:
    with report() as told:
        for step, waited_s in ((10, 5.0), (20, 5.5)):
            clock.now_s += 10
            told.interval(step, **numbers(waited_s=waited_s))
    waits = [line["data_wait_percent"] for line in read_stats(tmp_path)[1:]]
    assert waits == pytest.approx([50, 5])


def test_one_slow_interval_does_not_move_the_time_left(
    report: Make, clock: Clock, tmp_path: Path
) -> None:
    with report() as told:
        for step in range(10, 110, 10):
            clock.now_s += 500 if step == 10 else 10
            told.interval(step, **numbers())
    assert read_stats(tmp_path)[-1]["left_s"] == pytest.approx(900)


def test_other_ranks_tell_and_write_nothing(
    report: Make, clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with report(is_first=False) as told:
        clock.now_s += 1
        told.interval(1, **numbers())
        told.validation(1, loss=1.0, loss_by_t=[None] * BINS, num_samples=5)
    assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3 * 3600 + 12 * 60 + 30, "3 h 12 min"),
        (5 * 86400 + 3600, "5 d 1 h"),
        (86400, "1 d"),
    ],
)
def test_times_are_told_in_their_largest_units(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


# ---- stats.jsonl ------------------------------------------------------------------------------------


def test_every_line_is_an_object_with_units_in_its_keys(
    report: Make, clock: Clock, tmp_path: Path
) -> None:
    with report(device="NVIDIA H100 80GB HBM3") as told:
        clock.now_s += 10
        told.interval(50, **numbers(loss=float("nan"), loss_by_t=[None, *[1.5] * (BINS - 1)]))
        told.validation(50, loss=1.5, loss_by_t=[1.5] * BINS, num_samples=64)
    lines = (tmp_path / FILE).read_text().splitlines()
    begin, training, validation = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert begin["kind"] == "begin"
    assert (begin["device"], begin["ranks"]) == ("NVIDIA H100 80GB HBM3", 2)
    assert begin["config_digest"] == CONFIG.digest()
    assert training["loss"] is None, "not finite"
    assert training["loss_by_t"] == [None, *[1.5] * (BINS - 1)]
    assert set(training) == {
        "kind", "step", "loss", "learning_rate", "gradient_norm", "samples_per_s", "mfu_percent",
        "data_wait_percent", "memory_bytes", "interval_s", "left_s", "loss_by_t",
    }  # fmt: skip
    assert (validation["step"], validation["num_samples"]) == (50, 64)


def test_lines_are_there_at_once(report: Make, clock: Clock, tmp_path: Path) -> None:
    told = report()
    clock.now_s += 1
    told.interval(7, **numbers())
    assert [line["step"] for line in read_stats(tmp_path)] == [0, 7]
    told.close()


@pytest.mark.parametrize("torn", ['{"kind": "training", "st', "\x00\x00", '{"step": 3}\n', "[]\n"])
def test_a_run_that_goes_on_forgets_what_came_later_and_what_is_torn(
    torn: str, report: Make, clock: Clock, tmp_path: Path
) -> None:
    with report() as told:
        for step in (10, 20, 30):
            clock.now_s += 1
            told.interval(step, **numbers(loss=step))
    with (tmp_path / FILE).open("a") as stream:
        stream.write(torn)
    assert [line["step"] for line in read_stats(tmp_path)] == [0, 10, 20, 30]
    with report(resumed_step=20) as told:
        clock.now_s += 1
        told.interval(30, **numbers(loss=31))
    lines = read_stats(tmp_path)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("begin", 0), ("training", 10), ("training", 20), ("begin", 20), ("training", 30),
    ]  # fmt: skip
    assert lines[-1]["loss"] == 31
    assert lines[-1]["samples_per_s"] == pytest.approx(1000), "of the steps since 20"


def test_there_may_be_no_lines_yet(tmp_path: Path) -> None:
    assert read_stats(tmp_path) == []


# ---- TensorBoard ------------------------------------------------------------------------------------


# ---- a full disk ------------------------------------------------------------------------------------


# ---- validation -------------------------------------------------------------------------------------


def test_validation_is_told_beside_the_best(report: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with report(PRESETS["S-16k"]) as told:
        told.validation(5000, loss=1.25, loss_by_t=[1.0] * BINS, num_samples=2048)
        told.validation(10_000, loss=1.5, loss_by_t=[1.0] * BINS, num_samples=2048)
    assert capsys.readouterr().err.splitlines() == [
        "step 5,000 of 300,000 (1.7 %): validation loss 1.2500 of 2,048 samples, the best so far",
        "step 10,000 of 300,000 (3.3 %): validation loss 1.5000 of 2,048 samples, best 1.2500 at step "
        "5,000",
    ]


def test_validation_that_gets_worse_raises_an_alarm_also_after_a_resume(
    report: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {100: 1.0, 200: 0.8, 300: 0.85, 400: 0.9, 500: 0.95}
    with report() as told:
        for step in (100, 200, 300):
            told.validation(step, loss=losses[step], loss_by_t=[None] * BINS, num_samples=8)
        assert not told.overfits
    with report(resumed_step=300) as told:
        for step in (400, 500):
            told.validation(step, loss=losses[step], loss_by_t=[None] * BINS, num_samples=8)
        assert told.overfits
    (alarm,) = [line for line in capsys.readouterr().err.splitlines() if "overfits" in line]
    assert alarm.startswith(
        "step 500: overfits — validation has not been as good as 0.8000 since step 200"
    )


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0], False),
        ([1.0, 0.9, 0.8, 0.7], False),
        ([0.7, 0.8, 0.9], False),
        ([0.7, 0.8, 0.9, 1.0], True),
        ([0.7, 0.8, 0.9, 0.703], False),  # hardly worse
        ([0.9, 0.7, 0.8, 0.9, 0.69], False),
    ],
)
def test_alarm_waits_for_three_validations_and_one_percent(losses: list[float], expected: bool) -> None:
    assert overfits(losses) is expected
