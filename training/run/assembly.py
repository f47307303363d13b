"""What is trained, put together: network, adapters, frozen parts, compiler, ranks, optimizer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from curation.errors import UsageProblem
from training.config import TrainConfig
from training.ema import Tracks
from training.model.groups import GROUPS
from training.model.variants import variant_named
from training.network import Network, build_network, load_released
from training.optim import adamw
from training.run.distributed import World
from training.run.owners import owned
from training.run.step import Trained


def new_network(
    config: TrainConfig,
    *,
    latent_mean: Tensor,
    latent_std: Tensor,
    empty_text: Tensor,
    weights: Mapping[str, Tensor] | None = None,
    what: str = "",
) -> Network:
    """The network that a run begins with, on the CPU.

    Args:
        latent_mean: (C,), as latent_std, of the latents that are trained on; and
        empty_text: (77, 1024), the features of the empty string: not used where there are
        weights: in the released layout, which have their own; `what` names their file.
    """
    variant = variant_named(config.variant)
    network = build_network(variant, seed=config.seed, switches=config.switches)
    if weights is None:
        with torch.no_grad():
            network.latent_mean.copy_(latent_mean.view(1, 1, -1))
            network.latent_std.copy_(latent_std.view(1, 1, -1))
            network.empty_string_feat.copy_(empty_text)
    else:
        load_released(network, weights, what=what)
    return network


def assembled(network: Network, config: TrainConfig, world: World) -> Trained:
    """A network, with its adapters, ready to be trained on this rank: frozen, compiled, wrapped."""
    frozen = tuple(begin for group in config.freeze for begin in GROUPS[group])
    for name, parameter in network.named_parameters():
        if frozen and name.startswith(frozen):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageProblem(
            f"freeze={','.join(config.freeze)}: leaves nothing to train, expected some groups not in "
            "it — leave one out"
        )
    network.train().to(world.device)
    network.recompute = config.activation_checkpointing
    if config.compile == "on" or (config.compile == "auto" and world.device.type == "cuda"):
        for part in (*blocks(network), *network.ends()):
            part.compile(fullgraph=True)
    model = _wrapped(network, config, world)
    return Trained(
        config=config,
        world=world,
        network=network,
        model=model,
        optimizer=adamw(network.parameters(), config),
    )


def blocks(network: Network) -> list[nn.Module]:
    """What is compiled, sharded and computed again by itself."""
    return [*network.joint_blocks, *network.fused_blocks]


def _wrapped(network: Network, config: TrainConfig, world: World) -> nn.Module:
    if world.size == 1:
        return network
    if config.sharding == "fsdp":
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in blocks(network):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
        return network
    ids = [world.device.index] if world.device.type == "cuda" else None
    # buffers are constants; gradients stay views of what is summed, which saves a copy of them
    return DistributedDataParallel(
        network, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )


def rehearse(trained: Trained, buffers: Mapping[str, Tensor]) -> None:
    """Pass once forward and back with zeros, before the first step of a process with several ranks.

    DDP deals its buckets anew after the first pass it sees; a run that goes on would sum gradients in
    another order in its first step than one that was never stopped.

    Args:
        buffers: of a micro-batch, as `ShardReader.allocate` makes them.
    """
    if not isinstance(trained.model, DistributedDataParallel):
        return
    device, mixed = trained.world.device, trained.config.precision == "bf16"
    kind = torch.bfloat16 if mixed else torch.float32
    zeros = {
        name: torch.zeros(value.shape, dtype=kind, device=device)
        for name, value in buffers.items()
        if name != "has_video"
    }
    size = len(zeros["clip"])
    nobody = torch.zeros(size, dtype=torch.bool, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        velocity = trained.model(
            zeros["latent_mean"].float(), zeros["clip"], zeros["sync"], zeros["text"],
            torch.zeros(size, device=device), without_clip=nobody, without_sync=nobody,
            without_text=nobody,
        )  # fmt: skip
    velocity.float().sum().backward()
    trained.optimizer.zero_grad(set_to_none=True)


def averages_of(trained: Trained) -> Tracks:
    """The averages that are this rank's: of its shards or its share; beside adapters, of them alone."""
    tensors = owned(trained)
    if trained.config.lora_rank:
        learning = {name for name, p in trained.network.named_parameters() if p.requires_grad}
        tensors = {name: tensor for name, tensor in tensors.items() if name in learning}
    return Tracks(tensors, sigmas=trained.config.ema_sigmas)
