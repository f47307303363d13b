"""What a checkpoint is made of: named tensors, each whole or in rows that several ranks hold.

Which rank gives which pieces is the loop's affair. Here they must only fit together: the rows of each
tensor, counted on its first axis, must all be there, once.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.tensor import DTensor

# How a run names its tensors: each prefix goes before the network's own name.
WEIGHTS = "weights/"
FIRST_MOMENTS, SECOND_MOMENTS = "exp_avg/", "exp_avg_sq/"  # of AdamW
Shape = tuple[int, ...]


def averages(sigma_rel: float) -> str:
    """The prefix of averages of a width: "ema/0.05/"."""
    return f"ema/{sigma_rel:g}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Rows of a tensor, or all of it, where they lie now.

    Attributes:
        tensor: these rows; a plain tensor on any device, of a sharded one this rank's part.
        shape: of the whole tensor.
        offset: the first of these rows in the whole tensor; 0 where it is whole.
    """

    name: str
    tensor: Tensor
    shape: Shape
    offset: int = 0

    def __post_init__(self) -> None:
        mine, whole = tuple(self.tensor.shape), self.shape
        assert not isinstance(self.tensor, DTensor), f"{self.name}: sharded, expected this rank's part"
        assert len(mine) == len(whole), f"{self.name}: {mine} of {whole}, expected as many axes"
        assert mine[1:] == whole[1:], f"{self.name}: {mine} of {whole}, expected its rows"
        end = self.offset + rows_of(mine)
        assert 0 <= self.offset <= end <= rows_of(whole), f"{self.name}: rows {self.offset}–{end}"  # noqa: RUF001

    @property
    def is_nothing(self) -> bool:
        """Whether it holds no values of a tensor that has some: the shard of a rank too many."""
        return self.tensor.numel() == 0 and math.prod(self.shape) > 0


def whole(name: str, tensor: Tensor) -> Piece:
    """The piece of a tensor that this rank holds whole."""
    return Piece(name=name, tensor=tensor, shape=tuple(tensor.shape))


def rows_of(shape: Shape) -> int:
    """Along the first axis; a scalar is one row."""
    return shape[0] if shape else 1


def covers(parts: Iterable[tuple[int, int]], rows: int) -> bool:
    """Whether parts (first row, number of rows) are all rows of a tensor, each once."""
    end = 0
    for first, count in sorted(parts):
        if first != end:
            return False
        end += count
    return end == rows
