"""The matrix as people read it: one row for each test set and training set, percentages as in
Table A4 of the paper (MMAudio, arXiv:2412.15322, supplement E)."""

from collections.abc import Sequence
from typing import Any

from curation.tables import Cell, render

_LABELS = {"id": "id", "interval": "interval", "start": "same_start"}
_HEADER = ("test set", "in", "rows", "by id", "%", "interval", "same start", "re-uploads")


def overlapping(tests: dict[str, Any], trains: Sequence[str], match: str) -> int:
    """How many pairs of a test set and a training set overlap, known re-uploads included."""
    return sum(
        bool(test["overlap"][key]["test_items"][_LABELS[match]])
        or bool(test["overlap"][key]["known_reupload"])
        for test in tests.values()
        for key in trains
    )


def matrix_text(
    tests: dict[str, Any], trains: Sequence[str], match: str, format: str
) -> tuple[str, list[str]]:
    """The matrix in one of `tables.FORMATS`, and lines on what the counts cannot tell.

    Held-out splits that share nothing are left out of the table for the screen.
    """
    rows: list[list[Cell]] = []
    hidden = 0
    for test in tests.values():
        for key, cell in test["overlap"].items():
            silent = key not in trains and not any(cell["test_items"].values())
            if silent and format == "table":
                hidden += 1
                continue
            rows.append(_row(test, key, cell, match))
    if format != "csv":
        shown = [[_name(test) if first else "" for first in _firsts(rows, test)]
                 for test in tests.values()]  # fmt: skip
        for row, name in zip(rows, [n for names in shown for n in names], strict=True):
            row[0] = name
    header = _HEADER if format != "csv" else (
        "test", "in", "train_rows", "id", "percent", "interval", "same_start", "reuploads"
    )  # fmt: skip
    notes = [note for test in tests.values() for note in _notes(test, trains)]
    if hidden:
        notes.append(f"{hidden} cells of other held-out splits are zero and not shown")
    return render(header, rows, format), notes


def _firsts(rows: list[list[Cell]], test: dict[str, Any]) -> list[bool]:
    mine = [row for row in rows if row[0] == test["list"]]
    return [index == 0 for index in range(len(mine))]


def _name(test: dict[str, Any]) -> str:
    return f"{test['list']} ({test['size']:,})"


def _row(test: dict[str, Any], key: str, cell: dict[str, Any], match: str) -> list[Cell]:
    items = cell["test_items"]
    share = items[_LABELS[match]]
    percent = None if share is None else f"{100 * share / test['size']:.1f}"
    return [
        test["list"],
        key,
        cell["train_rows"],
        items["id"],
        percent,
        items["interval"],
        items["same_start"],
        cell["known_reupload"],
    ]


def _notes(test: dict[str, Any], trains: Sequence[str]) -> list[str]:
    known = {
        True: "registered",
        False: "UNKNOWN: not the registered list",
        None: "no digest on record",
    }
    notes = [f"{test['list']}: {test['digest'][:19]}… {known[test['registered']]}"]
    if test["unidentified"]:
        notes.append(
            f"{test['list']}: {test['unidentified']:,} of {test['size']:,} clips have no source id, "
            "so nothing can be said of them by id"
        )
    for key in trains:
        cell = test["overlap"][key]
        if cell["unidentified"]:
            notes.append(f"{test['list']} in {key}: {cell['unidentified']:,} rows have no source id")
        if cell["published_list_bound"]:
            notes.append(
                f"{test['list']} in {key}: published lists exclude {cell['published_list_bound']:,} "
                "rows without naming the test clip (an upper bound)"
            )
    for entry in test["published_lists"]:
        if entry.get("missed_ids"):
            notes.append(
                f"{entry['name']} has {entry['test_ids_on_it']:,} of the {entry['test_ids']:,} ids of "
                f"{test['list']}; it misses {entry['missed_ids']:,} of the "
                f"{entry['overlapping_ids']:,} that overlap"
            )
    return notes
