"""Fixtures of several modules: reports, the command, shards, a training checkpoint of MMAudio."""

from pathlib import Path
from typing import Any

import pytest
from launching import Run
from mmaudio_files import Training
from small_training import training_folder
from told import CONFIG, Clock, Make

from curation import console
from training import launch
from training.config import TrainConfig
from training.run import machine
from training.run.report import Report


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def report(tmp_path: Path, clock: Clock) -> Make:
    """A report of a run in an empty folder."""

    def make(config: TrainConfig = CONFIG, **more: Any) -> Report:
        given: dict[str, Any] = {"flops_per_sample": 10**12, "peak_flops": 1e14, "ranks": 2}
        return Report(tmp_path, config, clock=clock, **{**given, **more})

    return make


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in an empty folder, on a machine without a GPU; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "present_gpus", lambda: None)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def launched(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["training.launch", *map(str, words)])
        code = console.run(launch.launch, "training.launch")
        return code, *capsys.readouterr()

    return launched


@pytest.fixture
def trained() -> Training:
    training = Training()
    training.iterate(7)  # past the warm-up and a milestone
    return training


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed shards of `training_rows`."""
    out = tmp_path_factory.mktemp("batches") / "shards"
    training_folder(out)
    return out
