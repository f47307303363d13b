"""What people and platforms do to a sound before they publish it again, one function an edit.

An edit takes a wave, float32 `(samples,)` or `(channels, samples)` with full scale 1, its rate in Hz and
a generator, and gives the edited wave at the same rate. Equal arguments give equal samples. Codecs and
filters are those of FFmpeg, by PyAV.
"""

import io
from collections.abc import Callable
from fractions import Fraction

import av
import av.filter
import numpy as np

from curation.corpus.sound_scenes import scene

SoundEdit = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]
_OPUS_HZ = 48_000  # the rate at which libopus encodes


# ---- tools ----------------------------------------------------------------------------------------


def filtered(
    wave: np.ndarray, rate: int, *steps: tuple[str, str], out_rate: int | None = None
) -> np.ndarray:
    """`wave` after FFmpeg's audio filters, each a name and its arguments, in this order.

    Args:
        out_rate: that of the result, where it is another one; the samples are not touched for it.
    """
    frame, shape = _frame(wave, rate)
    graph = av.filter.Graph()
    layout = frame.layout.name
    nodes = [graph.add_abuffer(sample_rate=rate, format="fltp", layout=layout)]
    nodes += [graph.add(name, arguments) for name, arguments in steps]
    end = f"sample_fmts=fltp:sample_rates={out_rate or rate}:channel_layouts={layout}"
    nodes += [graph.add("aformat", end), graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    graph.push(None)
    pieces = []
    while True:
        try:
            pulled = graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            break
        assert isinstance(pulled, av.AudioFrame), "an audio filter gives audio"
        pieces.append(pulled.to_ndarray())
    return _shaped(pieces, shape)


def resampled(wave: np.ndarray, rate: int, out_rate: int) -> np.ndarray:
    """`wave` at another rate."""
    return filtered(wave, rate, ("aresample", str(out_rate)), out_rate=out_rate)


def coded(
    wave: np.ndarray, rate: int, *, codec: str, container: str, kbps: int, codec_hz: int | None = None
) -> np.ndarray:
    """`wave` after it was encoded and decoded, with the delay that the container does not undo."""
    codec_hz = codec_hz or rate
    frame, shape = _frame(resampled(wave, rate, codec_hz) if codec_hz != rate else wave, codec_hz)
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=codec_hz)
        assert isinstance(stream, av.AudioStream), codec
        stream.codec_context.layout = frame.layout.name
        stream.codec_context.bit_rate = kbps * 1000
        stream.codec_context.thread_count = 1
        fifo = av.AudioFifo()
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout=frame.layout.name, rate=codec_hz
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            fifo.write(piece)
        while (part := fifo.read(_frame_samples(stream), partial=True)) is not None:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        decoder = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=rate)
        pieces = [p.to_ndarray() for f in source.decode(audio=0) for p in decoder.resample(f)]
        pieces += [p.to_ndarray() for p in decoder.resample(None)]
    return _shaped(pieces, shape)


def _frame_samples(stream: "av.AudioStream") -> int:
    stream.codec_context.open(strict=False)
    return stream.codec_context.frame_size or 1024


def _frame(wave: np.ndarray, rate: int) -> tuple["av.AudioFrame", tuple[int, ...]]:
    """The wave as one frame, and the shape without samples to give it back in."""
    planes = np.ascontiguousarray(np.atleast_2d(wave), np.float32)
    layout = {1: "mono", 2: "stereo"}[len(planes)]
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
    frame.sample_rate = rate
    frame.pts = 0
    frame.time_base = Fraction(1, rate)
    return frame, wave.shape[:-1]


