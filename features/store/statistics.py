"""Mean and standard deviation of latents per channel, from sums that can be added up.

Of the posterior's means, which normalise the latents in training (as MMAudio@974010a does: unbiased,
over rows and time), and of its samples, mean + std * noise: E[x] = E[mean], E[x²] = E[mean² + std²].

Sums are float64 and grow row by row in the order of the rows: they do not depend on batches or threads.

Shape suffixes: G groups, N latents, C channels.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from curation.errors import ManifestChanged
from curation.files import canonical_json
from features.spec import SequenceSpec
from features.store.index import advice
from features.store.shard_file import FORMAT, METADATA_KEY

Array = npt.NDArray[np.float64]
_SUMS = ("mean", "mean_square", "variance")
_COUNTS = ("rows", "latents")


class Group(NamedTuple):
    """Whose latents are added up: a split of a dataset, rows of one kind."""

    dataset: str
    split: str | None
    kind: str  # "av" or "audio"


@dataclass(slots=True)
class Sums:
    """Of all latents of some rows; each array is (C,)."""

    rows: int
    latents: int  # rows * N
    mean: Array
    mean_square: Array
    variance: Array  # std², of the posterior

    @classmethod
    def zero(cls, channels: int) -> "Sums":
        """Of no rows."""
        return cls(0, 0, np.zeros(channels), np.zeros(channels), np.zeros(channels))

    def add(self, other: "Sums") -> None:
        """Take in the sums of other rows."""
        self.rows += other.rows
        self.latents += other.latents
        for mine, theirs in zip(self.arrays(), other.arrays(), strict=True):
            mine += theirs

    def arrays(self) -> tuple[Array, Array, Array]:
        """The three sums."""
        return self.mean, self.mean_square, self.variance

    def of_means(self) -> tuple[Array, Array]:
        """Mean and unbiased standard deviation of the posterior's means, (C,) each; NaN of too few."""
        return self._moments(self.mean_square)

    def of_samples(self) -> tuple[Array, Array]:
        """Mean and unbiased standard deviation of samples of the posterior, (C,) each."""
        return self._moments(self.mean_square + self.variance)

    def _moments(self, square: Array) -> tuple[Array, Array]:
        if self.latents < 2:
            return np.full_like(square, np.nan), np.full_like(square, np.nan)
        mean = self.mean / self.latents
        spread = np.maximum(square - self.latents * mean**2, 0.0)
        return mean, np.sqrt(spread / (self.latents - 1))


class LatentSums:
    """Adds up the latents of a task, by group."""

    def __init__(self) -> None:
        self._groups: dict[Group, Sums] = {}

    def add(self, group: Group, latent_mean_nc: torch.Tensor, latent_std_nc: torch.Tensor) -> None:
        """Take in one row, bf16 (N, C)."""
        mean_nc, std_nc = (
            values.to(torch.float64).numpy(force=True) for values in (latent_mean_nc, latent_std_nc)
        )
        sums = self._groups.setdefault(group, Sums.zero(mean_nc.shape[1]))
        row = Sums(1, len(mean_nc), mean_nc.sum(0), (mean_nc**2).sum(0), (std_nc**2).sum(0))
        sums.add(row)

    def facts(self) -> list[dict[str, Any]]:
        """What goes into the completion record of the task under `sums`: floats exact to the bit."""
        return [
            {
                **group._asdict(),
                "rows": sums.rows,
                "latents": sums.latents,
                "mean": sums.mean.tolist(),
                "mean_square": sums.mean_square.tolist(),
                "variance": sums.variance.tolist(),
            }
            for group, sums in sorted(self._groups.items(), key=lambda item: _order(item[0]))
        ]


def added_up(records: Iterable[Mapping[str, Any]]) -> dict[Group, Sums]:
    """The sums of many tasks, in the order given, by group; groups are sorted."""
    groups: dict[Group, Sums] = {}
    for entry in records:
        group = Group(entry["dataset"], entry["split"], entry["kind"])
        arrays = (np.array(entry[name], np.float64) for name in _SUMS)
        sums = Sums(entry["rows"], entry["latents"], *arrays)
        groups.setdefault(group, Sums.zero(len(sums.mean))).add(sums)
    return dict(sorted(groups.items(), key=lambda item: _order(item[0])))


def total(groups: Mapping[Group, Sums], channels: int) -> Sums:
    """The sums of all these groups together."""
    whole = Sums.zero(channels)
    for sums in groups.values():
        whole.add(sums)
    return whole


def _order(group: Group) -> tuple[str, str, str]:
    return group.dataset, group.split or "", group.kind


def normalising(groups: Mapping[Group, Sums]) -> tuple[str, dict[Group, Sums]]:
    """The groups whose means normalise latents, and what they are called, "av" or "all".

    Those of rows with pictures, as the released models have it; where there are none, all.
    """
    # Source: MMAudio@974010a: means and deviations of the first training set with pictures.
    video = {group: sums for group, sums in groups.items() if group.kind == "av"}
    return ("av", video) if video else ("all", dict(groups))


def tensors_of(
    groups: Mapping[Group, Sums], spec: SequenceSpec
) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of statistics.safetensors and its one metadata key.

    `mean`, `std`, `sample_mean`, `sample_std` (C,) float32 are over the groups that normalise latents,
    `all_…` over all rows. `group_…` are the sums that any choice of groups is made from.
    """
    channels = spec.audio.latent_channels
    over, normal = normalising(groups)
    tensors = {}
    for prefix, chosen in (("", normal), ("all_", groups)):
        whole = total(chosen, channels)
        for name, (mean, std) in (("", whole.of_means()), ("sample_", whole.of_samples())):
            tensors[f"{prefix}{name}mean"] = torch.from_numpy(mean).float()
            tensors[f"{prefix}{name}std"] = torch.from_numpy(std).float()
    arrays = [sums.arrays() for sums in groups.values()]
    for place, name in enumerate(_SUMS):
        stacked = np.stack([row[place] for row in arrays]) if arrays else np.zeros((0, channels))
        tensors[f"group_{name}"] = torch.from_numpy(stacked)
    for name in _COUNTS:
        tensors[f"group_{name}"] = torch.tensor([getattr(s, name) for s in groups.values()]).long()
    listed = {"format": FORMAT, "groups": list(groups), "over": over}
    return tensors, {METADATA_KEY: canonical_json(listed)}


def read_groups(path: Path) -> dict[Group, Sums]:
    """The sums by group in a file of statistics.

    Raises:
        ManifestChanged: it is missing, unreadable, or no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            listed = json.loads(file.metadata()[METADATA_KEY])["groups"]
            sums = [file.get_tensor(f"group_{name}").numpy() for name in (*_COUNTS, *_SUMS)]
        return {
            Group(*group): Sums(int(rows), int(latents), *arrays)
            for group, rows, latents, *arrays in zip(listed, *sums, strict=True)
        }
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ManifestChanged(
            f"{path}: cannot be read ({type(error).__name__}: {error}), expected the statistics that "
            f"were sealed — {advice(path)}"
        ) from error
