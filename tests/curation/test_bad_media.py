"""What bad media get: each case is scanned here, among sound clips, and printed in curation/README.md.

Whatever a file does, its clip ends as scanned or failed with a reason, the scan goes on, and the other
clips get what they get without it. `python tests/curation/test_bad_media.py` prints the table.
"""

import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_media import make_media

from curation.media import child
from curation.media.answer import Answer, BadAnswer, read_answer, write_answer
from curation.media.decoder import Decoder, DecoderConfig, decoding
from curation.tables import render
from curation.tasks import Stopped

README = Path(__file__).resolve().parents[2] / "curation" / "README.md"
BEGIN, END = "<!-- bad media -->\n", "<!-- /bad media -->"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of file and what its clip gets."""

    input: str
    make: Callable[[Path], Path]  # writes it into a folder
    status: str
    reason: str | None = None
    says: str = ""  # the detail begins so
    at_most: tuple[str, ...] = ()  # other reasons that are right too, where chance decides


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _media(name: str, **options: Any) -> Callable[[Path], Path]:
    return lambda folder: make_media(folder / name, **options)


def _changed(name: str, change: Callable[[bytes], bytes], **options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = make_media(folder / name, **options)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def _flipped(content: bytes) -> bytes:
    """Twenty bits of the media data changed; the index stays."""
    chance, out = random.Random(3), bytearray(content)
    begin, end = content.index(b"mdat") + 64, content.index(b"moov") - 64
    for _ in range(20):
        out[chance.randrange(begin, end)] ^= 1 << chance.randrange(8)
    return bytes(out)


def _huge(content: bytes) -> bytes:
    """Matroska that says its pictures are 65,000 pixels wide and high."""
    for tag in (b"\xb0", b"\xba"):  # PixelWidth, PixelHeight
        for size, before in ((1, b"\x81" + bytes([64 if tag == b"\xb0" else 48])),):
            at = content.index(tag + before)
            content = content[:at] + tag + b"\x82" + struct.pack(">H", 65000) + content[at + 2 + size :]
    return _longer(content)


def _longer(content: bytes) -> bytes:
    """The sizes around two elements that grew by a byte each: those of Video, TrackEntry and Tracks."""
    out = bytearray(content)
    for tag in (b"\xe0", b"\xae", b"\x16\x54\xae\x6b"):
        at = content.index(tag, content.index(b"\x16\x54\xae\x6b")) + len(tag)
        width = 9 - out[at].bit_length()
        size = int.from_bytes(out[at : at + width], "big") + 2
        out[at : at + width] = size.to_bytes(width, "big")
    return bytes(out)


def _silence(folder: Path) -> Path:
    """Ten hours at 8 kHz, of which the disk holds nothing."""
    path, samples = folder / "night.wav", 10 * 3600 * 8000
    head = (
        b"RIFF"
        + struct.pack("<I", 36 + samples)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    )
    path.write_bytes(head + b"data" + struct.pack("<I", samples))
    os.truncate(path, 44 + samples)
    return path


WHOLE = {"container": {"movflags": "faststart"}}
LOSSLESS: dict[str, Any] = {"video": "ffv1", "audio": "flac", "samples": "s16"}
EARLY: dict[str, Any] = {
    "times_ms": [-500 + 100 * i for i in range(20)],
    "audio": None,
    "container": {"avoid_negative_ts": "disabled"},
}
GIF = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
CASES = [
    Case("0 bytes", _bytes("empty.mp4", b""), "failed", "damaged", "0 bytes"),
    Case(
        "HTML named .mp4",
        _bytes("page.mp4", b"<!doctype html><title>404</title>"),
        "failed",
        "not_media",
    ),
    Case("text named .wav", _bytes("text.wav", b"no sound at all\n" * 99), "failed", "not_media"),
    Case(
        "a playlist named .mp4",
        _bytes("list.mp4", b"#EXTM3U\n#EXTINF:10,\n/etc/hostname\n"),
        "failed",
        "not_media",
    ),
    Case(
        "a script of concat named .mp4",
        _bytes("script.mp4", b"ffconcat version 1.0\nfile good.mp4\n"),
        "failed",
        "not_media",
    ),
    Case("zeros", _bytes("zeros.mp4", bytes(1 << 16)), "failed", "not_media"),
    Case(
        "mp4 without moov",
        _changed("x.mp4", lambda b: b[: b.index(b"moov") - 4]),
        "failed",
        "damaged",
        "cannot be opened",
    ),
    Case(
        "mp4 with the index at its end, cut off",
        _changed("x.mp4", lambda b: b[: len(b) // 2]),
        "failed",
        "damaged",
    ),
    Case(
        "mp4 with the index first, cut off",
        _changed("x.mp4", lambda b: b[: len(b) * 2 // 3], **WHOLE),
        "scanned",
        "partly_damaged",
    ),
    Case(
        "mkv cut off",
        _changed("x.mkv", lambda b: b[: len(b) // 2], **LOSSLESS),
        "scanned",
        "partly_damaged",
        "1.0 of 2.0 s",
    ),
    Case(
        "mp4 with flipped bits",
        _changed("x.mp4", _flipped),
        "scanned",
        "partly_damaged",
        at_most=("damaged",),
    ),
    Case("no sound", _media("x.mp4", audio=None), "scanned"),
    Case("no picture", _media("x.m4a", video=None), "scanned"),
    Case("one picture", _media("x.mp4", times_ms=[0], audio=None), "scanned"),
    Case("variable frame rate", _media("x.mkv", times_ms=[0, 10, 900, 950, 1700, 1990]), "scanned"),
    Case("negative presentation times", _media("x.flv", **EARLY), "scanned"),
    Case("no presentation times", _media("x.mkv", **EARLY), "scanned"),
    Case("an edit list", _media("x.mov", **EARLY), "scanned"),
    Case("rotated", _media("x.mp4", rotated=90), "scanned"),
    Case(
        "8 channels",
        _media("x.mkv", layout="7.1", audio="flac", samples="s16", rate_hz=48000),
        "scanned",
    ),
    Case(
        "8 kHz",
        _media("x.wav", video=None, audio="pcm_s16le", samples="s16", rate_hz=8000, layout="mono"),
        "scanned",
    ),
    Case("10 bits", _media("x.mp4", pixels="yuv420p10le"), "scanned"),
    Case(
        "65,000 x 65,000 pixels",
        # bitexact: else the tracks get random numbers, which may hold a tag that _longer looks for
        _changed("x.mkv", _huge, video="ffv1", audio=None, container={"fflags": "+bitexact"}),
        "failed",
        "too_large",
        "65000 x 65000 pixels",
    ),
    Case("a GIF of 65,535 x 65,535 pixels", _bytes("x.gif", GIF), "failed", "too_large"),
    Case("ten hours of silence", _silence, "failed", "too_long", "36000 s, the limit is 3600 s"),
    Case("named `concat:good.mp4`", _media("concat:good.mp4"), "scanned"),
    Case(
        "named `subfile,,start,0,end,9,,:good.mp4`",
        _media("subfile,,start,0,end,9,,:good.mp4"),
        "scanned",
    ),
    Case("named `-i.mp4`", _media("-i.mp4"), "scanned"),
    Case("named with a line end and quotes", _media("a\nb\"c',d.mp4"), "scanned"),
]


@pytest.fixture(scope="module")
def decoder() -> Any:
    """One for all cases, so that each is followed by others."""
    with decoding(DecoderConfig(timeout_s=60)) as made:
        yield made


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Answer]:
    """A clip with nothing wrong, and what it gets from a decoder that saw nothing else."""
    path = make_media(tmp_path_factory.mktemp("good") / "good.mp4")
    with decoding(DecoderConfig()) as fresh:
        return path, fresh.scan(str(path))


def same(one: Answer, other: Answer) -> bool:
    """Whether two answers are equal, bit for bit."""
    if (one.status, one.reason, one.values) != (other.status, other.reason, other.values):
        return False
    return all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.input)
def test_clip_gets_what_the_table_says_and_the_next_one_is_well(
    case: Case, decoder: Decoder, good: tuple[Path, Answer], tmp_path: Path
) -> None:
    answer = decoder.scan(str(case.make(tmp_path)))
    assert answer.status == case.status or answer.reason in case.at_most, answer
    assert answer.reason in (case.reason, *case.at_most), answer
    assert (answer.detail or "").startswith(case.says)
    path, expected = good
    assert same(decoder.scan(str(path)), expected)


def test_table_in_the_readme_is_that_of_the_cases() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == table()


def test_mp4_cut_off_at_any_byte_ends_with_a_reason(decoder: Decoder, tmp_path: Path) -> None:
    for name, options in (("first.mp4", WHOLE), ("last.mp4", {})):
        path = make_media(tmp_path / name, seconds=1, **options)
        content = path.read_bytes()
        for size in sorted(random.Random(1).sample(range(len(content)), 60)):
            path.write_bytes(content[:size])
            answer = decoder.scan(str(path))
            assert answer.status in ("scanned", "failed"), size
            assert answer.reason in ("damaged", "not_media", "partly_damaged", "no_streams", None), (
                answer
            )
            assert answer.reason or size > len(content) * 0.8, (
                f"{size} of {len(content)} bytes: {answer}"
            )


def test_bits_flipped_anywhere_end_with_a_reason_or_without(
    decoder: Decoder, good: tuple[Path, Answer], tmp_path: Path
) -> None:
    chance = random.Random(2)
    for video, audio, suffix in (
        ("libx264", "aac", "mp4"),
        ("libvpx-vp9", "libopus", "webm"),
        ("mpeg4", "mp3", "avi"),
    ):
        rate_hz = 48000 if suffix == "webm" else 44100
        path = make_media(tmp_path / f"x.{suffix}", video=video, audio=audio, seconds=1, rate_hz=rate_hz)
        content = path.read_bytes()
        for _ in range(25):
            out = bytearray(content)
            for _ in range(chance.choice((1, 5, 50))):
                out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
            path.write_bytes(out)
            assert decoder.scan(str(path)).status in ("scanned", "failed")
    assert same(decoder.scan(str(good[0])), good[1])


# ---- decoders that hang, crash and eat memory ---------------------------------------------------------


def child_of(decoder: Decoder) -> int:
    """The process id of its child, once it runs."""
    until_s = time.monotonic() + 30
    while decoder.pid is None:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return decoder.pid


def meanwhile(work: Callable[[], Any], disturb: Callable[[], None]) -> Any:
    """What `work` returns, while something is done to it."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    disturb()
    thread.join(60)
    assert not thread.is_alive()
    return found[0]


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never ends, as a hanging decoder would seem: a pipe that nobody writes to."""
    path = tmp_path / "endless.mp4"
    os.mkfifo(path)
    return path


def test_decoder_that_hangs_is_killed_in_time(endless: Path, good: tuple[Path, Answer]) -> None:
    with decoding(DecoderConfig(timeout_s=1.0)) as decoder:
        decoder.scan(str(good[0]))
        begun = time.monotonic()
        answer = decoder.scan(str(endless))
        assert (answer.status, answer.reason) == ("failed", "timeout")
        assert 1.0 <= time.monotonic() - begun < 5
        assert same(decoder.scan(str(good[0])), good[1])


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_decoder_that_crashes_in_a_clip_costs_that_clip(
    number: signal.Signals, endless: Path, good: tuple[Path, Answer]
) -> None:
    with decoding(DecoderConfig(timeout_s=30)) as decoder:

        def crash() -> None:
            for _ in range(2):  # the clip is tried once more in a fresh child
                pid = child_of(decoder)
                time.sleep(0.5)
                os.kill(pid, number)
                while decoder.pid == pid:
                    time.sleep(0.01)

        decoder.scan(str(good[0]))
        answer = meanwhile(lambda: decoder.scan(str(endless)), crash)
        assert (answer.status, answer.reason, answer.detail) == (
            "failed",
            "decoder_crashed",
            number.name,
        )
        assert same(decoder.scan(str(good[0])), good[1])


def test_clip_after_a_crash_that_was_not_its_own_is_scanned(good: tuple[Path, Answer]) -> None:
    """Killed between two clips: the next one finds no child, and gets a fresh one."""
    with decoding(DecoderConfig()) as decoder:
        decoder.scan(str(good[0]))
        os.kill(child_of(decoder), signal.SIGSEGV)
        time.sleep(0.2)
        assert same(decoder.scan(str(good[0])), good[1])


def test_memory_beyond_the_limit_is_refused(good: tuple[Path, Answer], tmp_path: Path) -> None:
    path = make_media(tmp_path / "large.mp4", size=(3840, 2160), times_ms=[0, 100], audio=None)
    with decoding(DecoderConfig(memory_bytes=6 * MIB)) as decoder:
        answer = decoder.scan(str(path))
        assert answer.status == "failed"
        assert answer.reason in ("out_of_memory", "damaged"), answer  # FFmpeg does not always say
    with decoding(DecoderConfig()) as decoder:
        assert decoder.scan(str(path)).status == "scanned"


def test_end_of_a_run_does_not_wait_for_a_clip(endless: Path) -> None:
    stop = threading.Event()
    with decoding(DecoderConfig(timeout_s=60), stop) as decoder:
        threading.Timer(1.0, stop.set).start()
        begun = time.monotonic()
        with pytest.raises(Stopped):
            decoder.scan(str(endless))
        assert time.monotonic() - begun < 10


def test_child_dies_with_its_parent(endless: Path) -> None:
    code = (
        "import sys, threading, time; from curation.media.decoder import *\n"
        "with decoding(DecoderConfig()) as d:\n"
        " threading.Thread(target=d.scan, args=(sys.argv[1],), daemon=True).start()\n"
        " time.sleep(2); print(d.pid, flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(endless)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    until_s = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < until_s, "the child lives on"
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


# ---- a child that says nonsense -----------------------------------------------------------------------


class Said:
    """Bytes that a child might send."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def line(self, most: int) -> bytes:
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def exactly(self, size: int) -> bytes:
        assert size <= MIB, "asked for memory on a child's word"
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


