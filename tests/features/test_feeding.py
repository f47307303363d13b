"""Feeding: order, bounds, and children that hang, crash, take memory or say nonsense."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_media import make_media
from test_bad_media import CASES, Case, Said

from curation.media.answer import BadAnswer
from curation.tasks import Stopped
from curation.verdict import Reason
from features.inputs.answer import read_prepared, write_prepared
from features.inputs.feeding import InputConfig, Prepared, Preparer, Request, feed
from features.inputs.prepared import Part
from features.inputs.room import Layout, Room, Rooms

CONFIG = InputConfig(sample_rate_hz=16000, duration_s=1.0, timeout_s=30)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A clip with nothing wrong."""
    return str(make_media(tmp_path_factory.mktemp("good") / "good.mp4", fps=25))


def fed(requests: list[Request], config: InputConfig = CONFIG, **options: Any) -> list[Prepared]:
    """What became of some clips."""
    options = {"processes": 1, "ahead": 4, "stop": threading.Event(), **options}
    answers = list(feed(requests, config, **options))
    assert [request for request, _ in answers] == requests
    return [prepared for _, prepared in answers]


def numbered(paths: list[str]) -> list[Request]:
    """A request for each."""
    return [Request(clip_id=str(i), path=path, number=i) for i, path in enumerate(paths)]


def is_well(prepared: Prepared) -> bool:
    """Whether it is what the good clip gives."""
    if prepared.reason is not None or prepared.parts[0].reason is not None:
        return False
    (part,) = prepared.parts
    assert part.wave_s is not None
    assert part.clip_tchw is not None
    assert part.sync_tchw is not None
    return bool(part.wave_s.any() and part.clip_tchw[-1].any() and part.sync_tchw[-1].any())


# ---- bad media --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def preparer() -> Iterator[Preparer]:
    """One for all cases, so that each is followed by others."""
    rooms = Rooms(Layout(CONFIG).num_bytes)
    made = Preparer(CONFIG, rooms, threading.Event())
    yield made
    made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.input)
def test_bad_clip_is_a_row_with_a_reason_and_the_next_one_is_well(
    case: Case, preparer: Preparer, good: str, tmp_path: Path
) -> None:
    prepared = preparer.prepare(Request(clip_id="x", path=str(case.make(tmp_path))))
    if case.status == "failed":
        assert prepared.reason in (case.reason, *case.at_most), prepared
        assert (prepared.detail or "").startswith(case.says)
    elif prepared.reason is not None:
        assert prepared.reason in (Reason.NO_SOUND, *case.at_most), prepared
    else:
        (part,) = prepared.parts
        assert part.reason in (None, Reason.TOO_SHORT), part
        assert (part.wave_s is None) == (part.reason is not None)
    assert bool(prepared.parts) == (prepared.reason is None)
    assert is_well(preparer.prepare(Request(clip_id="good", path=good)))


def test_missing_file_is_a_row(good: str) -> None:
    missing, well = fed(numbered(["/nowhere/x.mp4", good]))
    assert (missing.reason, missing.content_digest) == ("damaged", None)
    assert missing.detail == "cannot be read: No such file or directory"
    assert is_well(well)


# ---- order and bounds -------------------------------------------------------------------------------


