"""Frames: which are taken, compared with the reference, and how they are made small, pixel by pixel."""

import itertools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_media import make_media
from safetensors.torch import load_file
from torchvision.transforms import v2

from curation.media.decode import decode
from features.inputs.frames import FrameClock, FrameTaker, clip_frame, still_share, sync_frame


def chosen(times_s: list[float], fps: int) -> list[int]:
    """The places of the frames that are taken, in order; a place may come several times."""
    clock = FrameClock(fps)
    return [place for place, time_s in enumerate(times_s) for _ in range(clock.take(time_s))]


@pytest.mark.shared
def test_frames_are_those_of_the_reference(shared_golden: Path) -> None:
    golden = json.loads((shared_golden / "frame_selection.json").read_text())
    assert len(golden) == 7
    for name, video in golden.items():
        assert chosen(video["frame_times"], 8) == video["clip_index"], name
        assert chosen(video["frame_times"], 25) == video["sync_index"], name


@pytest.mark.shared
def test_pixels_are_those_of_the_reference(shared_golden: Path) -> None:
    golden = load_file(shared_golden / "frame_preprocess.safetensors")
    for number in (0, 1):
        frame_hwc = golden[f"frame{number}_u8"][0].permute(1, 2, 0).contiguous().numpy()
        assert torch.equal(clip_frame(frame_hwc), golden[f"clip{number}_u8"][0])
        assert torch.equal(sync_frame(frame_hwc), golden[f"sync{number}_u8"][0])


@pytest.mark.parametrize(
    "size",
    [(240, 320), (320, 240), (360, 640), (224, 224), (384, 384), (225, 399), (31, 17), (480, 223)],
)
def test_pixels_are_those_of_torchvision(size: tuple[int, int]) -> None:
    frame_hwc = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    frame_chw = torch.from_numpy(frame_hwc).permute(2, 0, 1).contiguous()
    bicubic: dict[str, Any] = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
    assert torch.equal(clip_frame(frame_hwc), v2.Resize((384, 384), **bicubic)(frame_chw))
    middle = v2.Compose([v2.Resize(224, **bicubic), v2.CenterCrop(224)])
    assert torch.equal(sync_frame(frame_hwc), middle(frame_chw))


@given(
    times_ms=st.lists(st.integers(0, 8000), min_size=1, max_size=300, unique=True).map(sorted),
    fps=st.sampled_from((8, 25)),
)
def test_each_tick_takes_the_first_frame_at_it_or_later(times_ms: list[int], fps: int) -> None:
    times_s = [time_ms / 1000 for time_ms in times_ms]
    expected, tick_s = [], 0.0
    while tick_s <= times_s[-1]:
        expected.append(next(place for place, time_s in enumerate(times_s) if time_s >= tick_s))
        tick_s += 1 / fps
    assert chosen(times_s, fps) == expected


# ---- from a file -----------------------------------------------------------------------------------


def taken(path: Path, *, until_s: float | None = None) -> tuple[FrameTaker, np.ndarray, np.ndarray]:
    """What a second of a file gives, at 8 and 25 fps."""
    clip_tchw = np.zeros((8, 3, 384, 384), np.uint8)
    sync_tchw = np.zeros((25, 3, 224, 224), np.uint8)
    taker = FrameTaker(clip_tchw, sync_tchw, until_s=until_s)
    clock: Any = "clip" if until_s is None else "file"
    facts, _ = decode(str(path), picture=taker.add, sound=None, rate_hz=None, clock=clock)
    taker.finish(facts.picture_end_s)
    return taker, clip_tchw, sync_tchw


