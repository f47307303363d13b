"""Signals: a run saves and ends, or saves and goes on; the command ends with 130."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_runs import lines_of, run_of, same, shards_in, short_config, state_of

from training.state.folders import step_folder, steps_of


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_130(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import sys, time, types\n"
        "made = types.ModuleType('training.run.loop')\n"
        "def train(config, asked):\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "made.train = train\n"
        "sys.modules['training.run.loop'] = made\n"
        "from curation.console import run\n"
        "from training.launch import launch\n"
        "sys.argv[1:] = ['--model', 'tiny-16k', '--shards', '.']\n"
        "sys.exit(run(launch, 'training.launch'))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stderr is not None
        said = child.stderr.readline()
        while "at work" not in said:
            said = child.stderr.readline()
        time.sleep(0.1)
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted; run the same command again to continue" in err


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_in(tmp_path_factory.mktemp("signals"))


def signalled(run: Path, number: signal.Signals) -> threading.Thread:
    """Sends a signal to this process when the run has told of its third step."""

    def work() -> None:
        while not (run / "stats.jsonl").is_file() or len(lines_of(run)) < 3:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_end_saves_the_step_that_is_done(
    number: signal.Signals, shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    thread = signalled(run, number)
    with pytest.raises(KeyboardInterrupt):
        run_of(shards, run, short_config(steps=100_000, log_every=1))
    thread.join()
    (step,) = steps_of(run)
    state = state_of(run)
    assert int(state["counts/updates"]) == int(state["counts/averaged"]) == step
    other = tmp_path / "other"
    run_of(shards, other, short_config(steps=step))
    assert same(state_of(other), state)


def test_what_is_due_is_done_before_a_signal_ends_the_run(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    thread = signalled(run, signal.SIGTERM)
    config = short_config(
        steps=1000, log_every=1, validate_every=1, validate_samples=1, held_back=0.3, ema_profile_every=1
    )
    with pytest.raises(KeyboardInterrupt):
        run_of(shards, run, config)
    thread.join()
    (step,) = steps_of(run)
    assert len(lines_of(run)) == len(lines_of(run, "validation")) == step
    assert len(list((run / "ema").iterdir())) == 2 * step


def test_signal_to_save_saves_and_the_run_goes_on(shards: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", short_config(steps=60, log_every=1, keep_checkpoints=9)
    thread = signalled(run, signal.SIGUSR1)
    run_of(shards, run, config)
    thread.join()
    first, last = steps_of(run)
    assert 3 <= first < last == 60
    run_of(shards, tmp_path / "other", short_config(steps=60))
    assert same(state_of(tmp_path / "other"), state_of(run))


def test_signal_to_save_at_a_step_that_is_saved_anyway_saves_it_once(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    config = short_config(steps=12, log_every=1, checkpoint_every=1, keep_checkpoints=99)
    thread = signalled(run, signal.SIGUSR1)
    with caplog.at_level(logging.INFO, logger="training.state.stored"):
        run_of(shards, run, config)
    thread.join()
    written = [record.getMessage().split(": ")[0] for record in caplog.records]
    assert written == [str(step_folder(run, step)) for step in range(1, 13)]
