"""A short clip in memory, read from a media file and written to one.

Pictures are uint8 `(3 * height / 2, width)`: the planes of yuv420p one below the other, as PyAV lays
them out. Sound is float32 `(channels, samples)` with full scale 1. Both begin at t = 0, the time of the
first picture, or of the first sample where there is no picture. Codecs run in one thread.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from curation.files import replacing, sha256_file
from curation.media.container import Limits, chosen_streams, opened

LONGEST_S = 8.0  # of a clip that is read
HEIGHT = 360  # px of the shorter side; larger pictures are made smaller
_TIME_BASE = Fraction(1, 12_800)
_AAC_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True, slots=True)
class Coding:
    """How a film is encoded; the container is that of the file's name."""

    video: str = "libx264"
    crf: int = 23  # for mpeg4 the quantiser
    audio: str = "aac"
    kbps: int = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """Pictures with their times, and sound; either may be missing."""

    times_s: np.ndarray  # float64 (n,), rising
    frames: list[np.ndarray]
    end_s: float  # when the last picture stops being shown
    wave: np.ndarray | None = None
    rate_hz: int = 44_100
    digest: str = ""  # of the file's bytes; what an edit draws depends on it
    coding: Coding = field(default_factory=Coding)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        rows, width = self.frames[0].shape
        return width, rows * 2 // 3

    @property
    def sounds(self) -> bool:
        """Whether there is enough sound to tell it by: above -60 dBFS in 30 % of the time."""
        if self.wave is None:
            return False
        window = max(1, self.rate_hz // 10)
        mono = self.wave.mean(axis=0)[: self.wave.shape[1] // window * window].reshape(-1, window)
        loud = np.sqrt(np.mean(np.square(mono), axis=1)) > 1e-3
        return bool(loud.size) and bool(loud.mean() >= 0.3)

    def random(self, name: str) -> np.random.Generator:
        """The generator for one edit of this clip."""
        seed = hashlib.sha256(f"{self.digest} {name}".encode()).digest()[:8]
        return np.random.default_rng(int.from_bytes(seed))


def planes(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Views of luma and the two chromas of a picture, the latter half as wide and high."""
    rows, width = frame.shape
    height, flat = rows * 2 // 3, frame.reshape(-1)
    luma, chroma = height * width, height * width // 4
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + chroma].reshape(height // 2, width // 2),
        flat[luma + chroma :].reshape(height // 2, width // 2),
    )


def picture_of(rgb: np.ndarray) -> np.ndarray:
    """A picture from uint8 `(height, width, 3)`, both sides even."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return frame.reformat(format="yuv420p").to_ndarray()


# ---- reading --------------------------------------------------------------------------------------


def read_film(path: Path, *, longest_s: float = LONGEST_S, height: int = HEIGHT) -> Film:
    """The beginning of a media file, upright, with square pixels and even sides.

    Raises:
        Unscannable: it is no media, or asks for too much.
    """
    times: list[float] = []
    frames: list[np.ndarray] = []
    sound: list[tuple[float, np.ndarray]] = []
    limits = Limits()
    with opened(str(path), limits) as container:
        video, audio = chosen_streams(container, limits)
        rate_hz = audio.rate if audio is not None and audio.rate in _AAC_HZ else 44_100
        aspect = float((video.sample_aspect_ratio if video is not None else None) or 1)
        resampler = None
        zero: float | None = None
        streams = [stream for stream in (video, audio) if stream is not None]
        for frame in _decoded(container, streams):
            stamp = frame.dts if frame.pts is None else frame.pts  # AVI tells no presentation times
            if stamp is None or frame.time_base is None:
                continue
            time_s = float(stamp * frame.time_base)
            if isinstance(frame, av.VideoFrame):
                zero = time_s if zero is None else zero
                if time_s - zero < longest_s:
                    times.append(time_s - zero)
                    frames.append(_upright(frame, height, aspect))
                elif time_s - zero > longest_s + 2:  # the sound may be behind by that much
                    break
            else:
                resampler = resampler or _resampler(frame, rate_hz)
                sound += [(time_s, piece.to_ndarray()) for piece in resampler.resample(frame)]
                if video is None and time_s - sound[0][0] > longest_s:
                    break
    begin_s = zero if zero is not None else sound[0][0] if sound else 0.0
    end_s = min(longest_s, _end(times)) if frames else longest_s
    wave = _on_clock(sound, rate_hz, begin_s, end_s, pad=bool(frames))
    if not frames:
        end_s = 0.0 if wave is None else wave.shape[1] / rate_hz
    return Film(
        times_s=np.array(times),
        frames=frames,
        end_s=end_s,
        wave=wave,
        rate_hz=rate_hz,
        digest=f"{sha256_file(path)} {longest_s:g}",
    )


def _decoded(
    container: "av.container.InputContainer", streams: "list[av.video.VideoStream | av.AudioStream]"
) -> "Iterator[av.VideoFrame | av.AudioFrame]":
    for packet in container.demux(streams):
        yield from packet.decode()  # type: ignore[misc]


def _resampler(frame: "av.AudioFrame", rate_hz: int) -> "av.AudioResampler":
    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
    return av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)


def _upright(frame: "av.VideoFrame", height: int, aspect: float) -> np.ndarray:
    """The picture with square pixels, its shorter side at most `height`, as it is meant to be seen."""
    width_px = frame.width * aspect
    scale = min(1.0, height / min(width_px, frame.height))
    width = max(2, round(width_px * scale / 2) * 2)
    rows = max(2, round(frame.height * scale / 2) * 2)
    picture = frame.reformat(width, rows, "yuv420p").to_ndarray()
    turns = round(frame.rotation / 90) % 4
    if not turns:
        return picture
    turned = [np.rot90(plane, turns).reshape(-1) for plane in planes(picture)]
    return np.concatenate(turned).reshape(-1, rows if turns % 2 else width)


def _end(times: list[float]) -> float:
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    return times[-1] + step


def _on_clock(
    sound: list[tuple[float, np.ndarray]], rate_hz: int, begin_s: float, end_s: float, *, pad: bool
) -> np.ndarray | None:
    """The samples from `begin_s` on: what is earlier is cut, a gap at the beginning is silent."""
    if not sound:
        return None
    wave = np.concatenate([piece for _, piece in sound], axis=1)
    lead = round((begin_s - sound[0][0]) * rate_hz)
    wave = wave[:, lead:] if lead >= 0 else np.pad(wave, ((0, 0), (-lead, 0)))
    samples = round(end_s * rate_hz)
    if pad and wave.shape[1] < samples:
        wave = np.pad(wave, ((0, 0), (0, samples - wave.shape[1])))
    wave = wave[:, :samples]
    return wave.astype(np.float32) if wave.size else None


def cut(film: Film, start_s: float, end_s: float) -> Film:
    """The stretch [start_s, end_s) of a film, from its first picture on."""
    kept = np.flatnonzero((film.times_s >= start_s) & (film.times_s < end_s))
    begin_s = float(film.times_s[kept[0]]) if len(kept) else start_s
    end_s = min(end_s, film.end_s)
    wave = film.wave
    if wave is not None:
        wave = wave[:, round(begin_s * film.rate_hz) : round(end_s * film.rate_hz)]
    return replace(
        film,
        times_s=film.times_s[kept] - begin_s,
        frames=[film.frames[k] for k in kept],
        end_s=end_s - begin_s,
        wave=wave,
    )


# ---- FFmpeg's filters -----------------------------------------------------------------------------


def filtered(frames: list[np.ndarray], *steps: tuple[str, str]) -> list[np.ndarray]:
    """The pictures after FFmpeg's filters, each a name and its arguments; as many come out as go in."""
    if not frames:
        return frames
    rows, width = frames[0].shape
    graph = av.filter.Graph()
    graph.threads = 1
    buffer = graph.add_buffer(
        width=width, height=rows * 2 // 3, format=av.VideoFormat("yuv420p"), time_base=_TIME_BASE
    )
    nodes = [buffer, *(graph.add(name, arguments) for name, arguments in steps)]
    nodes += [graph.add("format", "yuv420p"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    made = []
    for index, frame in enumerate(frames):
        graph.push(_video_frame(frame, index))
        made += list(_pulled(graph))
    graph.push(None)
    made += list(_pulled(graph))
    assert len(made) == len(frames), f"{steps}: {len(made)} pictures of {len(frames)}"
    return made


def _pulled(graph: "av.filter.Graph") -> Iterator[np.ndarray]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return
        assert isinstance(frame, av.VideoFrame), "a video filter gives video"
        yield frame.to_ndarray()


def _video_frame(picture: np.ndarray, pts: int) -> "av.VideoFrame":
    frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
    frame.pts, frame.time_base = pts, _TIME_BASE
    return frame


# ---- writing --------------------------------------------------------------------------------------


def write_film(film: Film, target: Path) -> None:
    """Encode a film into `target`, whole or not at all; its name says the container."""
    container_format = {".mkv": "matroska", ".m4a": "mp4"}.get(target.suffix, target.suffix[1:])
    with (
        replacing(target) as temporary,
        av.open(str(temporary.absolute()), "w", format=container_format) as output,
    ):
        pictures, sound = _video_stream(film, output), _audio_stream(film, output)
        for index, (time_s, frame) in enumerate(zip(film.times_s, film.frames, strict=True)):
            assert pictures is not None, "there are frames"
            pts = index if film.coding.video == "mpeg4" else round(time_s / _TIME_BASE)
            made = _video_frame(frame, pts)
            made.time_base = pictures.codec_context.time_base
            output.mux(pictures.encode(made))
            if sound is not None:
                sound(time_s)
        if pictures is not None:
            output.mux(pictures.encode(None))
        if sound is not None:
            sound(None)


def _video_stream(film: Film, output: "av.container.OutputContainer") -> "av.VideoStream | None":
    if not film.frames:
        return None
    coding = film.coding
    rate = Fraction(len(film.frames) / max(film.end_s, 0.01)).limit_denominator(1000)
    options = {
        "libx264": {"crf": str(coding.crf), "preset": "ultrafast"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": str(coding.crf), "b": "0"},
        "mpeg4": {"qmin": str(coding.crf), "qmax": str(coding.crf)},
    }[coding.video]
    stream = output.add_stream(coding.video, rate=rate, options=options)
    assert isinstance(stream, av.VideoStream), coding.video
    stream.width, stream.height = film.size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    # AVI and MPEG-4 have a fixed rate; the others keep every time.
    stream.codec_context.time_base = 1 / rate if coding.video == "mpeg4" else _TIME_BASE
    return stream


def _audio_stream(
    film: Film, output: "av.container.OutputContainer"
) -> Callable[[float | None], None] | None:
    """What writes the sound up to a time; with None, all of it."""
    wave = film.wave
    if wave is None or not wave.shape[1]:
        return None
    coding, layout = film.coding, "mono" if len(wave) == 1 else "stereo"
    rate_hz = 48_000 if coding.audio == "libopus" else film.rate_hz
    stream = output.add_stream(coding.audio, rate=rate_hz, layout=layout)
    assert isinstance(stream, av.AudioStream), coding.audio
    if not coding.audio.startswith(("pcm", "flac")):
        stream.bit_rate = min(coding.kbps, rate_hz * len(wave) * 3 // 1000) * 1000
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout=layout)
    whole.sample_rate, whole.pts, whole.time_base = film.rate_hz, 0, Fraction(1, film.rate_hz)
    resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate_hz)
    fifo = av.AudioFifo()
    for piece in [*resampler.resample(whole), *resampler.resample(None)]:
        fifo.write(piece)
    written = 0

    def write(until_s: float | None) -> None:
        nonlocal written
        while until_s is None or written < until_s * rate_hz:
            piece = fifo.read(1024, partial=until_s is None)
            if piece is None:
                break
            written += piece.samples
            output.mux(stream.encode(piece))
        if until_s is None:
            output.mux(stream.encode(None))

    return write
