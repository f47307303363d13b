"""Which conditions are dropped, and how often."""

from pathlib import Path

import numpy as np
from small_training import mixture_of, small_config

from features.shards import ShardReader
from training.data.batches import Batches


def dropped(folder: Path, steps: int = 16, **changes: object) -> dict[str, np.ndarray]:
    config = small_config(batch=128, **changes)
    names = ("drop_clip", "drop_sync", "drop_text")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        for _ in range(steps):
            batch = next(batches)
            for name in names:
                found[name].append(getattr(batch, name).numpy().copy())
    return {name: np.concatenate(values) for name, values in found.items()}


def test_the_first_version_drops_pictures_whole_and_text_by_itself(folder: Path) -> None:
    found = dropped(folder, drop_video=0.3, drop_text=0.2)
    assert (found["drop_clip"] == found["drop_sync"]).all()
    expected = {"drop_clip": 0.3, "drop_text": 0.2}
    for name, share in expected.items():
        assert abs(found[name].mean() - share) < 4 * np.sqrt(share * (1 - share) / 2048)
    both = (found["drop_clip"] & found["drop_text"]).mean()
    assert abs(both - 0.06) < 4 * np.sqrt(0.06 * 0.94 / 2048)


def test_the_second_version_drops_clip_and_sync_each_by_itself(folder: Path) -> None:
    found = dropped(folder, variant="large_44k_v2", drop_video=0.3, drop_text=0.3)
    for one, other in (
        ("drop_clip", "drop_sync"),
        ("drop_clip", "drop_text"),
        ("drop_sync", "drop_text"),
    ):
        assert abs((found[one] & found[other]).mean() - 0.09) < 4 * np.sqrt(0.09 * 0.91 / 2048)
    first = dropped(folder, drop_video=0.3, drop_text=0.3)
    assert (first["drop_clip"] == found["drop_clip"]).all(), "of the same draws"
    assert (first["drop_text"] == found["drop_text"]).all()


def test_nothing_and_everything_can_be_dropped(folder: Path) -> None:
    never = dropped(folder, 2, drop_video=0.0, drop_text=0.0)
    always = dropped(folder, 2, drop_video=1.0, drop_text=1.0)
    assert not any(values.any() for values in never.values())
    assert all(values.all() for values in always.values())
