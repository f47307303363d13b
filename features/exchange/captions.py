"""The captions of memory-mapped folders, each with the text features that its rows have in common.

Rows whose caption is one and whose text features are not are an error, since one of the two belongs to
another caption. Features that are not finite say nothing: their rows are rejects.

Shape suffixes: T tokens, D width.
"""

import hashlib
from collections.abc import Sequence

import torch

from curation.errors import BadMetadata
from features.exchange.memmap import MemmapSet
from features.spec import TEXT_TOKENS, TEXT_WIDTH

_Place = tuple[int, int]  # which folder, which row of it


class Captions:
    """All captions of some folders.

    Attributes:
        all: each once, the empty one first, also where no row has it; then sorted.
    """

    def __init__(
        self, sets: Sequence[MemmapSet], *, tolerance: float = 0.0, empty: torch.Tensor | None = None
    ) -> None:
        """Find the rows of each caption.

        Args:
            tolerance: by how much text features of one caption may differ.
            empty: text features (T, D) of the empty caption where no row has any; None: zeros.
        """
        self._sets, self._tolerance, self._empty = sets, tolerance, empty
        self._places: dict[str, list[_Place]] = {"": []}
        for source, rows in enumerate(sets):
            for row, caption in enumerate(rows.captions):
                self._places.setdefault(caption, []).append((source, row))
        self.all = sorted(self._places)

    def empty_text(self) -> str:
        """Where text row 0 comes from: "rows", "zeros", or the sha256 of what was given, in bf16."""
        if any(_is_finite(self._read(place)) for place in self._places[""]):
            return "rows"
        if self._empty is None:
            return "zeros"
        held = self._empty.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
        return f"sha256:{hashlib.sha256(held.tobytes()).hexdigest()}"

    def text_of(self, caption: str) -> torch.Tensor | None:
        """The text features (T, D) of a caption in bf16; None: they are finite in none of its rows.

        Raises:
            BadMetadata: two of its rows have different ones.
        """
        first: tuple[torch.Tensor, _Place] | None = None
        for place in self._places[caption]:
            text = self._read(place)
            if not _is_finite(text):
                continue
            if first is None:
                first = text, place
            elif not self._is_same(text, first[0]):
                raise BadMetadata(
                    f"{self._id(first[1])} and {self._id(place)}: one caption, {caption!r}, and "
                    "different text features, expected the same — one row belongs to another caption, "
                    "or the two were encoded apart (then allow a difference: --text-tolerance)"
                )
        if first is not None:
            return first[0]
        if caption:
            return None
        empty = torch.zeros(TEXT_TOKENS, TEXT_WIDTH) if self._empty is None else self._empty
        return empty.to(torch.bfloat16)

    def _is_same(self, text: torch.Tensor, first: torch.Tensor) -> bool:
        if torch.equal(text, first):
            return True
        return float((text.float() - first.float()).abs().max()) <= self._tolerance

    def _read(self, place: _Place) -> torch.Tensor:
        source, row = place
        return self._sets[source].tensors["text"].read(row, row + 1)[0].to(torch.bfloat16)

    def _id(self, place: _Place) -> str:
        rows, row = self._sets[place[0]], place[1]
        return f"{rows.folder} row {row} ({rows.ids[row]})"


def _is_finite(text: torch.Tensor) -> bool:
    return bool(text.isfinite().all())
