"""`python -m training.launch` as people and scripts meet it: help, defaults, exit codes, dry runs.

The options are frozen in options.txt, so that changing one is a decision:
`python tests/training/test_launch.py > tests/training/options.txt`, with tests/curation, tests/features
and tests/training in PYTHONPATH.
"""

import json
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from option_lines import option_lines
from small_shards import ABOUT, sealed_folder
from small_training import training_rows

from curation import console
from curation.errors import ConfigDiffers, FoleyproofError, ManifestChanged, NoSpace
from training import launch
from training.config import KEYS, TrainConfig
from training.run import machine
from training.run.asked import Asked
from training.run.stats import Stats

OPTIONS = Path(__file__).with_name("options.txt")
HEAVY = ("torch", "duckdb", "av", "pandas", "pyarrow", "numpy", "ray", "safetensors", "tensorboard")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in an empty folder, on a machine without a GPU; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "present_gpus", lambda: None)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def launched(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["training.launch", *map(str, words)])
        code = console.run(launch.launch, "training.launch")
        return code, *capsys.readouterr()

    return launched


class Loop:
    """What stands for the loop, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, TrainConfig, Asked]] = []
        self.error: BaseException | None = None

    def work(self, name: str) -> Callable[[TrainConfig, Asked], dict[str, Any]]:
        def train(config: TrainConfig, asked: Asked) -> dict[str, Any]:
            self.asked.append((name, config, asked))
            if self.error is not None:
                raise self.error
            return {"summary": f"{name} of 300 steps", "step": 300}

        return train


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop that trains nothing."""
    found = Loop()
    for module, name in (("loop", "train"), ("preflight", "preflight")):
        made: Any = types.ModuleType(f"training.run.{module}")
        setattr(made, name, found.work(name))
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return found


def seal(folder: str, rate_hz: int = 16000, **options: Any) -> None:
    about = {**ABOUT, "sample_rate_hz": rate_hz, **options.pop("about", {})}
    sealed_folder(Path(folder), training_rows(), about=about, **options)


# ---- help -------------------------------------------------------------------------------------------


def options() -> str:
    return option_lines("python -m", {"training.launch": launch.launch})


def test_options_are_those_of_the_frozen_list() -> None:
    assert options() == OPTIONS.read_text(encoding="utf-8"), f"changed: see {Path(__file__).name}"


def test_help_begins_with_a_sentence_and_shows_an_example(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert re.match(r"[A-Z].*[^.]\.", launch.launch.help or "")
    assert "Example: python -m training.launch" in out
    for parameter in launch.launch.params:
        assert isinstance(parameter, click.Option)
        assert (parameter.help or "").endswith("."), parameter.opts


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from training.launch import launch; from curation.console import run; "
        "sys.argv[1:] = ['--help']; code = run(launch, 'training.launch'); "
        f"print('heavy:', *sorted(set({HEAVY}) & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy:"


# ---- what is meant where nothing is said ------------------------------------------------------------


def test_shards_run_and_model_are_those_that_are_there(run: Run, loop: Loop) -> None:
    seal("shards/16000")
    code, out, err = run()
    assert code == 0
    ((name, config, asked),) = loop.asked
    assert (name, config.model) == ("train", "S-16k")
    assert asked == Asked(shards=Path("shards/16000"), run=Path("runs/S-16k"))
    assert out == "runs/S-16k\ntrain of 300 steps\n"
    assert "next: python -m training.export runs/S-16k --out S-16k" in err
    assert "training: model=S-16k variant=small_16k seed=14159265" in err
    assert all(f" {key}=" in err for key in KEYS)


def test_44_100_hz_come_first(run: Run, loop: Loop) -> None:
    seal("shards/16000")
    seal("shards/44100", 44100)
    assert run()[0] == 0
    assert (loop.asked[0][1].model, loop.asked[0][2].shards) == ("S-44k", Path("shards/44100"))


def test_sealed_shards_come_before_others(run: Run, loop: Loop) -> None:
    Path("shards/44100").mkdir(parents=True)
    seal("shards/16000")
    assert run()[0] == 0
    assert loop.asked[0][2].shards == Path("shards/16000")


def test_a_model_means_shards_of_its_rate(run: Run, loop: Loop) -> None:
    seal("shards/16000")
    seal("shards/44100", 44100)
    assert run("--model", "tiny-16k")[0] == 0
    assert loop.asked[0][2] == Asked(shards=Path("shards/16000"), run=Path("runs/tiny-16k"))


def test_options_arrive(run: Run, loop: Loop) -> None:
    seal("a b")
    code, _, err = run(
        *("--shards", "a b", "--val-shards", "v", "--run", "my run", "--init", "w.pth"),
        *("--allow-untrained", "--profile", "5", "--device", "cuda:0", "--preflight"),
        *("--set", "batch=16", "--set", "repeat=bells=2"),
    )
    assert code == 0
    ((name, config, asked),) = loop.asked
    assert (name, config.batch, config.repeat) == ("preflight", 16, (("bells", 2),))
    assert asked == Asked(
        shards=Path("a b"),
        run=Path("my run"),
        val_shards=Path("v"),
        init=Path("w.pth"),
        allow_untrained=True,
        device="cuda:0",
        profile_steps=5,
    )
    assert "next: the same command without --preflight" in err


def test_json_is_one_document(run: Run, loop: Loop) -> None:
    seal("shards/16000")
    code, out, _ = run("--json")
    assert code == 0
    assert json.loads(out) == {
        "command": "launch",
        "model": "S-16k",
        "run": "runs/S-16k",
        "summary": "train of 300 steps",
        "step": 300,
    }


# ---- exit codes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (),
            r"shards/44100: no such folder, expected sealed shards .* run: features extract --sr 44100$",
        ),
        (("--model", "tiny-16k"), r"shards/16000: no such folder.* features extract --sr 16000$"),
        (("--shards", "mine"), r"mine: no such folder.* features extract --sr 44100 --out mine$"),
        (("--model", "S-16"), r"--model S-16: no such preset, expected S-16k"),
        (("--set", "bacth=3"), r"--set bacth=3: no such setting, expected batch"),
        (("--set", "batch=x"), r"expected a whole number"),
        (("--gpus", "8"), r"--gpus without --dry-run"),
        (("--mfu", "40"), r"--mfu without --dry-run"),
        (("--dry-run", "--preflight"), r"--dry-run with --preflight, expected one of them"),
        (("--dry-run", "--gpu", "K80"), r"--gpu K80: nothing is known of it"),
        (("--dry-run", "--gpus", "7"), r"a batch of 512 on 7 ranks"),
        (("--nonsense",), r"No such option"),
        (("--profile", "0"), r"0 is not in the range"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], message: str, run: Run, loop: Loop) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.search(message, err.strip()), err
    assert loop.asked == []


