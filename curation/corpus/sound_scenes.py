"""Sounds made from numbers: scenes that are unrelated to each other, and the sounds that say nothing.

A scene is a wave float32 `(samples,)` whose peaks reach about 0.5 of full scale. Equal generators give
equal scenes; two scenes share no moment.
"""

from collections.abc import Callable

import numpy as np

Maker = Callable[[np.random.Generator, int, int], np.ndarray]


def scene(rng: np.random.Generator, duration_s: float, rate: int, kind: str | None = None) -> np.ndarray:
    """A sound of one of SCENES, drawn where none is named."""
    kind = kind or str(rng.choice(list(SCENES)))
    samples = max(1, round(duration_s * rate))
    return _levelled(SCENES[kind](rng, samples, rate), 0.5)


def steady(rng: np.random.Generator, duration_s: float, rate: int, kind: str) -> np.ndarray:
    """A sound of STEADY: nothing in it can tell one moment from another."""
    return STEADY[kind](rng, max(1, round(duration_s * rate)), rate).astype(np.float32)


def _levelled(wave: np.ndarray, peak: float) -> np.ndarray:
    return (wave * (peak / max(float(np.abs(wave).max()), 1e-9))).astype(np.float32)


def coloured(
    rng: np.random.Generator,
    samples: int,
    rate: int,
    slope: float,
    band: tuple[float, float] = (20, 2e4),
) -> np.ndarray:
    """Noise of power 1 that falls with frequency to the `slope` (0 white, 1 pink, 2 brown).

    Args:
        band: lowest and highest frequency in Hz.
    """
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    hz = np.fft.rfftfreq(samples, 1 / rate)
    shape = np.maximum(hz, 20.0) ** (-slope / 2) * ((hz >= band[0]) & (hz <= band[1]))
    wave = np.fft.irfft(spectrum * shape, samples)
    return np.asarray(wave / max(float(np.std(wave)), 1e-12))


def _slow(rng: np.random.Generator, samples: int, rate: int, knots_per_s: float) -> np.ndarray:
    """A wandering value from 0 to 1."""
    knots = max(4, int(samples / rate * knots_per_s) + 2)
    return np.interp(np.linspace(0, knots - 1, samples), np.arange(knots), rng.random(knots))


