"""Reports of a run, with a clock that tests move."""

from collections.abc import Callable
from typing import Any

from training.config import configured
from training.run.report import Report

BINS = 25
CONFIG = configured("S-16k", ["steps=1000", "batch=100"])
Make = Callable[..., Report]


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def numbers(**changes: Any) -> dict[str, Any]:
    """Of an interval."""
    usual = {
        "loss": 1.25,
        "loss_by_t": [1.0] * BINS,
        "learning_rate": 1e-4,
        "gradient_norm": 0.5,
        "waited_s": 0.0,
        "memory_bytes": 61_200_000_000,
    }
    return {**usual, **changes}
