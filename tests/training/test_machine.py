"""Peaks and memory of GPUs by the names that drivers give them, and what a plan is made for."""

import os

import pytest
import torch

from curation.errors import UsageProblem
from training.run import machine
from training.run.machine import gpu_named, machine_for, measured_peak, peak_of


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H100", "H100"),
        ("h100", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H20", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA L40", None),
        ("", None),
    ],
)
def test_gpus_are_known_by_the_names_of_their_drivers(name: str, known: str | None) -> None:
    found = gpu_named(name)
    assert (found and found.name) == known


def test_peaks_are_dense_ones() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3", "cuda", "bf16") == (989.4e12, "its datasheet")
    assert {gpu.name: gpu.bf16_flops / 1e12 for gpu in machine.GPUS} == {
        "H100 PCIe": 756, "H100 NVL": 835, "H100": 989.4, "H200": 989.4, "A100 40GB": 312,
        "A100": 312, "L40S": 362, "RTX 4090": 165.2,
    }  # fmt: skip


def test_a_plan_is_for_the_paper_s_machine_where_no_gpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "present_gpus", lambda: None)
    found = machine_for("bf16")
    assert (found.name, found.ranks, found.peak_flops) == ("H100", 8, 989.4e12)
    named = machine_for("bf16", name="a100", ranks=64)
    assert (named.name, named.ranks, named.memory_bytes) == ("A100", 64, 80 * 10**9)
    assert machine_for("fp32", name="H100").peak_flops is None, "its datasheet has no such number"


def test_a_plan_is_for_the_gpus_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "present_gpus", lambda: ("NVIDIA H200", 4, 150 * 10**9))
    monkeypatch.setattr(machine, "measured_peak", lambda device, precision: 5e13)
    found = machine_for("bf16")
    assert (found.name, found.ranks, found.peak_flops) == ("NVIDIA H200", 4, 989.4e12)
    assert found.memory_bytes == 150 * 10**9, "as it is"
    assert machine_for("bf16", name="H200", ranks=8).memory_bytes == 150 * 10**9
    assert machine_for("bf16", name="H100").memory_bytes == 80 * 10**9
    measured = machine_for("fp32")
    assert (measured.peak_flops, measured.peak_from) == (5e13, "products of matrices, measured now")


def test_in_fp32_without_a_gpu_a_plan_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "present_gpus", lambda: None)
    monkeypatch.setattr(machine, "measured_peak", lambda device, precision: 1e11)
    found = machine_for("fp32")
    assert (found.name, found.ranks, found.is_gpu, found.peak_flops) == ("CPU", 1, False, 1e11)
    assert found.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine_for("bf16", name="cpu", ranks=2).ranks == 2


def test_an_unknown_gpu_is_refused_with_those_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "present_gpus", lambda: None)
    with pytest.raises(UsageProblem, match="--gpu K80: nothing is known of it, expected one of H100"):
        machine_for("bf16", name="K80")


def test_a_measured_peak_is_what_a_product_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(machine, "_SIDE", {"cpu": 512})
    found = measured_peak("cpu", "fp32", seconds=0.3)
    left, right = torch.randn(512, 512), torch.randn(512, 512)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - begun)
    assert found > 0.5 * 2 * 512**3 / sorted(times)[10]
    assert found < 1e14
