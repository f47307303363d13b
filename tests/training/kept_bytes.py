"""How many bytes autograd keeps for the gradients of a pass, counted without a GPU and without its work.

Tensors are fake: they have shapes, kinds and devices, and no contents. Weights do not count, nor do
matrices of attention that are as wide as long, which no GPU's kernels write.

As a script it prints what `training.run.memory` has in its table, for when the network has changed:
`.venv/bin/python tests/training/kept_bytes.py`.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from features.spec import SequenceSpec
from training import network as networks
from training.model import convolution
from training.model.blocks import Frames, FusedBlock, JointBlock
from training.model.ends import Final, Projection
from training.model.layers import nearest
from training.model.variants import VARIANTS, Switches, Variant

Inputs = Callable[[int], tuple[Any, ...]]
COMPILER = "aot_eager_decomp_partition"  # decides as inductor does what is computed again


@contextlib.contextmanager
def autocast(device: str, *, bf16: bool) -> Iterator[None]:
    """As `torch.autocast`, which refuses GPUs where there are none."""
    if not bf16:
        yield
        return
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, False)
        torch.clear_autocast_cache()


def _always(x: Tensor) -> bool:
    return True


def kept_of_sample(
    make: Callable[[], nn.Module],
    inputs: Inputs,
    *,
    device: str,
    bf16: bool,
    compiled: bool = False,
) -> float:
    """Bytes that are kept for each sample: what four of them need more than two, halved."""

    def kept(batch: int) -> int:
        with contextlib.ExitStack() as stack:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            with torch.device(device):
                module, given = make(), inputs(batch)
            if compiled:  # for a GPU, traced on a CPU
                stack.enter_context(mock.patch.object(convolution, "takes_images", _always))
                module.compile(backend=COMPILER, fullgraph=True, dynamic=False)
            tensors = [*module.parameters(), *module.buffers()]
            own = {tensor.untyped_storage()._cdata for tensor in tensors}
            found: dict[int, Tensor] = {}

            def note(value: Any) -> Any:
                if isinstance(value, Tensor) and not is_square(value):
                    storage = value.untyped_storage()
                    if storage._cdata not in own:
                        found[storage._cdata] = value
                return value

            with (
                torch.autograd.graph.saved_tensors_hooks(note, lambda value: value),
                autocast(device, bf16=bf16),
            ):
                module(*given)
            return sum(value.untyped_storage().nbytes() for value in found.values())

    return (kept(4) - kept(2)) / 2


def is_square(value: Tensor) -> bool:
    return value.ndim > 1 and value.shape[-1] == value.shape[-2] > 140


def real_nearest(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Which row is nearest to which token; how many that are is not known of fake tensors."""
    with unset_fake_temporarily(), torch.device("cpu"):
        return nearest(rows, tokens)


def some(*shape: int, bf16: bool) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16 if bf16 else torch.float32, requires_grad=True)


def network_kept(variant: Variant, spec: SequenceSpec, *, device: str, bf16: bool) -> float:
    """Bytes kept for each sample by a whole network that is not compiled."""

    def inputs(batch: int) -> tuple[Any, ...]:
        return (
            torch.empty(batch, spec.num_latents, variant.latent_channels),
            some(batch, spec.num_clip_frames, 1024, bf16=bf16).detach(),
            some(batch, spec.num_sync_features, 768, bf16=bf16).detach(),
            some(batch, 77, 1024, bf16=bf16).detach(),
            torch.empty(batch),
        )

    networks.nearest = real_nearest
    try:
        return kept_of_sample(
            lambda: networks.Network(variant, Switches()), inputs, device=device, bf16=bf16
        )
    finally:
        networks.nearest = nearest


