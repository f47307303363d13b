"""Work of a sample against torch's own count, the published numbers and the paper's hours."""

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch
from plain_network import PlainNetwork
from torch.nn import Parameter
from torch.utils.flop_counter import FlopCounterMode

from features.spec import SequenceSpec
from training.config import PRESETS, configured
from training.model.flops import forward_flops, parts, training_flops
from training.model.groups import GROUPS
from training.model.variants import VARIANTS, Switches, Variant
from training.run.work import TABLE_A7, expected_mfu, hours, sample_flops

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
# GFLOP a sample of 8 s, forward and both. Source: MMAudio@974010a, counted with FlopCounterMode
PUBLISHED = {
    "small_16k": (61.3, 183.6),
    "small_44k": (82.3, 246.7),
    "medium_44k": (320.0, 959.6),
    "large_44k": (527.6, 1582.5),
    "large_44k_v2": (527.6, 1582.5),
}


def counted(
    variant: Variant,
    duration_s: float,
    switches: Switches,
    is_trained: Callable[[str, Parameter], bool] = lambda name, parameter: True,
) -> tuple[int, int]:
    """Operations of a sample of the plain network, forward and both, as torch counts them."""
    spec = SequenceSpec(sample_rate_hz=variant.sample_rate_hz, duration_s=duration_s)
    with torch.device("meta"):
        network = PlainNetwork(variant, switches)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(is_trained(name, parameter))
        inputs = (
            torch.empty(1, spec.num_latents, variant.latent_channels),
            torch.empty(1, spec.num_clip_frames, 1024),
            torch.empty(1, spec.num_sync_features, 768),
            torch.empty(1, 77, 1024),
            torch.empty(1),
        )
        with FlopCounterMode(display=False) as counter:
            velocity = network(*inputs)
            forward = counter.get_total_flops()
            velocity.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("name", PUBLISHED)
def test_work_is_the_published_one_to_its_precision(name: str) -> None:
    found = parts(VARIANTS[name])
    work = forward_flops(found), training_flops(found)
    assert tuple(round(one / 1e9, 1) for one in work) == PUBLISHED[name]


@pytest.mark.parametrize(
    ("name", "sync", "duration_s"),
    [
        *((name, "frame", 8.0) for name in VARIANTS),
        *((name, "sum", 8.0) for name in ("small_44k", "large_44k_v2")),
        *(("small_44k", sync, seconds) for sync in ("frame", "sum") for seconds in (4.0, 10.0)),
    ],
)
def test_work_is_what_torch_counts_to_the_last_operation(
    name: str, sync: str, duration_s: float
) -> None:
    switches = Switches(sync=sync)  # type: ignore[arg-type]
    found = parts(VARIANTS[name], duration_s=duration_s, switches=switches)
    expected = counted(VARIANTS[name], duration_s, switches)
    assert (forward_flops(found), training_flops(found)) == expected


TOGETHER = [frozen for count in range(1, len(GROUPS)) for frozen in combinations(GROUPS, count)]


@pytest.mark.parametrize("sync", ["frame", "sum"])
@pytest.mark.parametrize("frozen", TOGETHER, ids="+".join)
def test_frozen_groups_need_no_gradients_of_their_weights_and_of_what_only_they_made(
    frozen: tuple[str, ...], sync: str
) -> None:
    variant, switches = VARIANTS["tiny_16k"], Switches(sync=sync)  # type: ignore[arg-type]
    begins = tuple(begin for group in frozen for begin in GROUPS[group])
    _, expected = counted(variant, 8.0, switches, lambda name, _: not name.startswith(begins))
    assert training_flops(parts(variant, switches=switches), frozen=frozen) == expected


@pytest.mark.parametrize("frozen", [(), ("projections",), ("joint",), ("fused", "final")])
def test_adapters_need_gradients_of_inputs_behind_the_first_of_them(frozen: tuple[str, ...]) -> None:
    begins = tuple(begin for group in {"joint", "fused"} - set(frozen) for begin in GROUPS[group])

    # vectors stand for adapters: their own gradients are no products
    def is_trained(name: str, parameter: Parameter) -> bool:
        return name.startswith(begins) and parameter.ndim == 1

    variant = VARIANTS["small_16k"]
    _, expected = counted(variant, 8.0, Switches(), is_trained)
    assert training_flops(parts(variant), frozen=frozen, adapters_alone=True) == expected


def test_settings_decide_the_work() -> None:
    whole = sample_flops(PRESETS["S-16k"])
    assert whole == training_flops(parts(VARIANTS["small_16k"]))
    assert sample_flops(configured("S-16k", ["freeze=joint,fused"])) < whole
    adapted = sample_flops(configured("S-16k", ["lora_rank=8"]))
    assert 0.55 < adapted / whole < 0.6, "forward, and gradients of inputs in the blocks"
    assert sample_flops(PRESETS["S-16k"], duration_s=4.0) < 0.51 * whole


# Source: the research on trainers, part 4.2, from Table A7 and the peak of an H100
@pytest.mark.parametrize(
    ("name", "gpu_hours", "percent", "rate", "half"),
    [
        ("small_16k", 44, 18.0, 970, 15.8),
        ("small_44k", 52, 20.5, 821, 21.3),
        ("medium_44k", 168, 24.6, 254, 82.8),
        ("large_44k", 304, 22.4, 140, 136.5),
    ],
)
def test_hours_of_the_paper_are_such_a_share_of_the_peak(
    name: str, gpu_hours: int, percent: float, rate: float, half: float
) -> None:
    row = TABLE_A7[name]
    assert row.gpu_hours == gpu_hours
    assert round(100 * row.mfu, 1) == percent
    assert round(row.samples_per_s / row.gpus) == rate
    config = next(preset for preset in PRESETS.values() if preset.variant == name)
    taken = hours(config, flops=sample_flops(config), peak_flops=989.4e12, ranks=8, mfu=0.5)
    assert taken * 8 == pytest.approx(half, abs=0.05)


def test_what_was_reached_on_this_device_is_expected_again() -> None:
    lines = [
        {"kind": "begin", "step": 0, "device": "H100"},
        {"kind": "training", "step": 1, "mfu_percent": 10.0},
        {"kind": "training", "step": 2, "mfu_percent": 44.0},
        {"kind": "training", "step": 3, "mfu_percent": 45.0},
        {"kind": "begin", "step": 3, "device": "A100"},
        {"kind": "training", "step": 4, "mfu_percent": 30.0},
        {"kind": "validation", "step": 4, "loss": 1.0},
        {"kind": "training", "step": 5, "mfu_percent": None},
    ]
    assert expected_mfu(PRESETS["L-44k"], lines, "H100").mfu == pytest.approx(0.44)
    assert expected_mfu(PRESETS["L-44k"], lines, "A100").mfu == pytest.approx(0.30)
    for model, file in (("S-16k", "gpu_training_S-16k"), ("L-44k", "gpu_training_L-44k")):
        measured = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))["presets"][0]
        other = expected_mfu(PRESETS[model], lines, "H200")
        assert other.mfu == pytest.approx(measured["mfu"], abs=0.0005)
        assert "one H200" in other.why
    assert "guess" in expected_mfu(PRESETS["tiny-16k"], [], "H200").why
