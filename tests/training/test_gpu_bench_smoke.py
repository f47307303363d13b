"""The benchmark of steps on a GPU works: in full on a CPU, and what it decides for itself."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "bench_gpu_training.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_measures_the_tiny_network_on_a_cpu(tmp_path: Path) -> None:
    words = [
        "--device",
        "cpu",
        "--preset",
        "tiny-16k",
        "--duration",
        "1",
        "--batch",
        "2",
        "--steps",
        "2",
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), *words, "--rounds", "2"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "gpu_training.json").read_text(encoding="utf-8"))
    (found,) = document["presets"]
    assert (found["preset"], found["batch"], found["did_not_fit"]) == ("tiny-16k", 2, [])
    assert found["mfu"] == pytest.approx(
        found["samples_per_s"] * found["flops_per_sample"] / found["peak_flops"], rel=0.1, abs=1e-4
    )
    assert found["samples_per_s"] == pytest.approx(2 / found["step_s"], abs=0.01)
    assert found["kernels"]
    assert sum(found["kinds_ms"].values()) >= sum(kernel["ms"] for kernel in found["kernels"]) - 0.1
    with gzip.open(tmp_path / found["trace"]) as stream:
        assert json.load(stream)["traceEvents"]
    for one in document["convolutions"]:
        assert max(one["largest_difference"].values()) < 1e-4 * one["largest"]
        assert one["fastest"] in one["ways"]
    assert [row["holds"] for row in document["promises"]] == [True]
    assert "tiny-16k, batch 2" in (tmp_path / "kernels.txt").read_text(encoding="utf-8")


def test_a_batch_that_does_not_fit_is_followed_by_smaller_ones(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, config: Any, device: torch.device, *, duration_s: float) -> None:
            self._size = config.batch

        def __call__(self) -> None:
            if self._size > 24:
                raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench, "Steps", Full)
    _, config, failed = bench.warm("tiny-16k", [], torch.device("cpu"), batch=64, duration_s=1.0)
    assert (config.batch, failed) == (24, [64, 48, 32])
    assert list(bench.sizes(8)) == [8, 6, 4, 3, 2, 1]


def test_other_errors_than_want_of_memory_end_it(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(config: Any, device: torch.device, *, duration_s: float) -> None:
        raise ValueError("of another kind")

    monkeypatch.setattr(bench, "Steps", steps)
    with pytest.raises(ValueError, match="of another kind"):
        bench.warm("tiny-16k", [], torch.device("cpu"), batch=8, duration_s=1.0)


def test_promises_say_what_is_missed(bench: ModuleType) -> None:
    good = {"preset": "S-16k", "batch": 256, "mfu": 0.41, "promised": 0.4, "waits": None,
            "graph_breaks": 0, "recompiled": 0}  # fmt: skip
    rows = bench.promises_of([good], on_gpu=True)
    assert len(rows) == 3
    assert all(row["holds"] for row in rows)
    bad = good | {"mfu": 0.39, "waits": "step.py:1: called a synchronizing operation", "recompiled": 2}
    assert not any(row["holds"] for row in bench.promises_of([bad], on_gpu=True))
    assert [row["limit"] for row in bench.promises_of([bad], on_gpu=True)] == ["≥ 0.4", "0", "0"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopB_TNT", "products"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma", "attention"),
        ("triton_poi_fused_cat_silu_mul_3", "compiled"),
        (
            "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>",
            "optimizer, averages, norms",
        ),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_nhwc", "convolutions"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4>", "others"),
    ],
)
def test_kernels_are_told_apart_by_their_names(bench: ModuleType, kernel: str, kind: str) -> None:
    assert bench.kind_of(kernel) == kind
