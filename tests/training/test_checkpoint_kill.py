"""Killed at any moment of a save, a run goes on from its newest complete checkpoint."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from saving_run import VALUES
from some_checkpoints import bits, same, state

from training.state.folders import at_step, held, latest, steps_of
from training.state.reading import RECORD

SCRIPT = Path(__file__).with_name("saving_run.py")
WINDOW_S = 0.25  # some saves


def started(run: Path, ranks: int, steps: int = 10_000) -> subprocess.Popen[str]:
    words = [sys.executable, str(SCRIPT), str(run), str(ranks), str(steps)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_a_run_killed_while_it_saves_goes_on_from_its_newest_complete_checkpoint(
    kills: int, tmp_path: Path
) -> None:
    run, half, newest = tmp_path / "run", 0, 0
    for number in range(kills):
        process = started(run, ranks=1 + number % 3)
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        assert first == f"from {newest}", process.communicate()[1]
        time.sleep(random.uniform(0, WINDOW_S))
        process.send_signal(signal.SIGKILL)
        said = [newest, *map(int, process.communicate()[0].split())]
        half += any(".tmp-" in path.name for path in run.rglob("*"))
        with held(run):  # sweeps
            assert not list(run.rglob("*.tmp-*"))
            stored = latest(run)
            newest = 0 if stored is None else stored.step
            assert newest in (said[-1], said[-1] + 1), "what was said to be complete is there"
            expected = [step for step in (newest - 2, newest - 1, newest) if step > 0]
            # the third one stays where the death came before it was removed
            assert steps_of(run) in (expected, expected[-2:])
            for step in steps_of(run):
                found = at_step(run, step)
                same(found.read(dict.fromkeys(found.tensors)), state(step, values=VALUES))
    print(f"{kills} killed ({half} left half a checkpoint), {newest} saved")


@pytest.mark.slow
def test_every_state_that_a_death_can_leave_loads(tmp_path: Path) -> None:
    """A save makes and names few things: a copy of the run after each of them is what a death leaves."""
    run, copies = tmp_path / "run", tmp_path / "copies"
    process = started(run, ranks=1, steps=2)
    out, err = process.communicate()
    assert out.split() == ["from", "0", "1", "2"], err
    whole = run / "checkpoints" / "step-00000002"
    files = [path.name for path in whole.iterdir()]
    assert sorted(files) == [RECORD, "rank-0.safetensors"]
    mark = f".tmp-{2**48 + 1}"
    deaths = {
        "folder": ([], whole.name + mark),
        "half a file": (["rank-0.safetensors"], whole.name + mark),
        "all but its name": (files, whole.name + mark),
        "named": (files, whole.name),
    }
    for name, (kept, folder) in deaths.items():
        copy = copies / name
        shutil.copytree(run / "checkpoints" / "step-00000001", copy / "checkpoints" / "step-00000001")
        there = copy / "checkpoints" / folder
        there.mkdir()
        for file in kept:
            content = (whole / file).read_bytes()
            (there / file).write_bytes(content[: len(content) // 2] if "half" in name else content)
        with held(copy):
            stored = latest(copy)
            assert stored is not None
            assert stored.step == (2 if name == "named" else 1)
            updates = stored.read({"updates": None})["updates"]
            assert bits(updates) == bits(state(stored.step)["updates"])
