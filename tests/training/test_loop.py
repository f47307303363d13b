"""Runs: continued bit for bit, stopped by what is not finite, begun with weights, fine-tuned."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_weights import close
from safetensors.torch import load_file
from small_runs import lines_of, run_of, same, shards_in, short_config, state_of
from small_shards import Planned
from small_training import training_rows

from curation.errors import ConfigDiffers, FoleyproofError, NoSpace, UsageProblem
from training.ema import synthesize
from training.model.released import from_released, released_layout
from training.model.variants import VARIANTS
from training.optim import learning_rate
from training.state import stored
from training.state.folders import latest, steps_of
from training.state.pieces import WEIGHTS, averages

TINY = VARIANTS["tiny_16k"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_in(tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    run_of(shards, run, short_config())
    return state_of(run)


def test_run_resumed_at_every_step_has_the_weights_of_an_unbroken_one(
    shards: Path, unbroken: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for step in range(1, 31):
        found = run_of(shards, tmp_path / "run", short_config(steps=step))
        assert (found["steps_before"], found["steps"]) == (step - 1, step)
    assert same(state_of(tmp_path / "run"), unbroken)


def test_micro_batches_have_the_gradients_of_the_whole(
    shards: Path, unbroken: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run_of(shards, tmp_path / "run", short_config(micro_batch=1, activation_checkpointing=True))
    for name, value in state_of(tmp_path / "run").items():
        assert close(value.double(), unbroken[name].double(), 1e-3), name


def test_last_line_of_the_log_is_what_was_done(shards: Path, tmp_path: Path) -> None:
    run_of(shards, tmp_path / "run", short_config(steps=12, log_every=4))
    lines = lines_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [4, 8, 12]
    for line in lines:
        rate = learning_rate(
            line["step"] - 1, base=1e-3, warmup_steps=3, milestones=(10, 20), factor=0.1
        )
        assert line["learning_rate"] == pytest.approx(rate)
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0
        seen = [value for value in line["loss_by_t"] if value is not None]
        assert len(line["loss_by_t"]) == 25
        assert min(seen) <= line["loss"] <= max(seen)


def test_averages_are_those_of_the_weights_after_each_step(shards: Path, tmp_path: Path) -> None:
    from training.powers import beta, gamma_of

    config = short_config(steps=6, checkpoint_every=1, keep_checkpoints=10)
    run_of(shards, tmp_path / "run", config)
    from training.state.folders import at_step

    expected: dict[str, torch.Tensor] = {}
    for step in range(1, 7):
        stored = at_step(tmp_path / "run", step)
        weights = stored.read(dict.fromkeys(stored.begins(WEIGHTS).values()))
        keep = beta(step, gamma_of(0.05)) if step > 1 else 0.0
        for name, value in weights.items():
            before = expected.get(name, value)
            expected[name] = before * keep + value * (1 - keep)
    stored = at_step(tmp_path / "run", 6)
    for name, kept in stored.begins(averages(0.05)).items():
        assert close(stored.read({kept: None})[kept], expected[WEIGHTS + name], 1e-6), name


def test_profiles_are_written_and_make_other_averages(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(shards, run, short_config(steps=9, ema_profile_every=3))
    names = sorted(path.name for path in (run / "ema").iterdir())
    assert names == [f"{step}-{sigma}.safetensors" for step in (3, 6, 9) for sigma in ("0.05", "0.1")]
    assert steps_of(run) == [9], "a profile is no checkpoint"
    stored = latest(run)
    assert stored is not None
    last = load_file(run / "ema" / "9-0.05.safetensors")
    assert {name: tuple(value.shape) for name, value in last.items()} == released_layout(TINY)
    ours = from_released(last)
    for name, kept in stored.begins(averages(0.05)).items():
        assert torch.equal(ours[name], stored.read({kept: None})[kept]), name
    assert set(synthesize(run, 0.05, 9)) == set(last)


def spoilt_shards(folder: Path, rows: list[Planned]) -> Path:
    """Shards whose clip v002 has a feature that is not a number."""
    import small_shards

    made = small_shards.values_of

    def spoilt(planned: Planned, about: Any = small_shards.ABOUT) -> Any:
        values = made(planned, about)
        if planned.clip_id == "v002":
            values["clip"][3, 5] = float("nan")
        return values

    small_shards.values_of = spoilt
    try:
        return shards_in(folder, rows=rows)
    finally:
        small_shards.values_of = made


@pytest.fixture
def bad_shards(tmp_path: Path) -> Path:
    return spoilt_shards(tmp_path, training_rows())


def test_a_folder_of_something_else_is_no_run(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageProblem, match=r"--run .*other: holds thesis\.tex, which is of no run"):
        run_of(shards, tmp_path / "other", short_config(steps=1))
    with pytest.raises(UsageProblem, match="which is of no run"):
        run_of(shards, shards, short_config(steps=1))
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_an_attempt_that_left_no_checkpoint_is_said_to_begin_anew(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, contents: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(stored, "write_hashed", fail)
        with pytest.raises(NoSpace):
            run_of(shards, tmp_path / "run", short_config(steps=1))
    assert "with other settings" not in capsys.readouterr().err
    run_of(shards, tmp_path / "run", short_config(steps=2))
    assert "was begun with other settings and left no checkpoint; it begins anew" in (
        capsys.readouterr().err)  # fmt: skip


def test_poisoned_clip_stops_the_run_by_name_and_nothing_is_lost(
    bad_shards: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = short_config(steps=200, drop_video=0.0)
    with pytest.raises(
        FoleyproofError, match=r"loss of 1 of 2 samples is not finite: bells/v002"
    ) as caught:
        run_of(bad_shards, run, config)
    assert caught.value.exit_code == 1
    step = int(str(caught.value).split(":")[0].removeprefix("step "))
    assert steps_of(run) == [step], "what was saved is the state before that step"
    state = state_of(run)
    assert all(torch.isfinite(value).all() for value in state.values())
    assert int(state["counts/updates"]) == int(state["counts/averaged"]) == step
    told = json.loads((run / f"not-finite-{step:08d}.json").read_text())
    (rank,) = told["ranks"]
    assert [entry["step"] for entry in rank["steps"]][-1] == step
    assert {sample["clip"] for sample in rank["steps"][-1]["samples"]} >= {"bells/v002"}
    before = state_of(run)
    with pytest.raises(FoleyproofError, match="bells/v002"):
        run_of(bad_shards, run, config)
    assert same(state_of(run), before)
    # the same steps without it are an unbroken run
    other = tmp_path / "other"
    run_of(bad_shards, other, short_config(steps=step, drop_video=0.0))
    assert same(state_of(other), before)


@pytest.mark.parametrize("times", [1, 99])
def test_a_checkpoint_that_fails_is_tried_again_at_the_next_step(
    times: int,
    unbroken: dict[str, torch.Tensor],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, write, left = tmp_path / "run", stored.write_hashed, list(range(times))

    def write_or_fail(path: Path, contents: Any) -> str:
        if path.parent.name.startswith("step-00000020") and left:
            left.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, contents)

    monkeypatch.setattr(stored, "write_hashed", write_or_fail)
    config = short_config(checkpoint_every=10, log_every=1)
    if times == 1:
        run_of(shards, run, config)
        assert steps_of(run) == [20, 30]
        assert same(state_of(run), unbroken)
    else:
        with pytest.raises(NoSpace, match="step-00000020"):
            run_of(shards, run, config)
        assert steps_of(run) == [10]
        assert len(lines_of(run)) < 28, "long before the next checkpoint"


def test_other_settings_and_shards_are_refused_by_name(shards: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_of(shards, run, short_config(steps=1))
    with pytest.raises(ConfigDiffers, match=r"learning_rate is 0\.002 here and 0\.001 there"):
        run_of(shards, run, short_config(steps=2, learning_rate=2e-3))
    other = shards_in(tmp_path, rows=training_rows(3, 2))
    with pytest.raises(ConfigDiffers, match="--shards it began with"):
        run_of(other, run, short_config(steps=2))


def test_preflight_tries_the_run_and_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    from training.run.asked import Asked
    from training.run.preflight import preflight

    run = tmp_path / "run"
    left = run / "preflight" / "checkpoints" / "step-00000001"
    left.mkdir(parents=True)  # of one that was killed
    found = preflight(short_config(batch=8), Asked(shards=shards, run=run, device="cpu"))
    assert found["losses"][-1] < found["losses"][0]
    assert found["checkpoint_bytes"] > 20e6
    assert [path.name for path in run.iterdir()] == [".lock"]
    still = short_config(batch=8, learning_rate=1e-30)
    with pytest.raises(FoleyproofError, match="expected it to fall"):
        preflight(still, Asked(shards=shards, run=run, device="cpu"))


def test_preflight_refuses_what_cannot_validate(shards: Path, tmp_path: Path) -> None:
    from training.run.asked import Asked
    from training.run.preflight import preflight

    bad = spoilt_shards(tmp_path, [Planned(dataset="chimes", clip_id="v002")])
    config = short_config(batch=8, validate_every=5, held_back=0.0, drop_video=0.0)
    asked = Asked(shards=shards, val_shards=bad, run=tmp_path / "run", device="cpu")
    with pytest.raises(FoleyproofError, match="loss of its first 1 sample is nan, expected a finite"):
        preflight(config, asked)


def test_validation_is_the_same_each_time_and_alarms_are_raised(shards: Path, tmp_path: Path) -> None:
    config = short_config(steps=6, validate_every=3, held_back=0.3)
    run_of(shards, tmp_path / "run", config)
    run_of(shards, tmp_path / "again", config)
    first, second = (lines_of(tmp_path / name, "validation") for name in ("run", "again"))
    assert [line["step"] for line in first] == [3, 6]
    assert [line["loss"] for line in first] == [line["loss"] for line in second]


def test_a_poisoned_clip_that_validates_is_named_and_left_out(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Planned(dataset="chimes", clip_id=name) for name in ("v002", "v902", "v903")]
    config = short_config(steps=2, validate_every=2, held_back=0.0, drop_video=0.0)
    found = run_of(shards, tmp_path / "run", config, val_shards=spoilt_shards(tmp_path, rows))
    assert found["steps"] == 2
    (line,) = lines_of(tmp_path / "run", "validation")
    assert line["loss"] > 0
    assert "1 validation sample left out, whose loss is not finite: chimes/v002 — " in (
        capsys.readouterr().err)  # fmt: skip


def test_shards_of_untrained_encoders_are_refused_without_the_flag(tmp_path: Path) -> None:
    import small_shards

    about = {**small_shards.ABOUT, "encoders": {"vae": "untrained:0", "clip": "a", "synchformer": "b"}}
    shards = shards_in(tmp_path, about=about)
    with pytest.raises(UsageProblem, match="--allow-untrained"):
        run_of(shards, tmp_path / "run", short_config(steps=1))
    assert run_of(shards, tmp_path / "run", short_config(steps=1), allow_untrained=True)["steps"] == 1


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_a_run_on_a_gpu_is_resumed_bit_for_bit_too(compiled: str, shards: Path, tmp_path: Path) -> None:
    settings = {"batch": 8, "precision": "bf16", "compile": compiled}
    run_of(shards, tmp_path / "whole", short_config(steps=6, **settings), device="cuda")
    for steps in (3, 6):
        run_of(shards, tmp_path / "parts", short_config(steps=steps, **settings), device="cuda")
    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))


def test_out_of_memory_says_what_would_fit(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than the machine has, asked of PyTorch itself where the batch comes to its device."""
    from training.data.batch import Batch

    run_of(shards, tmp_path / "run", short_config(steps=1))
    monkeypatch.setattr(Batch, "to", lambda batch, device: torch.empty(1 << 60))
    with pytest.raises(
        FoleyproofError, match=r"out of memory on rank 0 .*--set micro_batch=1"
    ) as caught:
        run_of(shards, tmp_path / "run", short_config(steps=2))
    assert caught.value.exit_code == 1
    assert steps_of(tmp_path / "run") == [1]


def test_trace_is_written_on_request(shards: Path, tmp_path: Path) -> None:
    run_of(shards, tmp_path / "run", short_config(steps=9), profile_steps=2)
    (trace,) = (tmp_path / "run" / "traces").iterdir()
    assert json.loads(trace.read_text())["traceEvents"]
