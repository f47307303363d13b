"""The outcome of a self-test as JSON and as tables."""

from typing import Any

from curation.corpus.edits import ALL_EDITS
from curation.corpus.recall import TOGETHER, Count, Found, Measured, wilson
from curation.tables import Cell, number, render

_FALSE = {
    "unrelated": "of two clips",
    "degenerate": "black, white, noise, cards, test pictures",
    "other_time": "one recording, no moment shared",
    "same_room": "one background, other events",
}


def as_json(measured: Measured) -> dict[str, Any]:
    """Everything that was measured; equal outcomes give equal JSON."""
    copies: dict[str, dict[str, str]] = {}
    for (clip, edit), outcome in sorted(measured.copies.items()):
        copies.setdefault(clip, {})[edit] = outcome
    return {
        "edits": {
            name: {"kind": ALL_EDITS[name].kind, **count.as_json()}
            for name, count in measured.edits.items()
        },
        "together": {kind: count.as_json() for kind, count in measured.together.items()},
        "placed": {"right": measured.placed[0], "of": measured.placed[1]},
        "false_pairs": {kind: count.as_json() for kind, count in measured.false_pairs.items()},
        "false_found": [_pair(pair) for pair in measured.false_found],
        "base_pairs": [_pair(pair) for pair in measured.base_pairs],
        "undecided_pairs": measured.undecided,
        "copies": copies,
    }


def _pair(pair: Found) -> dict[str, str]:
    return {"a": pair.a, "b": pair.b, "rule": pair.rule, "tier": pair.tier}


def text(measured: Measured, format_: str = "table") -> str:
    """The table of recall, that of false pairs, and what is to be looked at."""
    header = ("copy", "copies", "auto", "review", "missed", "found", "95 %", "what was done")
    rows = [_recall_row(name, count, ALL_EDITS[name].note) for name, count in measured.edits.items()] + [
        _recall_row(TOGETHER[kind], count, "") for kind, count in measured.together.items() if count.of
    ]
    false_header = ("no copies", "pairs", "auto", "review", "at auto, 95 %", "what they are")
    false_rows = [
        (kind, count.of, count.auto, count.review, _share(wilson(count.auto, count.of), 5), _FALSE[kind])
        for kind, count in measured.false_pairs.items()
    ]
    parts = [render(header, rows, format_), render(false_header, false_rows, format_)]
    right, of = measured.placed
    parts.append(f"{right:,} of {of:,} copies found are at the right time, within a quarter of a second")
    if measured.false_found:
        parts.append("At auto, and no copies:\n" + _listed(measured.false_found))
    if measured.base_pairs:
        parts.append(
            "Your own clips that may be copies of each other; look at them:\n"
            + _listed(measured.base_pairs)
        )
    return "\n\n".join(parts)


def _recall_row(name: str, count: Count, note: str) -> tuple[Cell, ...]:
    missed = count.of - count.found
    share = f"{count.found / count.of:.3f}" if count.of else None
    interval = _share(wilson(count.found, count.of), 3)
    return name, count.of, count.auto, count.review, missed, share, interval, note


def _share(interval: tuple[float, float], digits: int) -> str:
    return " to ".join(f"{bound:.{digits}f}" for bound in interval)


def _listed(pairs: list[Found]) -> str:
    rows = [(pair.a, pair.b, pair.rule, pair.tier) for pair in pairs]
    return render(("a", "b", "rule", "tier"), rows)


def summary(measured: Measured) -> str:
    """One line whose numbers add up."""
    copies = list(measured.together.values())
    total, auto = sum(count.of for count in copies), sum(count.auto for count in copies)
    review = sum(count.review for count in copies)
    none = list(measured.false_pairs.values())
    pairs, false = sum(count.of for count in none), sum(count.auto for count in none)
    doubtful = sum(count.review for count in none)
    return (
        f"{number(total, 'planted copy').replace('copys', 'copies')} = {auto:,} found at auto + "
        f"{review:,} at review + {total - auto - review:,} missed; "
        f"{number(pairs, 'pair')} of no copies = {pairs - false - doubtful:,} not reported + "
        f"{doubtful:,} at review + {false:,} at auto"
    )
