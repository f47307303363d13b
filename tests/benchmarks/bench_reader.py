"""How fast batches come out of shards, beside a plain copy of the same bytes and beside other loaders.

    python bench_reader.py FOLDER [--rows N] [--soak BATCHES] [--json FILE]

Builds the same random rows in FOLDER in each layout, with the shapes of 8 s at 44.1 kHz: audio-video
rows with mean, std, clip, sync and text. Everything is read once before it is timed, so that it comes
out of the page cache. Each round reads all rows once in a random order, in batches of 64, by every
contender in turn, in another order each time, once the threads of the one before have gone to sleep:
those of PyTorch spin for 0.2 s after their work, on a core that the next would have. A ratio is the
median over rounds of the ratio within a round, since others may use the machine; `cpu_ratio` is that of
the processor's time, of all threads, and `ratio_of_best_rounds` that of the shortest times, when others
used it least.

    plain copy   the same bytes into the same buffers in the order of the files, a column of a batch at
                 a time: from maps by torch and by numpy, and by read(). The fastest is the yardstick
    tensordict   fp32 memmap; td[rows], and stack of td[i]
    safetensors  the same shards, safe_open(…).get_slice(…)[i:i+1] and torch.cat
    webdataset   tar files of bf16 rows, in the order of the files (it has no other), decoded and stacked

`python bench_reader.py --sizes` prints the table of file sizes.
"""

import argparse
import json
import operator
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features.spec import SequenceSpec
from features.store.shard_file import ITEM_BYTES, columns_of, describe, encode_header, read_header

SPEC = SequenceSpec(sample_rate_hz=44100)
ABOUT: dict[str, Any] = {
    "sample_rate_hz": 44100,
    "duration_s": 8.0,
    "encoders": dict.fromkeys(("clip", "synchformer", "vae"), "untrained:0:random bits"),
    "preprocessing": {},
}
COLUMNS = {**columns_of("av", SPEC), **columns_of("text", SPEC)}
ROW_BYTES = sum(int(np.prod(shape)) * ITEM_BYTES for shape in COLUMNS.values())
BATCH = 64
TARGETS = {"plain copy": 0.85, "tensordict": 2.5, "safetensors": 2.0, "webdataset": 2.0}
MMAUDIO = {"latent_mean": "mean", "latent_std": "std", "clip": "clip_features", "sync": "sync_features",
           "text": "text_features"}  # fmt: skip
_SPINS_S = 0.4
Pass = Callable[[np.ndarray], int]  # reads these rows in batches; how many came


