"""The completion record of a built dataset: `build.json`, written last, the truth about resuming.

Its key `digest` is the sha256 of all the rest: what does not match it was changed since.
"""

import json
from pathlib import Path
from typing import Any

from curation.errors import ManifestChanged
from curation.files import digest_of, write_json

RECORD = "build.json"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `record` with its digest."""
    write_json(folder / RECORD, {**record, "digest": digest_of(record)})


def read_record(manifests: Path, dataset: str) -> dict[str, Any]:
    """The completion record of a built dataset, empty where there is none.

    Raises:
        ManifestChanged: it is not what build wrote.
    """
    path = manifests / dataset / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("digest") == digest_of(record):
            return record
    except FileNotFoundError:
        return {}
    except (ValueError, IsADirectoryError):
        pass
    raise ManifestChanged(
        f"{path}: not the record that build wrote, expected JSON with the digest of its content — "
        f"rebuild it with: curate build {dataset}"
    )


def former_record(manifests: Path, dataset: str) -> dict[str, Any]:
    """The completion record, empty also where it was changed: for whoever makes it anew or lists it."""
    try:
        return read_record(manifests, dataset)
    except ManifestChanged:
        return {}
