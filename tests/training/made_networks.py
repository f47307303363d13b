"""Networks with weights from a seed, and inputs for them."""

import torch
from torch import Tensor

from features.weights.untrained import untrained_state
from training.model.released import released_layout
from training.model.variants import VARIANTS, Switches, lengths
from training.network import Network, load_released

Inputs = tuple[Tensor, ...]


def shaped(
    name: str, *, num_latents: int = 32, batch: int = 3
) -> tuple[Network, dict[str, Tensor], Inputs]:
    """A network with weights from a seed, they, and inputs for it."""
    variant = VARIANTS[name]
    given = weights_and_inputs(variant, Switches(), num_latents, batch)
    return made_network(variant, Switches()), *given


def weights_and_inputs(variant, switches: Switches, num_latents: int, batch: int):  # type: ignore[no-untyped-def]
    spec, random = lengths(num_latents, variant), torch.Generator().manual_seed(1)
    shapes = [
        (batch, num_latents, variant.latent_channels),
        (batch, spec.num_clip_frames, 1024),
        (batch, spec.num_sync_features, 768),
        (batch, 77, 1024),
    ]
    inputs = tuple(torch.randn(shape, generator=random) for shape in shapes)
    return state_of(variant, switches), (*inputs, torch.rand(batch, generator=random))


def state_of(variant, switches: Switches) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    shapes = released_layout(variant, fill=switches.fill)
    return untrained_state({k: torch.empty(v, device="meta") for k, v in shapes.items()}, 3)


def made_network(variant, switches: Switches) -> Network:  # type: ignore[no-untyped-def]
    network = Network(variant, switches)
    load_released(network, state_of(variant, switches), what="a test")
    return network