WELL = {
    "status": "scanned",
    "reason": None,
    "detail": None,
    "content_digest": None,
    "values": {},
    "arrays": [],
}


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        [],
        {"status": "scanned"},
        {**WELL, "status": "well"},
        {**WELL, "reason": 5},
        {**WELL, "values": {"x": 1}},
        {**WELL, "values": {"fps": "x"}},
        {**WELL, "values": {"width_px": 99999999999}},
        {**WELL, "arrays": [["x", [1]]]},
        {**WELL, "arrays": [["hash", [-1]]]},
        {**WELL, "arrays": [["hash", [99999999999]]]},
        {**WELL, "arrays": [["thumbs", [1, 2]]]},
        {**WELL, "values": []},
        {**WELL, "values": {"fps": float("nan")}},
        {**WELL, "values": {"fps": float("inf")}},
        {**WELL, "values": {"video_codec": "\ud800"}},
        {**WELL, "detail": "\ud800"},
        {**WELL, "reason": "bored"},
        {**WELL, "reason": "damaged"},
        {**WELL, "status": "failed"},
        {**WELL, "status": "failed", "reason": "damaged", "values": {"fps": 5}},
        {**WELL, "content_digest": "sha256:5"},
        {**WELL, "arrays": [["audio_ms", [1]]]},
        {**WELL, "arrays": [["audio_ms", [1]], ["audio_item", [2]], ["audio_bands", [1, 5]]]},
        {**WELL, "arrays": [["audio_ms", [1]], ["audio_ms", [1]]]},
        {**WELL, "arrays": [[["audio_ms"], [1]]]},
        {**WELL, "arrays": 5},
    ],
)
def test_nonsense_is_refused(header: Any) -> None:
    with pytest.raises(BadAnswer):
        read_answer(Said(json.dumps(header).encode() + b"\n" + bytes(1000)))


