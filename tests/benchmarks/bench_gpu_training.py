#!/usr/bin/env python
"""How fast steps of training are on a GPU, and whether one of them waits for it.

    python tests/benchmarks/bench_gpu_training.py OUT [--preset NAME]… [--set KEY=VALUE]…

Needs of what is not in PyTorch click, numpy, pyarrow and safetensors alone; where the packages are not
installed: PYTHONPATH=. in the repository. For each preset, in the order of `run.loop`, whole steps on
one synthetic batch that lies on the device: forward and backward pass of compiled blocks in bf16,
clipping, fused AdamW, both averages, flags to the host. Batches are those that the paper implies for a
GPU (512 on 2 or 8 of them), or the largest that fits.

    samples_per_s     median of rounds of steps, by the clock, the device's queue empty at both ends
    mfu               by training.model.flops, of the dense peak of the card's datasheet
    busy              share of a step in which a kernel runs, by the profiler
    waits             what torch.cuda.set_sync_debug_mode("error") found in steps; none is promised
    graph_breaks      counted by torch._dynamo; none is promised. recompiled: in the steps that count
    memory_bytes      the most that was allocated, beside estimated_bytes of training.run.memory
    kernels           what takes longest, ms a step

Convolutions of three taps, which are most of the work, are measured by themselves, at shapes of the
network, forward and backward, in TFLOP/s of what is needed, not compiled:

    windows           what the kernel sees, copied, and one product: what the network does
    windows ready     the product alone, as if the copy took no time
    taps              a product for each tap, summed
    conv2d            cuDNN's, of height 1, channels last

Writes to OUT, after each preset: gpu_training.json, trace-PRESET.json.gz (ui.perfetto.dev) and
kernels.txt. Prints the JSON; exit 1: a promise does not hold. With --device cpu it only shows that it
works.
"""

import argparse
import contextlib
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from features.spec import SequenceSpec
from training.config import PRESETS, TrainConfig, configured
from training.data.batch import Batch
from training.model.convolution import windows
from training.model.variants import CLIP_WIDTH, SYNC_WIDTH, TEXT_WIDTH, TOKENS, variant_named
from training.run.assembly import assembled, averages_of, new_network
from training.run.distributed import World, repeatable
from training.run.machine import peak_of
from training.run.memory import estimate
from training.run.owners import owned
from training.run.step import Meter, gradients, update
from training.run.watch import Watch
from training.run.work import sample_flops

ROOT = Path(__file__).resolve().parent.parent.parent
ALL = ("S-16k", "S-44k", "M-44k", "L-44k")
# Source: arXiv:2412.15322, Table A7: 512 samples on 2 GPUs (S) and on 8 (M and L)
BATCHES = {"S-16k": 256, "S-44k": 256, "M-44k": 64, "L-44k": 64, "L-44k-v2": 64}
PROMISED = {"S-16k": 0.4, "S-44k": 0.4, "M-44k": 0.5, "L-44k": 0.5, "L-44k-v2": 0.5}
WARM, PROFILED, TOLD = 5, 3, 25
# By what is in the name of a kernel, the first that fits; of ours are those that the compiler makes.
KINDS = (
    ("attention", ("flash", "fmha", "attention", "sdpa")),
    ("convolutions", ("conv", "cudnn", "fprop", "dgrad", "wgrad")),
    ("products", ("gemm", "nvjet", "cutlass", "xmma", "cublas", "addmm", "::mm", "bmm")),
    ("optimizer, averages, norms", ("multi_tensor", "foreach", "adam", "lerp")),
    ("compiled", ("triton",)),
    ("copies", ("memcpy", "memset", "copy")),
)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- steps ------------------------------------------------------------------------------------------


