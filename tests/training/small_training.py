"""Small sealed shards to train on, and the settings of a run on them, for tests of data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_shards import Planned, sealed_folder

from features.shards import ShardReader
from training.config import PRESETS, TrainConfig
from training.data.batch import Batch
from training.data.held_back import split_rows
from training.data.mixture import Mixture

TENSORS = ("latent_mean", "latent_std", "clip", "sync", "text", "has_video", "noise", "x0", "z",
           "drop_clip", "drop_sync", "drop_text", "counted")  # fmt: skip


def training_rows(videos: int = 7, sounds: int = 6) -> list[Planned]:
    """Rows with pictures in two datasets, with up to five captions, and sounds in a third."""
    rows = [
        Planned(
            clip_id=f"v{i:03d}",
            dataset="bells",
            captions=[f"a bell, take {k}" for k in range(1 + i % 5)],
        )
        for i in range(videos)
    ]
    rows += [
        Planned(clip_id=f"w{i:03d}", dataset="birds", captions=["a bird", f"bird {i}"])
        for i in range(videos // 2)
    ]
    rows += [
        Planned(clip_id=f"s{i // 2:03d}", kind="audio", dataset="rain", part=i % 2, captions=["rain"])
        for i in range(sounds)
    ]
    return rows


def training_folder(out: Path, rows: list[Planned] | None = None, **options: Any) -> list[Planned]:
    """Sealed shards of these rows; the rows in the order of the index."""
    return sealed_folder(out, training_rows() if rows is None else rows, **options)


def small_config(**changes: Any) -> TrainConfig:
    """Of the tiny network at 16 kHz: all rows are trained on, in steps of 8."""
    return replace(PRESETS["tiny-16k"], **{"batch": 8, "held_back": 0.0, **changes})


def mixture_of(reader: ShardReader, config: TrainConfig) -> Mixture:
    """What a run would train on."""
    return Mixture.read(reader, config, split_rows(reader, config.held_back).training_rows)


def bits_of(batch: Batch, place: int) -> dict[str, bytes]:
    """All that one sample of a batch holds, bit for bit."""
    values = {name: getattr(batch, name)[place] for name in TENSORS}
    return {
        "row": np.int64(batch.rows[place]).tobytes(),
        **{
            name: value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            for name, value in values.items()
        },
    }
