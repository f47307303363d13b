"""The print of a sound: what it keeps, what counts as silence, and what it makes of damaged waves."""

import numpy as np
import pytest

from curation.corpus.sound_edits import SOUND_EDITS, filtered, resampled
from curation.corpus.sound_scenes import SCENES, STEADY, scene, steady
from curation.media.audio_hash import (
    AUDIO_VERSION,
    BANDS,
    BANDS_PER_OCTAVE,
    FRAMES_PER_S,
    LOWEST_HZ,
    RATE_HZ,
    SoundHasher,
    bandwidth_hz,
    fingerprint,
    items_of,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sine(hz: float, seconds: float = 3.0, rate: int = RATE_HZ) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def test_print_says_its_version_and_has_twenty_frames_and_items_a_second():
    made = fingerprint(scene(rng(), 5.0, RATE_HZ, "speech"))
    assert made.audio_version == AUDIO_VERSION
    assert made.bands.dtype == np.uint8
    assert made.bands.shape[1] == BANDS
    assert abs(len(made.bands) - 5 * FRAMES_PER_S) <= 3  # the last frames begin 0.13 s before the end
    assert made.item.dtype == np.uint32
    assert made.item_ms.dtype == np.int32
    assert len(made.item) == len(made.item_ms)
    assert set(np.diff(made.item_ms)) == {1000 // FRAMES_PER_S}
    assert 0.4 < made.item_ms[0] / 1000 < 0.7  # an item looks at a second around it
    assert np.any(made.item)


@pytest.mark.parametrize("band", [0, 8, 20, 33, 47])
def test_tone_is_loudest_in_the_band_of_its_frequency(band: int):
    bands = fingerprint(sine(LOWEST_HZ * 2 ** (band / BANDS_PER_OCTAVE))).bands
    assert set(bands.argmax(axis=1)) == {band}


def test_level_is_in_steps_of_decibels():
    loud, quiet = (fingerprint(gain * sine(960.0)).bands.max() for gain in (1.0, 0.1))
    assert int(loud) - int(quiet) == 50  # 20 dB in steps of 0.4


def test_pieces_give_the_print_of_the_whole():
    wave = scene(rng(1), 7.3, RATE_HZ, "music")
    whole, hasher = fingerprint(wave), SoundHasher()
    at = 0
    for length in (1, 799, 0, 5000, 31, 40_000, len(wave)):
        hasher.add(wave[at : at + length])
        at += length
    pieces = hasher.finish()
    assert pieces.silent_share == whole.silent_share
    # transforms of other numbers of rows may differ in the last bit, before rounding to a level
    assert np.abs(pieces.bands.astype(int) - whole.bands).max() <= 1
    assert (pieces.item == whole.item).mean() > 0.99


def test_ten_minutes_at_once_are_taken_in_blocks():
    wave = np.tile(scene(rng(2), 6.0, RATE_HZ, "wind"), 100)
    made = fingerprint(wave)
    assert abs(len(made.bands) - 600 * FRAMES_PER_S) <= 3
    assert len(made.item) > 590 * FRAMES_PER_S


def test_a_click_is_too_short_for_a_frame():
    assert fingerprint(np.ones(1, np.float32)).bands.shape == (0, BANDS)


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(0, np.float32),
        np.zeros(1, np.float32),
        np.zeros(5 * RATE_HZ, np.float32),
        np.full(5 * RATE_HZ, 0.7, np.float32),
        np.full(5 * RATE_HZ, np.nan, np.float32),
        np.full(5 * RATE_HZ, np.inf, np.float32),
        steady(rng(), 5.0, RATE_HZ, "dither"),
    ],
    ids=["empty", "one-zero", "zeros", "constant", "nan", "inf", "dither"],
)
def test_silence_has_neither_items_nor_bands(wave: np.ndarray):
    made = fingerprint(wave)
    assert len(made.item) == len(made.item_ms) == len(made.bands) == 0
    assert made.bands.shape == (0, BANDS)
    assert made.silent_share == 1.0


