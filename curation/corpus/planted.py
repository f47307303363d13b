"""The truth about the offline corpus: what was planted, and what must come out of it.

The held-out side comes first, the training side second. Every pair of clips of the corpus that
shares a recording across two sets is here; a pair that is not here must not be found.
"""

from collections.abc import Iterable
from dataclasses import dataclass

# What each kind of planted pair shares; the only statement of it, made without any SQL.
RULES_OF_KIND = {
    "same start": ("same_id", "same_interval", "same_start"),
    "shifted": ("same_id", "same_interval"),
    "shifted by all but a millisecond": ("same_id", "same_interval"),
    "starts equal when rounded to a millisecond": ("same_id", "same_interval", "same_start"),
    "ends touch": ("same_id",),
    "ends touch when rounded to a millisecond": ("same_id",),
    "apart": ("same_id",),
    "no times": ("same_id", "same_interval"),
    "known re-upload": ("known_reupload",),
    "known re-upload, labelled alike": ("known_reupload", "same_annotation"),
    "on a published list": ("published_list",),
}
_MATCH_RULES = {"id": "same_id", "interval": "same_interval", "same_start": "same_start"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """One planted pair. A published list may name a training clip without the test clip."""

    kind: str  # of RULES_OF_KIND
    test_list: str  # "vggsound@official"
    heldout: tuple[str, str | None]  # dataset and clip_id
    column: str  # of the matrix: "audioset", or "audioset/eval" for a split that is held out
    train: tuple[str, str]
    recording: tuple[str, str]  # source and source_id of the training clip
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """Two clips that look alike to a careless eye and are of different recordings."""

    kind: str
    heldout: tuple[str, str]
    train: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Two clips under different names whose media show or sound the same event."""

    kind: str
    heldout: tuple[str, str]
    train: tuple[str, str]
    rule: str  # near_av, near_video or near_audio
    offset_s: float = (
        0.0  # time in the training clip = time in the held-out clip + offset_s, at its start
    )
    speed: float = 1.0  # of the training clip; 1.05 is faster
    mirrored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedMedia:
    """What `write_media` writes; a pair not in `copies` and of two recordings is unrelated."""

    files: dict[tuple[str, str], str]  # by dataset and clip_id: the path below the media folder
    copies: tuple[Copy, ...]
    near_misses: tuple[NearMiss, ...]
    damaged: tuple[tuple[str, str], ...]  # clips whose files cannot be read
    whole: tuple[tuple[str, str], ...]  # nobody's copies, and long enough for features


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A row or list entry that build must report."""

    dataset: str
    clip_id: str | None  # as build reads it; None for an entry of a list
    source_id: str | None
    reason: str  # of verdict.Reason
    kept: bool = False  # whether the row is in clips.parquet nevertheless
    likely_id: str | None = None  # what the id probably was, where twins.parquet can tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What `write_corpus` wrote, and what `write_media` writes beside it."""

    num_files: int
    num_datasets: int
    num_clips: dict[str, dict[str, int]]  # valid rows by dataset and split
    list_sizes: dict[str, int]  # clips of each named list, by full name
    overlaps: tuple[Overlap, ...]
    near_misses: tuple[NearMiss, ...]
    bad_rows: tuple[Doubt, ...]
    media: PlantedMedia

    def cell(self, test_list: str, column: str) -> list[Overlap]:
        """The planted pairs of one test list and one column of the matrix."""
        return [o for o in self.overlaps if (o.test_list, o.column) == (test_list, column)]

    def counts(self, test_list: str, column: str) -> dict[str, dict[str, int]]:
        """The four counts of a cell by id, interval and same start, where all of them are known."""
        pairs = self.cell(test_list, column)
        counts: dict[str, dict[str, int]] = {}
        for label, rule in _MATCH_RULES.items():
            matching = [pair for pair in pairs if rule in pair.rules]
            for name, values in _counted(matching).items():
                counts.setdefault(name, {})[label] = len(set(values))
        return counts


def _counted(pairs: list[Overlap]) -> dict[str, Iterable[object]]:
    return {
        "test_items": [pair.heldout for pair in pairs],
        "test_ids": [pair.recording for pair in pairs],
        "train_items": [pair.train for pair in pairs],
        "pairs": [(pair.heldout, pair.train) for pair in pairs],
    }
