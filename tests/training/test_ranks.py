"""One, two and four ranks: the same loss; any number goes on from another's checkpoint; kills."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from golden_weights import close
from small_runs import launched, lines_of, run_of, same, shards_in, short_config, state_of

from training.state.folders import latest, steps_of

SETTINGS = ("batch=8", "warmup_steps=3", "log_every=1", "ema_profile_every=0", "checkpoint_every=1000")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_in(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty steps by one rank."""
    run = tmp_path_factory.mktemp("alone") / "run"
    run_of(shards, run, short_config(
        steps=50, batch=8, log_every=1, milestones=(220, 250)))  # fmt: skip
    return run


COMPILED = str(Path(__file__).with_name("compiled_launch.py"))


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, f"{process.returncode}: {out}\n{err[-3000:]}"
    return err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "sharding"),
    [
        pytest.param(2, "ddp", marks=pytest.mark.soak),
        (4, "ddp"),
        pytest.param(2, "fsdp", marks=pytest.mark.soak),  # a test below begins with two of them
    ],
)
def test_loss_is_that_of_one_rank(
    ranks: int, sharding: str, shards: Path, alone: Path, tmp_path: Path
) -> None:
    ended(launched(shards, tmp_path / "run", *SETTINGS, "steps=50", f"sharding={sharding}", ranks=ranks))
    ours, theirs = lines_of(tmp_path / "run"), lines_of(alone)
    assert [line["step"] for line in ours] == list(range(1, 51))
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
    stored = latest(tmp_path / "run")
    assert stored is not None
    assert len(stored.files) == ranks, "each rank wrote its share"
    mine, other = state_of(tmp_path / "run"), state_of(alone)
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        assert value.shape == other[name].shape
        assert close(value.double(), other[name].double(), 2e-2), name


@pytest.mark.soak
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_compiled_ranks_have_the_loss_of_one_that_is_not(
    sharding: str, shards: Path, alone: Path, tmp_path: Path
) -> None:
    settings = (*SETTINGS, "steps=5", "compile=on", f"sharding={sharding}")
    ended(launched(shards, tmp_path / "run", *settings, ranks=2, program=(COMPILED,)))
    for mine, other in zip(lines_of(tmp_path / "run"), lines_of(alone)[:5], strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.slow
def test_ranks_that_were_stopped_have_the_weights_of_ranks_that_were_not(
    shards: Path, tmp_path: Path
) -> None:
    for run, steps in (("whole", 6), ("parts", 3), ("parts", 6)):
        ended(launched(shards, tmp_path / run, *SETTINGS, f"steps={steps}", ranks=4))
    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


@pytest.mark.slow
def test_fewer_ranks_go_on_where_more_stopped(shards: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended(launched(shards, run, *SETTINGS, "steps=25", "sharding=fsdp", ranks=2))
    before = state_of(run)
    settings = {"batch": 8, "log_every": 1, "milestones": (220, 250), "sharding": "fsdp"}
    run_of(shards, run, short_config(steps=25, **settings))
    assert same(state_of(run), before), "nothing is left to do"
    run_of(shards, run, short_config(steps=50, **settings))
    for mine, other in zip(lines_of(run), lines_of(alone), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.slow
def test_rank_that_vanishes_is_started_again_by_torchrun(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [*SETTINGS[:-1], "checkpoint_every=3", "steps=30"]
    process = launched(shards, run, *settings, ranks=2, torchrun=("--max-restarts", "3"))
    while not steps_of(run):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    err = ended(process)
    assert "goes on at step" in err
    assert steps_of(run)[-1] == 30
    whole = tmp_path / "whole"
    run_of(shards, whole, short_config(
        steps=30, batch=8, log_every=1, milestones=(220, 250)))  # fmt: skip
    assert lines_of(run)[-1]["loss"] == pytest.approx(lines_of(whole)[-1]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_killed_runs_lose_no_more_than_the_steps_since_the_last_checkpoint(
    kills: int, shards: Path, tmp_path: Path
) -> None:
    """Checkpoints follow each other so closely that most kills fall into a save."""
    run, rng, every = tmp_path / "run", random.Random(kills), 2
    settings = ["batch=2", "warmup_steps=3", "ema_profile_every=0", f"checkpoint_every={every}",
                "log_every=1", "steps=100_000"]  # fmt: skip
    known = 0
    for _ in range(kills):
        process = launched(shards, run, *settings)
        while len(steps_of(run)) == 0 or max(steps_of(run)) <= known:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        told = lines_of(run)[-1]["step"]
        process.kill()
        process.communicate()
        stored = latest(run)
        assert stored is not None, "one loads after every kill"
        assert stored.step > known
        assert told - stored.step <= 2 * every + 2, f"{told} was told, {stored.step} is left"
        known = stored.step
    # what is left is what an unbroken run would have had there
    other = tmp_path / "other"
    torch.manual_seed(1)
    run_of(shards, other, short_config(steps=known, milestones=(220, 250)))
    assert same(state_of(other), state_of(run))
