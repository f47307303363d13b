"""`python -m training.launch` as people and scripts meet it: help, defaults, exit codes, dry runs.

The options are frozen in options.txt, so that changing one is a decision:
`python tests/training/test_launch.py > tests/training/options.txt`, with tests/curation, tests/features
and tests/training in PYTHONPATH.
"""

import json
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from launching import Run, seal
from option_lines import option_lines

from curation.errors import ConfigDiffers, FoleyproofError, ManifestChanged, NoSpace
from training import launch
from training.config import KEYS, TrainConfig
from training.run.asked import Asked

OPTIONS = Path(__file__).with_name("options.txt")
HEAVY = ("torch", "duckdb", "av", "pandas", "pyarrow", "numpy", "ray", "safetensors", "tensorboard")


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
        *("--allow-untrained", "--profile", "5", "--device", "cuda:0"),
        *("--set", "batch=16", "--set", "repeat=bells=2"),
    )
    assert code == 0
    ((name, config, asked),) = loop.asked
    assert (name, config.batch, config.repeat) == ("train", 16, (("bells", 2),))
    assert asked == Asked(
        shards=Path("a b"),
        run=Path("my run"),
        val_shards=Path("v"),
        init=Path("w.pth"),
        allow_untrained=True,
        device="cuda:0",
        profile_steps=5,
    )
    assert "next: python -m training.export" in err
    code, _, err = run("--shards", "a b", "--preflight")
    assert (code, loop.asked[-1][0]) == (0, "preflight")
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
        (("--dry-run", "--device", "cpu"), r"--device with --dry-run, which does not use it"),
        (("--preflight", "--profile", "5"), r"--profile with --preflight, which does not use it"),
        (("--dry-run", "--init", "w.pth"), r"w.pth: no such file, expected one of weights"),
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
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert run(*words) == (code, "", "")


def test_the_first_rank_of_each_machine_tells_what_its_machine_lacks(
    run: Run, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    code, _, err = run("--shards", "elsewhere", "--model", "S-16k")
    assert code == 2
    assert "elsewhere: no such folder" in err


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


# ---- signals ----------------------------------------------------------------------------------------


if __name__ == "__main__":
    sys.stdout.write(options())
