"""Kept, dropped or failed: what becomes of every row that enters a stage, and the sum of it."""

from dataclasses import dataclass, field
from enum import StrEnum

from curation.tables import number


class Reason(StrEnum):
    """Why a row was dropped, failed, or is looked at twice; each is explained in README.md."""

    # build, failed: the row is not in clips.parquet
    MISSING_ID = "missing_id"
    BAD_ID = "bad_id"
    BAD_TIME = "bad_time"
    EMPTY_INTERVAL = "empty_interval"
    UNKNOWN_SPLIT = "unknown_split"
    DUPLICATE_CLIP = "duplicate_clip"
    # build, dropped: the row is not in clips.parquet
    REVOKED = "revoked"
    # build, kept: the row is in clips.parquet, and someone should look
    CASE_TWIN = "case_twin"
    UNLIKELY_ID = "unlikely_id"
    # build, looked at twice: the row failed as bad_id, and its likely id is known
    TRUNCATED_ID = "truncated_id"
    # build, unresolved: an entry of a named list, which is no row of the dataset and in no sum
    UNRESOLVED_ENTRY = "unresolved_entry"
    # clean, dropped: the row is in excluded.parquet
    SAME_RECORDING = "same_recording_as_heldout"
    REUPLOAD = "reupload_of_heldout"
    PUBLISHED = "on_published_exclusion_list"
    SAME_ANNOTATION = "same_annotation_as_heldout"
    NEAR_DUPLICATE = "near_duplicate_of_heldout"
    IN_TRAINING = "duplicate_in_training"
    LICENCE = "licence_not_allowed"
    # clean --extracted, unknown: the row is in rows.parquet, and not kept
    NO_SUCH_CLIP = "no_such_clip"
    AMBIGUOUS_ID = "ambiguous_id"
    HELD_OUT = "held_out"
    # scan, failed: the clip has no fingerprint
    NO_MEDIA = "no_media"
    NOT_MEDIA = "not_media"
    DAMAGED = "damaged"
    NO_STREAMS = "no_streams"
    TOO_LONG = "too_long"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    DECODER_CRASHED = "decoder_crashed"
    # scan, scanned: of a part of the file; extract, flagged
    PARTLY_DAMAGED = "partly_damaged"
    # extract, failed: the clip, or a part of it, has no row in the shards
    NO_SOUND = "no_sound"
    TOO_SHORT = "too_short"
    SILENT = "silent"
    NOT_FINITE = "not_finite"
    # extract, flagged, and failed where --reject names it
    UPSAMPLED = "upsampled"
    STILL = "still"
    NO_PICTURE = "no_picture"


# What a machine was short of, it may have the next time: such a clip is tried again by each run.
BY_MACHINE = frozenset((Reason.TIMEOUT, Reason.OUT_OF_MEMORY, Reason.DECODER_CRASHED))


@dataclass(slots=True)
class Tally:
    """Counts of one stage; `check` holds the first promise: nothing disappears."""

    seen: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Add the counts of another part of the stage."""
        self.seen += other.seen
        self.kept += other.kept
        for mine, theirs in ((self.dropped, other.dropped), (self.failed, other.failed)):
            for reason, n in theirs.items():
                mine[reason] = mine.get(reason, 0) + n

    def check(self) -> None:
        """Raise AssertionError unless seen = kept + dropped + failed."""
        total = self.kept + sum(self.dropped.values()) + sum(self.failed.values())
        assert self.seen == total, f"{self.seen} rows came in, {total} are accounted for: {self}"

    def sentence(self) -> str:
        """The sum as one line, e.g. "12 rows = 9 kept + 2 dropped (…) + 1 failed (bad_id 1)"."""
        parts = [f"{self.kept:,} kept"]
        for name, reasons in (("dropped", self.dropped), ("failed", self.failed)):
            if sum(reasons.values()):
                listed = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
                parts.append(f"{sum(reasons.values()):,} {name} ({listed})")
        return f"{number(self.seen, 'row')} = " + " + ".join(parts)
