"""Who waits for whom in an extraction, and what it keeps in memory.

    python bench_extract.py FOLDER [--clips N] [--json FILE]
    python bench_extract.py memory FOLDER N     print the peak memory of one process after N clips

A machine with two cores cannot show encoders and decoders at full speed together: on a CPU both want the
cores, and the sum is what the cores give. What can be measured honestly is the pipeline between them:

- `device`: a stand-in for a GPU that is busy for a fixed time per clip and uses no core, as a GPU does,
  behind the real decoders, batches, writer and files. Its time is set above and below what decoding
  takes, so that either side is the slower one. Clips are of VGGSound's usual size (340 x 256, 30
  pictures a second, 10 s).
- `networks`: the tiny networks in one thread on a core of their own, decoders on the other one.

Each is held against both sides alone: the encoders with everything decoded, the decoders with nobody to
encode. `whole / slower` is the rate of the whole by that of the slower side alone, both in their middle:
the whole from the end of the first batch to that of the last. Before, decoders start and memory is
touched for the first time, once in a process; after it, the file is written (`write_s`). A task has
2,048 clips, of which such ends are nothing; of the dozens here they would be much. Peak memory is the
resident set of the process that encodes, which is also the one that plans here; its decoders are as many
whatever the number of clips.

`python -m features.cli extract` starts its encoders in a process of its own; they are the same here.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
for place in ("curation", "features"):
    sys.path.append(str(HERE.parent / place))
from made_media import make_media  # noqa: E402 - found by the lines above
from small_clips import row, write_manifest  # noqa: E402

from features.extraction.encoding import TaskEncoder  # noqa: E402
from features.extraction.job import Effort, Job  # noqa: E402
from features.extraction.plan import make_plan  # noqa: E402
from features.extraction.suite import load_suite  # noqa: E402
from features.inputs.feeding import feed  # noqa: E402
from features.inputs.prepared import InputConfig, Request  # noqa: E402
from features.spec import CLIP_WIDTH, SYNC_WIDTH, SequenceSpec  # noqa: E402
from features.weights.published import WeightChoice  # noqa: E402

RATE_HZ = 44100
DISTINCT = 4  # films; the others are the same files under other names
BATCH = 4
LIMITS = {"encoder wait": 0.05, "whole / slower": 0.9, "memory": 1.1}
# the three networks on one clip of 8 s, and a GPU: dense bf16, and what of it the encoders are to reach
TFLOP_PER_CLIP, H100_TFLOPS, REACHED = 74.0, 989.0, 0.45
TRAINING_CLIPS = 180_000


class StandIn:
    """Encoders that keep a device busy for so long, and no core."""

    def __init__(self, clip_s: float) -> None:
        self._clip_s = clip_s
        self._spec = SequenceSpec(sample_rate_hz=RATE_HZ)

    def encode_audio(self, wave_bs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        time.sleep(self._clip_s * len(wave_bs))
        latent = torch.zeros(len(wave_bs), self._spec.num_latents, 40, dtype=torch.bfloat16)
        return latent, latent

    def encode_clip(self, frames_btchw: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(frames_btchw), 64, CLIP_WIDTH, dtype=torch.bfloat16)

    def encode_sync(self, frames_btchw: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(frames_btchw), 192, SYNC_WIDTH, dtype=torch.bfloat16)


def write_films(folder: Path, count: int) -> Path:
    """A manifest of `count` films and, beside it in `media`, their files."""
    media = folder / "media"
    rows = [row("films", f"film{number:05d}", captions=["a film"]) for number in range(count)]
    for number, said in enumerate(rows):
        source, target = (
            media / f"{name}.mp4" for name in (rows[number % DISTINCT]["clip_id"], said["clip_id"])
        )
        if number < DISTINCT and not target.exists():
            make_media(target, size=(340, 256), fps=30, seconds=10.0, seed=number)
        elif not target.exists():
            os.link(source, target)
    path = folder / f"films-{count}.parquet"
    return write_manifest(path, rows, dataset="films", media=["{clip_id}.mp4"])


def job(decoders: int, shard_rows: int = 100_000) -> Job:
    return Job(
        sample_rate_hz=RATE_HZ, weights=WeightChoice(untrained_seed=0, tiny=True), precision="fp32",
        device="cpu", threads=1, decoders=decoders, video_batch=BATCH, audio_batch=4 * BATCH,
        inputs=InputConfig(sample_rate_hz=RATE_HZ), shard_rows=shard_rows,
    )  # fmt: skip


def whole(folder: Path, manifest: Path, suite: Any, decoders: int) -> tuple[float, float, Effort]:
    """Seconds from the end of the first batch to that of the last, after it, and the effort between."""
    told: list[tuple[float, Effort]] = []
    encoder = TaskEncoder(job(decoders), lambda effort: told.append((time.perf_counter(), effort)))
    encoder._suite = suite
    encode(encoder, manifest, folder)
    ended_s = time.perf_counter()
    told = [entry for entry in told if entry[1].busy_s]
    between = Effort()
    for _, effort in told[1:]:
        between.add(effort)
    return told[-1][0] - told[0][0], ended_s - told[-1][0], between


def encode(encoder: TaskEncoder, manifest: Path, folder: Path) -> None:
    """All tasks of a manifest; their files go."""
    plan = make_plan(manifest, [folder / "media"], None, encoder.job, folder / "out")
    for task in plan.clip_tasks:
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        paths = plan.paths(task)
        asked = {**task.inputs, "paths": paths, "carried": [None] * len(paths), "former": None}
        encoder.work(asked, folder / "out")


def decoders_alone(folder: Path, clips: int, decoders: int) -> float:
    """Seconds a clip with nobody to encode, from the first batch on."""
    paths = sorted((folder / "media").iterdir())[:clips]
    requests = [Request(clip_id=p.stem, path=str(p), number=n) for n, p in enumerate(paths)]
    begun_s = 0.0
    for request, prepared in feed(
        requests, job(decoders).inputs, processes=decoders, stop=threading.Event(), ahead=2 * decoders
    ):
        assert prepared.reason is None, prepared.detail
        if request.number == BATCH - 1:
            begun_s = time.perf_counter()
    return (time.perf_counter() - begun_s) / (clips - BATCH)


def encoders_alone(suite: Any, clips: int) -> float:
    """Seconds a clip with all of them decoded already, from the second batch on."""
    spec = SequenceSpec(sample_rate_hz=RATE_HZ)
    wave_bs = torch.randn(BATCH, spec.num_samples)
    clip_btchw = torch.randint(0, 256, (BATCH, 64, 3, 384, 384), dtype=torch.uint8)
    sync_btchw = torch.randint(0, 256, (BATCH, 200, 3, 224, 224), dtype=torch.uint8)
    begun_s = 0.0
    for number in range(clips // BATCH):
        if number == 1:
            begun_s = time.perf_counter()
        suite.encode_audio(wave_bs)
        suite.encode_clip(clip_btchw)
        suite.encode_sync(sync_btchw)
    return (time.perf_counter() - begun_s) / (clips - BATCH)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """The encoders, in this thread, on one core; what feeds them, children and threads, on others."""
    cores = sorted(os.sched_getaffinity(0))
    ended = threading.Event()

    def pin() -> None:
        while not ended.wait(0.02):
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):
                    if int(task.name) != os.getpid():
                        os.sched_setaffinity(int(task.name), cores[1:] or cores)
                    for child in (task / "children").read_text().split():
                        os.sched_setaffinity(int(child), cores[1:] or cores)

    thread = threading.Thread(target=pin, daemon=True)
    os.sched_setaffinity(0, cores[:1])
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        os.sched_setaffinity(0, cores)


def compared(
    clips: int, ran: tuple[float, float, Effort], decode_s: float, encode_s: float
) -> dict[str, Any]:
    """One configuration: rates in clips a second, and the shares that are promised.

    Args:
        decode_s, encode_s: of one clip, by either side alone.
    """
    seconds, write_s, between = ran
    rate = between.clips / seconds
    return {
        "slower": "encoders" if encode_s >= decode_s else "decoders",
        "decoders alone": round(1 / decode_s, 3),
        "encoders alone": round(1 / encode_s, 3),
        "whole": round(rate, 3),
        "whole / slower": round(rate * max(decode_s, encode_s), 3),
        "encoder wait": round(between.encoder_wait_s / between.busy_s, 4),
        "decoder wait": round(between.decoder_wait_s / between.busy_s, 4),
        "write_s": round(write_s, 2),
    }


def pipeline(folder: Path, clips: int, rounds: int = 3) -> dict[str, Any]:
    """The stand-in on either side of what decoding takes, and the tiny networks."""
    torch.set_num_threads(1)
    manifest = write_films(folder, clips)
    decoders = len(os.sched_getaffinity(0))
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        decode_s = decoders_alone(folder, clips, decoders)
        for name, share in (
            ("device, slower than decoding", 1.3),
            ("device, faster than decoding", 0.6),
        ):
            suite = StandIn(share * decode_s)
            ran = whole(folder, manifest, suite, decoders)
            entry = compared(clips, ran, decode_s, encoders_alone(suite, clips))
            found.setdefault(name, []).append(entry)
        tiny = load_suite(WeightChoice(untrained_seed=0, tiny=True), sample_rate_hz=RATE_HZ)
        with apart():
            encode_s = encoders_alone(tiny, clips)
            decode_s = decoders_alone(folder, clips, 1)
            ran = whole(folder, manifest, tiny, 1)
        entry = compared(clips, ran, decode_s, encode_s)
        found.setdefault("networks, each side a core", []).append(entry)
    return {name: _median(rows) for name, rows in found.items()}


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The round whose rate of the whole is the middle one."""
    middle = statistics.median_low(entry["whole / slower"] for entry in rows)
    return next(entry for entry in rows if entry["whole / slower"] == middle)


