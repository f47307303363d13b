"""What a rank needs of its GPU's memory, by part, and which settings would fit into it.

    weights        4 bytes a parameter; gradients 4, moments of AdamW 8, each average 4 / ranks
    bf16 copies    2 bytes a parameter: what the passes compute with stays until the gradients are there
    kept           what the forward pass keeps for the gradients, of each sample computed at once
    reserve        what the device itself, its libraries and holes between tensors take; on a CPU
                   the program

With FSDP each rank has its part of weights, gradients and moments, and gathers a block at a time.

What is kept follows from the network and a table of bytes, `_KEPT`. It was made by counting what
autograd saves, which `tests/training/kept_bytes.py` does again. On an H200 a rank needed 7 to 10 % less
than this says (results/gpu_training_*.json), the reserve not counted.

Shapes: N latents, T CLIP tokens, S rows of conditions, D width, H hidden units, K taps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from curation.tables import number, size_text
from features.spec import SequenceSpec
from training.config import TrainConfig
from training.keys import text_of
from training.model.variants import (
    CLIP_WIDTH,
    SYNC_WIDTH,
    TEXT_WIDTH,
    TOKENS,
    Variant,
    variant_named,
)

_WEIGHT, _COPY, _MOMENTS = 4, 2, 8  # bytes a parameter
_HALF = 2  # bytes of a number in bf16
_BUFFERS = 2  # micro-batches that are on the device: one is computed with while the next one comes
_RESERVE_BYTES = 1_500_000_000  # the context of CUDA, its libraries and those of communication
_RESERVE_SHARE = 0.05  # holes between tensors
_PROGRAM_BYTES = 750_000_000  # on a CPU: Python, PyTorch and what they load


class Kept(NamedTuple):
    """Bytes kept for the gradients: of a block, for each token, by unit of its width or hidden units."""

    width: float
    hidden: float
    row: float  # for each row of conditions, by unit of the width
    end: float  # of the last layer, for each latent
    # of a projection of K taps, by unit of the width, of hidden units and of what comes in
    lifted: tuple[float, float]  # constant, and by tap
    projected: tuple[float, float]
    features: tuple[float, float]
    passing: float  # of the largest product while its gradients are computed, by hidden unit
    joined: float = 0  # of a joint block besides, for each token, by unit of its width


# By how the network is computed: compiled and plain in bf16, on a GPU; and in fp32 by the operators of
# `model.shifts` and `model.minimal`, on a CPU. In fp32 on a GPU all is twice as much.
_KEPT = {
    "compiled": Kept(22.5, 6, 16.7, 4, (4, 0), (6, 0), (2, 0), 12, joined=6),
    "plain": Kept(66, 8.2, 2, 10, (4, 0), (8, 0), (2, 0), 12),
    "own": Kept(64, 8.3, 4, 8, (8, 0), (8, 0), (4, 0), 16),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that a rank needs.

    Attributes:
        parts: by name.
        micro_batch: samples that are computed at once, for which this holds.
    """

    parts: dict[str, int]
    micro_batch: int

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())


def estimate(config: TrainConfig, *, ranks: int, duration_s: float = 8.0, on_gpu: bool = True) -> Memory:
    """What a rank of so many needs.

    Raises:
        UsageProblem: the batch cannot be dealt out evenly.
    """
    from training.data.batches import share_of

    variant = variant_named(config.variant)
    spec = SequenceSpec(sample_rate_hz=variant.sample_rate_hz, duration_s=duration_s)
    micro = share_of(config, ranks).size
    parts = {
        **_of_weights(config, ranks),
        "kept for gradients": micro * kept_bytes(config, spec, on_gpu=on_gpu),
        "batches": micro * _BUFFERS * _sample_bytes(spec),
    }
    if on_gpu:
        parts["reserve"] = _RESERVE_BYTES + round(_RESERVE_SHARE * sum(parts.values()))
    else:
        parts["program"] = _PROGRAM_BYTES
    return Memory(parts=parts, micro_batch=micro)


