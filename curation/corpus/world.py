"""The miniature world behind the offline corpus: rows of every dataset, and which of them are related.

Ids are drawn without repetition, also when case is ignored, so clips are related only where
something here says so. One seed decides everything.
"""

import random
import string
from dataclasses import dataclass
from typing import Any

from curation.corpus.planted import RULES_OF_KIND, Doubt, NearMiss, Overlap

_SEED = 2412_15322
_BASE64URL = string.ascii_letters + string.digits + "-_"
_LAST = "AEIMQUYcgkosw048"  # the last of eleven characters has four bits only, see identity.py
_CLIP_S = 10

# what `--test <dataset>` means for rows of a split
_TEST_LISTS = {
    ("vggsound", "test"): "vggsound@official",
    ("audiocaps", "test"): "audiocaps@v1",
    ("clotho", "evaluation"): "clotho@v2.1-evaluation",
    ("avsync15", "test"): "avsync15@test",
    ("audioset", "eval"): "audioset@eval",
    ("fsd50k", "eval"): "fsd50k@eval",
    **{("esc50", f"fold{fold}"): "esc50@all" for fold in range(1, 6)},
    **{("urbansound8k", f"fold{fold}"): "urbansound8k@all" for fold in range(1, 11)},
}
_TRAIN_SPLITS = {
    "audiocaps": ("train",),
    "audioset": ("balanced", "unbalanced"),
    "avsync15": ("train",),
    "clotho": ("development",),
    "freesound": ("train",),
    "fsd50k": ("dev",),
    "vggsound": ("train",),
    "wavcaps": ("soundbible", "audioset_sl", "bbc", "freesound"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A valid row of one dataset, before anybody wrote it down."""

    dataset: str
    split: str
    clip_id: str
    source: str
    source_id: str | None
    start_s: float | None = None
    end_s: float | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and clip_id."""
        return self.dataset, self.clip_id

    @property
    def column(self) -> str:
        """The column of the matrix that holds this row."""
        in_train = self.split in _TRAIN_SPLITS.get(self.dataset, ())
        return self.dataset if in_train else f"{self.dataset}/{self.split}"

    @property
    def test_list(self) -> str | None:
        """The default test list that holds this row."""
        return _TEST_LISTS.get((self.dataset, self.split))


class World:
    """Collects rows, damaged rows, lists and the truth about them."""

    def __init__(self) -> None:
        self.random = random.Random(_SEED)
        self.rows: list[Row] = []
        self.damaged: dict[str, list[Any]] = {}  # by path in the corpus: lines, or items of JSON
        self.lists: dict[str, list[Row]] = {}  # named lists that are files, by full name
        self.strangers: dict[str, list[str]] = {}  # entries of those lists that name no clip
        self.excluded: dict[str, list[tuple[str, str]]] = {}  # published lists: source and id
        self.heldout_of: dict[str, tuple[str, ...]] = {}  # … and the datasets they are about
        self.doubts: list[Doubt] = []
        self.near_misses: list[NearMiss] = []
        self._pairs: list[tuple[str, Row, Row, str]] = []
        self._taken: set[str] = set()

    # -- ids -----------------------------------------------------------------------------------

    def youtube_id(self, prefix: str = "") -> str:
        """A new id; some begin with `-` or `--`, as one in 64 and one in 4,096 do."""
        if not prefix:
            prefix = self.random.choices(["", "-", "--", "_"], [92, 4, 2, 2])[0]
        while True:
            middle = "".join(self.random.choices(_BASE64URL, k=10 - len(prefix)))
            if self._new(made := prefix + middle + self.random.choice(_LAST)):
                return made

    def number(self, low: int, high: int) -> str:
        """A new number as an id of Freesound or SoundBible."""
        while True:
            if self._new(made := str(self.random.randrange(low, high))):
                return made

    def claim(self, made: str) -> str:
        """Take an id that somebody else chose."""
        self._taken.add(made.lower())
        return made

    def _new(self, made: str) -> bool:
        if made.lower() in self._taken:
            return False
        self._taken.add(made.lower())
        return True

    def start(self) -> int:
        """A start in whole seconds, most often a multiple of ten as in AudioSet."""
        return self.random.choice([0, 10, 20, 30, 30, 30, 50, 70, 110, 160, 21, 37, 64, 145])

    # -- rows ----------------------------------------------------------------------------------

    def audioset(self, split: str, source_id: str, start_s: float, end_s: float | None = None) -> Row:
        end_s = start_s + _CLIP_S if end_s is None else end_s
        return self._add("audioset", split, f"{source_id}_{round(start_s * 1000)}", "youtube",
                         source_id, start_s, end_s)  # fmt: skip

    def vggsound(self, split: str, source_id: str, start_s: int) -> Row:
        return self._ten_seconds("vggsound", split, source_id, start_s)

    def audiocaps(self, split: str, source_id: str, start_s: int) -> Row:
        return self._ten_seconds("audiocaps", split, source_id, start_s)

    def _ten_seconds(self, dataset: str, split: str, source_id: str, start_s: int) -> Row:
        clip_id = f"{source_id}_{start_s:06d}"
        return self._add(dataset, split, clip_id, "youtube", source_id, start_s, start_s + _CLIP_S)

    def avsync15(self, split: str, source_id: str, start_s: int) -> Row:
        """A cut of two to four seconds out of ten; the interval is that of the ten."""
        cut = self.random.randrange(0, 13) / 2
        length = self.random.choice([2, 2.5, 3, 4])
        vid = f"{source_id}_{start_s:06d}_{start_s + _CLIP_S:06d}_{cut}_{min(cut + length, 10.0)}"
        return self._add("avsync15", split, vid, "youtube", source_id, start_s, start_s + _CLIP_S)

    def clotho(
        self,
        split: str,
        name: str,
        source_id: str | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Row:
        """A clip named by its file; without an id where the metadata do not find the sound."""
        clip_id = f"{split}/{name}"
        return self._add("clotho", split, clip_id, "freesound", source_id, start_s, end_s)

    def freesound(self, source_id: str) -> Row:
        return self._add("freesound", "train", source_id, "freesound", source_id)

    def wavcaps(self, part: str, source_id: str) -> Row:
        source = "youtube" if part == "audioset_sl" else part
        return self._add("wavcaps", part, f"{part}/{source_id}", source, source_id)

    def fsd50k(self, split: str, source_id: str) -> Row:
        return self._add("fsd50k", split, source_id, "freesound", source_id)

    def esc50(self, fold: int, source_id: str, take: str, target: int) -> Row:
        name = f"{fold}-{source_id}-{take}-{target}.wav"
        return self._add("esc50", f"fold{fold}", name, "freesound", source_id)

    def urbansound8k(self, fold: int, source_id: str, slice_: str, start_s: float, end_s: float) -> Row:
        name = f"{source_id}-{slice_}.wav"
        return self._add("urbansound8k", f"fold{fold}", name, "freesound", source_id, start_s, end_s)

    def _add(
        self,
        dataset: str,
        split: str,
        clip_id: str,
        source: str,
        source_id: str | None,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Row:
        row = Row(
            dataset=dataset,
            split=split,
            clip_id=clip_id,
            source=source,
            source_id=source_id,
            start_s=start_s,
            end_s=end_s,
        )
        self.rows.append(row)
        return row

    def of(self, dataset: str, *splits: str) -> list[Row]:
        """The rows of these splits (all without any) in the order in which they were made."""
        return [r for r in self.rows if r.dataset == dataset and (not splits or r.split in splits)]

    # -- truth ---------------------------------------------------------------------------------

    def share(self, kind: str, first: Row, second: Row, *, test_list: str | None = None) -> None:
        """Both rows share a recording; either may be the held-out side, where it is in a test list."""
        if test_list:
            self._pairs.append((kind, first, second, test_list))
            return
        for heldout, train in ((first, second), (second, first)):
            if heldout.test_list and heldout.test_list != train.test_list:
                self._pairs.append((kind, heldout, train, heldout.test_list))

    def share_recording(self, kind: str, row: Row) -> None:
        """`row` shares its recording with every row that was made before."""
        for other in self.rows:
            if other is not row and (other.source, other.source_id) == (row.source, row.source_id):
                self.share(kind, other, row)

    def near_miss(self, kind: str, heldout: Row, train: Row) -> None:
        """Both rows look alike and share nothing."""
        self.near_misses.append(NearMiss(kind=kind, heldout=heldout.key, train=train.key))

    def damage(self, path: str, line: Any, doubt: Doubt) -> None:
        """A row of the file `path` that build must refuse, with its reason."""
        self.damaged.setdefault(path, []).append(line)
        self.doubts.append(doubt)

    def overlaps(self) -> list[Overlap]:
        """Every planted pair with its rules, and what published lists name without a test clip."""
        found = [self._overlap(*pair) for pair in self._pairs]
        # Some clips of Clotho's evaluation split have no id; what the lists say of Clotho beyond its
        # known ids may be about them.
        clotho = ("clotho", None)
        numbers = {
            entry
            for name, entries in self.excluded.items()
            if "clotho" in self.heldout_of[name]
            for entry in entries
        } - {(row.source, row.source_id or "") for row in self.of("clotho", "evaluation")}
        found += [
            self._listed(clotho, "clotho@v2.1-evaluation", row)
            for row in self.rows
            if row.source == "freesound"
            and row.dataset != "clotho"
            and (row.source, row.source_id or "") in numbers
        ]
        zero_distance = self.lists["synchformer_zero_distance"]
        starts = {(row.source_id, row.start_s) for row in zero_distance}
        found += [
            self._listed(("vggsound", None), "vggsound@official", row)
            for row in self.rows
            if (row.source_id, row.start_s) in starts and row.test_list != "vggsound@official"
        ]
        return found

    def _overlap(self, kind: str, heldout: Row, train: Row, test_list: str) -> Overlap:
        rules = RULES_OF_KIND[kind]
        published = any(
            heldout.dataset in self.heldout_of[name] and (train.source, train.source_id) in entries
            for name, entries in self.excluded.items()
        )
        if published and "same_id" in rules:
            rules = (*rules, "published_list")
        return self._made(kind, test_list, heldout.key, train, rules)

    def _listed(self, heldout: tuple[str, None], test_list: str, train: Row) -> Overlap:
        kind = "on a published list"
        return self._made(kind, test_list, heldout, train, RULES_OF_KIND[kind])

    @staticmethod
    def _made(
        kind: str, test_list: str, heldout: tuple[str, str | None], train: Row, rules: tuple[str, ...]
    ) -> Overlap:
        return Overlap(
            kind=kind,
            test_list=test_list,
            heldout=heldout,
            column=train.column,
            train=train.key,
            recording=(train.source, train.source_id or ""),
            rules=rules,
        )
