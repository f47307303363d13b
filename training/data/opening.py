"""Shards as a run opens them: refused where they do not fit, and what is to be said of them."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from curation.errors import FoleyproofError, UsageProblem
from curation.tables import number
from features.shards import ShardReader
from training.config import PRESETS, TrainConfig
from training.model.variants import variant_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Shards that may be trained on.

    Attributes:
        latent_mean, latent_std: (C,) float32, by which latents are normalised.
        empty_text: (77, 1024) float32, the features of the empty string.
        notes: sentences that are to be shown.
    """

    reader: ShardReader
    latent_mean: Tensor
    latent_std: Tensor
    empty_text: Tensor
    notes: tuple[str, ...]


def open_shards(
    folder: str | Path,
    config: TrainConfig,
    *,
    allow_untrained: bool = False,
    like: ShardReader | None = None,
) -> Opened:
    """Sealed shards for a run; the reader is to be closed.

    Args:
        allow_untrained: take features of encoders with random weights.
        like: the training shards, where these validate.

    Raises:
        UsageProblem: not sealed, without rows, untrained, of another sample rate than the network, or
            of other features than `like`.
        ManifestChanged: a file is not what was sealed.
        FoleyproofError: latents of training shards have no mean or standard deviation.
    """
    with contextlib.ExitStack() as opened:
        reader = opened.enter_context(ShardReader(folder))
        notes = []
        if reader.untrained:
            notes.append(_refuse_untrained(reader, allow_untrained))
        if not len(reader):
            raise UsageProblem(
                f"{folder}: holds no rows, expected some — extract from a manifest with media, or see "
                "rejects.parquet there for why none was taken"
            )
        _refuse_rate(reader, config)
        mean, std = reader.latent_statistics()
        if like is not None:
            notes += _refuse_unlike(reader, like)
        else:  # those that validate are neither learned from nor normalised by
            _refuse_statistics(reader, mean, std)
            if reader.certificate is None:
                notes.append(_uncertified(reader))
        text = reader.batch([0], names=False, text=[0])["text"][0].float()
        opened.pop_all()
        return Opened(
            reader=reader, latent_mean=mean, latent_std=std, empty_text=text, notes=tuple(notes)
        )


def _refuse_untrained(reader: ShardReader, allowed: bool) -> str:
    encoders = ", ".join(
        f"{name} {identity}" for name, identity in sorted(reader.about["encoders"].items())
    )
    if not allowed:
        raise UsageProblem(
            f"{reader.folder}: its features are of encoders with random weights ({encoders}), expected "
            "published ones — extract with --weights DIR, or, for a trial, give --allow-untrained"
        )
    return (
        f"{reader.folder}: features of encoders with random weights ({encoders}), good for trials alone"
    )


def _refuse_rate(reader: ShardReader, config: TrainConfig) -> None:
    rate_hz = reader.about["sample_rate_hz"]
    wanted_hz = variant_named(config.variant).sample_rate_hz
    if rate_hz == wanted_hz:
        return
    fitting = [
        name
        for name, preset in PRESETS.items()
        if variant_named(preset.variant).sample_rate_hz == rate_hz
    ]
    size = config.model.split("-")[0]
    best = min(fitting, key=lambda name: name.split("-")[0] != size)
    raise UsageProblem(
        f"{reader.folder}: its shards are of {rate_hz:,} Hz and {config.model} is of {wanted_hz:,} Hz, "
        f"expected one rate — give --model {best}, or run: features extract --sr {wanted_hz}"
    )


def _refuse_unlike(reader: ShardReader, training: ShardReader) -> list[str]:
    """Where features that validate are others than those trained on; what of their making differs."""
    for key in ("sample_rate_hz", "duration_s", "encoders"):
        mine, theirs = reader.about[key], training.about[key]
        if mine != theirs:
            raise UsageProblem(
                f"{reader.folder}: its {key} is {mine}, expected {theirs} as in {training.folder} — "
                "extract both with the same options"
            )
    if reader.about["preprocessing"] == training.about["preprocessing"]:
        return []
    return [f"{reader.folder}: media were prepared otherwise than for {training.folder}"]


def _refuse_statistics(reader: ShardReader, mean: Tensor, std: Tensor) -> None:
    bad = [
        f"{number(sums.rows, 'row')} of {group.dataset} ({group.split or 'no split'}, {group.kind})"
        for group, sums in reader.groups().items()
        if not all(np.isfinite(one).all() for one in sums.arrays())
    ]
    if bad:
        raise FoleyproofError(
            f"{reader.folder}: among the latents of {', '.join(bad)} are some that are not finite, "
            "expected finite ones — extract these clips again into another folder"
        )
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise FoleyproofError(
            f"{reader.folder}: its latents have mean {mean.tolist()} and deviation {std.tolist()} by "
            "channel, expected finite numbers and positive ones — they are too few or all alike: "
            "extract more clips"
        )


def _uncertified(reader: ShardReader) -> str:
    """That nobody vouches for these rows, and which of them are likely not for training."""
    counts: dict[str, int] = {}
    for group, sums in reader.groups().items():
        if group.split is not None and not group.split.startswith("train"):
            name = f"{group.dataset}/{group.split}"
            counts[name] = counts.get(name, 0) + sums.rows
    others = ", ".join(f"{number(rows, 'row')} of {name}" for name, rows in counts.items())
    return (
        f"{reader.folder}: uncertified, nothing says that no test clip is in it"
        + (f"; it holds {others}" if others else "")
        + " — for a clean manifest run: curate clean, then features extract again into another folder"
    )
