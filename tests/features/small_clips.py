"""A manifest of two small datasets and their media: films with sound, and sounds, one of them long."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from made_media import make_media

from curation.files import sha256_file
from curation.manifest import CLIP_COLUMNS, METADATA_KEY, arrow_schema

# networks of random weights in two layers: what is tested here is what lies around them
TINY = ("--untrained", "0", "--tiny")
LOCKS = (".lock", ".seal.lock")


@dataclass(frozen=True, slots=True)
class SmallClips:
    """Where they lie."""

    manifest: Path  # rows of both datasets
    media: Path


def row(dataset: str, clip_id: str, **said: Any) -> dict[str, Any]:
    """A row of a manifest."""
    known = {
        "dataset": dataset, "clip_id": clip_id, "split": "train", "lists": [], "source": "local",
        "source_id": clip_id, "start_s": None, "end_s": None, "captions": [], "labels": [],
    }  # fmt: skip
    return {**known, **said}


def write_manifest(path: Path, rows: Iterable[dict[str, Any]], **about: Any) -> Path:
    """A Parquet file with the columns of clips and what build says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = arrow_schema(CLIP_COLUMNS).with_metadata({METADATA_KEY: json.dumps(about)})
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def write_small_clips(folder: Path, *, films: int = 2, sounds: int = 2) -> SmallClips:
    """`films` clips with picture, of which one is missing, one damaged and one too short, and sounds.

    The last sound is long enough for two parts; the others fill one each.
    """
    media = folder / "media"
    film_rows = [
        row("films", f"film{number:03d}", captions=[f"film {number % 3}", "a moving square"])
        for number in range(films)
    ]
    sound_rows = [
        row("sounds", f"sound{number:03d}", labels=["tone", f"level {number % 2}"])
        for number in range(sounds)
    ]
    made = make_media(folder / "made.mp4", seconds=9.0, size=(64, 48), fps=10)
    for number, said in enumerate(film_rows):
        target = media / "films" / f"{said['clip_id']}.mp4"
        if number < 3:
            make_media(target, seconds=9.0, size=(64, 48), fps=10, seed=number)
        else:
            shutil.copy(made, target)
    for number, said in enumerate(sound_rows):
        seconds = 17.0 if number == sounds - 1 else 8.5
        make_media(
            media / "sounds" / f"{said['clip_id']}.wav", video=None, audio="pcm_s16le", samples="s16",
            layout="mono", seconds=seconds, seed=number,
        )  # fmt: skip
    (media / "films" / "damaged.mp4").write_bytes(made.read_bytes()[:700])
    make_media(media / "films" / "short.mp4", seconds=2.0)
    made.unlink()
    film_rows += [row("films", "damaged"), row("films", "missing", captions=["never seen"])]
    film_rows.append(row("films", "short", captions=["over soon"]))
    build = folder / "manifests"
    write_manifest(
        build / "films" / "clips.parquet", film_rows, dataset="films", media=["{clip_id}.mp4"],
        modality="audio-video", splits={"train": "train"},
    )  # fmt: skip
    write_manifest(
        build / "sounds" / "clips.parquet", sound_rows, dataset="sounds", media=["{clip_id}.wav"],
        modality="audio", splits={"train": "train"},
    )  # fmt: skip
    both = write_manifest(build / "all.parquet", [*sound_rows, *film_rows])
    return SmallClips(manifest=both, media=media)


def extract_words(clips: SmallClips, out: Path, *more: str, sr: int = 16000) -> list[str]:
    """The words of a command that extracts them, in tasks of three rows."""
    return [
        "extract", "--sr", str(sr), "--manifest", str(clips.manifest), "--media", str(clips.media),
        "--out", str(out), *TINY, "--shard-rows", "3", "--batch", "2", "--threads", "1",
        "--decoders", "1", *more,
    ]  # fmt: skip


def start(words: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
    """`features …` as a process of its own."""
    program = [sys.executable, "-c", "from features.cli import main; main()"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of such a process."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def digests(out: Path) -> dict[str, str]:
    """The sha256 of every file below a folder, but of locks."""
    return {
        path.relative_to(out).as_posix(): sha256_file(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in LOCKS
    }
