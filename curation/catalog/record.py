"""The completion record of a built dataset: `build.json`, written last, the truth about resuming."""

import json
from pathlib import Path
from typing import Any

RECORD = "build.json"


def read_record(manifests: Path, dataset: str) -> dict[str, Any]:
    """The completion record of a built dataset, empty where there is none."""
    try:
        text = (manifests / dataset / RECORD).read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(text)
    except (FileNotFoundError, ValueError):
        return {}
    return record