def block_inputs(variant: Variant, spec: SequenceSpec, *, joint: bool, bf16: bool) -> Inputs:
    latents, rows, width = spec.num_latents, spec.num_sync_features, variant.width

    def inputs(batch: int) -> tuple[Any, ...]:
        shapes = (torch.empty(one.shape, dtype=torch.long) for one in real_nearest(rows, latents))
        frames = Frames(*shapes)
        table, other = (torch.empty(2, tokens, 1, 1, 32) for tokens in (latents, spec.num_clip_frames))
        latent, framewise = (some(batch, tokens, width, bf16=bf16) for tokens in (latents, rows))
        if not joint:
            return latent, framewise, frames, table
        clip, text, whole = (
            some(batch, tokens, width, bf16=bf16) for tokens in (spec.num_clip_frames, 77, 1)
        )
        return latent, clip, text, framewise, whole, frames, (table, other)

    return inputs


def block_kept(
    variant: Variant, spec: SequenceSpec, *, joint: bool, device: str, bf16: bool, compiled: bool
) -> float:
    """Bytes kept for each sample by a block."""
    return kept_of_sample(
        lambda: JointBlock(variant, last=False) if joint else FusedBlock(variant),
        block_inputs(variant, spec, joint=joint, bf16=bf16),
        device=device,
        bf16=bf16,
        compiled=compiled,
    )


# ---- the table anew ---------------------------------------------------------------------------------


def solved(terms: list[tuple[float, ...]], kept: list[float]) -> str:
    """The bytes by term that explain best what is kept, and the worst miss."""
    matrix, wanted = np.array(terms), np.array(kept)
    found, *_ = np.linalg.lstsq(matrix / wanted[:, None], np.ones(len(kept)), rcond=None)
    worst = np.abs(matrix @ found / wanted - 1).max()
    return f"{np.round(found, 2)} (misses up to {worst:.1%})"


def main() -> None:
    ways = {"compiled": ("cpu", True), "plain": ("cuda", True), "own": ("cpu", False)}
    variants = [VARIANTS[name] for name in ("tiny_44k", "small_44k", "medium_44k")]
    specs = [SequenceSpec(sample_rate_hz=rate_hz) for rate_hz in (44100, 16000)]
    torch._dynamo.config.recompile_limit = 1000
    for way, (device, bf16) in ways.items():
        how: dict[str, Any] = {"device": device, "bf16": bf16, "compiled": way == "compiled"}
        terms, kept = [], []
        for variant in variants:
            for spec in specs:
                kept.append(block_kept(variant, spec, joint=False, **how))
                latents, rows = spec.num_latents, spec.num_sync_features
                terms.append((latents * variant.width, latents * variant.hidden, rows * variant.width))
        print(f"{way}: width, hidden, row of a block {solved(terms, kept)}")
        for taps, mlp_taps, inputs in ((7, 7, 40), (1, 3, 1024), (7, 3, 768), (1, 1, 1024)):
            terms, kept = [], []
            for variant in variants:
                kept.append(_projection_kept(variant, taps, mlp_taps, inputs, **how))
                terms.append((345.0 * variant.width, 345.0 * variant.hidden, 345.0 * inputs))
            said = solved(terms, kept)
            print(f"{way}: width, hidden, features of a projection of {taps}, {mlp_taps} taps {said}")
        kept = [_final_kept(variant, **how) for variant in variants]
        print(f"{way}: end {solved([(345.0 * variant.width,) for variant in variants], kept)}")


def _projection_kept(variant: Variant, taps: int, mlp_taps: int, inputs: int, **how: Any) -> float:
    activation = nn.SELU() if taps == 7 else None
    return kept_of_sample(
        lambda: Projection(inputs, variant, taps=taps, mlp_taps=mlp_taps, activation=activation),
        lambda batch: (some(batch, 345, inputs, bf16=how["bf16"]),),
        **how,
    )


def _final_kept(variant: Variant, **how: Any) -> float:
    width = variant.width
    return kept_of_sample(
        lambda: Final(variant),
        lambda batch: tuple(some(batch, tokens, width, bf16=how["bf16"]) for tokens in (345, 1)),
        **how,
    )


if __name__ == "__main__":
    main()
