"""Opening files that nobody vouches for: as plain files, in known formats, within limits.

FFmpeg reads playlists, other addresses and bitstreams that claim any size. Here a name is always that
of one local file, only formats that hold their own media are let in, and how many pixels a picture may
have is said before a decoder allocates any.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation.verdict import Reason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

# Demuxers by their FFmpeg names: none of them opens a second file.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "mpegts", "mpeg", "mpegvideo", "ogg",
    "wav", "flac", "mp3", "aac", "asf", "aiff", "caf", "au", "w64", "amr", "ac3", "eac3", "dts",
    "h264", "hevc", "m4v", "ivf", "mxf", "rm", "gif", "ape", "tta", "wv", "nut", "dv", "av1", "obu",
)  # fmt: skip
# What a file says of its own length is exact in these.
TELLS_DURATION = frozenset(("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "wav", "flac"))
_TOO_LARGE = re.compile(r"Picture size (\d+)x(\d+) (?:exceeds specified max pixel count|is invalid)")
_HERE = "from here on"
_ENOUGH = 4  # packets to hear what a decoder says of them
_ATTACHED_PICTURE = 0x0400  # AV_DISPOSITION_ATTACHED_PIC
# First bytes of such files, behind an offset: a file that has them is a damaged one, any other is none.
_MAGIC = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free"), (4, b"wide"), (4, b"skip"),
    (0, b"\x1aE\xdf\xa3"), (0, b"RIFF"), (0, b"OggS"), (0, b"fLaC"), (0, b"ID3"), (0, b"FLV"),
    (0, b"FORM"),
    (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"), (0, b"\x00\x00\x00\x01"), (0, b"caff"),
    (0, b"GIF8"),
    (0, b"0&\xb2u\x8ef\xcf\x11"), (0, b".RMF"), (0, b"riff"), (0, b"#!AMR"), (0, b".snd"), (0, b"DKIF"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one clip may ask for."""

    max_duration_s: float = 3600.0
    max_pixels: int = 8192 * 4352  # of one picture: 8K
    max_channels: int = 64
    max_rate_hz: int = 768_000


class Unscannable(Exception):
    """A clip that ends as a failed row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@contextmanager
def opened(path: str, limits: Limits) -> "Iterator[InputContainer]":
    """The container in the local file at `path`.

    Raises:
        Unscannable: it is no media, or cannot be opened.
    """
    import av

    container = None
    try:
        with _name(path) as name:
            container = av.open(
                name,
                options=_codec_options(limits),  # of the decoders that look at the first packets
                container_options={
                    "protocol_whitelist": "file",
                    "format_whitelist": ",".join(FORMATS),
                },
                metadata_errors="replace",
            )
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        if container is not None:
            raise
        raise _refused(path, error) from error
    finally:
        if container is not None:
            container.close()


@contextmanager
def _name(path: str) -> Iterator[str]:
    """What FFmpeg takes for that file and nothing else, whatever its name looks like."""
    absolute = os.path.abspath(path)
    try:
        absolute.encode()
    except UnicodeEncodeError:  # a name that is no text: by its number
        handle = os.open(absolute, os.O_RDONLY)
        try:
            yield f"file:/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    yield f"file:{absolute}"


def _refused(path: str, error: Exception) -> Unscannable:
    if isinstance(error, MemoryError):
        return Unscannable(Reason.OUT_OF_MEMORY, "while it was opened")
    with open(path, "rb") as stream:
        head = stream.read(16)
    why = getattr(error, "strerror", None) or str(error)
    if not head:
        return Unscannable(Reason.DAMAGED, "0 bytes")
    known = any(head[at : at + len(magic)] == magic for at, magic in _MAGIC)
    if known or head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9") or head[:1] == b"\x47":
        return Unscannable(Reason.DAMAGED, f"cannot be opened: {why}")
    return Unscannable(Reason.NOT_MEDIA, f"begins with {head[:8]!r}: {why}")


def _codec_options(limits: Limits) -> dict[str, str]:
    return {"threads": "1", "max_pixels": str(limits.max_pixels)}


def chosen_streams(container: "InputContainer", limits: Limits) -> "tuple[Any | None, Any | None]":
    """The first stream of pictures that is no cover art, and the first of sound; one thread each.

    Raises:
        Unscannable: there is neither, or one is beyond the limits.
    """
    streams = container.streams
    video = next((s for s in streams.video if not _is_cover(s) and _decodes(s)), None)
    audio = next((s for s in streams.audio if _decodes(s)), None)
    if video is None and audio is None:
        kinds = ", ".join(sorted({stream.type for stream in streams})) or "none"
        raise Unscannable(Reason.NO_STREAMS, f"neither picture nor sound that can be decoded: {kinds}")
    if video is not None:
        context = video.codec_context
        if context.width * context.height > limits.max_pixels:
            raise Unscannable(Reason.TOO_LARGE, f"{context.width} x {context.height} pixels")
        context.thread_count = 1
        context.options = _codec_options(limits)
    if audio is not None:
        sound = audio.codec_context
        if sound.channels > limits.max_channels or sound.rate > limits.max_rate_hz:
            raise Unscannable(Reason.TOO_LARGE, f"{sound.channels} channels at {sound.rate} Hz")
        sound.thread_count = 1
    return video, audio


def _is_cover(stream: "Stream") -> bool:
    return bool(int(stream.disposition) & _ATTACHED_PICTURE)


def _decodes(stream: "Stream") -> bool:
    return stream.codec_context is not None


def refused(path: str, limits: Limits, detail: str) -> Unscannable:
    """Why nothing of a file came out: damage, or pictures too large, which decoders only log."""
    import av

    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            av.logging.log(av.logging.ERROR, __name__, _HERE)  # what was said before may come again
            with opened(path, limits) as container:
                for _, packet in zip(range(_ENOUGH), container.demux(video=0), strict=False):
                    packet.decode()
    except (av.error.FFmpegError, ValueError, IndexError):
        pass
    finally:
        av.logging.set_level(level)
    messages = [message for _, _, message in said]
    begin = next((place for place, message in enumerate(messages) if _HERE in message), len(messages))
    for message in messages[begin:]:
        if found := _TOO_LARGE.search(message):
            return Unscannable(Reason.TOO_LARGE, f"{found[1]} x {found[2]} pixels")
    return Unscannable(Reason.DAMAGED, detail)
