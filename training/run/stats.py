"""stats.jsonl: what a run came to, a JSON object a line, units in the keys.

    {"kind": "begin", "step": 0, "device": "NVIDIA H100 80GB HBM3", "ranks": 8, …}
    {"kind": "training", "step": 200, "loss": 1.93, "learning_rate": 2e-05, "samples_per_s": 2501.3, …}
    {"kind": "validation", "step": 5000, "loss": 1.12, "num_samples": 2048, …}

`step` counts the steps that were done. A number that is not finite, or is not known, is null. A run that
goes on from step k forgets what came after it; what a killed process left half written is no line.
"""

import json
import math
from pathlib import Path
from typing import IO, Any

from curation.closing import Closing
from curation.files import disk_space, replacing

FILE = "stats.jsonl"


def read_stats(run: Path) -> list[dict[str, Any]]:
    """The lines of a run, in their order; none where there is no file."""
    path = run / FILE
    if not path.is_file():
        return []
    found = (_parsed(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in found if line is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    is_line = isinstance(found, dict) and isinstance(found.get("step"), int) and "kind" in found
    return found if is_line else None


class Stats(Closing):
    """The file, to be written on."""

    def __init__(self, run: Path, *, resumed_step: int) -> None:
        """Keep the lines of steps up to `resumed_step`, and go on behind them."""
        self._path = run / FILE
        lines = [line for line in read_stats(run) if line["step"] <= resumed_step]
        # rewritten also where nothing is left out: a torn line would be joined by the next one
        with replacing(self._path) as temporary:
            temporary.write_text("".join(map(_line, lines)), encoding="utf-8")
        with disk_space(self._path):
            self._stream: IO[str] = self._path.open("a", encoding="utf-8")

    def add(self, kind: str, step: int, **numbers: Any) -> None:
        """Write a line; it is there when this returns.

        Raises:
            NoSpace: the disk is full.
        """
        with disk_space(self._path):
            self._stream.write(_line({"kind": kind, "step": step, **numbers}))
            self._stream.flush()

    def close(self) -> None:
        """Let go of the file, also where a line that was not written has no room still.

        Raises:
            NoSpace: the disk is full.
        """
        with disk_space(self._path):
            self._stream.close()

    def leave(self, error: BaseException | None) -> None:
        """Close it."""
        self.close()


def _line(values: dict[str, Any]) -> str:
    return json.dumps(_finite(values), ensure_ascii=False, separators=(", ", ": ")) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
