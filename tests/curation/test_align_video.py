"""Alignment of pictures: what was done to a copy is found again, and what is no copy stays apart."""

from collections.abc import Callable

import numpy as np
import pytest
from moving_pictures import hits_of, other_motion, print_of, wandering
from PIL import Image

from curation.matching.align_video import VideoMatch, align_video

Pictures = list[np.ndarray]


def aligned(ours: Pictures, theirs: Pictures, *, fps: float = 25) -> VideoMatch | None:
    heldout, train = print_of(ours), print_of(theirs, fps=fps)
    hits = hits_of(heldout, train)
    if not hits:
        return None
    return align_video(heldout.thumbs, train.thumbs, hits, boxes=(heldout.boxes, train.boxes))


def by_picture(edit: Callable[[Image.Image], Image.Image]) -> Callable[[Pictures], Pictures]:
    return lambda pictures: [np.asarray(edit(Image.fromarray(p))) for p in pictures]


EDITS: dict[str, Callable[[Pictures], Pictures]] = {
    "the same": lambda p: p,
    "cropped": by_picture(lambda i: i.crop((20, 15, 175, 130))),
    "a corner": by_picture(lambda i: i.crop((0, 0, 144, 108))),
    "mirrored": lambda p: [picture[:, ::-1] for picture in p],
    "letterbox": lambda p: [np.pad(picture, ((30, 30), (0, 0), (0, 0))) for picture in p],
    "turned": by_picture(lambda i: i.rotate(2, Image.Resampling.BILINEAR)),
    "darker": by_picture(lambda i: i.point([int(255 * (v / 255) ** 1.6) for v in range(256)] * 3)),
    "smaller": by_picture(lambda i: i.resize((96, 72))),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_copy_moves_like_its_original(name: str) -> None:
    pictures = wandering(11)
    found = aligned(pictures, EDITS[name](pictures))
    assert found is not None
    assert found.score > 0.85
    assert found.offset_s == pytest.approx(0, abs=0.07)
    assert found.mirrored == (name == "mirrored")
    assert found.speed == 1


@pytest.mark.parametrize("cut_s", [0.52, 1.0, 1.6])
def test_offset_of_a_trimmed_copy_is_found(cut_s: float) -> None:
    pictures = wandering(12)
    found = aligned(pictures, pictures[round(cut_s * 25) :])
    assert found is not None
    assert found.score > 0.85
    assert found.offset_s == pytest.approx(-cut_s, abs=0.1)
    assert found.start_s == pytest.approx(cut_s, abs=0.13)


@pytest.mark.parametrize("speed", [0.95, 1.05, 1.25])
def test_speed_of_a_faster_or_slower_copy_is_found(speed: float) -> None:
    pictures = wandering(13, 150)
    found = aligned(pictures, pictures, fps=25 * speed)
    assert found is not None
    assert found.score > 0.8
    assert found.speed == pytest.approx(speed, abs=0.011)


def test_map_of_a_crop_says_what_was_cut() -> None:
    pictures = wandering(14)
    found = aligned(pictures, [picture[18:126, 24:168] for picture in pictures])
    assert found is not None
    # of 192 x 144, the middle 144 x 108: held-out pixels lie a third further apart
    np.testing.assert_allclose(found.map[[0, 1], [0, 1]], 4 / 3, atol=0.06)
    assert found.area == pytest.approx(0.5625, abs=0.08)


def test_the_same_room_with_another_event_does_not_move_alike() -> None:
    room = wandering(15)
    found = [aligned(room, other_motion(15, 100 + motion)) for motion in range(4)]
    met = [match for match in found if match is not None]
    assert met, "the backgrounds should have met"
    assert max(match.score for match in met) < 0.55


def test_still_pictures_have_no_motion_to_compare() -> None:
    still = [wandering(16, 1)[0]] * 60
    found = aligned(still, still)
    assert found is not None
    assert found.energy < 3
    assert found.appearance > 0.99


def test_a_short_piece_of_a_long_clip_is_found_where_it_is() -> None:
    long = wandering(17, 1500)  # 60 s, more than is aligned at once
    found = aligned(long[1000:1100], long)
    assert found is not None
    assert found.score > 0.9
    assert found.offset_s == pytest.approx(40, abs=0.1)


def test_a_clip_of_one_frame_aligns_with_nothing() -> None:
    pictures = wandering(18)
    assert aligned(pictures, pictures[:1]) is None
    assert aligned(pictures[:1], pictures[:1]) is None
