"""A network whose samples are known in closed form, which writes down how it is asked.

Its data are normal with the mean of the condition and the deviation s, so that the best velocity between
noise and data is known, and x1 = mean + s x0 is where it leads; with s = 0, along straight lines.
"""

from typing import Self

import torch
from torch import Tensor

EMPTY, EMPTY_TEXT = 0.5, -0.25


class Means:
    """Conditions of a network: the mean of the data of each sample, (B, 1, 1)."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def expand(self, batch: int) -> Self:
        return type(self)(self.mean.expand(batch, 1, 1))

    def joined(self, other: Self) -> Self:
        return type(self)(torch.cat([self.mean, other.mean]))


class StraightNetwork:
    """The mean is that of the clip and of the text, or EMPTY and EMPTY_TEXT of none, together."""

    def __init__(self, deviation: float = 0.0) -> None:
        self.deviation = deviation
        self.asked_conditions: list[int] = []  # batches
        self.asked: list[tuple[tuple[int, ...], float]] = []  # shapes of latents, and times

    def conditions(
        self, clip: Tensor | None, sync: Tensor | None, text: Tensor | None, *, num_latents: int
    ) -> Means:
        seen = torch.full((1, 1, 1), EMPTY) if clip is None else clip.mean((1, 2), keepdim=True)
        read = torch.full((1, 1, 1), EMPTY_TEXT) if text is None else text.mean((1, 2), keepdim=True)
        self.asked_conditions.append(max(len(seen), len(read)))
        return Means(seen + read)

    def velocity(self, latent: Tensor, t: Tensor | float, conditions: Means) -> Tensor:
        self.asked.append((tuple(latent.shape), float(t)))
        square = self.deviation**2
        pull = (t * square - (1 - t)) / ((1 - t) ** 2 + t**2 * square)
        return conditions.mean + pull * (latent - t * conditions.mean)

    def end(self, noise: Tensor, mean: Tensor | float) -> Tensor:
        """Where the noise is led to."""
        return mean + self.deviation * noise