def random_row(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {
        name: torch.randn(shape, generator=generator).to(torch.bfloat16)
        for name, shape in COLUMNS.items()
    }


def build(folder: Path, num_rows: int) -> None:
    """The same rows in all layouts, unless they are there."""
    done = folder / f"built-{num_rows}"
    if done.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    build_shards(folder / "shards", num_rows)
    build_memmap(folder / "memmap", num_rows)
    build_tars(folder / "tars", num_rows)
    done.write_text("")


def build_shards(out: Path, num_rows: int, shard_rows: int = 128) -> None:
    import contextlib

    from curation import tasks
    from features.store import index
    from features.store.seal import seal
    from features.store.shard_file import FORMAT, ShardSeries
    from features.store.statistics import Group, LatentSums

    def captions(number: int) -> list[str]:
        return [f"sound of thing {number:06d}"] if number else [""]

    def clips(task: tasks.Task, folder: Path) -> dict[str, Any]:
        sums, rows = LatentSums(), []
        with ShardSeries(folder, "av", ABOUT, shard_rows=shard_rows) as series:
            for number in range(num_rows):
                row = random_row(number)
                del row["text"]
                file, place, crc32 = series.add(row)
                sums.add(Group("bench", "train", "av"), row["latent_mean"], row["latent_std"])
                rows.append({
                    "dataset": "bench", "clip_id": f"clip{number:06d}", "part": 0, "split": "train",
                    "start_sample": 0, "end_sample": 353280, "source_rate_hz": 44100, "shard": file,
                    "row": place, "has_video": True, "captions": captions(number),
                    "caption_digest": index.caption_digest(captions(number)),
                    "key_digest": index.key_digest("bench", str(number), "youtube", str(number)),
                    "content_digest": index.caption_digest([str(number)]), "crc32": crc32, "flags": [],
                    "av_offset_s": number / 1e5, "peak": 0.9 - number / 1e5,
                    "bandwidth_hz": 2e4 - number,
                    "silent_share": number / 1e4, "still_share": number / 1e4,
                })  # fmt: skip
        index.write_table(folder / index.ROWS_FILE, index.table_of(rows, index.ROWS))
        index.write_table(folder / index.REJECTS_FILE, index.table_of([], index.REJECTS))
        return {"sums": sums.facts()}

    def text(task: tasks.Task, folder: Path) -> dict[str, Any]:
        rows = []
        with ShardSeries(folder, "text", ABOUT, shard_rows=shard_rows) as series:
            for number in range(num_rows):
                crc32 = series.add({"text": random_row(number)["text"]})[2]
                rows.append({"caption": captions(number)[0], "crc32": crc32})
        index.write_table(folder / index.CAPTIONS_FILE, index.table_of(rows, index.TASK_CAPTIONS))
        return {}

    out.mkdir(parents=True, exist_ok=True)
    document = {"format": FORMAT, "about": ABOUT, "certificate": None, "tasks": {"clips": 1, "text": 1}}
    tasks.write_sealed(out / index.EXTRACT_FILE, document)
    for stage, work in ((index.CLIPS, clips), (index.TEXT, text)):
        tasks.run(
            out / stage, [tasks.Task(0, 1, {})], lambda stop, work=work: contextlib.nullcontext(work)
        )
    seal(out)


def build_memmap(out: Path, num_rows: int) -> None:
    from features.exchange.memmap import meta_json

    out.mkdir(parents=True, exist_ok=True)
    files = {name: (out / f"{key}.memmap").open("wb") for name, key in MMAUDIO.items()}
    for number in range(num_rows):
        for name, values in random_row(number).items():
            files[name].write(values.float().numpy().tobytes())
    for file in files.values():
        file.close()
    shapes = {MMAUDIO[name]: (num_rows, *shape) for name, shape in COLUMNS.items()}
    (out / "meta.json").write_text(meta_json(shapes))


def build_tars(out: Path, num_rows: int, per_tar: int = 128) -> None:
    import webdataset

    out.mkdir(parents=True, exist_ok=True)
    for begin in range(0, num_rows, per_tar):
        with webdataset.TarWriter(str(out / f"{begin // per_tar:04d}.tar")) as tar:
            for number in range(begin, min(begin + per_tar, num_rows)):
                held = {
                    f"{name}.bin": values.view(torch.int16).numpy().tobytes()
                    for name, values in random_row(number).items()
                }
                tar.write({"__key__": f"clip{number:06d}", **held})


# ---- the contenders: each makes a function that reads the rows it is given ----------------------------


def batches(order: np.ndarray) -> Iterator[np.ndarray]:
    for begin in range(0, len(order) - BATCH + 1, BATCH):
        yield order[begin : begin + BATCH]


def ours(folder: Path, io: str, out: dict[str, torch.Tensor]) -> Pass:
    from features.shards import ShardReader

    reader = ShardReader(folder / "shards", io=io)  # type: ignore[arg-type]

    def read(order: np.ndarray) -> int:
        return sum(len(reader.batch(rows, out=out, names=False)["has_video"]) for rows in batches(order))

    return read


def plain_copies(folder: Path, out: dict[str, torch.Tensor]) -> dict[str, Pass]:
    """Copies of the same bytes into the same buffers, in the order of the files: a block a column."""
    files = []
    for path in sorted((folder / "shards").glob("*/*/*.safetensors")):
        header, held = read_header(path), np.memmap(path, np.uint8, mode="r")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that what is mapped cannot be written
            files.append((header, held, torch.from_numpy(held), os.open(path, os.O_RDONLY)))
    spans = [
        (name, file, column.offset_bytes + begin * column.row_bytes, BATCH * column.row_bytes)
        for file, (header, *_) in enumerate(files)
        for name, column in header.columns.items()
        for begin in range(0, header.rows - BATCH + 1, BATCH)
    ]
    buffers = {name: out[name].view(-1).view(torch.uint8) for name in COLUMNS}
    arrays = {name: buffer.numpy() for name, buffer in buffers.items()}

    def by(copy: Callable[[str, int, int, int], object], order: np.ndarray) -> int:
        for span in spans:
            copy(*span)
        return sum(size for *_, size in spans) // ROW_BYTES

    def by_torch(name: str, file: int, at: int, size: int) -> None:
        buffers[name].copy_(files[file][2][at : at + size])

    def by_numpy(name: str, file: int, at: int, size: int) -> None:
        np.copyto(arrays[name], files[file][1][at : at + size])

    def by_read(name: str, file: int, at: int, size: int) -> None:
        os.preadv(files[file][3], [arrays[name]], at)

    return {f"copy, {name}": partial(by, copy)
            for name, copy in (("torch", by_torch), ("numpy", by_numpy), ("read", by_read))}  # fmt: skip


def tensordict_memmap(folder: Path, way: str) -> Pass:
    import tensordict

    found = tensordict.TensorDict.load_memmap(folder / "memmap")
    found.batch_size = [len(found["mean"])]

    def by_index(order: np.ndarray) -> int:
        return sum(len(found[torch.from_numpy(rows)]["mean"]) for rows in batches(order))

    def by_stack(order: np.ndarray) -> int:
        return sum(
            len(torch.stack([found[int(row)] for row in rows]).contiguous()["mean"])
            for rows in batches(order)
        )

    def by_collate(order: np.ndarray) -> int:
        count = 0
        for rows in batches(order):
            samples = [{name: values for name, values in found[int(row)].items()} for row in rows]
            count += len(torch.utils.data.default_collate(samples)["mean"])
        return count

    return {"index": by_index, "stack": by_stack, "collate": by_collate}[way]


def safetensors_slices(folder: Path) -> Pass:
    from safetensors import safe_open

    from features.shards import ShardReader

    with ShardReader(folder / "shards") as reader:
        table = reader.index.select(["shard", "row", "text_index"]).to_pylist()
    texts = sorted((folder / "shards").glob("text/*/*.safetensors"))
    text_rows = [read_header(path).rows for path in texts]
    opened = {str(path): safe_open(path, framework="pt") for path in
              sorted((folder / "shards").glob("*/*/*.safetensors"))}  # fmt: skip
    slices = {path: {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
              for path, file in opened.items()}  # fmt: skip
    places = []
    for row in table:
        text, number = row["text_index"][0], 0
        while text >= text_rows[number]:
            text, number = text - text_rows[number], number + 1
        places.append(
            (slices[str(folder / "shards" / row["shard"])], row["row"], slices[str(texts[number])], text)
        )

    def read(order: np.ndarray) -> int:
        count = 0
        for rows in batches(order):
            chosen = [places[row] for row in rows]
            batch = {
                name: torch.cat([own[name][row : row + 1] for own, row, _, _ in chosen])
                for name in COLUMNS if name != "text"
            }  # fmt: skip
            batch["text"] = torch.cat([text["text"][at : at + 1] for _, _, text, at in chosen])
            count += len(batch["text"])
        return count

    return read


def webdataset_tars(folder: Path) -> Pass:
    import webdataset

    tars = [str(path) for path in sorted((folder / "tars").glob("*.tar"))]

    def decoded(sample: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {
            name: torch.frombuffer(bytearray(sample[f"{name}.bin"]), dtype=torch.bfloat16).view(shape)
            for name, shape in COLUMNS.items()
        }

    def stacked(samples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: torch.stack([sample[name] for sample in samples]) for name in COLUMNS}

    def read(order: np.ndarray) -> int:
        found = webdataset.WebDataset(tars, shardshuffle=False).map(decoded)
        found = found.batched(BATCH, collation_fn=stacked, partial=False)
        return sum(len(batch["text"]) for batch in found)

    return read


def mosaicml() -> str:
    """What pip says to MosaicML streaming beside the versions of the lock."""
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    words = [sys.executable, "-m", "pip", "install", "--dry-run", "--disable-pip-version-check", "-c",
             str(lock), "mosaicml-streaming"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return lines[-1] if lines else "it would install: it is to be measured"


# ---- measuring -------------------------------------------------------------------------------------


def contenders(folder: Path) -> dict[str, Pass]:
    out = {name: torch.empty((BATCH, *shape), dtype=torch.bfloat16) for name, shape in COLUMNS.items()}
    out["has_video"] = torch.empty(BATCH, dtype=torch.bool)
    return {
        "ours, mmap": ours(folder, "mmap", out),
        **plain_copies(folder, out),
        "ours, pread": ours(folder, "pread", out),
        **{
            f"tensordict, {way}": tensordict_memmap(folder, way) for way in ("index", "stack", "collate")
        },
        "safetensors": safetensors_slices(folder),
        "webdataset": webdataset_tars(folder),
    }


def measure(folder: Path, *, num_rows: int = 640, rounds: int = 9, soak: int = 0) -> dict[str, Any]:
    """All rates and ratios, in one run; the layouts are built in `folder` and stay there."""
    build(folder, num_rows)
    passes = contenders(folder)
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in passes}
    for round_number in range(rounds + 1):  # the first one warms up
        order = rng.permutation(num_rows)
        for name in rng.permutation(list(passes)):  # who comes after whom is in no one's favour
            read = passes[name]
            time.sleep(_SPINS_S)
            begun, cpu_begun = time.perf_counter(), time.process_time()
            count = read(order)
            taken, cpu_taken = time.perf_counter() - begun, time.process_time() - cpu_begun
            assert count == num_rows // BATCH * BATCH, f"{name} read {count} rows"
            if round_number:
                seconds[name].append(taken)
                cpu_seconds[name].append(cpu_taken)
    rates = {
        name: num_rows // BATCH * BATCH / statistics.median(taken) for name, taken in seconds.items()
    }
    peers, cpu, quiet = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for peer in TARGETS:
        ways = [name for name in passes if name.startswith("copy" if peer == "plain copy" else peer)]
        best = max(ways, key=rates.__getitem__)
        fastest = min(min(seconds[way]) for way in ways)
        quiet[peer] = {io: round(fastest / min(seconds[f"ours, {io}"]), 3) for io in ("mmap", "pread")}
        for ratios, held in ((peers, seconds), (cpu, cpu_seconds)):
            ratios[peer] = {
                io: round(statistics.median(map(operator.truediv, held[best], held[f"ours, {io}"])), 3)
                for io in ("mmap", "pread")
            }
    found = {
        "rows": num_rows,
        "row_bytes": ROW_BYTES,
        "batch": BATCH,
        "rounds": rounds,
        "samples_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "GB_per_s": {name: round(rate * ROW_BYTES * (2 if name.startswith("tensordict") else 1) / 1e9, 2)
                     for name, rate in rates.items()},
        "ratio": peers,
        "cpu_ratio": cpu,
        "ratio_of_best_rounds": quiet,
        "targets": TARGETS,
        "reached": {peer: peers[peer]["mmap"] >= target for peer, target in TARGETS.items()},
        "mosaicml-streaming": mosaicml(),
        "files": file_ratio(folder / "shards", num_rows),
    }  # fmt: skip
    if soak:
        found["soak"] = soak_test(folder / "shards", soak)
    return found


def file_ratio(out: Path, num_rows: int) -> dict[str, Any]:
    """How much larger a folder is than its payload."""
    sealed = json.loads((out / "shards.json").read_text())
    payload, index_bytes = sealed["totals"]["payload_bytes"], sealed["tables"]["index.parquet"]["bytes"]
    whole = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "payload_bytes": payload,
        "shard_bytes": sealed["totals"]["shard_bytes"],
        "folder_bytes": whole,
        "folder_to_minimum": round(whole / (payload + index_bytes), 5),
        "index_bytes_per_row": round(index_bytes / num_rows, 1),
    }


def soak_test(out: Path, count: int) -> dict[str, Any]:
    """Private memory after a hundredth of so many batches, and after all."""
    from features.shards import ShardReader

    def private_bytes() -> int:
        line = next(
            x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon")
        )
        return int(line.split()[1]) * 1024

    rng, early = np.random.default_rng(1), 0
    with ShardReader(out) as reader:
        buffers, begun = reader.allocate(BATCH), time.monotonic()
        for number in range(count):
            reader.batch(rng.integers(0, len(reader), BATCH), out=buffers, names=number % 100 == 0)
            if number == max(1, count // 100):
                early = private_bytes()
        return {"batches": count, "seconds": round(time.monotonic() - begun, 1), "early_bytes": early,
                "late_bytes": private_bytes()}  # fmt: skip


# ---- file sizes ------------------------------------------------------------------------------------


def file_sizes(index_bytes_per_row: float = 200.0, shard_rows: int = 2048) -> list[dict[str, Any]]:
    """Shards beside fp32 memmaps for the training sets of the paper, by arithmetic from the shapes.

    VGGSound has 309 labels, each a caption. Of the captions of the audio sets only an upper bound is
    sure: one for each row; 951 K rows are up to five parts of a file, which share a caption, so that row
    is there with as many captions as the smaller set has rows, too.
    """
    rows = []
    for num_av, num_audio, num_audio_captions in (
        (180_000, 379_500, 379_500),
        (180_000, 951_000, 951_000),
        (180_000, 951_000, 379_500),
    ):
        counts = {"av": num_av, "audio": num_audio, "text": 1 + 309 + num_audio_captions}
        payload = headers = 0
        for kind, count in counts.items():
            columns = columns_of(kind, SPEC)  # type: ignore[arg-type]
            payload += count * sum(int(np.prod(shape)) for shape in columns.values()) * ITEM_BYTES
            header = len(
                encode_header(
                    columns, shard_rows, describe(kind, shard_rows, ABOUT, "sha256:" + "0" * 64)
                )
            )  # type: ignore[arg-type]
            headers += -(-count // shard_rows) * header
        index_bytes = round((num_av + num_audio) * index_bytes_per_row)
        fp32 = 4 * sum(
            count * sum(int(np.prod(COLUMNS[name])) for name in names)
            for count, names in (
                (num_av, tuple(COLUMNS)),
                (num_audio, ("latent_mean", "latent_std", "text")),
            )
        )
        ours_bytes = payload + headers + index_bytes
        rows.append({
            "audio-video rows": num_av, "audio rows": num_audio, "captions": counts["text"],
            "shards GB": round(ours_bytes / 1e9, 1), "fp32 memmap GB": round(fp32 / 1e9, 1),
            "ratio": round(ours_bytes / fp32, 4),
            "to minimum": round(ours_bytes / (payload + index_bytes), 6),
        })  # fmt: skip
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where the layouts are built")
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--soak", type=int, default=0, metavar="BATCHES")
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.sizes or given.folder is None:
        print(json.dumps(file_sizes(), indent=1))
        return 0
    found = measure(given.folder, num_rows=given.rows, rounds=given.rounds, soak=given.soak)
    found["sizes"] = file_sizes(found["files"]["index_bytes_per_row"])
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    document = {
        "command": " ".join(["bench_reader.py", *sys.argv[1:]]),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "torch": torch.__version__,
            "torch_threads": torch.get_num_threads(),
            "python": platform.python_version(),
        },
        **found,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
