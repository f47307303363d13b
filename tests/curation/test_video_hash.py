"""Hashes: equal to imagehash in the reference mode, near to it in the fast one; views and boxes."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import imagehash
import numpy as np
import pytest
from moving_pictures import print_of, scene
from PIL import Image

from curation.media import video_hash
from curation.media.frames import FPS, FrameGrid, area_weights
from curation.media.video_hash import BASE_VIEWS, FLAT, VIEWS, FrameHasher, find_boxes, phash


def frames_of(path: Path, every: int = 1) -> Iterator[tuple[float, av.VideoFrame]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        first = None
        for number, frame in enumerate(container.decode(stream)):
            time_s = float(frame.pts * frame.time_base)
            first = time_s if first is None else first
            if number % every == 0:
                yield time_s - first, frame


def degenerate() -> list[Image.Image]:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    step = np.zeros((64, 64), np.uint8)
    step[:, 32:] = 255
    board = ((np.indices((64, 64)).sum(0) % 2) * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    grey = [Image.new("RGB", (64, 48), (v, v, v)) for v in (0, 128, 255)]
    arrays = [ramp, ramp.T.copy(), step, step.T.copy(), board, noise]
    return [
        *grey,
        Image.new("L", (1, 1), 200),
        Image.new("L", (32, 32), 7),
        *map(Image.fromarray, arrays),
    ]


def differing(images: list[Image.Image]) -> list[int]:
    wanted = [int(str(imagehash.phash(image)), 16) for image in images]
    return [
        k for k, (found, want) in enumerate(zip(phash(images), wanted, strict=True)) if found != want
    ]


def test_degenerate_pictures_hash_as_imagehash_hashes_them() -> None:
    assert differing(degenerate()) == []


@pytest.mark.shared
def test_every_real_frame_hashes_as_imagehash_hashes_it(shared_clips: Path) -> None:
    images = [
        frame.to_image()
        for path in sorted((shared_clips / "video").iterdir())
        for _, frame in frames_of(path, every=37)
    ]
    assert len(images) > 50
    assert differing(images) == []


def test_reference_print_holds_the_hash_of_imagehash_at_its_times() -> None:
    pictures = scene(1)
    made = print_of(pictures, mode="reference")
    whole = made.hash_view == 0
    assert made.boxes.picture == (0.0, 0.0, 1.0, 1.0)
    for ms, found in zip(made.hash_ms[whole], made.hash[whole], strict=True):
        frame = av.VideoFrame.from_ndarray(pictures[int(ms / 1000 * 25)], "rgb24")
        assert int(str(imagehash.phash(frame.to_image())), 16) == found


@pytest.mark.shared
def test_fast_hashes_lie_near_those_of_imagehash(shared_clips: Path) -> None:
    away = []
    for path in sorted((shared_clips / "video_more").iterdir())[::4]:
        prints = []
        for mode in ("fast", "reference"):
            hasher = FrameHasher(mode)
            for time_s, frame in frames_of(path):
                hasher.add(time_s, frame)
            prints.append(hasher.finish())
        fast, reference = prints
        assert fast is not None
        assert reference is not None
        np.testing.assert_array_equal(fast.hash_ms, reference.hash_ms)
        seen = (fast.hash_view == 0) & (fast.flatness >= FLAT)
        away.append(np.bitwise_count(fast.hash[seen] ^ reference.hash[seen]))
    distances = np.concatenate(away)
    assert distances.mean() < 1.5
    assert np.percentile(distances, 99) <= 6


def test_times_count_from_frames_shown_whatever_the_rate() -> None:
    """Brute force over the frames of an irregular clip."""
    rng = np.random.default_rng(4)
    times = np.concatenate([[0.0], np.cumsum(rng.choice([0.01, 0.04, 0.3, 0.7], 40))])
    grid, shown = FrameGrid(), []
    for number, time_s in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((16, 16), number, np.uint8), "gray")
        shown += [int(picture[0, 0]) for picture in grid.add(float(time_s), frame)]
    shown += [int(picture[0, 0]) for picture in grid.finish(float(times[-1]) + 0.5)]
    wanted = [
        int(np.flatnonzero(times <= k / FPS + 1e-6)[-1])
        for k in range(int(np.ceil((times[-1] + 0.5) * FPS - 1e-3)))
    ]
    assert shown == wanted


def test_a_clip_of_one_frame_has_a_print_and_none_has_none() -> None:
    one = FrameHasher()
    one.add(0.0, av.VideoFrame.from_ndarray(scene(2)[0], "rgb24"))
    made = one.finish()
    assert made is not None
    assert (len(made.thumbs), made.still_share) == (1, 1.0)
    assert FrameHasher().finish() is None


def test_hash_of_a_mirrored_copy_is_the_mirrored_view_of_the_original() -> None:
    pictures = scene(3)
    original, mirrored = print_of(pictures), print_of([picture[:, ::-1] for picture in pictures])
    view = next(v for v, part in enumerate(VIEWS) if part.mirrored and part.part == (0.0, 0.0, 1.0, 1.0))
    ours, theirs = original.hash[original.hash_view == view], mirrored.hash[mirrored.hash_view == 0][::2]
    assert np.bitwise_count(ours ^ theirs[: len(ours)]).max() <= 2


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("letterbox", lambda p: np.pad(p, ((30, 30), (0, 0), (0, 0)))),
        ("pillarbox", lambda p: np.pad(p, ((0, 0), (40, 40), (0, 0)), constant_values=255)),
    ],
)
def test_bars_are_cut_away_before_hashing(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    pictures = scene(5)
    plain, barred = print_of(pictures), print_of([edit(picture) for picture in pictures])
    ours, theirs = plain.hash[plain.hash_view == 0], barred.hash[barred.hash_view == 0]
    assert np.bitwise_count(ours ^ theirs).max() <= 6
    assert 2 in barred.hash_view  # with its bars, too
    assert 2 not in plain.hash_view


def test_moving_part_of_a_picture_in_a_picture_is_found() -> None:
    around = np.random.default_rng(6).integers(0, 256, (240, 320), dtype=np.uint8)
    pictures = np.repeat(around[None], 30, axis=0)
    for k, inner in enumerate(scene(7, 30)):
        pictures[k, 60:180, 100:260] = np.roll(inner[..., 0], 7 * k, axis=1)
    left, top, right, bottom = find_boxes(pictures).moving
    assert (left * 320, right * 320) == pytest.approx((100, 260), abs=3)
    assert (top * 240, bottom * 240) == pytest.approx((60, 180), abs=3)


@pytest.mark.parametrize("grey", [0, 16, 255])
def test_flat_pictures_say_so(grey: int) -> None:
    rng = np.random.default_rng(grey)
    noisy = [np.clip(rng.normal(grey, 2.0, (90, 120, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    assert print_of(noisy).flatness.max() < FLAT
    assert print_of(scene(8)).flatness.min() > FLAT


def test_long_clips_are_hashed_in_stretches_as_short_ones_are() -> None:
    pictures = scene(9, 40) * 40  # 64 s
    long, short = print_of(pictures), print_of(pictures[:500])
    head = long.hash_ms < 15_000
    ours, theirs = long.hash[head], short.hash[short.hash_ms < 15_000]
    np.testing.assert_array_equal(ours, theirs)
    assert len(long.thumbs) == 64 * FPS


def test_area_weights_average_what_they_cover() -> None:
    weights = area_weights(0.25, 0.75, 4, 16)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights @ np.arange(16), [4.5, 6.5, 8.5, 10.5])


def test_base_views_come_first() -> None:
    assert tuple(range(len(BASE_VIEWS))) == BASE_VIEWS
    assert len(VIEWS) < 256  # a view is one byte


def test_what_a_stored_hash_means_changes_only_with_its_version() -> None:
    """The number of a view is its place, and is written into fingerprints."""
    said = repr((VIEWS, BASE_VIEWS, video_hash.HASH_EVERY, video_hash.THUMB_PX, FPS))
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    assert (video_hash.VIDEO_VERSIONS["fast"], digest) == ("phash64-area/2", "0d547fe70d8a0fb5")