def test_slow_video_gives_its_frames_several_times(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.mp4", fps=5, seconds=1.2, audio=None)
    taker, clip_tchw, _ = taken(path)
    assert taker.num_missing == (0, 0)
    # 0, 0.125, 0.25 … 0.875 s, pictures at multiples of 0.2 s
    same = [np.array_equal(a, b) for a, b in itertools.pairwise(clip_tchw)]
    assert same == [False, False, True, False, False, True, False]


def test_last_picture_stands_until_its_end_but_not_as_the_reference_reads(tmp_path: Path) -> None:
    path = make_media(tmp_path / "x.mp4", fps=24, seconds=1.0, audio=None)  # the last one at 0.958
    assert taken(path)[0].num_missing == (0, 0)
    assert taken(path, until_s=1.0)[0].num_missing == (0, 1)


def test_choice_does_not_follow_from_when_the_first_picture_is_shown(tmp_path: Path) -> None:
    times = [0, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440, 480, 520, 560, 600, 640, 680]
    plain = make_media(tmp_path / "plain.mkv", times_ms=times, audio=None, video="ffv1")
    for begin_ms in (40, 80, 1160, 4720):
        shifted = [time_ms + begin_ms for time_ms in times]
        late = make_media(tmp_path / "late.mkv", times_ms=shifted, audio=None, video="ffv1")
        for expected, found in zip(taken(plain)[1:], taken(late)[1:], strict=True):
            assert np.array_equal(expected, found), begin_ms


def test_reference_counts_from_the_clock_of_the_file(tmp_path: Path) -> None:
    late = [500 + 40 * i for i in range(25)]
    path = make_media(tmp_path / "late.mkv", times_ms=late, audio=None, video="ffv1")
    taker, clip_tchw, _ = taken(path, until_s=1.0)
    assert [np.array_equal(clip_tchw[0], picture) for picture in clip_tchw[:6]] == [True] * 5 + [False]
    assert taker.num_missing == (0, 0)


def test_turned_video_stands_upright(tmp_path: Path) -> None:
    wide = make_media(tmp_path / "x.mp4", size=(96, 64), fps=25, seconds=1.0, audio=None)
    turned = make_media(tmp_path / "y.mp4", size=(96, 64), fps=25, seconds=1.0, audio=None, rotated=90)
    _, clip_tchw, sync_tchw = taken(turned)
    assert not np.array_equal(taken(wide)[2], sync_tchw)
    frames: list[Any] = []
    decode(str(turned), picture=lambda _, frame: frames.append(frame), sound=None, rate_hz=None)
    upright = np.ascontiguousarray(
        np.rot90(frames[0].to_ndarray(format="rgb24"), frames[0].rotation // 90)
    )
    assert upright.shape == (96, 64, 3)
    assert np.array_equal(clip_tchw[0], clip_frame(upright).numpy())
    assert np.array_equal(sync_tchw[0], sync_frame(upright).numpy())


def test_size_may_change_within_the_stream(tmp_path: Path) -> None:
    clip_tchw = np.zeros((3, 3, 384, 384), np.uint8)
    taker = FrameTaker(clip_tchw, np.zeros((9, 3, 224, 224), np.uint8), until_s=None)
    for number, size in enumerate(((64, 48), (48, 64))):
        frame = av.VideoFrame.from_ndarray(
            np.full((*size, 3), 60 * number + 1, np.uint8), format="rgb24"
        )
        frame.pts, frame.time_base = number, Fraction(1, 8)
        taker.add(number / 8, frame)
    assert [int(picture.max()) for picture in clip_tchw] == [1, 61, 0]
    assert taker.num_missing == (1, 5)


def test_still_pictures_are_told_from_moving_ones(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    picture = chance.integers(0, 256, (1, 3, 384, 384), np.uint8).repeat(9, axis=0)
    noisy = np.clip(picture.astype(np.int16) + chance.integers(-1, 2, picture.shape), 0, 255)
    moving = np.stack([np.roll(frame, 8 * number, axis=2) for number, frame in enumerate(picture)])
    assert still_share(picture) == 1.0
    assert still_share(noisy.astype(np.uint8)) == 1.0
    assert still_share(moving) == 0.0
    moving[4:] = moving[4]
    assert still_share(moving) == 0.5
    assert still_share(picture[:1]) == 1.0
