"""A few steps of a small network, alone or sharded over ranks: `sharded_steps.py OUT [RANK WORLD]`.

The third step has a gradient that is not finite on the last rank alone. Rank 0 writes what came out.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from training.ema import Tracks
from training.optim import adamw, clip_by_norm, learning_rate, step_unless

CONFIG = SimpleNamespace(
    learning_rate=0.1, betas=(0.9, 0.95), eps=None, weight_decay=0.1, precision="fp32"
)
STEPS, BAD_STEP = 5, 2


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def average_of(tracks: Tracks, parameter: Tensor, name: str, sigma: float) -> Tensor:
    own = tracks.averages[sigma][name]
    if not isinstance(parameter, DTensor):
        return own
    return DTensor.from_local(
        own,
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape,
        stride=parameter.stride(),
    ).full_tensor()


def main(out: Path, rank: int, world: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))  # neither is cut evenly
    network[0].bias.requires_grad_(False)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{out}.store", rank=rank, world_size=world)
        for part in (network[0], network[2], network):
            fully_shard(part)
    optimiser = adamw(network.parameters(), CONFIG)
    tracks = Tracks(dict(network.named_parameters()))
    norms = []
    for step in range(STEPS):
        x = torch.randn(8, 6)[rank::world] * 10
        loss = network(x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        if step == BAD_STEP and rank == world - 1:
            gradient = network[2].bias.grad
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient)[-1] = torch.nan
        norms.append(clip_by_norm(network.parameters(), 1.0))
        optimiser.param_groups[0]["lr"] = learning_rate(step, base=0.1, warmup_steps=2)
        step_unless(optimiser, ~norms[-1].isfinite())
        tracks.update(dict(network.named_parameters()))
    found = {f"norm {step}": norm for step, norm in enumerate(norms)}
    for name, parameter in network.named_parameters():
        found[name] = whole(parameter.detach())
        for sigma in tracks.averages:
            found[f"{name} {sigma}"] = average_of(tracks, parameter.detach(), name, sigma)
    if rank == 0:
        torch.save(found, out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(map(int, sys.argv[2:]) if len(sys.argv) > 2 else (0, 1)))