def _shaped(pieces: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    channels = shape[0] if shape else 1
    planes = np.concatenate([np.zeros((channels, 0), np.float32), *pieces], axis=1)
    return planes.reshape(*shape, planes.shape[1])


def _rms(wave: np.ndarray) -> float:
    """Root of the mean power; a constant, which no one hears, is no power."""
    return float(np.std(wave, dtype=np.float64)) if wave.size else 0.0


def _with_noise(wave: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    noise = rng.standard_normal(wave.shape).astype(np.float32)
    noisy: np.ndarray = wave + noise * np.float32(_rms(wave) * 10 ** (-snr_db / 20))
    return noisy


def _with_other(wave: np.ndarray, rate: int, rng: np.random.Generator, level_db: float) -> np.ndarray:
    other = scene(rng, wave.shape[-1] / rate, rate)[: wave.shape[-1]]
    other = np.pad(other, (0, wave.shape[-1] - len(other)))
    gain = _rms(wave) / max(_rms(other), 1e-9) * 10 ** (level_db / 20)
    mixed: np.ndarray = wave + other * np.float32(gain)
    return mixed


def _gain(wave: np.ndarray, gain_db: float) -> np.ndarray:
    louder: np.ndarray = wave * np.float32(10 ** (gain_db / 20))
    return louder.clip(-1, 1)


def _equalised(wave: np.ndarray, rate: int, bass_db: int, treble_db: int) -> np.ndarray:
    return filtered(
        wave, rate,
        ("bass", f"f=300:g={bass_db}:w=0.7:t=q"),
        ("treble", f"f=2500:g={treble_db}:w=0.7:t=q"),
    )  # fmt: skip


def _played_faster(wave: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """Speed and pitch together, as a tape does."""
    return filtered(wave, rate, ("asetrate", str(round(rate * speed))), ("aresample", str(rate)))


def _stretched(wave: np.ndarray, rate: int, speed: float) -> np.ndarray:
    return filtered(wave, rate, ("atempo", str(speed)))


def _shifted(wave: np.ndarray, rate: int, pitch: float) -> np.ndarray:
    return _stretched(_played_faster(wave, rate, pitch), rate, 1 / pitch)


def _excerpt(wave: np.ndarray, rate: int, rng: np.random.Generator, share: float) -> np.ndarray:
    keep = round(wave.shape[-1] * share)
    begin = int(rng.integers(0, wave.shape[-1] - keep + 1))
    return wave[..., begin : begin + keep]


def _spliced(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Half of the wave, with another sound of the same loudness before and after it."""
    kept = _excerpt(wave, rate, rng, 0.5)
    around = scene(rng, wave.shape[-1] / rate, rate)
    around *= np.float32(_rms(kept) / max(_rms(around), 1e-9))
    before = int(rng.integers(0, wave.shape[-1] - kept.shape[-1] + 1))
    edited = np.broadcast_to(np.resize(around, wave.shape[-1]), wave.shape).copy()
    edited[..., before : before + kept.shape[-1]] = kept
    return edited


def _combined(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    wave = wave[..., round(0.37 * rate) :]
    wave = _with_noise(_equalised(wave, rate, 6, -6), rng, 20)
    return coded(_gain(wave, -6), rate, codec="aac", container="mp4", kbps=48)


# ---- the table ------------------------------------------------------------------------------------


SOUND_EDITS: dict[str, SoundEdit] = {
    "mp3_32k": lambda w, r, g: coded(w, r, codec="libmp3lame", container="mp3", kbps=32),
    "opus_24k": lambda w, r, g: coded(
        w, r, codec="libopus", container="ogg", kbps=24, codec_hz=_OPUS_HZ
    ),
    "aac_16k": lambda w, r, g: coded(w, r, codec="aac", container="mp4", kbps=16),
    "gain_down_12db": lambda w, r, g: _gain(w, -12),
    "gain_up_8db_clipped": lambda w, r, g: _gain(w, 8),
    "resampled_8k": lambda w, r, g: resampled(resampled(w, r, 8000), 8000, r),
    "offset_0.37s": lambda w, r, g: w[..., round(0.37 * r) :],
    "offset_2.1s": lambda w, r, g: w[..., round(2.1 * r) :],
    "lowpass_3k": lambda w, r, g: filtered(w, r, *[("lowpass", "f=3000")] * 2),
    "echo": lambda w, r, g: filtered(w, r, ("aecho", "0.8:0.8:60|180:0.4|0.3")),
    "bass_up_9db": lambda w, r, g: _equalised(w, r, 9, -9),
    "treble_up_9db": lambda w, r, g: _equalised(w, r, -9, 9),
    "noise_20db": lambda w, r, g: _with_noise(w, g, 20),
    "noise_10db": lambda w, r, g: _with_noise(w, g, 10),
    "mixed_10db": lambda w, r, g: _with_other(w, r, g, -10),
    "speed_up_1pct": lambda w, r, g: _played_faster(w, r, 1.01),
    "speed_down_1pct": lambda w, r, g: _played_faster(w, r, 0.99),
    "speed_up_5pct": lambda w, r, g: _played_faster(w, r, 1.05),
    "speed_down_5pct": lambda w, r, g: _played_faster(w, r, 0.95),
    "tempo_up_5pct": lambda w, r, g: _stretched(w, r, 1.05),
    "tempo_down_5pct": lambda w, r, g: _stretched(w, r, 0.95),
    "pitch_up_1pct": lambda w, r, g: _shifted(w, r, 1.01),
    "pitch_down_1pct": lambda w, r, g: _shifted(w, r, 0.99),
    "excerpt_half": lambda w, r, g: _excerpt(w, r, g, 0.5),
    "spliced_half": _spliced,
    "offset_eq_gain_noise": _combined,
}
