"""What a block begins and ends: one way to be left, with or without an error.

class Reader(Closing):
    def leave(self, error): self.close()

with Reader(…) as reader: …
"""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Something for a `with` block."""

    @abstractmethod
    def leave(self, error: BaseException | None) -> None:
        """End what was begun.

        Args:
            error: what ended the block, and goes on after this; None: it came to its end.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave(error)
