"""The command python -m training.launch, and shards for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_shards import ABOUT, sealed_folder
from small_training import training_rows

Run = Callable[..., tuple[int, str, str]]


def seal(folder: str, rate_hz: int = 16000, **options: Any) -> None:
    about = {**ABOUT, "sample_rate_hz": rate_hz, **options.pop("about", {})}
    sealed_folder(Path(folder), training_rows(), about=about, **options)