def memory(folder: Path, clips: int) -> float:
    """Peak resident MiB of this process after so many clips, in tasks of 16."""
    encoder = TaskEncoder(job(1, shard_rows=16))
    encoder._suite = StandIn(0.0)  # type: ignore[assignment]
    encode(encoder, write_films(folder, clips), folder)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def arithmetic(core_s: float) -> dict[str, float]:
    """What 180 K clips need on one H100.

    Args:
        core_s: of decoding one clip, as measured here.
    """
    clip_s = TFLOP_PER_CLIP / (H100_TFLOPS * REACHED)
    return {
        "TFLOP per clip": TFLOP_PER_CLIP,
        "TFLOP/s reached": round(H100_TFLOPS * REACHED, 1),
        "s per clip": round(clip_s, 4),
        "clips a second to decode": round(1 / clip_s, 2),
        "core seconds per decoded clip": round(core_s, 3),
        "cores that decode": round(core_s / clip_s, 1),
        "hours": round(TRAINING_CLIPS * clip_s / 3600, 2),
        "MB a second to the GPU": round(
            (64 * 3 * 384**2 + 200 * 3 * 224**2 + 4 * 353280) / clip_s / 1e6, 1
        ),
        "MB a second to the disk": round((345 * 40 * 2 + 64 * 1024 + 192 * 768) * 2 / clip_s / 1e6, 2),
    }