@pytest.mark.parametrize("line", [b"[" * 60000, b'{"status": 1e999', b"\xff\xfe", b"5" * 5000, b""])
def test_line_that_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_answer(Said(line + b"\n"))


LENGTHS = {"hash_ms": 2, "hash_view": 2, "hash": 2, "flatness": 2, "box": 8, "thumbs": 3}


@pytest.mark.parametrize(
    ("changed", "shape", "fill"),
    [
        ("hash", [3], 0),
        ("flatness", [1], 0),
        ("box", [4], 0),
        ("thumbs", [3, 4, 5], 0),
        ("hash", [2], 255),  # as floats, bytes of 255 are no numbers
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changed: str, shape: list[int], fill: int) -> None:
    shapes = {name: [n, 4, 4] if name == "thumbs" else [n] for name, n in LENGTHS.items()}

    def said(byte: int) -> Said:
        header = {**WELL, "arrays": list(shapes.items())}
        return Said(json.dumps(header).encode() + b"\n" + bytes([byte]) * 1000)

    assert len(read_answer(said(0)).arrays) == 6
    shapes[changed] = shape
    with pytest.raises(BadAnswer):
        read_answer(said(fill))


TALKS = """
import sys, time
out = open(int(sys.argv[1]), "wb", buffering=0)
for line in sys.stdin.buffer:
    {does}
"""
SAYS = {
    "brackets": 'out.write(b"[" * 60000 + b"\\n")',
    "no values": f"out.write({json.dumps({**WELL, 'values': []}).encode()!r} + b'\\n')",
    "more than an answer": f"out.write({json.dumps(WELL).encode()!r} + b'\\nand more')",
}


def as_child(monkeypatch: pytest.MonkeyPatch, folder: Path, does: str) -> None:
    """Let decoders start another program instead of their child."""
    script = folder / "child.py"
    script.write_text(TALKS.format(does=does))
    plain = subprocess.Popen
    monkeypatch.setattr(
        "curation.media.decoder.subprocess.Popen",
        lambda words, **options: plain([words[0], str(script), words[4]], **options),
    )


@pytest.mark.parametrize("says", SAYS)
def test_child_that_says_nonsense_costs_its_clip_and_is_replaced(
    says: str, good: tuple[Path, Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with decoding(DecoderConfig()) as decoder:
        with monkeypatch.context() as patched:
            as_child(patched, tmp_path, SAYS[says])
            answer = decoder.scan(str(good[0]))
        assert (answer.status, answer.reason) == ("failed", "decoder_crashed")
        assert (answer.detail or "").startswith("said nonsense: ")
        assert decoder.pid is None
        assert same(decoder.scan(str(good[0])), good[1])


def test_child_that_drips_is_timed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_child(monkeypatch, tmp_path, "[(out.write(b'['), time.sleep(0.05)) for _ in range(400)]")
    monkeypatch.setattr("curation.media.decoder._START_S", 0.5)
    with decoding(DecoderConfig(timeout_s=0.5)) as decoder:
        begun = time.monotonic()
        answer = decoder.scan("any.mp4")
        assert (answer.status, answer.reason) == ("failed", "timeout")
        assert time.monotonic() - begun < 10
        assert decoder.pid is None


def test_mistake_of_ours_is_told_with_its_place(
    good: tuple[Path, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*words: Any, **options: Any) -> None:
        raise AssertionError("two clocks \ud800")

    monkeypatch.setattr(child, "scanned", wrong)
    request = {"path": str(good[0]), "mode": "fast", "start_s": None, "end_s": None, "max_duration_s": 9}
    answer = child.answer_to(request)
    assert (answer.status, answer.reason) == ("failed", "decoder_crashed")
    assert re.fullmatch(r"AssertionError: two clocks \ud800 \(child\.py:\d+\)", answer.detail or "")
    assert answer.content_digest == good[1].content_digest
    stream = io.BytesIO()
    write_answer(stream, answer)
    told = read_answer(Said(stream.getvalue()))
    assert (told.detail or "").startswith("AssertionError: two clocks \\ud800 (child.py:")


def table() -> str:
    """The table for the README."""
    rows = []
    for case in CASES:
        reason = " or ".join(f"`{reason}`" for reason in (case.reason, *case.at_most) if reason)
        rows.append([case.input, case.status, reason])
    rows += [
        ["a decoder that hangs", "failed", "`timeout`"],
        ["a decoder that crashes", "failed", "`decoder_crashed`"],
        ["a decoder that takes more memory than it may", "failed", "`out_of_memory`"],
    ]
    return render(["file", "the clip is", "reason"], rows, "markdown")


if __name__ == "__main__":
    print(table())
