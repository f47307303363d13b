"""The matrix as people read it: one row for each test set and training set, percentages as in
Table A4 of the paper (MMAudio, arXiv:2412.15322, supplement E)."""

from collections.abc import Sequence
from typing import Any

from curation.tables import Cell, render

LABELS = {"id": "id", "interval": "interval", "start": "same_start"}
_HEADER: tuple[str, ...] = (
    "test set",
    "in",
    "rows",
    "by id",
    "%",
    "interval",
    "same start",
    "re-uploads",
    "near",
)


def overlapping(tests: dict[str, Any], trains: Sequence[str], match: str) -> tuple[int, int, int]:
    """How many pairs of a test and a training set overlap, do not, and cannot be told.

    A known re-upload is an overlap, and so is a near-duplicate of the auto tier. Where files were not at
    hand, finding none tells nothing.
    """
    cells = [test["overlap"][key] for test in tests.values() for key in trains]
    found = unknown = 0
    for cell in cells:
        count = cell["test_items"][LABELS[match]]
        if count or cell["known_reupload"] or _near(cell):
            found += 1
        elif count is None or cell["empty_splits"]:
            unknown += 1
    return found, len(cells) - found - unknown, unknown


def matrix_text(
    tests: dict[str, Any], trains: Sequence[str], match: str, format: str
) -> tuple[str, list[str]]:
    """The matrix in one of `tables.FORMATS`, and lines on what the counts cannot tell.

    Held-out splits that share nothing, or cannot be told, are left out of all formats but CSV.
    """
    rows: list[list[Cell]] = []
    zero = unknown = 0
    for test in tests.values():
        first = True
        for key, cell in test["overlap"].items():
            items = cell["test_items"]
            found = cell["known_reupload"] or _near(cell)
            if format != "csv" and key not in trains and not found:
                if items["id"] is None:
                    unknown += 1
                    continue
                if items["id"] == 0:
                    zero += 1
                    continue
            name = _name(test) if first or format == "csv" else ""
            rows.append(_row(name if format != "csv" else test["list"], test, key, cell, match))
            first = False
    header = _HEADER if format != "csv" else (
        "test", "in", "train_rows", "id", "percent", "interval", "same_start", "reuploads", "near"
    )  # fmt: skip
    if not any(cell.get("near") for test in tests.values() for cell in test["overlap"].values()):
        header, rows = header[:-1], [row[:-1] for row in rows]  # no media were compared
    notes = [note for test in tests.values() for note in _notes(test, trains)]
    if zero or unknown:
        notes.append(
            f"not shown, cells of other held-out splits: {zero} that are zero, {unknown} that "
            "cannot be told"
        )
    return render(header, rows, format), notes


def groups_text(shared: dict[str, Any], format: str) -> str:
    """Group leakage as a table, test clips and training rows; only what is there, but in CSV all."""
    header = ["test set", "in", "shares", "test clips", "training rows"]
    words = {
        "other_time": "the video, at other times",
        "uploader": "an uploader",
        "caption": "a caption",
    }
    rows: list[list[Cell]] = []
    for test, cells in shared.items():
        for train, cell in cells.items():
            for kind, count in cell.items():
                if format == "csv" or (count and count["test_items"]):
                    found = [count["test_items"], count["train_items"]] if count else [None, None]
                    rows.append([test, train, words[kind], *found])
    return render(header, rows, format)


def _near(cell: dict[str, Any]) -> int | None:
    """Test clips with a near-duplicate of the auto tier, None where media were not compared."""
    return cell["near"]["test_items"] if cell.get("near") else None


def _name(test: dict[str, Any]) -> str:
    return f"{test['list']} ({test['size']:,})"


def _row(name: str, test: dict[str, Any], key: str, cell: dict[str, Any], match: str) -> list[Cell]:
    items = cell["test_items"]
    share = items[LABELS[match]]
    percent = None if share is None else f"{100 * share / test['size']:.1f}"
    if share and percent == "0.0":
        percent = "<0.1"
    return [
        name,
        key + (" (incomplete)" if cell["empty_splits"] else ""),
        cell["train_rows"],
        items["id"],
        percent,
        items["interval"],
        items["same_start"],
        cell["known_reupload"],
        _near(cell),
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
        if cell["empty_splits"]:
            notes.append(
                f"{test['list']} in {key}: INCOMPLETE, no rows of {', '.join(cell['empty_splits'])}: "
                "their files were not at hand"
            )
        if cell["published_list_bound"]:
            notes.append(
                f"{test['list']} in {key}: published lists exclude {cell['published_list_bound']:,} "
                "rows without naming the test clip (an upper bound)"
            )
        if (near := cell.get("near")) and near["review"]["pairs"]:
            notes.append(
                f"{test['list']} in {key}: {near['review']['test_items']:,} test clips have "
                f"near-duplicates of review tier ({near['review']['pairs']:,} pairs): somebody should "
                "look"
            )
        if suspected := cell.get("same_annotation", {}).get("pairs") and cell["same_annotation"]:
            odd = suspected["at_odd_starts"]
            notes.append(
                f"{test['list']} in {key}: same_annotation suspects {suspected['pairs']:,} pairs, of "
                f"{suspected['test_items']:,} test clips (review; chance alone gives "
                f"{suspected['by_chance']:,.0f}); {odd['pairs']:,} of them start at no multiple of ten "
                f"seconds (chance: {odd['by_chance']:,.0f})"
            )
    for entry in test["published_lists"]:
        if entry.get("missed_ids"):
            notes.append(
                f"{entry['name']} has {entry['test_ids_on_it']:,} of the {entry['test_ids']:,} ids of "
                f"{test['list']}; it misses {entry['missed_ids']:,} of the "
                f"{entry['overlapping_ids']:,} that overlap"
            )
    return notes
