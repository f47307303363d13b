"""Settings: what presets have, how they are given as text, what is refused, what may change."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from curation.errors import ConfigDiffers, UsageProblem
from curation.files import canonical_json
from training.config import KEYS, PRESETS, TrainConfig, configured, may_change, meaning
from training.keys import text_of
from training.model.adapters import add_adapters
from training.model.groups import GROUPS, group_of
from training.model.variants import VARIANTS, Switches
from training.network import Network
from training.optim import learning_rate

# another value for each key that --set takes
OTHERS: dict[str, tuple[str, Any]] = {
    "seed": ("7", 7),
    "steps": ("1_000", 1000),
    "batch": ("256", 256),
    "micro_batch": ("32", 32),
    "learning_rate": ("3e-5", 3e-5),
    "warmup_steps": ("0", 0),
    "milestones": ("10, 20,30", (10, 20, 30)),
    "lr_factor": ("0.5", 0.5),
    "betas": ("0.8,0.999", (0.8, 0.999)),
    "eps": ("1e-7", 1e-7),
    "weight_decay": ("0", 0.0),
    "clip_norm": ("2", 2.0),
    "precision": ("fp32", "fp32"),
    "drop_video": ("0", 0.0),
    "drop_text": ("1", 1.0),
    "fill": ("zeros", "zeros"),
    "sync": ("sum", "sum"),
    "rope": ("default", "default"),
    "repeat_audio_video": ("1", 1),
    "repeat": ("vggsound=5,audiocaps=0", (("vggsound", 5), ("audiocaps", 0))),
    "held_back": ("0", 0.0),
    "ema_sigmas": ("0.08", (0.08,)),
    "ema_profile_every": ("0", 0),
    "log_every": ("1", 1),
    "validate_every": ("0", 0),
    "validate_samples": ("64", 64),
    "checkpoint_every": ("500", 500),
    "keep_checkpoints": ("1", 1),
    "keep_every": ("0", 0),
    "activation_checkpointing": ("True", True),
    "compile": ("off", "off"),
    "repeatable": ("false", False),
    "sharding": ("fsdp", "fsdp"),
    "freeze": ("joint,fused", ("joint", "fused")),
    "lora_rank": ("16", 16),
    "lora_alpha": ("8", 8.0),
}
SETTABLE = [key for key in KEYS if key not in ("model", "variant")]


def test_there_is_another_value_for_each_key() -> None:
    assert list(OTHERS) == SETTABLE


# ---- presets ----------------------------------------------------------------------------------------


def test_presets_are_the_networks_of_the_paper_and_two_small_ones() -> None:
    assert {name: preset.variant for name, preset in PRESETS.items()} == {
        "S-16k": "small_16k",
        "S-44k": "small_44k",
        "M-44k": "medium_44k",
        "L-44k": "large_44k",
        "L-44k-v2": "large_44k_v2",
        "tiny-16k": "tiny_16k",
        "tiny-44k": "tiny_44k",
    }


@pytest.mark.parametrize("name", ["S-16k", "S-44k", "M-44k", "L-44k", "L-44k-v2"])
def test_published_models_have_the_settings_of_the_paper(name: str) -> None:
    config = PRESETS[name]
    assert (config.steps, config.batch, config.learning_rate) == (300_000, 512, 1e-4)
    assert (config.betas, config.weight_decay, config.clip_norm) == ((0.9, 0.95), 1e-6, 1.0)
    assert (config.warmup_steps, config.precision) == (1000, "bf16")
    assert (config.drop_video, config.drop_text, config.ema_sigmas) == (0.1, 0.1, (0.05, 0.1))
    assert config.repeat_audio_video == (5 if name.startswith("S") else 3)
    assert (config.seed, config.log_every, config.validate_every) == (14159265, 200, 5000)


@pytest.mark.parametrize("name", PRESETS)
def test_learning_rate_falls_twice_before_the_end(name: str) -> None:
    config = PRESETS[name]
    rates = [
        learning_rate(
            step,
            base=config.learning_rate,
            warmup_steps=config.warmup_steps,
            milestones=config.milestones,
            factor=config.lr_factor,
        )
        for step in (0, config.warmup_steps, config.steps - 1)
    ]
    assert rates[1] == config.learning_rate
    assert rates[2] == pytest.approx(config.learning_rate / 100)


# ---- as text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", OTHERS)
def test_a_setting_is_read_by_the_type_of_its_field(key: str) -> None:
    text, value = OTHERS[key]
    found = getattr(configured("S-16k", [f"{key}={text}"]), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_a_preset_can_be_given_as_it_is_told(name: str) -> None:
    preset = PRESETS[name]
    told = [f"{key}={text_of(getattr(preset, key))}" for key in SETTABLE]
    assert configured(name, told) == preset


def test_nothing_and_none_can_be_given() -> None:
    config = configured("S-16k", ["milestones=", "repeat=", "eps=none", "micro_batch=none", "freeze="])
    assert (config.milestones, config.repeat, config.freeze) == ((), (), ())
    assert (config.eps, config.micro_batch) == (None, None)


def test_the_last_of_equal_keys_counts() -> None:
    assert configured("S-16k", ["batch=8", "batch=16"]).batch == 16


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("bacth=3", r"--set bacth=3: no such setting, expected batch — give one that is known"),
        ("checkpoint=3", r"expected keep_checkpoints or checkpoint_every — "),
        ("qqq=3", r"expected one of model, variant, seed, .*lora_alpha — "),
        ("batch", r"--set batch, expected key=value — as --set"),
        ("batch=many", r"--set batch=many, expected a whole number, at least 1 \(samples of a step"),
        ("batch=1.5", r"expected a whole number"),
        ("batch=0", r"batch=0, expected a whole number, at least 1"),
        ("micro_batch=0", r"expected a whole number, at least 1, or none"),
        ("learning_rate=0", r"expected a number, more than 0"),
        ("learning_rate=inf", r"learning_rate=inf, expected a number, more than 0"),
        ("drop_text=nan", r"expected a number, at least 0 and at most 1"),
        ("betas=0.9", r"expected 2 numbers separated by commas, each at least 0 and less than 1"),
        ("betas=0.9,0.95,0.99", r"expected 2 numbers"),
        ("betas=0.9,1", r"each at least 0 and less than 1"),
        ("milestones=20,10", r"milestones=20,10, expected ascending steps — sort them"),
        ("ema_sigmas=0.1,0.1", r"ema_sigmas=0.1,0.1, expected widths that differ"),
        ("ema_sigmas=0.3", r"ema_sigmas=0.3, expected numbers .*, each .* and at most 0\.28867"),
        ("ema_sigmas=0.0001", r"ema_sigmas=0.0001, expected numbers .*, each at least 0\.001"),
        ("milestones=a", r"expected whole numbers separated by commas"),
        ("precision=fp16", r"precision=fp16, expected one of bf16, fp32"),
        ("activation_checkpointing=maybe", r"expected true or false"),
        ("repeat=vggsound", r"expected pairs as name=2, separated by commas"),
        ("repeat=vggsound=x", r"expected pairs as name=2"),
        ("repeat=vggsound=-1", r"each at least 0"),
        ("repeat=a=1,a=2", r"repeat=a=1,a=2, expected each dataset once"),
        ("freeze=everything", r"expected some of projections, conditions, joint, fused, final"),
        ("model=L-44k", r"--set model=L-44k, expected it by its preset — give --model instead"),
        ("variant=large_44k", r"give --model instead"),
        ("seed=-1", r"seed=-1, expected a whole number, at least 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(UsageProblem, match=message) as caught:
        configured("S-16k", [setting])
    assert caught.value.exit_code == 2


def test_an_unknown_model_is_refused_with_the_closest_name() -> None:
    with pytest.raises(UsageProblem, match="expected M-44k or S-44k or L-44k — give one that is known"):
        configured("XM-44k")
    with pytest.raises(UsageProblem, match="expected one of S-16k, S-44k"):
        configured("medium")


def test_values_of_another_type_are_refused_in_code_too() -> None:
    with pytest.raises(UsageProblem, match="batch=8, expected a whole number"):
        replace(PRESETS["S-16k"], batch="8")  # type: ignore[arg-type]
    with pytest.raises(UsageProblem, match="batch=true"):
        replace(PRESETS["S-16k"], batch=True)
    with pytest.raises(UsageProblem, match="variant=huge, expected one of small_16k"):
        replace(PRESETS["S-16k"], variant="huge")


# ---- documents and digests --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_settings_come_back_from_json(name: str) -> None:
    config = configured(name, ["repeat=a=1,b=2", "freeze=joint", "ema_sigmas=0.1", "weight_decay=0"])
    again = TrainConfig.of_document(json.loads(canonical_json(config.document())), "checkpoint.json")
    assert again == config
    assert again.digest() == config.digest()


@pytest.mark.parametrize("key", OTHERS)
def test_every_setting_changes_the_digest(key: str) -> None:
    preset = PRESETS["S-16k"]
    other = configured("S-16k", [f"{key}={OTHERS[key][0]}"])
    assert other.digest() != preset.digest()
    assert other.differences(preset) == [(key, OTHERS[key][1], getattr(preset, key))]


def test_a_whole_number_where_a_fraction_may_be_is_the_same_setting() -> None:
    assert replace(PRESETS["S-16k"], clip_norm=1).digest() == PRESETS["S-16k"].digest()


def test_settings_of_another_version_are_refused_by_name() -> None:
    document = PRESETS["S-16k"].document()
    with pytest.raises(ConfigDiffers, match=r"run/checkpoint.json: has the setting zeal, expected"):
        TrainConfig.of_document({**document, "zeal": 1}, "run/checkpoint.json")
    del document["batch"]
    with pytest.raises(ConfigDiffers, match="lacks the setting batch"):
        TrainConfig.of_document(document, "run/checkpoint.json")


# ---- going on ---------------------------------------------------------------------------------------


def test_what_decides_the_weights_may_not_change_on_resume() -> None:
    free = {key for key in KEYS if may_change(key)}
    assert free == {
        "steps", "micro_batch", "ema_profile_every", "log_every", "validate_every",
        "validate_samples", "checkpoint_every", "keep_checkpoints", "keep_every",
        "activation_checkpointing", "compile", "repeatable", "sharding",
    }  # fmt: skip


@pytest.mark.parametrize("key", OTHERS)
def test_a_run_goes_on_with_other_settings_that_may_change_and_no_others(key: str) -> None:
    begun = PRESETS["S-16k"]
    now = configured("S-16k", [f"{key}={OTHERS[key][0]}"])
    if may_change(key):
        now.continues(begun, "runs/S-16k")
        return
    with pytest.raises(ConfigDiffers, match=f"runs/S-16k: {key} is .* here and .* there") as caught:
        now.continues(begun, "runs/S-16k")
    assert caught.value.exit_code == 12
    told = str(caught.value).partition("give ")[2].partition(", or another --run")[0]
    assert told == f"--set {key}={text_of(getattr(begun, key))}", "the option that helps"
    assert configured("S-16k", [told.removeprefix("--set ")]) == begun


def test_another_model_is_named_once() -> None:
    with pytest.raises(
        ConfigDiffers, match=r"model is L-44k here and M-44k there; variant is"
    ) as caught:
        PRESETS["L-44k"].continues(PRESETS["M-44k"], "runs/x")
    assert "give --model M-44k, or another --run" in str(caught.value)


# ---- the module -------------------------------------------------------------------------------------


def test_every_setting_says_what_it_means() -> None:
    assert all(len(meaning(entry.name)) > 5 for entry in fields(TrainConfig))


def test_settings_need_neither_torch_nor_numpy() -> None:
    code = "import sys, training.config; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_trained_tensor_is_in_one_group(name: str) -> None:
    with torch.device("meta"):
        network = Network(VARIANTS[name], Switches(fill="learned"))
    found = {group_of(key) for key, _ in network.named_parameters()}
    assert found == set(GROUPS)


def test_adapters_are_in_the_groups_of_their_blocks() -> None:
    network = Network(VARIANTS["tiny_16k"])
    add_adapters(network, rank=1, alpha=1.0, seed=0)
    trained = {group_of(key) for key, value in network.named_parameters() if value.requires_grad}
    assert trained == {"joint", "fused"}
