"""How many floating-point operations a sample costs, by part; a multiplication and addition are 2.

Counted is what the mathematics of the network needs if written down plainly, so that the share of a
machine's peak that a run reaches (MFU) is the same number for every implementation: conditions of frames
are taken for each latent, though ours computes fewer; products that are computed a second time, as under
activation checkpointing, count once; norms, activations and rotations do not count.

    linear, T tokens, I inputs, O outputs     2 T I O        of a convolution of K taps K times that
    attention, T tokens, width D              4 T² D         scores and weighted values
    gradients                                 the same again for the weights, and for the inputs

Features that come in need no gradient: the first product of a projection counts twice, not three times.
Nor does what only frozen weights have made: with frozen projections and conditions the way back ends in
the first block.

Source: MMAudio@974010a, counted with torch's FlopCounterMode: 183.6, 246.7, 959.6 and 1582.5 GFLOP a
sample of 8 s in training of S-16k, S-44k, M-44k and L-44k.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from features.spec import SequenceSpec
from training.model.variants import (
    CLIP_WIDTH,
    SYNC_WIDTH,
    TEXT_WIDTH,
    TOKENS,
    Switches,
    Variant,
)

_WIDE, _NARROW = 7, 3  # taps
# the groups that the inputs of a group are made with; tokens in a block have met its own modulation
_FEATURES: tuple[str, ...] = ()
_PROJECTED = ("projections",)
_CONDITIONS = (*_PROJECTED, "conditions")
_JOINT = (*_CONDITIONS, "joint")
_FUSED = (*_JOINT, "fused")
_FINAL = (*_FUSED, "final")
_ADAPTED = frozenset({"joint", "fused"})  # where adapters are


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Products of one kind, per sample."""

    group: str  # as `groups.GROUPS` has it
    name: str
    forward: int  # operations
    from_weights: bool = True  # whether it has weights; attention has none
    behind: tuple[str, ...]  # groups that its input is made with; none: of features alone

    @property
    def input_gradient(self) -> int:
        """Operations; of attention, which has two inputs to each product, twice as many."""
        return self.forward if self.from_weights else 2 * self.forward

    @property
    def weight_gradient(self) -> int:
        """Operations."""
        return self.forward if self.from_weights else 0


def parts(
    variant: Variant, *, duration_s: float = 8.0, switches: Switches | None = None
) -> tuple[Part, ...]:
    """All products that a sample of so many seconds needs."""
    spec = SequenceSpec(sample_rate_hz=variant.sample_rate_hz, duration_s=duration_s)
    latents, pictures, frames = spec.num_latents, spec.num_clip_frames, spec.num_sync_features
    summed = (switches or Switches()).sync == "sum"
    return (
        *_projections(variant, latents, pictures, frames),
        *_conditions(variant),
        # where features of synchronisation are summed with CLIP, its tokens are as many, and all latents
        # have one condition
        *_joint(variant, latents, frames if summed else pictures, 1 if summed else latents),
        *_fused(variant, latents, 1 if summed else latents),
        _linear("final", "modulation", 1, variant.width, 2 * variant.width, behind=_CONDITIONS),
        _linear(
            "final", "convolution", latents, variant.width, variant.latent_channels, _WIDE, behind=_FINAL
        ),
    )


def forward_flops(parts: Iterable[Part]) -> int:
    """Of a sample."""
    return sum(part.forward for part in parts)


def training_flops(
    parts: Iterable[Part], *, frozen: Iterable[str] = (), adapters_alone: bool = False
) -> int:
    """Of a sample, forward and backward.

    Args:
        frozen: groups whose weights and adapters need no gradient; nor do inputs that only they made.
        adapters_alone: no weights do, and inputs do behind the first of the adapters; products of the
            adapters, some hundredths, are left out.
    """
    trained = (_ADAPTED if adapters_alone else frozenset(_FINAL)).difference(frozen)
    total = 0
    for part in parts:
        total += part.forward
        if not trained.isdisjoint(part.behind):
            total += part.input_gradient
        if part.group in trained and not adapters_alone:
            total += part.weight_gradient
    return total


