"""What python -m training.launch --dry-run says, and refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from launching import Run, seal

from training.config import KEYS
from training.run import machine
from training.run.stats import Stats


def planned(run: Run, *words: str) -> dict[str, Any]:
    code, out, err = run("--dry-run", "--json", *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


# GFLOP, GPU-hours at 50 %, of the paper and its MFU. Source: the research on trainers, parts 4.1, 4.2
@pytest.mark.parametrize(
    ("model", "gflop", "half", "paper", "percent"),
    [
        ("S-16k", 183.6, 15.8, 44, 18.0),
        ("S-44k", 246.7, 21.3, 52, 20.5),
        ("M-44k", 959.6, 82.8, 168, 24.6),
        ("L-44k", 1582.5, 136.5, 304, 22.4),
    ],
)
def test_dry_run_tells_the_hours_beside_those_of_the_paper(
    model: str, gflop: float, half: float, paper: int, percent: float, run: Run
) -> None:
    found = planned(run, "--model", model)
    assert found["machine"]["name"] == "H100"
    assert found["machine"]["ranks"] == 8
    assert round(found["flops"]["sample"] / 1e9, 1) == gflop
    assert found["flops"]["run"] == found["flops"]["sample"] * 300_000 * 512
    by_mfu = {row["mfu"]: row for row in found["time"]}
    measured = 0.376 if model.startswith("S") else 0.398
    assert set(by_mfu) == {measured, 0.4, 0.5}
    assert found["time"][0]["mfu"] == measured
    assert by_mfu[0.5]["gpu_hours"] == pytest.approx(half, abs=0.05)
    assert by_mfu[0.5]["hours"] == pytest.approx(half / 8, abs=0.01)
    assert by_mfu[0.4]["hours"] == pytest.approx(by_mfu[0.5]["hours"] * 1.25)
    assert found["time"][0]["why"], "what is reckoned with says why"
    assert found["paper"]["gpu_hours"] == paper
    assert round(100 * found["paper"]["mfu"], 1) == percent
    assert found["memory"]["fits"]
    assert not found["data"]["there"]


def test_dry_run_prints_every_setting_and_what_the_preset_has(run: Run) -> None:
    code, out, err = run("--dry-run", "--model", "L-44k", "--set", "batch=256")
    assert code == 0
    for key in KEYS:
        assert re.search(rf"^{key} +\S", out, re.MULTILINE)
    assert re.search(r"^batch +256 +samples of a step.* \(the preset has 512\)$", out, re.MULTILINE)
    assert re.search(
        r"^8 x H100 +22\.4 +1,123 +38\.0 +304\.0  the paper's run, its Table A7$", out, re.M
    )
    assert "shards/44100: no sealed shards are there yet; reckoned with examples of 8 s" in out
    assert out.splitlines()[-1].startswith("L-44k: 300,000 steps of 256 samples, ")
    assert "next: the same command with --preflight" in err


def test_dry_run_says_what_would_fit(run: Run) -> None:
    code, out, _ = run("--dry-run", "--model", "L-44k", "--gpu", "RTX 4090", "--gpus", "4")
    assert code == 0
    assert re.search(r"^does not fit: give --set .*micro_batch=\d+ \(\d+ passes", out, re.MULTILINE)
    assert "which does not fit" in out.splitlines()[-1]


def test_dry_run_reckons_with_the_share_that_is_given(run: Run) -> None:
    found = planned(run, "--model", "S-16k", "--mfu", "25", "--gpus", "1")
    assert found["time"][0]["mfu"] == 0.25
    assert found["time"][0]["why"] == "as --mfu says"
    assert found["time"][0]["gpu_hours"] == pytest.approx(31.7, abs=0.1)


def test_dry_run_reckons_with_what_the_run_has_reached(run: Run) -> None:
    with Stats(Path("runs/S-16k"), resumed_step=0) as stats:
        stats.add("begin", 0, device="H100")
        stats.add("training", 200, mfu_percent=44.4)
    found = planned(run, "--model", "S-16k")
    assert found["time"][0]["mfu"] == pytest.approx(0.444)
    assert "this run has reached" in found["time"][0]["why"]


def test_dry_run_names_settings_that_may_not_be_meant(run: Run) -> None:
    notes = planned(run, "--model", "S-16k", "--set", "steps=1000")["notes"]
    assert [note.split(":")[0] for note in notes] == [
        "the learning rate does not fall any more",
        "the learning rate never reaches 0.0001",
        "no average is kept before the end",
    ]
    assert planned(run, "--model", "S-16k")["notes"] == []


def test_dry_run_tells_of_the_shards_that_are_there(run: Run) -> None:
    seal("shards/16000")
    found = planned(run, "--model", "tiny-16k", "--set", "repeat=bells=3")
    data = found["data"]
    # 7 rows of bells three times, 3 of birds five times, 6 of rain once
    assert (data["rows"], data["epoch_samples"]) == (16, 42)
    assert data["epochs"] == pytest.approx(300 * 8 / 42)
    assert found["flops"]["duration_s"] == 1.0, "examples of the shards"
    code, out, _ = run("--dry-run", "--model", "tiny-16k")
    assert code == 0
    assert "bells (av): 7 rows x 5 = 35 of 56 samples an epoch" in out


def test_dry_run_refuses_the_shards_that_a_run_would_refuse(run: Run) -> None:
    seal("shards/16000", about={"encoders": {"vae": "untrained:0"}})
    code, _, err = run("--dry-run")
    assert code == 2
    assert "--allow-untrained" in err
    assert run("--dry-run", "--allow-untrained")[0] == 0
    code, _, err = run("--dry-run", "--model", "S-44k", "--shards", "shards/16000", "--allow-untrained")
    assert code == 2
    assert "16,000 Hz" in err


def test_dry_run_of_a_small_network_is_for_the_cpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "measured_peak", lambda device, precision: 1e11)
    found = planned(run, "--model", "tiny-44k")
    assert found["machine"]["name"] == "CPU"
    assert found["machine"]["ranks"] == 1
    assert found["paper"] is None
    assert planned(run, "--model", "tiny-44k", "--gpu", "H100", "--gpus", "1")["time"] == []
