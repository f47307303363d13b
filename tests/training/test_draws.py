"""What is drawn: by counters alone, as Philox defines it, and as random as it should be."""

from itertools import islice
from typing import Any

import numpy as np
import plain_philox
import pytest
from scipy import stats

from training.data.draws import Drawn, Draws, Piece, Stream, philox, pieces_of

SEED, SHAPE = 14159265, (25, 4)
# of slot 5 in step 3, NumPy 2.4.6
GOLDEN_UNIFORMS = [0.7499047722502289, 0.14242489667655345, 0.938587672437631]
GOLDEN_Z = [-1.2981288]
GOLDEN_NOISE = [-0.68539184, 0.4227012, -0.99800617, 2.5471687]
GOLDEN_X0 = [-0.5633207, -0.38243005, 1.2676265, 0.95397687]


def empty(count: int, shape: tuple[int, int] = SHAPE) -> Drawn:
    return Drawn(
        uniforms=np.full((count, 3), np.nan),
        z=np.full(count, np.nan, np.float32),
        noise=np.full((count, *shape), np.nan, np.float32),
        x0=np.full((count, *shape), np.nan, np.float32),
    )


def drawn(
    pieces: list[Piece], *, seed: int = SEED, threads: int = 2, stream: Stream = Stream.TRAINING
) -> Drawn:
    out = empty(sum(piece.end - piece.begin for piece in pieces))
    draws = Draws(seed, stream, threads=threads)
    draws.fill(pieces, out)
    draws.close()
    return out


def of_step(step: int, first_slot: int = 0, count: int = 1, **options: Any) -> Drawn:
    return drawn(list(pieces_of(step, first_slot, count)), **options)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (" ".join(["ffffffffffffffff"] * 4), " ".join(["ffffffffffffffff"] * 2),
         "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        ("243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
         "452821e638d01377 be5466cf34e90c6c",
         "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6"),
    ],
)  # fmt: skip
def test_the_plain_generator_gives_the_published_answers(counter: str, key: str, expected: str) -> None:
    """Source: kat_vectors of Random123 1.09, philox4x64 of 10 rounds."""
    given, keys = ([int(word, 16) for word in text.split()] for text in (counter, key))
    found = plain_philox.block((*given,), (*keys,))
    assert " ".join(f"{word:016x}" for word in found) == expected


@pytest.mark.parametrize("stream", list(Stream))
def test_words_of_a_stream_are_those_of_the_plain_generator(stream: Stream) -> None:
    for counter in ((), (7,), (511, 299_999), (2**63, 2**40, 5)):
        expected = list(islice(plain_philox.words(SEED, stream, *counter), 9))
        assert philox(SEED, stream, *counter).random_raw(9).tolist() == expected


def test_pieces_cover_slots_side_by_side_and_end_with_their_groups() -> None:
    for first_slot in (0, 1, 31, 32, 500):
        for count in (1, 31, 32, 33, 200):
            slots, places = [], []
            for piece in pieces_of(7, first_slot, count):
                group, step = piece.counter
                assert step == 7
                assert 0 <= piece.begin < piece.end <= 32
                slots += [32 * group + number for number in range(piece.begin, piece.end)]
                places += range(piece.place, piece.place + piece.end - piece.begin)
            assert slots == list(range(first_slot, first_slot + count))
            assert places == list(range(count))


@pytest.mark.parametrize(("step", "slot"), [(0, 0), (0, 3), (3, 31), (3, 32), (299_999, 511)])
def test_uniforms_are_the_words_of_a_slot_in_its_group(step: int, slot: int) -> None:
    group, place = divmod(slot, 32)
    words = islice(plain_philox.words(SEED, 0, group, step, 0), 3 * place, 3 * place + 3)
    assert of_step(step, slot).uniforms[0].tolist() == [(word >> 11) * 2.0**-53 for word in words]


@pytest.mark.parametrize(("step", "slot"), [(0, 0), (0, 3), (3, 31), (3, 32), (70_000, 77)])
def test_normals_are_those_of_fresh_generators_up_to_the_slot(step: int, slot: int) -> None:
    group, place = divmod(slot, 32)

    def fresh(part: int) -> np.random.Generator:
        counter = np.array([0, group, step, part], np.uint64)
        return np.random.Generator(np.random.Philox(key=np.array([SEED, 0], np.uint64), counter=counter))

    found = of_step(step, slot)
    times = fresh(0)
    times.random(3 * 32)
    assert found.z[0] == [times.standard_normal(dtype=np.float32) for _ in range(32)][place]
    for part, values in ((1, found.noise), (2, found.x0)):
        normals = fresh(part)
        expected = [normals.standard_normal(SHAPE, np.float32) for _ in range(place + 1)][place]
        np.testing.assert_array_equal(values[0], expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads_and_neighbours_change_no_bit(threads: int) -> None:
    whole = of_step(12, 29, 70, threads=threads)
    for place in range(70):
        for one, among in zip(of_step(12, 29 + place, threads=1), whole, strict=True):
            np.testing.assert_array_equal(one[0], among[place])


def test_a_larger_buffer_keeps_what_lies_behind() -> None:
    out, draws = empty(6), Draws(SEED, Stream.TRAINING)
    draws.fill(list(pieces_of(0, 0, 2)), out)
    draws.close()
    assert all(np.isfinite(values[:2]).all() and np.isnan(values[2:]).all() for values in out)


def test_seed_stream_slot_and_step_each_change_everything() -> None:
    base = of_step(9, 4)
    others = [
        of_step(9, 4, seed=SEED + 1),
        of_step(9, 4, stream=Stream.VALIDATION),
        of_step(9, 5),
        of_step(9, 36),
        of_step(10, 4),
        of_step(4, 9),
    ]
    for other in others:
        for mine, theirs in zip(base, other, strict=True):
            assert not np.isin(mine, theirs).any()


def test_values_stay_what_they_were() -> None:
    """Stored output: where normals of another NumPy differ, a run cannot go on with it as it was."""
    found = of_step(3, 5)
    np.testing.assert_array_equal(found.uniforms[0], GOLDEN_UNIFORMS)
    np.testing.assert_array_equal(found.z, np.float32(GOLDEN_Z))
    np.testing.assert_array_equal(found.noise[0, 0], np.float32(GOLDEN_NOISE))
    np.testing.assert_array_equal(found.x0[0, -1], np.float32(GOLDEN_X0))


def test_samples_are_normal_and_uniform_and_know_nothing_of_one_another() -> None:
    steps = [of_step(step, 0, 100) for step in range(20)]
    found = Drawn(*(np.concatenate(values) for values in zip(*steps, strict=True)))
    for values in (found.z, found.noise[:, 0, 0], found.x0[:, -1, -1], found.noise, found.x0):
        assert stats.kstest(values.ravel().astype(np.float64), "norm").pvalue > 0.001
    assert stats.kstest(found.uniforms.ravel(), "uniform").pvalue > 0.001
    flat = np.column_stack([found.z, found.uniforms, found.noise[:, :2, 0], found.x0[:, :2, 0]])
    within = np.corrcoef(flat.T)  # of the draws of a sample, and of those of its neighbour
    beside = np.corrcoef(flat[:-1].T, flat[1:].T)
    bound = 4.5 / np.sqrt(len(flat))
    assert np.abs(within - np.eye(len(within))).max() < bound
    assert np.abs(beside - np.eye(len(beside))).max() < bound