def _placed(samples: int, pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    wave = np.zeros(samples)
    for begin, piece in pieces:
        piece = piece[: max(0, samples - begin)]
        wave[begin : begin + len(piece)] += piece
    return wave


# ---- scenes ---------------------------------------------------------------------------------------


def _speech(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Syllables: a buzz or breath through three formants."""
    pitch, pieces, at = rng.uniform(85, 260), [], 0.0
    while at * rate < samples:
        n = int(rng.uniform(0.07, 0.3) * rate)
        t = np.arange(n) / rate
        glide = pitch * (1 + rng.uniform(-0.2, 0.2) + rng.uniform(-0.6, 0.6) * t)
        formants = rng.uniform((250, 800, 2100), (850, 2300, 3300))
        piece = np.zeros(n)
        if rng.random() < 0.75:
            phase = 2 * np.pi * np.cumsum(glide) / rate
            for k in range(1, 30):
                if k * pitch * 1.4 > rate / 2:
                    break
                gain = sum(1 / (1 + ((k * pitch - f) / 90) ** 2) for f in formants) + 0.01
                piece += gain * np.sin(k * phase)
        else:
            low = rng.uniform(1500, 4500)
            piece = 0.4 * coloured(rng, n, rate, 0, (low, low + rng.uniform(1500, 4000)))
        pieces.append((int(at * rate), piece * np.hanning(n) * rng.uniform(0.3, 1)))
        at += n / rate + (rng.uniform(0.2, 0.7) if rng.random() < 0.12 else rng.uniform(0, 0.05))
    return _placed(samples, pieces) + 0.003 * rng.standard_normal(samples)


def _music(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Notes of one scale on a grid of one tempo."""
    beat = 60 / rng.uniform(70, 160) / rng.choice([1, 2])
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) if rng.random() < 0.5 else np.array([0, 2, 3, 5, 7, 8, 10])
    root, decay = rng.uniform(50, 62), rng.uniform(1.5, 8)
    partials = rng.random(8) / np.arange(1, 9) ** rng.uniform(0.5, 1.5)
    pieces, at = [], 0.0
    while at * rate < samples:
        for _ in range(int(rng.integers(1, 4))):
            key = root + 12 * rng.integers(0, 3) + rng.choice(scale)
            hz, n = 440 * 2 ** ((key - 69) / 12), int(beat * rng.choice([1, 2, 3]) * rate)
            t = np.arange(n) / rate
            audible = [k for k in range(len(partials)) if hz * (k + 1) < rate / 2]
            tone = sum(partials[k] * np.sin(2 * np.pi * hz * (k + 1) * t) for k in audible)
            pieces.append((int(at * rate), np.asarray(tone) * np.exp(-decay * t) * rng.uniform(0.4, 1)))
        at += beat * rng.choice([0.5, 1, 1, 2])
    return _placed(samples, pieces)


def _hits(rng: np.random.Generator, samples: int, rate: int, beat: float, jitter: float) -> np.ndarray:
    kinds = [
        (rng.uniform(15, 70), rng.uniform(200, 6000), rng.uniform(0.3, 2.0), rng.uniform(60, 900))
        for _ in range(int(rng.integers(1, 5)))
    ]
    pieces, at = [], rng.uniform(0, beat)
    while at * rate < samples:
        decay, low, width, tone = kinds[int(rng.integers(len(kinds)))]
        t = np.arange(int(0.25 * rate)) / rate
        noise = coloured(rng, len(t), rate, 0, (low, low * 2**width))
        hit = (noise + np.sin(2 * np.pi * tone * t)) * np.exp(-decay * t) * rng.uniform(0.3, 1)
        pieces.append((int(at * rate), hit))
        at += max(0.03, beat * rng.choice([0.5, 1, 1, 1]) * (1 + jitter * rng.standard_normal()))
    return _placed(samples, pieces) + 0.002 * rng.standard_normal(samples)


def _percussion(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    return _hits(rng, samples, rate, rng.uniform(0.2, 0.6), 0.01)


def _footsteps(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    return _hits(rng, samples, rate, rng.uniform(0.35, 1.2), 0.25)


def _birds(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Calls of swept tones over a quiet background."""
    pieces, at = [], rng.uniform(0, 0.8)
    call = [(rng.uniform(0.03, 0.2), rng.uniform(1500, 6000), rng.uniform(-0.5, 0.5)) for _ in range(4)]
    while at * rate < samples:
        for length, hz, sweep in call[: int(rng.integers(1, 5))]:
            t = np.arange(int(length * rate)) / rate
            line = hz * (1 + 0.05 * rng.standard_normal()) * (1 + sweep * t / length)
            tone = np.sin(2 * np.pi * np.cumsum(line) / rate) * np.hanning(len(t))
            pieces.append((int(at * rate), tone))
            at += length + rng.uniform(0.01, 0.1)
        at += rng.uniform(0.2, 1.5)
    return _placed(samples, pieces) + 0.01 * coloured(rng, samples, rate, 1)


def _wind(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Gusts and waves: noise of three colours, each wandering in loudness."""
    wave = np.zeros(samples)
    for low in (80, 300, 1200):
        noise = coloured(rng, samples, rate, 1, (low, low * 4))
        wave += noise * _slow(rng, samples, rate, rng.uniform(0.7, 4)) ** 2
    return wave


def _passing(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Motors whose speed wanders: harmonics of a moving tone, and noise that follows."""
    hz = rng.uniform(30, 110) * (0.6 + 1.2 * _slow(rng, samples, rate, rng.uniform(0.5, 2)))
    phase = 2 * np.pi * np.cumsum(hz) / rate
    gains = rng.random(24) / np.arange(1, 25) ** 0.7
    loud = 0.2 + _slow(rng, samples, rate, rng.uniform(0.5, 2))
    tone = np.asarray(sum(g * np.sin((k + 1) * phase) for k, g in enumerate(gains)))
    return (tone + 0.2 * coloured(rng, samples, rate, 1)) * loud


SCENES: dict[str, Maker] = {
    "speech": _speech,
    "music": _music,
    "percussion": _percussion,
    "footsteps": _footsteps,
    "birds": _birds,
    "wind": _wind,
    "passing": _passing,
}


# ---- sounds that say nothing ----------------------------------------------------------------------


def _engine(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    phase = 2 * np.pi * rng.uniform(20, 60) * np.arange(samples) / rate
    tone = sum(np.sin((k + 1) * phase + rng.uniform(0, 6)) / (k + 1) for k in range(20))
    return 0.1 * np.asarray(tone) + 0.03 * coloured(rng, samples, rate, 1)


def _rain(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    drops = np.zeros(samples)
    at = rng.integers(0, samples, max(1, samples * 400 // rate))
    np.add.at(drops, at, rng.exponential(1.0, len(at)))
    length = min(samples, rate // 50)
    ring = coloured(rng, length, rate, 0, (1000, 7000)) * np.exp(-np.arange(length) / (rate / 300))
    wet = np.fft.irfft(np.fft.rfft(drops) * np.fft.rfft(ring, samples), samples)
    wave: np.ndarray = wet / max(float(np.std(wet)), 1e-9) + coloured(rng, samples, rate, 0.5)
    return 0.02 * wave


def _tone(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    phase = 2 * np.pi * rng.uniform(150, 3000) * np.arange(samples) / rate
    return 0.3 * np.sin(phase + rng.uniform(0, 6))


def _hum(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    t, mains = np.arange(samples) / rate, float(rng.choice([50.0, 60.0]))
    wave = sum(np.sin(2 * np.pi * mains * k * t + rng.uniform(0, 6)) / k for k in (1, 2, 3, 4, 6, 8))
    return 0.1 * np.asarray(wave) + 0.0005 * rng.standard_normal(samples)


STEADY: dict[str, Maker] = {
    "zero": lambda g, n, r: np.zeros(n),
    "dither": lambda g, n, r: g.integers(-1, 2, n) / 32768,
    "white": lambda g, n, r: 0.1 * g.standard_normal(n),
    "pink": lambda g, n, r: 0.1 * coloured(g, n, r, 1),
    "brown": lambda g, n, r: 0.1 * coloured(g, n, r, 2),
    "tone": _tone,
    "hum": _hum,
    "rain": _rain,
    "engine": _engine,
}
