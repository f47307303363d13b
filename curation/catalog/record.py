"""The completion record of a built dataset: `build.json`, written last, the truth about resuming.

Its key `digest` is the sha256 of all the rest: what does not match it was changed since.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curation.errors import ManifestChanged
from curation.files import digest_of, write_json

RECORD = "build.json"
FETCHED = "fetched.json"  # in the raw folder
OWN_LISTS = "lists"  # the folder of lists given to --test or --train as files


def dataset_folder(manifests: Path, dataset: str) -> Path:
    """Where a dataset is built: a list of one's own, whose name has a suffix, has a room apart."""
    return manifests / OWN_LISTS / dataset if "." in dataset else manifests / dataset


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `record` with its digest."""
    write_json(folder / RECORD, {**record, "digest": digest_of(record)})


def read_record(manifests: Path, dataset: str) -> dict[str, Any]:
    """The completion record of a built dataset, empty where there is none.

    Raises:
        ManifestChanged: it is not what build wrote.
    """
    path = dataset_folder(manifests, dataset) / RECORD
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


def fetched_record(raw: Path) -> dict[str, Any]:
    """What fetch noted in a raw folder, empty where that was lost: then the files are hashed again."""
    try:
        record: dict[str, Any] = json.loads((raw / FETCHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return {}
    whole = isinstance(record, dict) and all(isinstance(entry, dict) for entry in record.values())
    return record if whole else {}


def fetched_since_build(manifests: Path, dataset: str) -> bool:
    """Whether fetch brought files that the built manifest was not made from."""
    built = former_record(manifests, dataset).get("inputs", {}).get("raw", {})
    fetched = fetched_record(dataset_folder(manifests, dataset) / "raw")
    return any(built.get(path) != entry.get("sha256") for path, entry in fetched.items())


def stale_notes(manifests: Path, datasets: Iterable[str]) -> list[str]:
    """A line for each dataset whose files were fetched anew and not built."""
    return [
        f"{name}: its files were fetched anew since it was built — run: curate build {name}"
        for name in datasets
        if fetched_since_build(manifests, name)
    ]
