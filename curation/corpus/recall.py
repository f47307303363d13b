"""What a detector found of what was planted: recall of each edit, false pairs, with Wilson's intervals.

A copy is found where it is paired with the clip it was made of, by its picture (near_video, near_av) or,
where it shares the sound alone, by its sound (near_audio, near_av). A pair at auto of two files that are
no copies of each other is false, with one exception: the user's own clips may be copies of each other,
which nobody here can know. Such pairs are told as `base_pairs`, to be looked at by eye, and what was
made of two such clips is neither right nor false.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from curation.corpus.edits import ALL_EDITS, PICTURE, SOUND
from curation.corpus.near_misses import PAIRS
from curation.corpus.planting import BASE, COPY, NEAR_MISS, NO_SOURCE, PlantedFile

AUTO, REVIEW, MISSED = "auto", "review", "missed"
TOGETHER = {
    "single": "singles together",
    "combination": "combinations together",
    "sound": "sound together",
}
_RULES_OF = {PICTURE: ("near_video", "near_av"), SOUND: ("near_audio", "near_av")}
_AT_S = 0.25  # by which the time of a copy may be off
_Z = 1.959964  # of the normal distribution, for 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A pair that the detector reports."""

    a: str  # files below the planted folder
    b: str
    rule: str
    tier: str
    offset_s: float  # time in b = time in a + offset_s, at the start of what they share


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many of a number."""

    of: int
    auto: int
    review: int

    @property
    def found(self) -> int:
        """At either tier."""
        return self.auto + self.review

    def as_json(self) -> dict[str, Any]:
        """The counts, and Wilson's interval of what was found at either tier, and at auto."""
        return {
            "of": self.of,
            "auto": self.auto,
            "review": self.review,
            "missed": self.of - self.found,
            "found_95": [round(bound, 4) for bound in wilson(self.found, self.of)],
            "auto_95": [round(bound, 6) for bound in wilson(self.auto, self.of)],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The outcome of a self-test."""

    copies: dict[tuple[str, str], str]  # by clip and edit: auto, review or missed
    edits: dict[str, Count]
    placed: tuple[int, int]  # found copies at the right time, of those whose time is known
    together: dict[str, Count]
    false_pairs: dict[str, Count]  # by kind: pairs that are no copies, and how many were reported
    false_found: list[Found]  # … at auto
    base_pairs: list[Found]
    undecided: int  # pairs of files of clips that may be copies of each other


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson, JASA 22 (1927), 209-212."""
    if not of:
        return 0.0, 1.0
    share, z2 = hits / of, _Z * _Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def measure(
    files: Sequence[PlantedFile], found: Iterable[Found], tests: set[str], ends_s: dict[str, float]
) -> Measured:
    """Compare what was reported with what was planted.

    Args:
        tests: the files that the detector was asked about: pairs without one of them do not count.
        ends_s: how long each file lasts.
    """
    by_file = {file.file: file for file in files}
    reported: dict[tuple[str, str], list[Found]] = {}
    for pair in found:
        reported.setdefault(_key(pair.a, pair.b), []).append(pair)
    base_of = {file.base: file.file for file in files if file.what == BASE}
    bases = set(base_of.values())
    base_pairs = [pair for key in sorted(reported) if bases.issuperset(key) for pair in reported[key]]
    groups = _groups(by_file, [pair for pair in base_pairs if pair.tier == AUTO])

    copies, placed = _copies(files, reported, base_of, ends_s)
    false_pairs, false_found, undecided = _false(files, reported, tests, groups)
    return Measured(
        copies=copies,
        placed=(sum(placed), len(placed)),
        edits={
            name: _of(copies, [name]) for name in ALL_EDITS if any(name == edit for _, edit in copies)
        },
        together={
            kind: _of(copies, [name for name, edit in ALL_EDITS.items() if edit.kind == kind])
            for kind in TOGETHER
        },
        false_pairs=false_pairs,
        false_found=false_found,
        base_pairs=base_pairs,
        undecided=undecided,
    )


def _copies(
    files: Iterable[PlantedFile],
    reported: dict[tuple[str, str], list[Found]],
    base_of: dict[str | None, str],
    ends_s: dict[str, float],
) -> tuple[dict[tuple[str, str], str], list[bool]]:
    """The outcome of each copy, and whether those that were found are at their time."""
    copies: dict[tuple[str, str], str] = {}
    placed: list[bool] = []
    for file in files:
        if file.what != COPY or file.base is None or file.edit is None:
            continue
        base = base_of[file.base]
        rules = _RULES_OF[ALL_EDITS[file.edit].shares]
        pairs = [pair for pair in reported.get(_key(file.file, base), []) if pair.rule in rules]
        copies[file.base, file.edit] = _tier(pairs)
        for pair in pairs[:1]:
            right = _is_placed(pair, file, ends_s[base])
            placed += [] if right is None else [right]
    return copies, placed


def _key(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _tier(pairs: Iterable[Found]) -> str:
    """The surest of these pairs."""
    tiers = {pair.tier for pair in pairs}
    return AUTO if AUTO in tiers else REVIEW if tiers else MISSED


def _is_placed(pair: Found, file: PlantedFile, end_s: float) -> bool | None:
    """Whether a copy was found at its time; None where that is not known.

    What is shared may begin anywhere in the clip, and at another speed the offset depends on where.
    """
    offsets = [ALL_EDITS[file.edit or ""].offset_s(time_s, end_s) for time_s in (0.0, end_s)]
    if offsets[0] is None or offsets[1] is None:
        return None
    offset_s = pair.offset_s if pair.b == file.file else -pair.offset_s
    return min(offsets) - _AT_S <= offset_s <= max(offsets) + _AT_S  # type: ignore[type-var,operator]


def _of(copies: dict[tuple[str, str], str], edits: Sequence[str]) -> Count:
    return _count([outcome for (_, edit), outcome in copies.items() if edit in edits])


def _count(outcomes: Sequence[str]) -> Count:
    return Count(of=len(outcomes), auto=outcomes.count(AUTO), review=outcomes.count(REVIEW))


def _groups(by_file: dict[str, PlantedFile], base_pairs: Iterable[Found]) -> dict[str, str]:
    """Clips that may be copies of each other have one name here."""
    group = {file.base: file.base for file in by_file.values() if file.base}

    def name_of(clip: str) -> str:
        while group[clip] != clip:
            group[clip] = clip = group[group[clip]]
        return clip

    for pair in base_pairs:
        one, other = (name_of(by_file[name].base or "") for name in (pair.a, pair.b))
        group[other] = one
    return {clip: name_of(clip) for clip in group}


def _false(
    files: Sequence[PlantedFile],
    reported: dict[tuple[str, str], list[Found]],
    tests: set[str],
    groups: dict[str, str],
) -> tuple[dict[str, Count], list[Found], int]:
    """Pairs of files that are no copies of each other, by kind; of those reported, what was said."""
    numbers, undecided = _numbers(files, tests, groups)
    place = {file.file: index for index, file in enumerate(files)}
    tiers: dict[str, list[str]] = {kind: [] for kind in numbers}
    false_found: list[Found] = []
    known = [key for key in reported if place.keys() >= set(key) and key[0] != key[1]]
    for key in sorted(known, key=lambda key: sorted(place[name] for name in key)):
        kind = _kind(files[place[key[0]]], files[place[key[1]]], groups)
        if kind is None or tests.isdisjoint(key):
            continue
        tiers[kind].append(_tier(reported[key]))
        false_found += [pair for pair in reported[key] if pair.tier == AUTO]
    counts = {
        kind: Count(of=of, auto=tiers[kind].count(AUTO), review=tiers[kind].count(REVIEW))
        for kind, of in numbers.items()
    }
    return counts, false_found, undecided


def _numbers(
    files: Sequence[PlantedFile], tests: set[str], groups: dict[str, str]
) -> tuple[dict[str, int], int]:
    """How many pairs there are of each kind of `_kind`, and of clips that may be copies."""
    alone = [file for file in files if file.what != NO_SOURCE]
    clips = _pairs_within(alone, tests, lambda file: file.base)
    grouped = _pairs_within(alone, tests, lambda file: groups[file.base or ""])
    sourced = _pairs_within(alone, tests, lambda file: None)
    numbers = {
        "unrelated": sourced - grouped,
        "degenerate": _pairs_within(files, tests, lambda file: None) - sourced,
    }
    for kind in PAIRS:
        missed = [file for file in alone if file.what == NEAR_MISS and file.edit == kind]
        numbers[kind] = _pairs_within(missed, tests, lambda file: file.base)
    return numbers, grouped - clips


def _pairs_within(
    files: Iterable[PlantedFile], tests: set[str], name: Callable[[PlantedFile], str | None]
) -> int:
    """How many pairs of files of one name have a file that was asked about."""
    size, others = Counter[str | None](), Counter[str | None]()
    for file in files:
        size[name(file)] += 1
        others[name(file)] += file.file not in tests
    return sum(math.comb(number, 2) - math.comb(others[key], 2) for key, number in size.items())


def _kind(a: PlantedFile, b: PlantedFile, groups: dict[str, str]) -> str | None:
    """Which kind of false pair two files would be; None where they may share a moment."""
    if NO_SOURCE in (a.what, b.what):
        return "degenerate"
    assert a.base, a
    assert b.base, b
    if a.base == b.base:
        return a.edit if a.what == b.what == NEAR_MISS and a.edit == b.edit else None
    return None if groups[a.base] == groups[b.base] else "unrelated"
