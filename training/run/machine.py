"""What a run computes on: which GPUs or CPU, what they do at most, and what memory they have.

A peak is of dense matrix products in the precision of the run, as the maker says; of what is not listed,
it is measured.
"""

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from curation.errors import UsageProblem

if TYPE_CHECKING:
    import torch

Precision = Literal["bf16", "fp32"]
_SIDE = {"cuda": 8192, "cpu": 2048}  # of the matrices that measure a peak
_MEASURED_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that is known by name."""

    name: str
    bf16_flops: float  # a second, dense, sums in float32
    memory_bytes: int  # as the maker counts them: a little less than what is there
    unlike: tuple[str, ...] = ()  # words that make it another one


# Source: NVIDIA's datasheets and architecture papers; numbers "with sparsity" halved.
GPUS = (
    Gpu(name="H100 PCIe", bf16_flops=756e12, memory_bytes=80 * 10**9),
    Gpu(name="H100 NVL", bf16_flops=835e12, memory_bytes=94 * 10**9),
    Gpu(name="H100", bf16_flops=989.4e12, memory_bytes=80 * 10**9, unlike=("64GB", "96GB")),
    Gpu(name="H200", bf16_flops=989.4e12, memory_bytes=141 * 10**9, unlike=("NVL",)),
    Gpu(name="A100 40GB", bf16_flops=312e12, memory_bytes=40 * 10**9),
    Gpu(name="A100", bf16_flops=312e12, memory_bytes=80 * 10**9),
    Gpu(name="L40S", bf16_flops=362e12, memory_bytes=48 * 10**9),
    Gpu(name="RTX 4090", bf16_flops=165.2e12, memory_bytes=24 * 10**9, unlike=("D", "LAPTOP")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run's ranks compute on, all alike, one each."""

    name: str
    ranks: int
    peak_flops: float | None  # of one, a second; None: nobody knows
    memory_bytes: int  # of one
    is_gpu: bool = True
    peak_from: str = "its datasheet"  # where it is known from


def gpu_named(text: str) -> Gpu | None:
    """The GPU of a name, as people or the driver write it: "H100", "NVIDIA A100-SXM4-40GB"."""
    words = set(re.split(r"[\s_-]+", text.upper()))
    if "MIG" in words:  # a part of one
        return None
    for gpu in GPUS:
        if set(gpu.name.upper().split()) <= words and not words & set(gpu.unlike):
            return gpu
    return None


def present_gpus() -> tuple[str, int, int] | None:
    """The name of this machine's GPUs, how many ranks use such, and the bytes of one; None: no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    ranks = int(os.environ.get("WORLD_SIZE", torch.cuda.device_count()))
    return str(found.name), ranks, int(found.total_memory)


def machine_for(precision: Precision, *, name: str | None = None, ranks: int | None = None) -> Machine:
    """The machine of a planned run: what is named, else what is here, else 8 H100 as the paper had.

    Where the run is in fp32 and no GPU is here, it is this machine's CPU.

    Args:
        name: of the GPU, or "cpu".
        ranks: how many.

    Raises:
        UsageProblem: nothing is known of a GPU of that name, and none is here.
    """
    here = None if name == "cpu" else present_gpus()
    if name == "cpu" or (name is None and here is None and precision == "fp32"):
        return _cpu(precision, ranks or 1)
    if here is not None and (name is None or _is_same(name, here[0])):
        return _present(precision, here, ranks)
    gpu = gpu_named(name or "H100")
    if gpu is None:
        raise UsageProblem(
            f"--gpu {name}: nothing is known of it, expected one of "
            f"{', '.join(known.name for known in GPUS)}, or cpu — name one of these, or run where it is "
            "and leave --gpu out"
        )
    return Machine(
        name=gpu.name,
        ranks=ranks or 8,
        peak_flops=gpu.bf16_flops if precision == "bf16" else None,
        memory_bytes=gpu.memory_bytes,
    )


def _is_same(name: str, here: str) -> bool:
    named = gpu_named(name)
    return name == here or (named is not None and named == gpu_named(here))


def _present(precision: Precision, here: tuple[str, int, int], ranks: int | None) -> Machine:
    name, count, memory_bytes = here
    peak_flops, peak_from = peak_of(name, "cuda", precision)
    return Machine(
        name=name, ranks=ranks or count, peak_flops=peak_flops, memory_bytes=memory_bytes,
        peak_from=peak_from,
    )  # fmt: skip


def _cpu(precision: Precision, ranks: int) -> Machine:
    peak_flops, peak_from = peak_of("cpu", "cpu", precision)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        name="CPU", ranks=ranks, peak_flops=peak_flops, memory_bytes=memory_bytes, is_gpu=False,
        peak_from=peak_from,
    )  # fmt: skip


def peak_of(name: str, device: "torch.device | str", precision: Precision) -> tuple[float, str]:
    """What a device that is here does at most, operations a second, and where that is known from."""
    gpu = gpu_named(name)
    if gpu is not None and precision == "bf16":
        return gpu.bf16_flops, "its datasheet"
    return measured_peak(device, precision), "products of matrices, measured now"


def measured_peak(
    device: "torch.device | str", precision: Precision, *, seconds: float = _MEASURED_S
) -> float:
    """The best rate of a product of large matrices on a device, in operations a second."""
    import torch

    device = torch.device(device)
    side = _SIDE[device.type]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.mm(left, right)
    best_s, end_s = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end_s:
        begun_s = time.perf_counter()
        torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - begun_s)
    return 2 * side**3 / best_s
