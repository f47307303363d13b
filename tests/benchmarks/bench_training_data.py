"""Whether training waits for its data: batches out of the page cache, for a network that is a sleep.

    python bench_training_data.py FOLDER [--seconds S] [--rate SAMPLES_PER_S] [--json FILE]

Builds shards in FOLDER with the shapes of 8 s at 16 kHz: rows with pictures, which an epoch has five
times and which share 60 captions, and sounds with a caption each, so that 30 % of samples are sounds.
Everything is read once before it is timed. A step is `next(batches)` and a sleep of batch / rate
seconds, with the noise, dropping and captions of a real run; what `next` waits is the wait for data. By
size of micro-batch:

    waited        share of the time that the loop waited; promised is less than 0.01
    cores         what that rate takes, seconds of CPU of all threads for each second: it says whether
                  two cores are enough also on a machine that others use, where the loop waits for them
    alone         samples/s where the network takes no time at all
    over_copy     time of a batch alone, beside that of a plain copy of as many bytes into the same
                  buffers by one thread, from the maps of the files, with no noise

`draws` is noise alone, samples/s, by threads.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import circumstances

from features.shards import ShardReader
from features.spec import SequenceSpec
from features.store.shard_file import columns_of
from training.config import PRESETS, TrainConfig
from training.data.batch import Buffers
from training.data.batches import Batches
from training.data.draws import Drawn, Draws, Stream, pieces_of
from training.data.held_back import split_rows
from training.data.mixture import Mixture
from training.data.throughput import mean_sample_bytes

SPEC = SequenceSpec(sample_rate_hz=16000)
ABOUT: dict[str, Any] = {
    "sample_rate_hz": 16000,
    "duration_s": 8.0,
    "encoders": dict.fromkeys(("clip", "synchformer", "vae"), "untrained:0:random bits"),
    "preprocessing": {},
}
TIMES, LABELS = 5, 60
SIZES = (64, 128, 256, 512)
LIMIT = 0.01
_SETTLES_S = 0.4  # until the threads of what came before sleep


def build(out: Path, num_video: int) -> None:
    """Sealed shards, unless they are there; sounds are 0.3 of samples."""
    if (out / "shards.json").is_file():
        return
    from curation import tasks
    from features.store import index
    from features.store.seal import seal
    from features.store.shard_file import FORMAT, ShardSeries
    from features.store.statistics import Group, LatentSums

    num_sounds = round(num_video * TIMES * 0.3 / 0.7)
    generator = torch.Generator().manual_seed(0)

    def random(kind: str) -> dict[str, torch.Tensor]:
        return {
            name: torch.randn(shape, generator=generator).to(torch.bfloat16)
            for name, shape in columns_of(kind, SPEC).items()  # type: ignore[arg-type]
        }

    def rows() -> list[dict[str, Any]]:
        found = [("labelled", "av", n, f"label {n % LABELS:02d}") for n in range(num_video)]
        found += [("sounds", "audio", n, f"sound {n:06d}") for n in range(num_sounds)]
        return [
            {
                "dataset": dataset, "clip_id": f"clip{n:06d}", "part": 0, "split": "train",
                "start_sample": 0, "end_sample": 128000, "source_rate_hz": 16000,
                "has_video": kind == "av", "captions": [caption],
                "caption_digest": index.caption_digest([caption]),
                "key_digest": index.key_digest(dataset, str(n), dataset, str(n)),
                "content_digest": index.caption_digest([str(n)]), "flags": [],
            }
            for dataset, kind, n, caption in found
        ]  # fmt: skip

    listed = rows()
    captions = sorted({"", *(row["captions"][0] for row in listed)})

    def clips(task: tasks.Task, folder: Path) -> dict[str, Any]:
        sums = LatentSums()
        with ShardSeries(folder, "av", ABOUT) as av, ShardSeries(folder, "audio", ABOUT) as audio:
            for row in listed:
                kind = "av" if row["has_video"] else "audio"
                values = random(kind)
                file, place, crc32 = (av if row["has_video"] else audio).add(values)
                row |= {"shard": file, "row": place, "crc32": crc32}
                sums.add(
                    Group(row["dataset"], "train", kind), values["latent_mean"], values["latent_std"]
                )
        index.write_table(folder / index.ROWS_FILE, index.table_of(listed, index.ROWS))
        index.write_table(folder / index.REJECTS_FILE, index.table_of([], index.REJECTS))
        return {"sums": sums.facts()}

    def text(task: tasks.Task, folder: Path) -> dict[str, Any]:
        with ShardSeries(folder, "text", ABOUT) as series:
            said = [{"caption": one, "crc32": series.add(random("text"))[2]} for one in captions]
        index.write_table(folder / index.CAPTIONS_FILE, index.table_of(said, index.TASK_CAPTIONS))
        return {}

    out.mkdir(parents=True, exist_ok=True)
    document = {"format": FORMAT, "about": ABOUT, "certificate": None, "tasks": {"clips": 1, "text": 1}}
    tasks.write_sealed(out / index.EXTRACT_FILE, document)
    for stage, work in ((index.CLIPS, clips), (index.TEXT, text)):
        tasks.run(
            out / stage, [tasks.Task(0, 1, {})], lambda stop, work=work: contextlib.nullcontext(work)
        )
    seal(out)


# ---- measuring -------------------------------------------------------------------------------------


def run(batches: Batches, seconds: float, sleep_s: float) -> dict[str, float]:
    """A loop of steps for about so long, after a first one."""
    next(batches)
    time.sleep(_SETTLES_S if sleep_s else 0)  # the ring fills, as it has in the midst of a run
    waited_s, cpu, steps, late_s = 0.0, time.process_time(), 0, 0.0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        asked = time.perf_counter()
        next(batches)
        came = time.perf_counter()
        waited_s += came - asked
        steps += 1
        if sleep_s:
            time.sleep(max(0.0, sleep_s - late_s))
            late_s += time.perf_counter() - came - sleep_s  # sleeps last longer than they are asked to
    taken = time.perf_counter() - begun
    return {
        "waited": waited_s / taken,
        "cores": (time.process_time() - cpu) / taken,
        "steps_per_s": steps / taken,
    }


def plain_copy(folder: Path, buffers: Buffers, num_bytes: int) -> float:
    """Seconds of a copy of so many bytes from the maps of shards into one buffer, again and again."""
    held = [np.memmap(path, np.uint8, mode="r") for path in sorted(folder.glob("*/*/*.safetensors"))]
    whole = buffers.shards["sync"].view(torch.uint8).numpy().reshape(-1)
    part = min(len(whole), *(len(values) for values in held))
    begun, done, number = time.perf_counter(), 0, 0
    while done < num_bytes:
        size, source = min(part, num_bytes - done), held[number % len(held)]
        at = done % (len(source) - size + 1)
        np.copyto(whole[:size], source[at : at + size])
        done, number = done + size, number + 1
    return time.perf_counter() - begun


def of_size(
    reader: ShardReader, mixture: Mixture, config: TrainConfig, seconds: float, rate: float
) -> dict[str, float]:
    """What is measured of batches of one size."""
    size = config.batch
    time.sleep(_SETTLES_S)
    with Batches(reader, mixture, config) as batches:
        slept = run(batches, seconds, size / rate)
    with Batches(reader, mixture, config) as batches:
        alone = run(batches, seconds, 0.0)
    buffers = Buffers(reader, size)
    num_bytes = round(size * mean_sample_bytes(reader, mixture))
    copies = [plain_copy(reader.folder, buffers, num_bytes) for _ in range(9)]
    copy_s = statistics.median(copies)
    return {
        "batch": size,
        "waited": round(slept["waited"], 5),
        "cores": round(slept["cores"] * rate / (slept["steps_per_s"] * size), 3),
        "samples_per_s": round(slept["steps_per_s"] * size, 1),
        "alone_samples_per_s": round(alone["steps_per_s"] * size, 1),
        "copy_s": round(copy_s, 5),
        "over_copy": round(1 / alone["steps_per_s"] / copy_s, 2),
        "batch_bytes": num_bytes,
        "ring_bytes": 4 * buffers.num_bytes,
    }


def of_draws(threads: int, size: int = 256) -> float:
    """Samples a second of noise alone."""
    shape = (size, SPEC.num_latents, SPEC.audio.latent_channels)
    out = Drawn(
        uniforms=np.empty((size, 3)),
        z=np.empty(size, np.float32),
        noise=np.empty(shape, np.float32),
        x0=np.empty(shape, np.float32),
    )
    draws, taken = Draws(0, Stream.TRAINING, threads=threads), []
    for step in range(9):
        begun = time.perf_counter()
        draws.fill(list(pieces_of(step, 0, size)), out)
        taken.append(time.perf_counter() - begun)
    draws.close()
    return size / statistics.median(taken)


def measure(folder: Path, *, num_video: int, seconds: float, rate: float) -> dict[str, Any]:
    """All of it; the shards are built in `folder` and stay there."""
    build(folder, num_video)
    with ShardReader(folder) as reader:
        config = replace(PRESETS["S-16k"], held_back=0.0, repeat_audio_video=TIMES, repeat=())
        mixture = Mixture.read(reader, config, split_rows(reader, 0.0).training_rows)
        buffers = reader.allocate(1)
        for row in range(len(reader)):  # into the page cache
            reader.batch([row], out=buffers, names=False)
        sizes = [of_size(reader, mixture, replace(config, batch=size), seconds, rate) for size in SIZES]
        return {
            "rate": rate,
            "rows": len(reader),
            "entries": len(mixture),
            "sound_share": round(
                sum(part.entries for part in mixture.parts if part.kind == "audio") / len(mixture), 4
            ),
            "sample_bytes": round(mean_sample_bytes(reader, mixture)),
            "sizes": sizes,
            "draws_samples_per_s": {n: round(of_draws(n), 1) for n in (1, 2)},
            "limit": LIMIT,
            "holds": all(found["waited"] < LIMIT for found in sizes),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the shards are built")
    parser.add_argument("--rows", type=int, default=600, metavar="N", help="with pictures")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of each loop")
    parser.add_argument("--rate", type=float, default=3000.0, metavar="SAMPLES_PER_S")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    around = circumstances()
    found = measure(given.folder, num_video=given.rows, seconds=given.seconds, rate=given.rate)
    words = [str(word) for word in sys.argv[1:] if word not in (str(given.folder), str(given.json))]
    command = " ".join(["python tests/benchmarks/bench_training_data.py FOLDER", *words])
    text = json.dumps({"command": command.removesuffix(" --json"), **around, **found}, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