class Sizes(NamedTuple):
    """Numbers in the tensors of a network."""

    all: int  # buffers too: averages are of them as well
    trained: int
    adapters: int
    block: int  # of the largest block
    ends: int  # of what is in no block


@lru_cache(maxsize=32)
def sizes_of(config: TrainConfig) -> Sizes:
    """Of the network of a run."""
    import torch

    from training.model.groups import group_of
    from training.network import Network

    with torch.device("meta"):
        network = Network(variant_named(config.variant), config.switches)
    blocks = [*network.joint_blocks, *network.fused_blocks]
    in_blocks = [sum(p.numel() for p in block.parameters()) for block in blocks]
    adapters = 0
    if config.lora_rank:
        adapters = config.lora_rank * sum(
            len(p) + p[0].numel() for b in blocks for p in b.parameters() if p.ndim > 1
        )
    trained = sum(
        p.numel()
        for name, p in network.named_parameters()
        if p.requires_grad and group_of(name) not in config.freeze
    )
    whole = sum(p.numel() for p in network.parameters())
    return Sizes(
        all=whole + sum(b.numel() for b in network.buffers()) + adapters,
        trained=adapters or trained,
        adapters=adapters,
        block=max(in_blocks),
        ends=whole - sum(in_blocks),
    )


def _of_weights(config: TrainConfig, ranks: int) -> dict[str, int]:
    sizes = sizes_of(config)
    part = ranks if config.sharding == "fsdp" else 1
    parts = {
        "weights": _WEIGHT * sizes.all // part,
        "gradients": _WEIGHT * sizes.trained // part,
        "moments": _MOMENTS * sizes.trained // part,
        "averages": _WEIGHT * len(config.ema_sigmas) * (sizes.adapters or sizes.all) // ranks,
    }
    if config.precision == "bf16":
        parts["bf16 copies"] = _COPY * sizes.all
    if config.sharding == "fsdp":
        # what is in no block stays gathered; of blocks one is computed with while the next one comes,
        # and each has its gradients
        parts["gathered"] = _WEIGHT * (sizes.ends + 2 * 2 * sizes.block)
    return parts


def kept_bytes(config: TrainConfig, spec: SequenceSpec, *, on_gpu: bool = True) -> int:
    """What the passes keep for the gradients of one sample, at the most."""
    variant = variant_named(config.variant)
    kept, numbers = _kept(config, on_gpu=on_gpu)
    blocks = list(block_bytes(config, spec, on_gpu=on_gpu))
    if config.activation_checkpointing:
        # of each block what it is given, and all of the one that is computed again
        given = _HALF * variant.width * (spec.num_latents + spec.num_clip_frames + TOKENS)
        blocks = [numbers * given * len(blocks), max(blocks)]
    passing = kept.passing * spec.num_latents * variant.hidden
    return round(sum(blocks) + numbers * (sum(_end_bytes(kept, variant, spec)) + passing))


def _kept(config: TrainConfig, *, on_gpu: bool) -> tuple[Kept, int]:
    """The row of the table for a run, and by what it is multiplied."""
    fp32 = config.precision == "fp32"
    compiled = config.compile == "on" or (config.compile == "auto" and on_gpu)
    way = "compiled" if compiled else "own" if fp32 and not on_gpu else "plain"
    return _KEPT[way], 2 if fp32 and way != "own" else 1


def block_bytes(config: TrainConfig, spec: SequenceSpec, *, on_gpu: bool = True) -> Iterator[float]:
    """What each block keeps for the gradients of one sample, in their order."""
    variant = variant_named(config.variant)
    kept, numbers = _kept(config, on_gpu=on_gpu)
    token = numbers * (kept.width * variant.width + kept.hidden * variant.hidden)
    rows = numbers * kept.row * spec.num_sync_features * variant.width
    others = spec.num_clip_frames + TOKENS
    for block in range(variant.num_joint):
        updated = 0 if block == variant.num_joint - 1 else others
        tokens = spec.num_latents + updated
        yield (token + numbers * kept.joined * variant.width) * tokens + rows
    for _ in range(variant.num_fused):
        yield token * spec.num_latents + rows


