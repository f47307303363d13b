"""Video and text as the network takes them in, whatever the latents and the time.

Shapes: B batch, T CLIP tokens, S features of synchronisation, L text tokens, D width.
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Conditions(NamedTuple):
    """Video and text of a batch, projected; of one sample, they serve a batch of any size.

    Attributes:
        clip: (B, T, D).
        sync: (B, S, D), or None where it is summed with CLIP.
        text: (B, L, D).
        whole: what conditions all tokens besides the time (B, D).
    """

    clip: Tensor
    sync: Tensor | None
    text: Tensor
    whole: Tensor

    def expand(self, batch: int) -> Self:
        """Those of one sample for `batch` of them, without copies."""
        return self._map(self, lambda one, _: one.expand(batch, *one.shape[1:]))

    def joined(self, other: Self) -> Self:
        """Two batches as one."""
        return self._map(other, lambda mine, theirs: torch.cat([mine, theirs]))

    def _map(self, other: Self, change: Callable[[Tensor, Tensor], Tensor]) -> Self:
        sync = None if self.sync is None or other.sync is None else change(self.sync, other.sync)
        return type(self)(
            clip=change(self.clip, other.clip),
            sync=sync,
            text=change(self.text, other.text),
            whole=change(self.whole, other.whole),
        )