def measure(folder: Path, clips: int = 40) -> dict[str, Any]:
    """All of it, with what is promised and whether it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    rates = pipeline(folder, clips)
    peaks = {}
    for count in (20, 200):
        words = [sys.executable, str(Path(__file__).resolve()), "memory", str(folder), str(count)]
        peaks[count] = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    decoders_alone(folder, clips, 1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / clips
    growth = peaks[200] / peaks[20]
    encoder_bound = [entry for entry in rates.values() if entry["slower"] == "encoders"]
    return {
        "clips": clips,
        "pipeline": rates,
        "peak_rss_mib": {str(count): round(peak, 1) for count, peak in peaks.items()},
        "arithmetic": arithmetic(core_s),
        "targets": [
            _target("encoder wait where encoders are the slower side", "encoder wait",
                    max(entry["encoder wait"] for entry in encoder_bound), at_least=False),
            _target("whole / slower side alone", "whole / slower",
                    min(entry["whole / slower"] for entry in rates.values()), at_least=True),
            _target("peak memory, 200 clips / 20 clips", "memory", growth, at_least=False),
        ],
    }  # fmt: skip


def _target(what: str, limit: str, value: float, *, at_least: bool) -> dict[str, Any]:
    most = LIMITS[limit]
    holds = value >= most if at_least else value <= most
    sign = "≥" if at_least else "≤"
    return {"what": what, "value": round(value, 3), "limit": f"{sign} {most:g}", "holds": holds}


def main() -> None:
    if sys.argv[1:2] == ["memory"]:
        print(memory(Path(sys.argv[2]), int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(given.folder, given.clips)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if given.json:
        given.json.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