def _end_bytes(kept: Kept, variant: Variant, spec: SequenceSpec) -> Iterator[float]:
    ends = (
        (spec.num_latents, variant.latent_channels, 7, 7),
        (spec.num_clip_frames, CLIP_WIDTH, 1, 3),
        (spec.num_sync_features, SYNC_WIDTH, 7, 3),
        (TOKENS, TEXT_WIDTH, 1, 1),
    )
    for tokens, inputs, taps, mlp_taps in ends:
        features = inputs * (kept.features[0] + kept.features[1] * taps)
        width = variant.width * (kept.lifted[0] + kept.lifted[1] * mlp_taps)
        hidden = variant.hidden * (kept.projected[0] + kept.projected[1] * mlp_taps)
        yield tokens * (features + width + hidden)
    yield kept.end * spec.num_latents * variant.width


def _sample_bytes(spec: SequenceSpec) -> int:
    """A sample on the device: features in bf16, both draws in float32."""
    latents = spec.num_latents * spec.audio.latent_channels
    features = (
        2 * latents
        + spec.num_clip_frames * CLIP_WIDTH
        + spec.num_sync_features * SYNC_WIDTH
        + TOKENS * TEXT_WIDTH
    )
    return _HALF * features + 2 * _WEIGHT * latents


def hint(
    config: TrainConfig,
    *,
    ranks: int,
    memory_bytes: int,
    duration_s: float = 8.0,
    on_gpu: bool = True,
    failed: bool = False,
) -> str:
    """Which settings would fit into the memory of a rank, as options that can be given.

    Args:
        failed: the present settings did not fit, whatever the estimate says.
    """
    from training.data.batches import share_of

    present = share_of(config, ranks).size
    found: list[tuple[TrainConfig, Memory]] = []
    for changes in _ways(config, ranks):
        most = present - 1 if failed and not changes else present
        for micro in range(most, 0, -1):
            tried = replace(config, **changes, micro_batch=micro)
            if (config.batch // ranks) % micro:
                continue
            need = estimate(tried, ranks=ranks, duration_s=duration_s, on_gpu=on_gpu)
            if need.total <= memory_bytes:
                found.append((tried, need))
                break
        if found and found[-1][1].micro_batch == present:
            break  # more changes would give no more
    if not found:
        return (
            f"nothing fits into {size_text(memory_bytes)} on {number(ranks, 'rank')}, not even one "
            "sample at a time: take more ranks with --set sharding=fsdp, or GPUs with more memory"
        )
    return "; or ".join(_way_text(config, tried, need, ranks) for tried, need in found)


def _ways(config: TrainConfig, ranks: int) -> list[dict[str, Any]]:
    """Changes that need less memory, beginning with none."""
    checkpointing = [{}] if config.activation_checkpointing else [{}, {"activation_checkpointing": True}]
    sharding = [{}] if ranks == 1 or config.sharding == "fsdp" else [{}, {"sharding": "fsdp"}]
    return [{**first, **second} for second in sharding for first in checkpointing]


def _way_text(config: TrainConfig, tried: TrainConfig, need: Memory, ranks: int) -> str:
    options = " ".join(
        f"--set {key}={text_of(value)}"
        for key, value, _ in tried.differences(config)
        if key != "micro_batch"
    )
    count = config.batch // ranks // need.micro_batch
    passes = f"{count:,} {'pass' if count == 1 else 'passes'}"
    return (
        f"{options} --set micro_batch={need.micro_batch} ({passes} a step, about "
        f"{size_text(need.total)})".strip()
    )
