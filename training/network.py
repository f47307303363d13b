"""The network: a multimodal transformer that gives the velocity of latents under video and text.

    network = load_network("small_16k", state_dict)
    velocity = network(latent, clip, sync, text, t)

What does not depend on latents and time is computed once, by `conditions`; a sampler keeps it.

Shapes: B batch, N latents, C channels, T CLIP tokens, S features of synchronisation, D width.
Source: arXiv:2412.15322, Sec. 3 and G; the specification of MMAudio `networks.py`@974010a.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from features.encoders.state_dicts import refuse_misfits
from training.model.blocks import Frames, FusedBlock, JointBlock
from training.model.conditions import Conditions
from training.model.ends import Final, Projection, TimeEmbedding
from training.model.initial import initial_state
from training.model.layers import GatedMlp, nearest, rotation
from training.model.released import LEGACY, from_released, released_layout, to_released
from training.model.variants import (
    CLIP_WIDTH,
    SEGMENT,
    SYNC_WIDTH,
    TEXT_WIDTH,
    TOKENS,
    Switches,
    Variant,
    lengths,
    variant_named,
)

_WIDE, _NARROW = 7, 3  # taps
Without = Tensor | None  # (B,) bool: samples that get the empty condition; None: none does


class Network(nn.Module):
    """See the module; all its tensors are float32, in the layout of `model.released`.

    Attributes:
        recompute: blocks are computed again for the gradients, which saves most of the memory.
    """

    latent_mean: Tensor
    latent_std: Tensor
    empty_string_feat: Tensor

    def __init__(self, variant: Variant, switches: Switches | None = None) -> None:
        super().__init__()
        self.variant = variant
        self.recompute = False
        self.switches = switches = switches or Switches()
        width = variant.width
        wide = nn.SiLU() if variant.v2 else nn.SELU()
        narrow = nn.SiLU() if variant.v2 else None
        channels = variant.latent_channels
        self.register_buffer("latent_mean", torch.full((1, 1, channels), torch.nan))
        self.register_buffer("latent_std", torch.full((1, 1, channels), torch.nan))
        self.register_buffer("empty_string_feat", torch.full((TOKENS, TEXT_WIDTH), torch.nan))
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, SEGMENT, SYNC_WIDTH))
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, CLIP_WIDTH))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, SYNC_WIDTH))
        # what is never used cannot be trained; it stays in the layout
        self.empty_clip_feat.requires_grad_(switches.fill != "zeros")
        self.empty_sync_feat.requires_grad_(switches.fill != "zeros")
        if switches.fill == "learned":
            self.empty_text_feat = nn.Parameter(torch.zeros(TOKENS, TEXT_WIDTH))
        self.audio_input_proj = Projection(
            channels, variant, taps=_WIDE, mlp_taps=_WIDE, activation=wide
        )
        self.clip_input_proj = Projection(
            CLIP_WIDTH, variant, taps=1, mlp_taps=_NARROW, activation=narrow
        )
        self.sync_input_proj = Projection(
            SYNC_WIDTH, variant, taps=_WIDE, mlp_taps=_NARROW, activation=wide
        )
        self.text_input_proj = Projection(TEXT_WIDTH, variant, taps=1, mlp_taps=1, activation=narrow)
        self.clip_cond_proj = nn.Linear(width, width)
        self.text_cond_proj = nn.Linear(width, width)
        self.global_cond_mlp = GatedMlp(width, variant.hidden)
        self.final_layer = Final(variant)
        self.t_embed = TimeEmbedding(variant)
        last = variant.num_joint - 1
        self.joint_blocks = nn.ModuleList(
            JointBlock(variant, last=number == last) for number in range(variant.num_joint)
        )
        self.fused_blocks = nn.ModuleList(FusedBlock(variant) for _ in range(variant.num_fused))
        self._plans: dict[Any, tuple[Frames | None, tuple[Tensor, Tensor]]] = {}
        self._frames: dict[Any, Frames] = {}

    def ends(self) -> list[nn.Module]:
        """The parts before and behind the blocks that have work to do."""
        projections = (self.audio_input_proj, self.clip_input_proj, self.sync_input_proj)
        return [*projections, self.text_input_proj, self.final_layer]

    def normalise(self, latent: Tensor) -> Tensor:
        """Latents of the VAE in the space that the network works in."""
        return (latent - self.latent_mean) / self.latent_std

    def unnormalise(self, latent: Tensor) -> Tensor:
        """The way back."""
        return latent * self.latent_std + self.latent_mean

    def forward(
        self,
        latent: Tensor,
        clip: Tensor | None,
        sync: Tensor | None,
        text: Tensor | None,
        t: Tensor | float,
        *,
        without_clip: Without = None,
        without_sync: Without = None,
        without_text: Without = None,
    ) -> Tensor:
        """The velocity at time t: (B, N, C).

        Args:
            latent: (B, N, C), normalised.
            clip: (B, T, 1024); None: the empty condition for all samples. So with
            sync: (B, S, 768), and
            text: (B, 77, 1024).
            t: (B,), or one for all.
            without_clip: (B,) bool, the samples whose condition is replaced by the empty one; so with
            without_sync: and
            without_text: which may drop each by itself.
        """
        conditions = self.conditions(
            clip, sync, text, num_latents=latent.shape[1], without_clip=without_clip,
            without_sync=without_sync, without_text=without_text,
        )  # fmt: skip
        return self.velocity(latent, t, conditions)

    def conditions(
        self,
        clip: Tensor | None,
        sync: Tensor | None,
        text: Tensor | None,
        *,
        num_latents: int,
        without_clip: Without = None,
        without_sync: Without = None,
        without_text: Without = None,
    ) -> Conditions:
        """What a velocity needs of video and text; of one sample where all are None. See `forward`."""
        spec = lengths(num_latents, self.variant)
        own_text = self.empty_text_feat if self.switches.fill == "learned" else self.empty_string_feat
        clip = self._filled(clip, self.empty_clip_feat, spec.num_clip_frames, without_clip)
        sync = self._filled(sync, self.empty_sync_feat, spec.num_sync_features, without_sync)
        text = self._filled(text, own_text, TOKENS, without_text)
        positions = self.sync_pos_emb[0]  # float32, and so is the sum
        sync = (sync.unflatten(1, (-1, SEGMENT)) + positions).flatten(1, 2)
        batch = max(len(clip), len(sync), len(text))
        clip_tokens = self.clip_input_proj(clip)
        text_tokens = self.text_input_proj(text)
        sync_rows: Tensor | None = self.sync_input_proj(sync)
        pooled = self.clip_cond_proj(clip_tokens.mean(1)) + self.text_cond_proj(text_tokens.mean(1))
        if self.switches.sync == "sum":
            index, _ = self._nearest(clip_tokens.shape[1], sync.shape[1], clip_tokens.device)
            clip_tokens, sync_rows = clip_tokens.index_select(1, index) + sync_rows, None
        found = Conditions(clip_tokens, sync_rows, text_tokens, self.global_cond_mlp(pooled))
        return found.expand(batch)

    def _filled(self, given: Tensor | None, own: Tensor, tokens: int, without: Without) -> Tensor:
        """Features with the empty condition where there are none: (B, T, W), or (1, T, W) of none."""
        if self.switches.fill == "zeros":
            own = torch.zeros_like(own)
        if given is None:
            return own.expand(1, tokens, -1)
        if without is None:
            return given
        return torch.where(without[:, None, None], own.to(given.dtype), given)

    def velocity(self, latent: Tensor, t: Tensor | float, conditions: Conditions) -> Tensor:
        """The velocity (B, N, C) of normalised latents under conditions of as many, or of one."""
        batch, length, _ = latent.shape
        if len(conditions.text) != batch:
            conditions = conditions.expand(batch)
        times = torch.as_tensor(t, dtype=torch.float32, device=latent.device).expand(batch)
        whole = (self.t_embed(times) + conditions.whole)[:, None]
        framewise = whole if conditions.sync is None else whole + conditions.sync
        whole, framewise = functional.silu(whole), functional.silu(framewise)
        frames, tables = self._plan(length, conditions, latent.device)
        x, clip, text = self.audio_input_proj(latent), conditions.clip, conditions.text
        for block in self.joint_blocks:
            x, clip, text = self._run(block, x, clip, text, framewise, whole, frames, tables)
        for block in self.fused_blocks:
            x = self._run(block, x, framewise, frames, tables[0])
        velocity: Tensor = self.final_layer(x, whole)
        return velocity

    def _run(self, block: nn.Module, *given: Any) -> Any:
        """A block; where it is to be recomputed, only what it is given is kept for the gradients."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False)
        return block(*given)

    def _plan(
        self, length: int, conditions: Conditions, device: torch.device
    ) -> tuple[Frames | None, tuple[Tensor, Tensor]]:
        """Of these lengths, which row conditions which latent, and the tables of rotation."""
        tokens = conditions.clip.shape[1]
        rows = None if conditions.sync is None else conditions.sync.shape[1]
        key = (length, tokens, rows, device)
        if key not in self._plans:
            scale = length / tokens if self.switches.rope == "aligned" else 1.0
            tables = rotation(length), rotation(tokens, scale=scale)
            shaped = tuple(table[:, :, None, None].to(device) for table in tables)
            frames = None if rows is None else self._nearest(rows, length, device)
            self._plans[key] = frames, (shaped[0], shaped[1])
        return self._plans[key]

    def _nearest(self, rows: int, tokens: int, device: torch.device) -> Frames:
        """Kept on the device: it is asked for in every pass, and the way there waits."""
        key = (rows, tokens, device)
        if key not in self._frames:
            index, copies = nearest(rows, tokens)
            self._frames[key] = Frames(index.to(device), copies.to(device))
        return self._frames[key]