def test_unsealed_shards_are_refused(run: Run, loop: Loop) -> None:
    Path("shards/44100").mkdir(parents=True)
    code, _, err = run()
    assert code == 2
    assert "shards/44100: holds no shards, expected shards.json" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (FoleyproofError("step 3: not finite"), 1),
        (ConfigDiffers("batch is 8 here"), 12),
        (ManifestChanged("a shard"), 13),
        (NoSpace("full"), 14),
    ],
)
def test_errors_of_the_run_have_their_exit_codes(
    error: BaseException, code: int, run: Run, loop: Loop
) -> None:
    seal("shards/16000")
    loop.error = error
    found, out, err = run()
    assert (found, out) == (code, "")
    assert "run the same command again to continue" in err if code == 130 else str(error) in err


def test_what_is_missing_is_named_with_the_line_that_helps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.installed._NEEDED", ("torch_of_another_world",))
    code, _, err = run("--dry-run")
    assert code == 1
    assert "pip install 'foleyproof[train]'" in err


# ---- many processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error", "code"),
    [
        ((), None, 0),
        ((), KeyboardInterrupt(), 130),
        ((), ConfigDiffers("batch is 8 here"), 12),
        (("--set", "bacth=3"), None, 2),
        (("--nonsense",), None, 2),
        (("--dry-run",), None, 0),
    ],
)
def test_other_ranks_say_nothing(
    words: tuple[str, ...],
    error: BaseException | None,
    code: int,
    run: Run,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seal("shards/16000")
    loop.error = error
    monkeypatch.setenv("RANK", "3")
    assert run(*words) == (code, "", "")


def test_torchrun_leaves_every_option_to_us_but_run_which_has_another_name() -> None:
    from torch.distributed.run import get_args_parser

    taken = set()
    for parameter in launch.launch.params:
        for name in parameter.opts:
            try:
                found = get_args_parser().parse_args(["-m", "training.launch", name, "x"])
                assert found.training_script_args == [name, "x"]
            except SystemExit:  # taken for the beginning of options of its own
                taken.add(name)
    assert taken == {"--run"}
    assert "--run-folder" in next(p.opts for p in launch.launch.params if "--run" in p.opts)


def test_other_ranks_tell_of_what_is_theirs_alone(
    run: Run, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal("shards/16000")
    loop.error = ManifestChanged("shards/16000/av-0.safetensors: row 7")
    monkeypatch.setenv("RANK", "3")
    code, _, err = run()
    assert code == 13
    assert "row 7" in err


# ---- dry runs ---------------------------------------------------------------------------------------


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


# ---- signals ----------------------------------------------------------------------------------------


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


if __name__ == "__main__":
    sys.stdout.write(options())
