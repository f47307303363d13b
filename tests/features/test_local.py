"""The processes of one machine: what they import, and what is left where none can be started."""

import os
import subprocess
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from features.extraction.job import Job
from features.extraction.local import LocalDevices
from features.extraction.plan import about
from features.inputs.prepared import InputConfig
from features.weights.published import WeightChoice, identity_of

JOB = Job(
    sample_rate_hz=16000,
    weights=WeightChoice(untrained_seed=0, tiny=True),
    precision="fp32",
    device="cpu",
    threads=1,
    decoders=1,
    video_batch=2,
    audio_batch=2,
    inputs=InputConfig(sample_rate_hz=16000),
    shard_rows=3,
)


def test_process_imports_nothing_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "torch", "numpy", "safetensors"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'taken')!r}, 'w')\nraise SystemExit\n"
        )
    (tmp_path / "task").mkdir()
    monkeypatch.chdir(tmp_path)
    request = {
        "captions": ["", "rain"],
        "about": about(JOB, identity_of(JOB.weights, JOB.sample_rate_hz)),
        "certificate": None,
    }
    with LocalDevices([JOB], lambda effort: None) as devices, devices.lend(Event()) as work:
        assert work(request, tmp_path / "task") == {"captions": 2}
    assert not (tmp_path / "taken").exists()


def test_process_that_cannot_be_started_leaves_no_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **options: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = os.listdir("/proc/self/fd")
    with LocalDevices([JOB], lambda effort: None) as devices, devices.lend(Event()) as work:
        for _ in range(3):
            with pytest.raises(OSError, match="no more processes"):
                work({}, Path())
    assert len(os.listdir("/proc/self/fd")) == len(before)