class Resident:
    """What stands for the ring's memory: its tensors are on the device."""

    def copied_to(self, device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors


def synthetic(config: TrainConfig, device: torch.device, *, duration_s: float) -> Batch:
    """A batch with random values, on the device."""
    variant, size = variant_named(config.variant), config.batch
    spec = SequenceSpec(sample_rate_hz=variant.sample_rate_hz, duration_s=duration_s)
    latents = (spec.num_latents, variant.latent_channels)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(size, *shape, generator=generator, device=device).to(dtype)

    def some(share: float) -> Tensor:
        return torch.rand(size, generator=generator, device=device) < share

    dropped = some(config.drop_video)
    return Batch(
        step=0, micro=0, slots=np.arange(size), rows=np.arange(size),
        latent_mean=normal(*latents), latent_std=normal(*latents).abs() * 0.1,
        clip=normal(spec.num_clip_frames, CLIP_WIDTH), sync=normal(spec.num_sync_features, SYNC_WIDTH),
        text=normal(TOKENS, TEXT_WIDTH), has_video=some(0.7),
        noise=normal(*latents, dtype=torch.float32), x0=normal(*latents, dtype=torch.float32),
        z=normal(dtype=torch.float32), drop_clip=dropped, drop_sync=dropped,
        drop_text=some(config.drop_text), counted=some(2.0), memory=Resident(),  # type: ignore[arg-type]
    )  # fmt: skip


class Steps:
    """Steps of a run, one with each call."""

    def __init__(self, config: TrainConfig, device: torch.device, *, duration_s: float) -> None:
        channels = variant_named(config.variant).latent_channels
        network = new_network(
            config,
            latent_mean=torch.zeros(channels),
            latent_std=torch.ones(channels),
            empty_text=torch.randn(TOKENS, TEXT_WIDTH),
        )
        world = World(device=device)
        self._trained = assembled(network, config, world)
        self._tracks, self._live = averages_of(self._trained), owned(self._trained)
        self._meter, self._watch = Meter(device), Watch(world)
        self._batches: Iterator[Batch] = repeat(synthetic(config, device, duration_s=duration_s))

    def __call__(self) -> None:
        """In the order of `run.loop`: the flags of a step are read when the next pass is on its way."""
        taken = gradients(self._trained, self._batches, 1, self._meter)
        flags = self._watch.read()
        if flags is not None:
            assert not flags.is_bad, f"a norm of {flags.norm}"
            self._tracks.update(self._live)
        update(self._trained, taken)
        self._watch.note(taken, stop=False, save=False, not_saved=False)


def sizes(first: int) -> Iterator[int]:
    """Of batches, from the largest: it, three quarters, a half, three eighths, …"""
    while first >= 1:
        yield first
        if first >= 4:
            yield first * 3 // 4
        first //= 2


def warm(
    name: str, settings: list[str], device: torch.device, *, batch: int, duration_s: float
) -> tuple[Steps, TrainConfig, list[int]]:
    """Compiled steps with the largest batch that fits, and the batches that did not."""
    failed: list[int] = []
    for size in sizes(batch):
        config = configured(name, [*settings, f"batch={size}"])
        torch._dynamo.reset()  # another size would be compiled for sizes of all kinds
        torch._dynamo.utils.counters.clear()
        with contextlib.suppress(torch.OutOfMemoryError):
            steps = Steps(config, device, duration_s=duration_s)
            for _ in range(WARM):
                steps()
            settle(device)
            return steps, config, failed
        say(f"{name}: a batch of {size} does not fit")
        failed.append(size)
        steps = None  # type: ignore[assignment]
        forget(device)
    raise SystemExit(f"{name}: not even a batch of 1 fits")


def forget(device: torch.device) -> None:
    """Give back the memory of what is not used any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def settle(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], Any], device: torch.device, *, times: int) -> float:
    """Of a call, in a row of them."""
    settle(device)
    begun = time.perf_counter()
    for _ in range(times):
        call()
    settle(device)
    return (time.perf_counter() - begun) / times


def waits_of(steps: Steps, device: torch.device) -> str | None:
    """What in a step waited for the device; None where nothing did."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(PROFILED):
            steps()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return f"{_place_of(error)}: {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None


def _place_of(error: BaseException) -> str:
    """The innermost line of ours that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if str(ROOT) in one.filename and "site-packages" not in one.filename]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def traced(steps: Steps, device: torch.device, target: Path, *, step_s: float) -> dict[str, Any]:
    """A trace of some steps, and what of it takes longest."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as found:
        for _ in range(PROFILED):
            steps()
        settle(device)
    found.export_chrome_trace(str(target))
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    averages = found.key_averages()
    events = [
        (
            event.key,
            event.count,
            (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / PROFILED / 1e3,
        )
        for event in averages
        # ranges that somebody named would count their kernels again
        if event.device_type == kind and not getattr(event, "is_user_annotation", False)
    ]
    events.sort(key=lambda event: -event[2])
    kinds: dict[str, float] = {}
    for name, _, ms in events:
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + ms
    total = sum(ms for _, _, ms in events)
    return {
        "busy": round(total / (step_s * 1e3), 4) if on_gpu else None,
        "kinds_ms": {name: round(ms, 3) for name, ms in sorted(kinds.items(), key=lambda one: -one[1])},
        "kernels": [
            {"name": name, "calls": count / PROFILED, "ms": round(ms, 3), "share": round(ms / total, 4)}
            for name, count, ms in events[:TOLD]
        ],
        "waits_in_trace": {
            event.key: event.count / PROFILED for event in averages if event.key in WAITS
        },
        "trace": target.name,
    }


def kind_of(kernel: str) -> str:
    """What it does, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in KINDS if any(word in name for word in words)), "others")


def of_preset(name: str, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All that is measured of a preset."""
    begun = time.perf_counter()
    batch = given.batch or BATCHES.get(name, PRESETS[name].batch)
    steps, config, failed = warm(name, given.settings, device, batch=batch, duration_s=given.duration)
    warmed_s = time.perf_counter() - begun
    counters = torch._dynamo.utils.counters
    graphs = counters["stats"]["unique_graphs"]
    taken = [seconds_of(steps, device, times=given.steps) for _ in range(given.rounds)]
    step_s = statistics.median(taken)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    estimated = estimate(config, ranks=1, duration_s=given.duration, on_gpu=device.type == "cuda")
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak, peak_from = peak_of(card, device, config.precision)
    flops = sample_flops(config, duration_s=given.duration)
    rate = config.batch / step_s
    return {
        "preset": name, "batch": config.batch, "did_not_fit": failed, "precision": config.precision,
        "duration_s": given.duration, "settings": list(given.settings),
        "seconds_to_warm": round(warmed_s, 1), "step_s": step_s,
        "spread": round((max(taken) - min(taken)) / step_s, 4),
        "samples_per_s": round(rate, 2), "flops_per_sample": flops, "peak_flops": peak,
        "peak_from": peak_from, "mfu": round(rate * flops / peak, 4), "promised": PROMISED.get(name),
        "graph_breaks": sum(counters["graph_break"].values()), "graphs": graphs,
        "recompiled": counters["stats"]["unique_graphs"] - graphs,
        "memory_bytes": memory, "estimated_bytes": estimated.total, "estimated": estimated.parts,
        "waits": waits_of(steps, device),
        **traced(steps, device, given.out / f"trace-{name}.json.gz", step_s=step_s),
    }  # fmt: skip


# ---- convolutions -----------------------------------------------------------------------------------


def by_windows(x_bni: Tensor, weight_oki: Tensor) -> Tensor:
    return functional.linear(windows(x_bni, weight_oki.shape[1]), weight_oki.flatten(1))


def by_ready_windows(seen: Tensor, weight_oki: Tensor) -> Tensor:
    return functional.linear(seen, weight_oki.flatten(1))


def by_taps(x_bni: Tensor, weight_oki: Tensor) -> Tensor:
    length, taps = x_bni.shape[1], weight_oki.shape[1]
    padded = functional.pad(x_bni, (0, 0, taps // 2, taps // 2))
    parts = (padded[:, tap : tap + length] @ weight_oki[:, tap].t() for tap in range(taps))
    return sum(parts)  # type: ignore[return-value]


def by_conv2d(x_bni: Tensor, weight_oki: Tensor) -> Tensor:
    image = x_bni.transpose(1, 2).unsqueeze(2)  # (B, I, 1, N), whose channels lie last
    kernel = weight_oki.permute(0, 2, 1).unsqueeze(2)  # (O, I, 1, K), too
    return (
        functional.conv2d(image, kernel, padding=(0, weight_oki.shape[1] // 2))
        .squeeze(2)
        .transpose(1, 2)
    )


WAYS = {"windows": by_windows, "windows ready": by_ready_windows, "taps": by_taps, "conv2d": by_conv2d}


def of_convolutions(name: str, given: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Each way at the shapes of the latents' stream of a preset."""
    variant = variant_named(PRESETS[name].variant)
    batch = given.batch or BATCHES.get(name, PRESETS[name].batch)
    spec = SequenceSpec(sample_rate_hz=variant.sample_rate_hz, duration_s=given.duration)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = []
    for what, inputs, outputs in (
        ("w1 and w3 of the MLP", variant.width, 2 * variant.hidden),
        ("w2 of the MLP", variant.hidden, variant.width),
        ("after attention", variant.width, variant.width),
    ):
        x = torch.randn(batch, spec.num_latents, inputs, device=device).to(dtype).requires_grad_()
        weight = (torch.randn(outputs, 3, inputs, device=device) * inputs**-0.5).to(dtype)
        weight.requires_grad_()
        y = torch.randn(batch, spec.num_latents, outputs, device=device).to(dtype)
        tflop = 2 * x.shape[0] * x.shape[1] * weight.numel() / 1e12
        rates, differ = {}, {}
        reference = by_windows(x, weight).detach()
        for way, convolved in WAYS.items():
            seen = windows(x, 3).detach().requires_grad_() if way == "windows ready" else x
            forward, both = times_of(convolved, seen, weight, y, device, given)
            rates[way] = {
                "forward_ms": round(forward * 1e3, 4), "both_ms": round(both * 1e3, 4),
                "forward_tflop_per_s": round(tflop / forward, 2),
                "both_tflop_per_s": round(3 * tflop / both, 2),
            }  # fmt: skip
            with torch.no_grad():
                differ[way] = float((convolved(seen, weight) - reference).abs().max())
        found.append(
            {
                "preset": name, "what": what, "batch": batch, "latents": spec.num_latents,
                "inputs": inputs, "outputs": outputs, "ways": rates,
                "largest_difference": differ, "largest": float(reference.abs().max()),
                "fastest": min(
                    (way for way in rates if way != "windows ready"),
                    key=lambda way: rates[way]["both_ms"],
                ),
            }
        )  # fmt: skip
    return found


def times_of(
    convolved: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    device: torch.device,
    given: argparse.Namespace,
) -> tuple[float, float]:
    """Seconds of a pass forward, and of one forward and back; medians."""

    def forward() -> None:
        with torch.no_grad():
            convolved(x, weight)

    def both() -> None:
        torch.autograd.grad(convolved(x, weight), (x, weight), y)

    times = []
    for call in (forward, both):
        seconds_of(call, device, times=3)
        taken = [seconds_of(call, device, times=given.steps) for _ in range(given.rounds)]
        times.append(statistics.median(taken))
    return times[0], times[1]


# ---- the whole --------------------------------------------------------------------------------------


def about(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    on_gpu = device.type == "cuda"
    return {
        "command": " ".join(["python tests/benchmarks/bench_gpu_training.py OUT", *_words()]),
        "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
        "driver_memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "commit": git.stdout.strip(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        },
    }


def _words() -> list[str]:
    """As given, without folders."""
    return [word for word in sys.argv[1:] if "/" not in word]


def promises_of(found: list[dict[str, Any]], *, on_gpu: bool) -> list[dict[str, Any]]:
    """What is promised of each preset, and whether it holds; on a CPU only of the graphs."""
    rows: list[tuple[str, Any, str, bool]] = []
    for one in found:
        name = f"{one['preset']}, batch {one['batch']}"
        if on_gpu and one["promised"] is not None:
            least = one["promised"]
            rows.append(
                (f"{name}: share of the dense peak", one["mfu"], f"≥ {least}", one["mfu"] >= least)
            )
        if on_gpu:
            rows.append((f"{name}: waits in a step", one["waits"] or 0, "0", one["waits"] is None))
        breaks = one["graph_breaks"] + one["recompiled"]
        rows.append((f"{name}: graph breaks and recompilations", breaks, "0", breaks == 0))
    return [dict(zip(("what", "value", "limit", "holds"), row, strict=True)) for row in rows]


def write_out(document: dict[str, Any], out: Path) -> None:
    """The document, and the kernels as a table for people."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    (out / "gpu_training.json").write_text(text + "\n", encoding="utf-8")
    lines: list[str] = []
    for one in document["presets"]:
        lines += [f"{one['preset']}, batch {one['batch']}: {1e3 * one['step_s']:.2f} ms a step", ""]
        lines += [f"{ms:10.3f} ms  {kind}" for kind, ms in one["kinds_ms"].items()]
        lines += ["", "  ms a step   share   calls  kernel"]
        for kernel in one["kernels"]:
            numbers = f"{kernel['ms']:11.3f} {kernel['share']:6.1%} {kernel['calls']:8.1f}"
            lines.append(f"{numbers}  {kernel['name'][:160]}")
        lines.append("")
    (out / "kernels.txt").write_text("\n".join(lines), encoding="utf-8")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All of it; what is there is written after each preset."""
    device = torch.device(given.device)
    if device.type == "cuda" and not given.unrepeatable:
        repeatable()
    document: dict[str, Any] = {**about(device), "presets": [], "convolutions": [], "promises": []}
    shown = set()
    for name in given.preset or ALL:
        width = variant_named(PRESETS[name].variant).width
        if width not in shown and not given.no_convolutions:
            shown.add(width)
            document["convolutions"] += of_convolutions(name, given, device)
            forget(device)
        found = of_preset(name, given, device)
        document["presets"].append(found)
        document["promises"] = promises_of(document["presets"], on_gpu=device.type == "cuda")
        write_out(document, given.out)
        say(f"{name}: batch {found['batch']}, {found['samples_per_s']:,.1f} samples/s, MFU "
            f"{found['mfu']:.1%}, waits: {found['waits'] or 'none'}")  # fmt: skip
        forget(device)
    return document


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a folder for what is written")
    parser.add_argument("--preset", action="append", choices=tuple(PRESETS), metavar="NAME",
                        help=f"may be given again; without it {', '.join(ALL)}")  # fmt: skip
    parser.add_argument("--device", default="cuda", metavar="NAME", help="cuda, cuda:1, cpu (cuda)")
    parser.add_argument("--batch", type=int, metavar="N", help="instead of the paper's")
    parser.add_argument("--duration", type=float, default=8.0, metavar="SECONDS", help="of a sample (8)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of a round (10)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="whose median counts (5)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                        help="as training.launch takes it: --set compile=off")  # fmt: skip
    parser.add_argument("--unrepeatable", action="store_true",
                        help="let the GPU sum in any order, as runs do not")  # fmt: skip
    parser.add_argument("--no-convolutions", action="store_true", help="leave them out")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    document = measure(given)
    print(json.dumps(document, indent=1, ensure_ascii=False))
    missed = [row for row in document["promises"] if not row["holds"]]
    for row in missed:
        say(f"MISSED {row['what']}: {row['value']}, limit {row['limit']}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
