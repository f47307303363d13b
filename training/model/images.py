"""Convolutions over time on a GPU: cuDNN's of images of height 1 whose channels lie last.

Sequences (B, N, I) and weights (O, K, I) are such images as they lie. They are operators of their own to
the compiler, which would else give cuDNN another layout, and have it turn each tensor around and back.

Shapes: B batch, N time steps, I channels in, O channels out, K taps.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("foleyproof::by_images", mutates_args=())
def by_images(x_bni: Tensor, weight_oki: Tensor) -> Tensor:
    """The convolution, zero padded to equal length: (B, N, I) → (B, N, O); both contiguous."""
    padding = [0, weight_oki.shape[1] // 2]
    y = torch.ops.aten.convolution(
        _image(x_bni), _image(weight_oki), None, [1, 1], padding, [1, 1], False, [0, 0], 1
    )
    return _sequences(y)


@torch.library.custom_op("foleyproof::by_images_backward", mutates_args=())
def _backward(y_bno: Tensor, x_bni: Tensor, weight_oki: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of both from that of the result."""
    padding = [0, weight_oki.shape[1] // 2]
    x, weight, _ = torch.ops.aten.convolution_backward(
        _image(y_bno), _image(x_bni), _image(weight_oki), None, [1, 1], padding, [1, 1], False, [0, 0],
        1, [True, True, False],
    )  # fmt: skip
    return _sequences(x), _sequences(weight)


def _image(sequences: Tensor) -> Tensor:
    """(B, N, C) as (B, C, 1, N), a view."""
    return sequences.transpose(1, 2).unsqueeze(2)


def _sequences(image: Tensor) -> Tensor:
    return image.squeeze(2).transpose(1, 2).contiguous()


@by_images.register_fake
def _(x_bni: Tensor, weight_oki: Tensor) -> Tensor:
    return x_bni.new_empty((*x_bni.shape[:2], weight_oki.shape[0]))


@_backward.register_fake
def _(y_bno: Tensor, x_bni: Tensor, weight_oki: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x_bni), torch.empty_like(weight_oki)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, y_bno: Tensor) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = _backward(y_bno.contiguous(), *ctx.saved_tensors)
    return found


by_images.register_autograd(_gradients, setup_context=_keep)
