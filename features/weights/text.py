"""What is said of files of weights, for people and as JSON."""

from collections.abc import Sequence
from typing import Any

from curation.tables import number, render, size_text
from features.weights.fetch import FETCH_STATES, STATES, Fetched, Found, to_come
from features.weights.table import WeightFile


def found_text(found: Sequence[Found]) -> str:
    """A table of the files, and what is wrong with any."""
    header = ("file", "what", "state", "GB", "licence", "needed for")
    rows = [
        (
            e.file.name,
            e.file.title,
            _state(e),
            f"{_bytes(e) / 1e9:.2f}",
            _licence(e.file),
            e.file.needed_for,
        )
        for e in found
    ]
    return "\n".join([render(header, rows), *(f"{e.file.name}: {e.detail}" for e in found if e.detail)])


def _state(entry: Found) -> str:
    if entry.state == "begun":
        return f"begun, {100 * entry.bytes // entry.file.num_bytes} %"
    return "checked, converted" if entry.converted else entry.state


def _bytes(entry: Found) -> int:
    """Of the file that is there, or that would come."""
    return entry.bytes if entry.state in ("checked", "there", "wrong") else entry.file.num_bytes


def _licence(file: WeightFile) -> str:
    return file.licence + (" (unverified)" if "licence" in file.unverified else "")


def found_summary(found: Sequence[Found]) -> str:
    """`12 files = 1 checked + …`."""
    counts = found_counts(found)
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state] or state != "begun"]
    return f"{number(len(found), 'file')} = {' + '.join(parts)}"


def found_counts(found: Sequence[Found]) -> dict[str, int]:
    """How many files are in each state."""
    return {state: sum(entry.state == state for entry in found) for state in STATES}


def plan_summary(found: Sequence[Found]) -> str:
    """What would be fetched, and how much it is."""
    more = to_come(found)
    licences = ", ".join(sorted({file.licence for file in more.files}))
    return (
        f"{number(len(more.files), 'file')} to fetch, {size_text(more.fetched_bytes)}, and "
        f"{size_text(more.converted_bytes)} of safetensors copies, under: {licences}"
    )


def fetched_text(results: Sequence[Fetched]) -> str:
    """A table of what came, and why the rest did not."""
    header = ("file", "state", "GB", "sha256")
    rows = [(r.file.name, r.state, f"{r.bytes / 1e9:.2f}", (r.sha256 or "")[:12]) for r in results]
    return "\n".join(
        [render(header, rows), *(f"{r.file.name}: {r.detail}" for r in results if r.detail)]
    )


def fetched_summary(results: Sequence[Fetched]) -> str:
    """`4 files = 3 fetched + 1 at hand + 0 failed`."""
    counts = fetched_counts(results)
    parts = [f"{counts[state]} {state}" for state in FETCH_STATES]
    return f"{number(len(results), 'file')} = {' + '.join(parts)}"


def fetched_counts(results: Sequence[Fetched]) -> dict[str, int]:
    """How many files ended in each state."""
    return {state: sum(result.state == state for result in results) for state in FETCH_STATES}


def as_json(entry: Found | Fetched) -> dict[str, Any]:
    """One file with all that the table of weights says of it."""
    file = entry.file
    told: dict[str, Any] = {
        "name": file.name, "title": file.title, "url": file.url, "licence": file.licence,
        "needed_for": file.needed_for, "num_tensors": file.num_tensors, "num_values": file.num_values,
        "expected_bytes": file.num_bytes, "stated_size": file.stated or None, "md5": file.md5,
        "unverified": list(file.unverified), "state": entry.state,
        "path": None if entry.path is None else str(entry.path), "bytes": entry.bytes,
        "sha256": entry.sha256, "detail": entry.detail or None,
    }  # fmt: skip
    return told | ({"converted": entry.converted} if isinstance(entry, Found) else {})