def build_network(variant: Variant, *, seed: int, switches: Switches | None = None) -> Network:
    """A network as training begins with it: float32, on the CPU; its velocity is zero everywhere.

    Latent statistics and the features of the empty string are NaN until they are set.
    """
    with torch.device("meta"):
        network = Network(variant, switches)
    state = initial_state(variant, seed=seed, fill=network.switches.fill)
    for name, buffer in network.named_buffers():
        state[name] = torch.full(buffer.shape, torch.nan)
    network.load_state_dict(state, strict=True, assign=True)
    return network


def load_network(variant: str, state_dict: Mapping[str, Tensor]) -> Network:
    """The network with released weights, in eval mode, float32, on the CPU, without gradients.

    Args:
        variant: small_16k, small_44k, medium_44k, large_44k or large_44k_v2.
        state_dict: in the released layout; the tables of older files may be in it.

    Raises:
        UsageProblem: there is no such variant.
        BadWeights: tensors are missing, unknown, misshaped, of another kind of number, or not finite.
    """
    chosen = variant_named(variant)
    with torch.device("meta"):
        network = Network(chosen)
    load_released(network, state_dict, what=f"the network {variant}")
    return network.eval().requires_grad_(False)


def load_released(network: Network, state_dict: Mapping[str, Tensor], *, what: str) -> None:
    """Put released weights into a network, in float32; see `load_network`.

    Args:
        what: names the checkpoint in messages.
    """
    shapes = released_layout(network.variant, fill=network.switches.fill)
    expected = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    refuse_misfits(
        expected, state_dict, what=what, constant=LEGACY,
        advice=f"give weights of {network.variant.name} (others take another --model) that were trained "
        f"with fill={network.switches.fill}; of a run, make them with: python -m training.export RUN; "
        "adapters go to --adapters",
    )  # fmt: skip
    given = {name: state_dict[name].float() for name in expected}
    network.load_state_dict(from_released(given), strict=True, assign=True)


def released_state(network: Network) -> dict[str, Tensor]:
    """All tensors of a network under their released names and in the released layout, exactly."""
    return to_released(network.state_dict(), network.variant)