def _linear(
    group: str,
    name: str,
    tokens: int,
    inputs: int,
    outputs: int,
    taps: int = 1,
    *,
    behind: tuple[str, ...],
) -> Part:
    work = 2 * tokens * taps * inputs * outputs
    return Part(group=group, name=name, forward=work, behind=behind)


def _mlp(
    group: str, name: str, tokens: int, variant: Variant, taps: int = 1, *, behind: tuple[str, ...]
) -> Part:
    """Gated: three products between width and hidden units."""
    return _linear(group, name, 3 * tokens, variant.width, variant.hidden, taps, behind=behind)


def _projections(variant: Variant, latents: int, pictures: int, frames: int) -> Iterator[Part]:
    group, width = "projections", variant.width
    channels = variant.latent_channels
    yield _linear(group, "latents", latents, channels, width, _WIDE, behind=_FEATURES)
    yield _mlp(group, "latents MLP", latents, variant, _WIDE, behind=_PROJECTED)
    yield _linear(group, "CLIP", pictures, CLIP_WIDTH, width, behind=_FEATURES)
    yield _mlp(group, "CLIP MLP", pictures, variant, _NARROW, behind=_PROJECTED)
    # learned positions were added
    yield _linear(group, "sync", frames, SYNC_WIDTH, width, _WIDE, behind=_PROJECTED)
    yield _mlp(group, "sync MLP", frames, variant, _NARROW, behind=_PROJECTED)
    yield _linear(group, "text", TOKENS, TEXT_WIDTH, width, behind=_FEATURES)
    yield _mlp(group, "text MLP", TOKENS, variant, behind=_PROJECTED)


def _conditions(variant: Variant) -> Iterator[Part]:
    group, width = "conditions", variant.width
    yield _linear(group, "means of CLIP and text", 2, width, width, behind=_PROJECTED)
    yield _mlp(group, "of the clip", 1, variant, behind=_CONDITIONS)
    yield _linear(group, "time", 1, variant.time_width, width, behind=_FEATURES)
    yield _linear(group, "time", 1, width, width, behind=("conditions",))


def _stream(
    group: str,
    name: str,
    variant: Variant,
    tokens: int,
    rows: int,
    taps: int,
    *,
    behind: tuple[str, ...],
) -> Iterator[Part]:
    """A stream of a block that is updated; `rows` conditions modulate its tokens."""
    width = variant.width
    yield _linear(group, f"{name} modulation", rows, width, 6 * width, behind=_CONDITIONS)
    yield _linear(group, f"{name} queries, keys, values", tokens, width, 3 * width, behind=behind)
    yield _linear(group, f"{name} output", tokens, width, width, taps, behind=behind)
    yield _mlp(group, f"{name} MLP", tokens, variant, taps, behind=behind)


def _attention(group: str, tokens: int, width: int, *, behind: tuple[str, ...]) -> Part:
    work = 4 * tokens**2 * width
    return Part(group=group, name="attention", forward=work, from_weights=False, behind=behind)


def _joint(variant: Variant, latents: int, pictures: int, rows: int) -> Iterator[Part]:
    group, width = "joint", variant.width
    for number in range(variant.num_joint):
        yield from _stream(group, "latents", variant, latents, rows, _NARROW, behind=_JOINT)
        yield _attention(group, latents + pictures + TOKENS, width, behind=_JOINT)
        for name, tokens, taps in (("CLIP", pictures, _NARROW), ("text", TOKENS, 1)):
            if number < variant.num_joint - 1:
                yield from _stream(group, name, variant, tokens, 1, taps, behind=_JOINT)
            else:  # they are not updated any more
                yield _linear(group, f"{name} modulation", 1, width, 2 * width, behind=_CONDITIONS)
                yield _linear(
                    group, f"{name} queries, keys, values", tokens, width, 3 * width, behind=_JOINT
                )


def _fused(variant: Variant, latents: int, rows: int) -> Iterator[Part]:
    for _ in range(variant.num_fused):
        yield from _stream("fused", "latents", variant, latents, rows, _NARROW, behind=_FUSED)
        yield _attention("fused", latents, variant.width, behind=_FUSED)
