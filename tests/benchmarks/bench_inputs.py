"""What preparing clips costs beside what nobody can do without: decoding them and making frames small.

    python bench_inputs.py VIDEO…      print, for each video and in all, as JSON: CPU ms of a bare decode
                                       of the stretch that is used (pictures for 8 s, all sound), of the
                                       same with the chosen frames made RGB and small, of `prepare`, and
                                       of the child with its parent; clips per CPU second

One thread each, start-up excluded, the median of several rounds, the four taking turns.
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

_ROUNDS = 5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def decoded(path: str, duration_s: float, look: Callable[[float, Any], None]) -> None:
    """Give each picture until that time to `look`; decode all sound and keep nothing."""
    import av

    with av.open(path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        video.thread_count = audio.thread_count = 1
        first_s, enough = None, False
        for packet in container.demux(video, audio):
            if packet.stream is video and enough:
                continue
            for frame in packet.decode():
                if packet.stream is not video:
                    continue
                first_s = frame.time if first_s is None else first_s
                enough = frame.time - first_s >= duration_s - 0.04
                look(frame.time - first_s, frame)


def small_too(path: str, duration_s: float) -> None:
    """The same, and each chosen frame as RGB and made small, thrown away."""
    from features.inputs.frames import FrameClock, clip_frame, sync_frame

    clip_clock, sync_clock = FrameClock(8, int(8 * duration_s)), FrameClock(25, int(25 * duration_s))

    def look(time_s: float, frame: Any) -> None:
        for_clip, for_sync = clip_clock.take(time_s), sync_clock.take(time_s)
        if for_clip or for_sync:
            frame_hwc = frame.to_ndarray(format="rgb24", threads=1)
            if for_clip:
                clip_frame(frame_hwc)
            if for_sync:
                sync_frame(frame_hwc)

    decoded(path, duration_s, look)


def cpu_ms(work: Callable[[], Any]) -> float:
    """What a call takes of this process."""
    begun = time.process_time()
    work()
    return (time.process_time() - begun) * 1000


def child_ms(pid: int) -> float:
    """What a child took so far."""
    with open(f"/proc/{pid}/stat") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS_PER_S


def measure(paths: list[str], sample_rate_hz: int) -> dict[str, Any]:
    """Medians for each video that becomes a row, their sums, and why the others do not."""
    import av
    import torch

    from features.inputs.feeding import InputConfig, Preparer, Request
    from features.inputs.one_clip import prepare
    from features.inputs.room import Layout, Room, Rooms

    torch.set_num_threads(1)
    av.logging.set_level(None)
    config = InputConfig(sample_rate_hz=sample_rate_hz)
    layout = Layout(config)
    room = Room(layout.num_bytes)
    views = layout.views(room.content())
    preparer = Preparer(config, Rooms(layout.num_bytes), threading.Event())
    each, refused = {}, {}
    for path in paths:
        request = Request(clip_id=path, path=path)
        prepared = preparer.prepare(request)  # the child starts
        part = prepared.parts[0] if prepared.parts else prepared
        if part.reason is not None:
            refused[os.path.basename(path)] = str(part.reason)
            continue

        def fed(request: Request = request) -> None:
            (part,) = preparer.prepare(request).parts
            assert part.reason is None, part

        assert preparer.pid is not None
        rounds: dict[str, list[float]] = {name: [] for name in ("decode", "small", "prepare", "child")}
        for _ in range(_ROUNDS):
            rounds["decode"].append(
                cpu_ms(lambda path=path: decoded(path, config.duration_s, lambda *_: None))
            )
            rounds["small"].append(cpu_ms(lambda path=path: small_too(path, config.duration_s)))
            rounds["prepare"].append(cpu_ms(lambda r=request: prepare(r, config, views)))
            before = child_ms(preparer.pid)
            ours = cpu_ms(fed)
            rounds["child"].append(ours + child_ms(preparer.pid) - before)
        each[os.path.basename(path)] = {
            name: round(statistics.median(found), 1) for name, found in rounds.items()
        }
    preparer.close()
    total = {
        name: round(sum(row[name] for row in each.values()), 1)
        for name in ("decode", "small", "prepare", "child")
    }
    return {
        "unit": "CPU ms a clip, of the whole: their sum",
        "each": each,
        "refused": refused,
        "total": total,
        "decode_share": round(total["decode"] / total["child"], 3),
        "of_decode_and_small": round(total["small"] / total["child"], 3),
        "clips_per_cpu_s": round(1000 * len(each) / total["child"], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--sr", type=int, default=44100)
    given = parser.parse_args()
    print(json.dumps(measure(given.videos, given.sr), indent=1))


if __name__ == "__main__":
    main()
