"""What it costs to decide on a candidate pair: parts of the benchmark of verify.

    python bench_verify.py plant CLIPS WORK    copies of real clips, scanned
    python bench_verify.py pairs WORK          print: CPU per candidate pair, by kind of pair and by step

The clips are those of the folders `video` and `video_more` below CLIPS, each as it is and in five
copies, the first ten seconds. What `curate duplicates` would align among them is aligned, as it does:
pairs of files made of one clip, and the others, which met because hashes or sounds look alike.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EDITS = ("crop10", "mirror", "speed1.05", "sound_edited", "letterbox+logo+h240")
_SECONDS = 10.0
_CURATE = str(Path(sys.executable).with_name("curate"))


def plant(given: argparse.Namespace) -> dict[str, Any]:
    """One folder for all files, and its fingerprints."""
    from curation.corpus.planting import plant_all, stems

    media = given.work / "planted"
    paths = [path for name in ("video", "video_more") for path in (given.clips / name).iterdir()]
    made = plant_all(
        stems(sorted(paths)), media, edits=EDITS, pairs=(), degenerate=False, longest_s=_SECONDS
    )
    num_files = sum(len(files) for files in made)
    shutil.rmtree(media / "records")
    words = [_CURATE, "scan", str(media), "--manifests", str(given.work / "manifests")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"clips": len(paths), "files": num_files, "edits": EDITS}


class Stopwatch:
    """CPU seconds of a function, over all its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self.seconds = function, 0.0

    def __call__(self, *words: Any, **options: Any) -> Any:
        begun = time.process_time()
        found = self._function(*words, **options)
        self.seconds += time.process_time() - begun
        return found


def pairs(given: argparse.Namespace) -> dict[str, Any]:
    """Every candidate pair aligned, `--repeats` times; of each pair the median."""
    from curation.matching import duplicates
    from curation.matching.candidates import stop_list
    from curation.matching.pair_worker import _Contents
    from curation.matching.prints import COLUMNS, Prints
    from curation.media.fingerprint import CLIPS, fingerprint_folder, read_part

    manifests = given.work / "manifests"
    parts = sorted(path.parent for path in fingerprint_folder(manifests, "planted").glob(f"*/{CLIPS}"))
    train = Prints.joined([Prints.of(read_part(part / CLIPS, list(COLUMNS))[1]) for part in parts])
    begun = time.process_time()
    wanted = duplicates.jobs(
        train.base(),
        train,
        stopped=duplicates.Stopped(
            hashes=stop_list(train.base()), items=duplicates.NOTHING_STOPPED.items
        ),
        test_items=frozenset(),
    )
    candidates_s = time.process_time() - begun
    if given.most and len(wanted) > given.most:
        wanted = wanted[:: -(-len(wanted) // given.most)]
    contents = _Contents(manifests)
    picture, sound = Stopwatch(duplicates.align_video), Stopwatch(duplicates.align_audio)
    duplicates.align_video, duplicates.align_audio = picture, sound  # type: ignore[assignment]
    reader = Stopwatch(lambda job: [contents[key[0]][key[1]] for key in (job.a, job.b)])
    rows = []
    for job in wanted:
        duplicates.align(job, contents)  # compiled, and read from the disk
    for job in wanted:
        runs = []
        for _ in range(given.repeats):
            for watch in (picture, sound, reader):
                watch.seconds = 0.0
            reader(job)
            begun = time.process_time()
            found = duplicates.align(job, contents)
            whole_s = time.process_time() - begun
            runs.append((whole_s, *(watch.seconds for watch in (picture, sound, reader))))
        whole, *steps = (statistics.median(times) for times in zip(*runs, strict=True))
        tier = None if found is None else found[0].tier
        rows.append(
            {"kind": _kind(job), "tier": tier, "ms": whole * 1e3, "steps": [s * 1e3 for s in steps]}
        )
    return {"clips": len(train.keys), "candidates_cpu_s": round(candidates_s, 2),
            "candidates": len(wanted), "kinds": _summary(rows)}  # fmt: skip


def _kind(job: Any) -> str:
    ours, theirs = (_clip_of(clip_id) for _, clip_id in (job.a, job.b))
    return "copies of one clip" if ours == theirs else "others"


def _clip_of(clip_id: str) -> str:
    """The clip that a file was made of; see curation.corpus.planting."""
    name = clip_id.removeprefix("base/").rpartition(".")[0]
    for edit in EDITS:
        name = name.removesuffix(f"__{edit}")
    return name


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {}
    for kind in ("all", "copies of one clip", "others"):
        mine = [row for row in rows if kind in ("all", row["kind"])]
        if not mine:
            continue
        times = sorted(row["ms"] for row in mine)
        steps = [statistics.fmean(row["steps"][k] for row in mine) for k in range(3)]
        kinds[kind] = {
            "pairs": len(mine),
            "auto": sum(row["tier"] == "auto" for row in mine),
            "review": sum(row["tier"] == "review" for row in mine),
            "mean_ms": round(statistics.fmean(times), 2),
            "median_ms": round(statistics.median(times), 2),
            "p95_ms": round(times[int(0.95 * (len(times) - 1))], 2), "max_ms": round(times[-1], 2),
            "picture_ms": round(steps[0], 2), "sound_ms": round(steps[1], 2),
            "reading_ms": round(steps[2], 3),
        }  # fmt: skip
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    planting = commands.add_parser("plant")
    planting.add_argument("clips", type=Path)
    planting.add_argument("work", type=Path)
    aligning = commands.add_parser("pairs")
    aligning.add_argument("work", type=Path)
    aligning.add_argument("--repeats", type=int, default=3)
    aligning.add_argument("--most", type=int, default=0, help="of the candidates; 0: all")
    given = parser.parse_args()
    json.dump(globals()[given.what](given), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
