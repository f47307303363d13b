"""A micro-batch, and the memory it lies in.

Shapes: B samples, N latents, C channels, T pictures or tokens, S features of synchronisation.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from features import shards
from features.store.places import Numbers
from training.data.draws import Drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that are computed together, in the ring's memory or on a device.

    In the ring's memory it is valid until the next one is asked for. What `to` gives on a GPU is its
    own: it stays.
    """

    step: int
    micro: int  # which micro-batch of this rank in the step; in validation, in the pass
    slots: Numbers  # (B,) place of each sample in the global batch; in validation, among all samples
    rows: Numbers  # (B,) of the index
    latent_mean: Tensor  # (B, N, C) bf16, of the posterior
    latent_std: Tensor
    clip: Tensor  # (B, T, 1024) bf16, zeros where there is no picture
    sync: Tensor  # (B, S, 768) bf16, likewise
    text: Tensor  # (B, 77, 1024) bf16
    has_video: Tensor  # (B,) bool
    noise: Tensor  # (B, N, C) float32, of the posterior
    x0: Tensor  # (B, N, C) float32, where the path begins
    z: Tensor  # (B,) float32, the time before its sigmoid
    drop_clip: Tensor  # (B,) bool; so are
    drop_sync: Tensor
    drop_text: Tensor
    counted: Tensor  # False: fills the batch up to its size, in validation
    memory: "Buffers" = field(repr=False)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on a device; on a CPU itself.

        To a GPU the copy is begun, on a stream of its own beside the computing one, which waits for it.
        The ring's memory is not written to before the copy has ended.
        """
        device = torch.device(device)
        if device.type == "cpu":
            return self
        tensors = {name: getattr(self, name) for name in _TENSORS}
        there: dict[str, Any] = {**self.memory.copied_to(device, tensors)}
        return replace(self, **there)


_TENSORS = tuple(entry.name for entry in fields(Batch) if entry.type is Tensor)


class Buffers:
    """Memory for micro-batches of so many rows, pinned where there is a GPU."""

    def __init__(self, reader: shards.ShardReader, size: int) -> None:
        pinned = torch.cuda.is_available()
        self.size = size
        self.shards = reader.allocate(size)
        latents = self.shards["latent_mean"].shape

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, pin_memory=pinned)

        self.own = {
            "noise": empty(*latents, dtype=torch.float32),
            "x0": empty(*latents, dtype=torch.float32),
            "z": empty(size, dtype=torch.float32),
            **{
                name: empty(size, dtype=torch.bool)
                for name in ("drop_clip", "drop_sync", "drop_text", "counted")
            },
        }
        # what the threads of the draws write to
        self.drawn = Drawn(
            uniforms=np.empty((size, 3)),
            z=self.own["z"].numpy(),
            noise=self.own["noise"].numpy(),
            x0=self.own["x0"].numpy(),
        )
        self._copied: Any = None  # the event that ends the last copy
        self._stream: Any = None

    def wait(self) -> None:
        """Until what was copied from here has arrived."""
        if self._copied is not None:
            self._copied.synchronize()

    def copied_to(self, device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies of tensors that lie here, which the present stream of the device may use."""
        if device.type != "cuda":
            return {name: tensor.to(device) for name, tensor in tensors.items()}
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
            self._copied = torch.cuda.Event(blocking=True)
        computing = torch.cuda.current_stream(device)
        with torch.cuda.stream(self._stream):
            there = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
            self._copied.record(self._stream)
        computing.wait_event(self._copied)
        for tensor in there.values():
            tensor.record_stream(computing)  # its memory is not given away before that has used it
        return there