def test_short_sound_in_a_long_silence_is_heard():
    wave = np.zeros(20 * RATE_HZ, np.float32)
    wave[5 * RATE_HZ : 7 * RATE_HZ] = scene(rng(3), 2.0, RATE_HZ, "speech")
    made = fingerprint(wave)
    assert made.silent_share > 0.85
    assert np.any(made.item)


def test_samples_that_are_no_numbers_count_as_silence():
    wave = scene(rng(4), 4.0, RATE_HZ, "music")
    holes = wave.copy()
    holes[10_000:11_000] = np.nan
    holes[20_000:20_010] = -np.inf
    zeros = np.nan_to_num(holes, nan=0.0, neginf=0.0)
    assert np.array_equal(fingerprint(holes).bands, fingerprint(zeros).bands)


def test_input_is_left_as_it_was():
    wave = scene(rng(5), 2.0, RATE_HZ, "wind")
    before = wave.copy()
    fingerprint(wave)
    bandwidth_hz(wave, RATE_HZ)
    assert np.array_equal(wave, before)


@pytest.mark.parametrize("kind", ["tone", "hum"])
def test_sound_in_which_nothing_moves_has_no_items(kind: str):
    made = fingerprint(steady(rng(), 6.0, RATE_HZ, kind))
    assert len(made.bands) > 0
    assert not np.any(made.item)


def test_bands_too_few_for_an_item_have_none():
    assert len(items_of(np.zeros((19, BANDS), np.uint8))[1]) == 0


def test_items_of_two_copies_differ_in_few_bits_and_those_of_strangers_in_half():
    wave = scene(rng(6), 6.0, RATE_HZ, "speech")
    copy = SOUND_EDITS["mp3_32k"](wave, RATE_HZ, rng())
    ours, theirs = fingerprint(wave).item, fingerprint(copy).item
    length = min(len(ours), len(theirs))
    assert np.bitwise_count(ours[:length] ^ theirs[:length]).mean() < 4
    other = fingerprint(scene(rng(7), 6.0, RATE_HZ, "speech")).item
    length = min(len(ours), len(other))
    assert 12 < np.bitwise_count(ours[:length] ^ other[:length]).mean() < 20


def test_edits_and_scenes_are_the_same_for_the_same_generator():
    for kind in SCENES:
        assert np.array_equal(scene(rng(8), 1.0, 8000, kind), scene(rng(8), 1.0, 8000, kind))
    for kind in STEADY:
        assert np.array_equal(steady(rng(8), 1.0, 8000, kind), steady(rng(8), 1.0, 8000, kind))
    wave = np.stack([scene(rng(9), 3.0, 16_000, "music"), scene(rng(10), 3.0, 16_000, "speech")])
    for name, edit in SOUND_EDITS.items():
        once, again = edit(wave, 16_000, rng(1)), edit(wave, 16_000, rng(1))
        assert np.array_equal(once, again), name
        assert once.dtype == np.float32, name
        assert once.shape[0] == 2, name
        assert 0.2 < once.shape[1] / wave.shape[1] < 1.2, name


def test_bandwidth_is_where_the_sound_ends():
    noise = steady(rng(), 4.0, 44_100, "white")
    assert bandwidth_hz(noise, 44_100) > 21_500
    cut = resampled(resampled(noise, 44_100, 16_000), 16_000, 44_100)
    assert 7500 < bandwidth_hz(cut, 44_100) < 9500  # the resampler fades out
    steep = filtered(noise, 44_100, *[("lowpass", "f=3000:p=2")] * 12)
    assert 3000 < bandwidth_hz(steep, 44_100) < 8000
    assert bandwidth_hz(sine(440.0, rate=44_100), 44_100) == pytest.approx(440, abs=400)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_silence_has_no_bandwidth(length: int):
    assert bandwidth_hz(np.zeros(length, np.float32), 44_100) == 0.0
    assert bandwidth_hz(np.full(length, np.nan, np.float32), 44_100) == 0.0
