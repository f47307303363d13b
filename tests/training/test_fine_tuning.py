"""Runs that begin with weights: frozen groups, adapters, training checkpoints of MMAudio."""

from pathlib import Path

import pytest
import torch
from golden_weights import close
from made_networks import state_of as released_of
from safetensors.torch import save_file
from small_runs import run_of, same, shards_in, short_config, state_of

from curation.errors import BadWeights, UsageProblem
from training.ema import ema
from training.model.adapters import merged
from training.model.groups import group_of
from training.model.released import from_released, trainable_names
from training.model.variants import VARIANTS, Switches
from training.state.folders import latest, steps_of
from training.state.pieces import WEIGHTS

TINY = VARIANTS["tiny_16k"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards_in(tmp_path_factory.mktemp("fine_tuning"))


def released(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return released_of(TINY, Switches()) | changes


def test_fine_tuning_begins_with_released_weights_and_their_statistics(
    shards: Path, tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(released(), file)
    run_of(shards, tmp_path / "run", short_config(steps=1, learning_rate=1e-9), init=file)
    weights = {
        name.removeprefix(WEIGHTS): value
        for name, value in state_of(tmp_path / "run").items()
        if name.startswith(WEIGHTS)
    }
    for name, value in from_released(released()).items():
        assert close(weights[name], value, 1e-6), name
    save_file({k: v for k, v in released().items() if k != "latent_std"}, file)
    with pytest.raises(BadWeights, match="missing: latent_std"):
        run_of(shards, tmp_path / "other", short_config(steps=1), init=file)


@pytest.mark.parametrize("groups", [("projections", "joint"), ("fused", "final", "conditions")])
def test_frozen_groups_stay(groups: tuple[str, ...], shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(released(), file)
    run_of(shards, tmp_path / "run", short_config(steps=3, batch=16, freeze=groups), init=file)
    begun, state = from_released(released()), state_of(tmp_path / "run")
    trained = set(from_released({n: released()[n] for n in trainable_names(TINY)}))
    for name in trained:
        if name.startswith("joint_blocks.1.") and "latent" not in name and "q_norm" in name:
            continue  # what these ask for is nobody's: their streams end there
        stays = torch.equal(state[WEIGHTS + name], begun[name])
        assert stays == (group_of(name) in groups), name


def test_adapters_learn_alone_and_are_continued(shards: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(released(), file)
    config = short_config(steps=4, lora_rank=4, lora_alpha=8.0, ema_profile_every=4)
    run_of(shards, tmp_path / "whole", config, init=file)
    for steps in (2, 4):
        run_of(
            shards, tmp_path / "parts", short_config(
                steps=steps, lora_rank=4, lora_alpha=8.0, ema_profile_every=4), init=file,
        )  # fmt: skip
    state = state_of(tmp_path / "whole")
    assert same(state, state_of(tmp_path / "parts"))
    weights = {n.removeprefix(WEIGHTS): v for n, v in state.items() if n.startswith(WEIGHTS)}
    begun = from_released(released())
    learned = merged(weights, alpha=8.0)
    changed = {name for name in begun if not torch.equal(learned[name], begun[name])}
    assert changed
    assert all(name.startswith(("joint_blocks.", "fused_blocks.")) for name in changed)
    moments = [name for name in state if name.startswith("exp_avg/")]
    assert moments
    assert all(name.endswith((".down", ".up")) for name in moments)


def test_exported_adapters_go_on_in_another_run(shards: Path, tmp_path: Path) -> None:
    from training.state.exported import export_adapters

    file, adapters = tmp_path / "weights.safetensors", tmp_path / "adapters.safetensors"
    save_file(released(), file)
    config = short_config(steps=3, lora_rank=4, lora_alpha=8.0)
    run_of(shards, tmp_path / "first", config, init=file)
    stored = latest(tmp_path / "first")
    assert stored is not None
    export_adapters(stored, adapters, sigma_rel=None, replace=False)
    still = short_config(steps=1, lora_rank=4, lora_alpha=8.0, learning_rate=1e-12)
    run_of(shards, tmp_path / "second", still, init=file, adapters=adapters)
    first, second = (state_of(tmp_path / name) for name in ("first", "second"))
    learned = [name for name in first if name.startswith(WEIGHTS)]
    assert all(close(second[name], first[name], 1e-5) for name in learned)
    with pytest.raises(UsageProblem, match="lora_rank"):
        run_of(shards, tmp_path / "third", short_config(steps=1), adapters=adapters)
    wide = short_config(steps=1, lora_rank=8, lora_alpha=8.0)
    with pytest.raises(BadWeights, match="misshaped"):
        run_of(shards, tmp_path / "third", wide, init=file, adapters=adapters)
    other = short_config(steps=1, lora_rank=4, lora_alpha=16.0)
    with pytest.raises(UsageProblem, match=r"--set lora_alpha=8"):
        run_of(shards, tmp_path / "third", other, init=file, adapters=adapters)
    with pytest.raises(UsageProblem, match="lora_rank without --init"):
        run_of(shards, tmp_path / "third", still)
    with pytest.raises(UsageProblem, match=r"nothing\.safetensors: no such file"):
        run_of(shards, tmp_path / "third", still, init=file, adapters=tmp_path / "nothing.safetensors")


def test_averages_of_adapters_say_what_they_are(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "weights.safetensors", tmp_path / "averaged.safetensors"
    save_file(released(), file)
    config = short_config(steps=4, lora_rank=4, lora_alpha=8.0, ema_profile_every=2)
    run_of(shards, tmp_path / "run", config, init=file)
    words = [str(tmp_path / "run"), "--sigma", "0.08", "--out", str(out)]
    assert ema.main(words, standalone_mode=False) == 0
    assert "--set lora_rank=4 --adapters" in capsys.readouterr().err
    begun = short_config(steps=1, lora_rank=4, lora_alpha=16.0)
    for adapters in (out, *(tmp_path / "run" / "ema").iterdir()):
        with pytest.raises(UsageProblem, match=r"with alpha 8, expected 16 as here .* lora_alpha=8"):
            run_of(shards, tmp_path / "other", begun, init=file, adapters=adapters)


def test_training_checkpoint_of_mmaudio_that_is_done_is_saved_as_ours(
    shards: Path, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"it": 6, "weights": released()}, file)
    found = run_of(shards, tmp_path / "run", short_config(steps=5), init=file)
    assert found["steps"] == 7
    assert steps_of(tmp_path / "run") == [7]
