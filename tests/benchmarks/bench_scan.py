"""What reading a folder of clips costs without us, and with others: parts of the benchmark of scan.

    python bench_scan.py bare DIR         decode picture and sound of all files in one pass, keep nothing
    python bench_scan.py start            load what `curate scan` loads, in both of its processes
    python bench_scan.py imagehash DIR    decode the picture, imagehash.phash of two frames a second
    python bench_scan.py chromaprint DIR  fpcalc of every file, all of its sound
    python bench_scan.py videohash DIR    VideoHash of every file (needs ffmpeg)
    python bench_scan.py sounds DIR       print: CPU of the decoding child's work on each file, and of a
                                          bare decode beside it, start-up excluded

bench.py calls each in a process of its own, one thread for every decoder. A peer that is not there ends
with exit 1 and says why. `--peers DIR` is put before the other places to import from.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HASHED_PER_S = 2


def files_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.iterdir())


def decoded(path: str) -> Iterator[Any]:
    """Every frame of the first streams of picture and sound, in the order of the file."""
    import av

    with av.open(path) as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        for stream in streams:
            stream.thread_count = 1
        for packet in container.demux(streams):
            yield from packet.decode()


def bare(given: argparse.Namespace) -> None:
    import av

    av.logging.set_level(None)
    for path in files_of(given.folder):
        for _ in decoded(path):
            pass


def start(given: argparse.Namespace) -> None:
    import curation.cli
    import curation.commands.scan
    import curation.media.decoder
    import curation.media.run
    import curation.media.scan_text

    assert curation.media.scan_text.summary, "loaded for its time alone"
    ours, theirs = os.pipe()
    words = [sys.executable, "-m", "curation.media.child", str(theirs), str(os.getpid()), str(2 << 30)]
    subprocess.run(words, stdin=subprocess.DEVNULL, pass_fds=(theirs,), check=True)
    os.close(ours)
    os.close(theirs)


def imagehash(given: argparse.Namespace) -> None:
    import av
    import imagehash as peer

    av.logging.set_level(None)
    for path in files_of(given.folder):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            due_s: float | None = None
            for frame in container.decode(stream):
                if due_s is None or (frame.time is not None and frame.time >= due_s):
                    peer.phash(frame.to_image())
                    due_s = (frame.time if due_s is None else due_s) + 1 / _HASHED_PER_S


def chromaprint(given: argparse.Namespace) -> None:
    """Prints of how many files something came: fpcalc also fails for files without sound."""
    found = 0
    for path in files_of(given.folder):
        done = subprocess.run(
            ["fpcalc", "-raw", "-length", "0", "-ignore-errors", path],
            capture_output=True,
            text=True,
            check=False,
        )
        found += "FINGERPRINT=" in done.stdout
    print(json.dumps({"fingerprints": found}))


def videohash(given: argparse.Namespace) -> None:
    from videohash import VideoHash

    for path in files_of(given.folder):
        found = VideoHash(path=path)
        found.delete_storage_path()


def sounds(given: argparse.Namespace) -> None:
    """Both ways in turn, several times; of each file the median."""
    import av

    from curation.media.child import answer_to

    av.logging.set_level(None)
    rows = []
    for path in files_of(given.folder):
        request = {"path": path, "mode": "fast", "start_s": None, "end_s": None,
                   "max_duration_s": 3600.0, "timeout_s": 600.0}  # fmt: skip
        answer = answer_to(request)  # also: the file is in memory, tables are made
        ours, theirs = [], []
        for _ in range(given.repeats):
            begun = time.process_time()
            answer_to(request)
            between = time.process_time()
            for _ in decoded(path):
                pass
            theirs.append(time.process_time() - between)
            ours.append(between - begun)
        rows.append({
            "seconds": answer.values["duration_s"], "codec": answer.values["audio_codec"],
            "rate_hz": answer.values["sample_rate_hz"],
            "cpu_ms": round(1000 * statistics.median(ours), 2),
            "bare_cpu_ms": round(1000 * statistics.median(theirs), 2),
        })  # fmt: skip
    print(json.dumps(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "what", choices=("bare", "start", "imagehash", "chromaprint", "videohash", "sounds")
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--peers", help="a folder of packages that only this needs")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    if given.peers:
        sys.path.insert(0, given.peers)
    globals()[given.what](given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
