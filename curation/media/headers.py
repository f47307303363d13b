"""How much sound a file says it has, before any of it is decoded."""

from typing import Any

from curation.media.container import Limits, Unscannable, chosen_streams, opened
from curation.media.facts import cut_of
from curation.verdict import Reason

# Formats whose length FFmpeg guesses from the first bit rate; their packets are counted instead.
_GUESSED = frozenset(("mp3", "aac", "ac3", "eac3", "dts", "amr"))


def sound_length(
    path: str, *, start_s: float | None = None, end_s: float | None = None, limits: Limits | None = None
) -> tuple[int, int]:
    """The rate of a clip's sound and its number of samples, as headers tell or, if they guess, packets.

    Raises:
        Unscannable: it cannot be opened, is beyond the limits, or has no sound.
    """
    limits = limits or Limits()
    with opened(path, limits) as container:
        _, audio = chosen_streams(container, limits)
        if audio is None:
            raise Unscannable(Reason.NO_SOUND, "no stream of sound")
        rate_hz = int(audio.codec_context.rate)
        if rate_hz <= 0:
            raise Unscannable(Reason.DAMAGED, "its sound tells no rate")
        whole_s = None if container.duration is None else container.duration / 1e6
        cut = cut_of(start_s, end_s, whole_s)
        if cut.length_s is not None:
            return rate_hz, round(cut.length_s * rate_hz)
        told = audio.duration is not None and container.format.name not in _GUESSED
        ticks = audio.duration if told else _ticks_of_packets(container, audio)
        return rate_hz, round(ticks * audio.time_base * rate_hz)


def _ticks_of_packets(container: Any, stream: Any) -> int:
    """The length of all packets that can be read, in the stream's time base.

    Containers that count milliseconds round the length of each packet, down or up by less than a tick;
    their sum may be 1 % off. Where times agree with it so far, they tell the length.
    """
    import av

    ticks = packets = 0
    begin: int | None = None
    end = 0
    try:
        for packet in container.demux(stream):
            ticks += packet.duration or 0
            packets += bool(packet.duration)
            if packet.pts is not None and packet.duration:
                begin = packet.pts if begin is None else min(begin, packet.pts)
                end = max(end, packet.pts + packet.duration)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
    span = ticks if begin is None else end - begin
    return span if abs(span - ticks) <= packets else ticks
