"""Training checkpoints as MMAudio writes them, of a network that is three tensors, by torch itself."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, SequentialLR

SHAPES = {
    "sync_pos_emb": (1, 1, 8, 3),
    "latent_mean": (1, 1, 4),
    "conv.weight": (5, 4, 3),
    "conv.bias": (5,),
}
FROZEN = "latent_mean"
NAMES = [name for name in SHAPES if name != FROZEN]  # in the order of the optimizer
LEGACY = {"t_embed.freqs": torch.ones(2), "latent_rot": torch.ones(3, 2), "clip_rot": torch.ones(3, 2)}
WARMUP, MILESTONES = 4, [3, 5]


class Training:
    """A few parameters, their AdamW and its schedule, and two tracks of averages."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = {
            name: nn.Parameter(torch.randn(shape, generator=generator), requires_grad=name != FROZEN)
            for name, shape in SHAPES.items()
        }
        self.optimizer = torch.optim.AdamW(
            [self.weights[name] for name in NAMES],
            lr=1e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=1e-6, fused=True,
        )  # fmt: skip
        warmup = LambdaLR(self.optimizer, lambda it: (it + 1) / (WARMUP + 1))
        after = MultiStepLR(self.optimizer, MILESTONES, 0.1)
        self.scheduler = SequentialLR(self.optimizer, [warmup, after], [WARMUP])
        self.averages = [
            {name: tensor.detach().clone() for name, tensor in self.weights.items()} for _ in range(2)
        ]
        self.iterations = 0

    def iterate(self, times: int = 1) -> None:
        """Gradients follow from the iteration."""
        for _ in range(times):
            for number, name in enumerate(NAMES):
                seed = 1000 * self.iterations + number
                generator = torch.Generator().manual_seed(seed)
                self.weights[name].grad = torch.randn(SHAPES[name], generator=generator)
            self.optimizer.step()
            for track, averages in enumerate(self.averages):
                for name, average in averages.items():
                    average.lerp_(self.weights[name].detach(), 0.5 / (track + 1))
            self.scheduler.step()
            self.iterations += 1

    def state(self) -> dict[str, Tensor]:
        """Of the network, with the tables that older versions stored."""
        return {name: tensor.detach().clone() for name, tensor in self.weights.items()} | LEGACY

    def ema(self) -> dict[str, Any]:
        found: dict[str, Any] = OrderedDict()
        for track, averages in enumerate(self.averages):
            for name, average in (averages | LEGACY).items():
                found[f"ema_models.{track}.ema_model.{name}"] = average.clone()
            found[f"ema_models.{track}._extra_state"] = {
                "initted": self.iterations > 0,
                "step": self.iterations,
            }
        return found

    def checkpoint(self, *, at_its_end: bool = False) -> dict[str, Any]:
        return {
            "it": self.iterations if at_its_end else self.iterations - 1,
            "weights": OrderedDict(self.state()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": self.ema(),
        }


def written(path: Path, content: Any, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path