def test_clips_come_in_order_from_several_children(good: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no media")
    paths = [good, str(tmp_path / "text.mp4")] * 6
    answers = fed(numbered(paths), processes=2)
    assert [prepared.reason for prepared in answers] == [None, "not_media"] * 6
    waves = [prepared.parts[0].wave_s for prepared in answers[::2]]
    assert all(np.array_equal(waves[0], wave) for wave in waves), "arrays that are kept stay as they are"
    assert len({prepared.content_digest for prepared in answers}) == 2


def test_requests_are_taken_when_there_is_room(good: str) -> None:
    asked: list[int] = []

    def requests() -> Iterator[Request]:
        for request in numbered([good] * 12):
            asked.append(request.number)
            yield request

    running = feed(requests(), CONFIG, processes=1, stop=threading.Event(), ahead=3)
    for number, (request, prepared) in enumerate(running):
        assert request.number == number
        assert len(asked) <= number + 1 + 3
        if number == 5:
            time.sleep(0.5)  # the child has done all that is ahead and waits
        assert is_well(prepared)
    assert running.waited_s > 0.1
    assert running.starved_s > 0.1


def test_memory_is_used_again(good: str) -> None:
    gc.collect()
    before, rooms = len(_open_rooms()), []
    running = feed(numbered([good] * 20), CONFIG, processes=1, stop=threading.Event(), ahead=2)
    for _, prepared in running:
        del prepared
        rooms.append(len(_open_rooms()) - before)
    assert max(rooms) <= 2 * 4, "two numbers a room: one is the map's"
    assert len(_open_rooms()) == before
    assert is_well(fed(numbered([good]))[0]), "arrays outlive their feed"


def _open_rooms() -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    return [link for link in links if link.startswith("/memfd:clip")]


def test_nothing_asked_is_nothing_answered() -> None:
    assert fed([]) == []


def test_end_of_a_run_does_not_wait_for_a_clip(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.mp4")
    stop = threading.Event()
    threading.Timer(1.0, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        fed(numbered([str(tmp_path / "endless.mp4")]), stop=stop)
    assert time.monotonic() - begun < 15


# ---- children that hang, crash and take memory ------------------------------------------------------


@pytest.fixture
def endless(tmp_path: Path) -> str:
    """A file that never ends, as a hanging decoder would seem: a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "endless.mp4")
    return str(tmp_path / "endless.mp4")


def test_child_that_hangs_costs_its_clip(endless: str, good: str) -> None:
    config = InputConfig(sample_rate_hz=16000, duration_s=1.0, timeout_s=2)
    before, hanging, after = fed(numbered([good, endless, good]), config)
    assert is_well(before)
    assert (hanging.reason, hanging.detail) == ("timeout", "not done after 2 s")
    assert is_well(after)


def test_child_that_is_killed_costs_its_clip(endless: str, good: str) -> None:
    rooms = Rooms(Layout(CONFIG).num_bytes)
    preparer = Preparer(CONFIG, rooms, threading.Event())
    assert is_well(preparer.prepare(Request(clip_id="x", path=good)))
    found: list[Prepared] = []
    thread = threading.Thread(
        target=lambda: found.append(preparer.prepare(Request(clip_id="y", path=endless)))
    )
    thread.start()
    for _ in range(2):  # the clip is tried once more in a fresh child
        pid = preparer.pid
        assert pid is not None
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        until_s = time.monotonic() + 30
        while preparer.pid in (pid, None) and thread.is_alive():
            assert time.monotonic() < until_s
            time.sleep(0.01)
    thread.join(60)
    assert (found[0].reason, found[0].detail) == ("decoder_crashed", "SIGKILL")
    assert is_well(preparer.prepare(Request(clip_id="z", path=good)))
    preparer.close()


def test_memory_beyond_the_limit_costs_the_clip(tmp_path: Path, good: str) -> None:
    large = make_media(tmp_path / "large.mp4", size=(3840, 2160), times_ms=[0, 500, 1100])
    config = InputConfig(sample_rate_hz=16000, duration_s=1.0, memory_bytes=60 << 20)
    refused, well = fed(numbered([str(large), good]), config)
    # FFmpeg does not always say that it had too little
    reasons = [refused.reason, *(part.reason for part in refused.parts)]
    assert (
        "out_of_memory" in reasons
        or "damaged" in reasons
        or "partly_damaged" in (flag for part in refused.parts for flag in part.flags)
    ), refused
    assert is_well(well)
    (fine,) = fed(numbered([str(large)]))
    assert fine.parts[0].reason is None


def test_children_die_with_their_parent_and_leave_nothing(endless: str, good: str) -> None:
    code = (
        "import sys, threading, time\n"
        "from features.inputs.feeding import *\n"
        "config = InputConfig(sample_rate_hz=16000, duration_s=1.0)\n"
        "asked = [Request(clip_id='x', path=path) for path in sys.argv[1:]]\n"
        "for request, prepared in feed(asked, config, processes=1, stop=threading.Event(), ahead=2):\n"
        " print(prepared.reason, flush=True)"
    )
    before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    words = [sys.executable, "-c", code, good, endless]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "None\n"
        children = Path(f"/proc/{parent.pid}/task")
        pids = {
            int(pid) for task in children.iterdir() for pid in (task / "children").read_text().split()
        }
        assert len(pids) == 1
        parent.kill()
    until_s = time.monotonic() + 10
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < until_s, "the child lives on"
        time.sleep(0.05)
    if Path("/dev/shm").is_dir():
        assert not {name for name in set(os.listdir("/dev/shm")) - before if "clip" in name}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- a child that says nonsense ---------------------------------------------------------------------


PART = {
    "part": 0, "start_sample": 0, "end_sample": 5, "source_rate_hz": 16000,
    "reason": None, "detail": None, "flags": [], "has_picture": True,
    "values": dict.fromkeys(("av_offset_s", "peak", "bandwidth_hz", "silent_share", "still_share"), 0.5),
}  # fmt: skip
WELL = {"reason": None, "detail": None, "content_digest": "sha256:" + "0" * 64, "parts": [PART]}


def said(header: Any, fill: int = 0) -> Prepared:
    """What is read of a line."""
    layout = Layout(CONFIG)
    room = layout.views(np.full(layout.num_bytes, fill, np.uint8))
    return read_prepared(Said(json.dumps(header).encode() + b"\n"), room)


class Told(Said):
    """Bytes of a child, read as those of a pipe are: no line above what was asked for."""

    def line(self, most: int) -> bytes:
        line = super().line(most)
        assert len(line) <= most, f"a line of {len(line)} bytes, {most} are read"
        return line


@pytest.mark.parametrize("max_parts", [1, 1000])
def test_an_answer_about_as_many_parts_as_may_be_asked_for_is_read(max_parts: int) -> None:
    layout = Layout(InputConfig(sample_rate_hz=16000, duration_s=0.64, max_parts=max_parts))
    room = layout.views(np.zeros(layout.num_bytes, np.uint8))
    parts = [
        Part(
            part=number, start_sample=1 << 61, end_sample=1 << 61, source_rate_hz=1 << 61,
            reason=Reason.PARTLY_DAMAGED, detail="\U0001f600" * 5000, flags=["partly_damaged"],
            values=dict.fromkeys(PART["values"], -0.12345678901234567),
        )
        for number in range(max_parts)
    ]  # fmt: skip
    stream = io.BytesIO()
    write_prepared(stream, Prepared(content_digest=WELL["content_digest"], parts=parts))
    found = read_prepared(Told(stream.getvalue()), room)
    assert len(found.parts) == max_parts
    assert found.parts[-1].detail == "\U0001f600" * 500


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        [],
        {},
        {**WELL, "reason": "bored"},
        {**WELL, "reason": "damaged"},
        {**WELL, "reason": ["damaged"]},
        {**WELL, "parts": []},
        {**WELL, "parts": [PART, PART]},
        {**WELL, "parts": [{**PART, "part": 5}]},
        {**WELL, "parts": [{**PART, "start_sample": 0.5}]},
        {**WELL, "parts": [{**PART, "end_sample": 1 << 70}]},
        {**WELL, "parts": [{**PART, "flags": ["dull"]}]},
        {**WELL, "parts": [{**PART, "flags": ["damaged"]}]},
        {**WELL, "parts": [{**PART, "flags": ["upsampled", "still"]}]},
        {**WELL, "parts": [{**PART, "values": {}}]},
        {**WELL, "parts": [{**PART, "values": {**PART["values"], "peak": "x"}}]},  # type: ignore[dict-item]
        {**WELL, "parts": [{**PART, "values": {**PART["values"], "peak": float("nan")}}]},  # type: ignore[dict-item]
        {**WELL, "parts": 5},
        {**WELL, "content_digest": None},
        {**WELL, "content_digest": "sha256:5"},
        {**WELL, "detail": 5},
    ],
)
def test_nonsense_is_refused(header: Any) -> None:
    with pytest.raises(BadAnswer):
        said(header)


def test_samples_that_are_no_numbers_are_refused() -> None:
    assert said(WELL).parts[0].wave_s is not None
    with pytest.raises(BadAnswer, match="finite"):
        said(WELL, fill=255)


def test_child_cannot_cut_the_memory_short() -> None:
    room = Room(1 << 16)
    with pytest.raises(PermissionError):
        os.ftruncate(room.file, 1)
    assert room.content().sum() == 0


# ---- real clips ---------------------------------------------------------------------------------------

READY = {
    f"MMAudio__training__example_videos__{name}"
    for name in ("0B4dYTMsgHA_000130.mp4", "F8Zt3mYlOqU_000094.mp4")
} | {"mdn_crystal.webm", "nasa_13013.mp4", "llava_next_jobs_s1.mp4"}


@pytest.mark.shared
@pytest.mark.slow
def test_real_clips_are_ready_or_say_why_not(shared_clips: Path) -> None:
    paths = sorted(path for name in ("video", "video_more") for path in (shared_clips / name).iterdir())
    requests = [Request(clip_id=path.name, path=str(path)) for path in paths]
    config = InputConfig(sample_rate_hz=44100)
    ready, reasons = set(), {}
    for request, prepared in feed(requests, config, processes=2, stop=threading.Event(), ahead=8):
        part = prepared.parts[0] if prepared.parts else None
        reason = prepared.reason if part is None else part.reason
        if reason is None:
            ready.add(request.clip_id)
        else:
            reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    assert ready == READY
    assert sum(reasons.values()) == len(paths) - len(READY)
    assert set(reasons) == {"no_sound", "silent", "too_short"}
