"""Convolutions and what surrounds them, by each way they are computed."""

import pytest
import torch
from golden_weights import close
from torch import Tensor
from torch.nn import functional

from training.model.convolution import convolve, gated_mlp, windows
from training.model.images import by_images
from training.model.layers import Repeat, nearest


@pytest.mark.parametrize(("rows", "tokens"), [(192, 345), (192, 250), (24, 24), (88, 125), (16, 9)])
def test_gradients_of_repeated_rows_are_those_of_indexing(rows: int, tokens: int) -> None:
    x = torch.randn(2, rows, 5, dtype=torch.float64, requires_grad=True)
    index, copies = nearest(rows, tokens)
    weight = torch.randn(2, tokens, 5, dtype=torch.float64)
    (plain_gradient,) = torch.autograd.grad((x[:, index] * weight).sum(), x)
    (ours,) = torch.autograd.grad((Repeat.apply(x, index, copies) * weight).sum(), x)
    torch.testing.assert_close(ours, plain_gradient)


@pytest.mark.parametrize("taps", [1, 3, 7])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (3, 10), (2, 33)])
def test_convolutions_agree_with_conv1d(taps: int, batch: int, length: int) -> None:
    random = torch.Generator().manual_seed(taps * 100 + length)
    x, w, b, out = (
        torch.randn(shape, generator=random)
        for shape in [(batch, length, 6), (5, taps, 6), (5,), (batch, length, 5)]
    )

    def run(way, *given: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
        leaves = [tensor.clone().requires_grad_(True) for tensor in given]
        y = way(*leaves)
        return [y.detach(), *torch.autograd.grad((y * out).sum(), leaves)]

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = functional.conv1d(x.transpose(1, 2), w.transpose(1, 2), b, padding=taps // 2)
        return y.transpose(1, 2)

    def by_windows(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.linear(windows(x, taps), w.flatten(1), b)

    def as_images(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return by_images(x, w) + b

    for way in (convolve, by_windows, as_images):
        for ours, wanted in zip(run(way, x, w, b), run(theirs, x, w, b), strict=True):
            torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_gated_mlps_of_our_own_and_by_windows_agree() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 8, generator=random)
    w13, w2 = torch.randn(12, 3, 8, generator=random), torch.randn(8, 3, 6, generator=random)

    def run(dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(dtype).requires_grad_(True) for tensor in (x, w13, w2)]
        y = gated_mlp(*leaves)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    # float64 goes by windows and autograd
    for ours, wanted in zip(run(torch.float32), run(torch.float64), strict=True):
        assert close(ours, wanted.float(), 1e-5)
