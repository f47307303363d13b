"""Lists of one's own: a file given to --test or --train, compared like a dataset, without a card.

It is built into `lists/<file name>/` of the manifests folder, from a copy of the file and a card made
by looking at it. The name alone is enough later on; a file that changed is built anew, and nothing
else is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.catalog.build import Built, build
from curation.catalog.cards import Card, load_card
from curation.catalog.fetch import copy_raw
from curation.catalog.lists import is_own_list
from curation.catalog.newcard import described, write_card
from curation.catalog.problems import FILE as PROBLEMS_FILE
from curation.catalog.record import dataset_folder, former_record
from curation.catalog.shape import shape_of
from curation.catalog.store import built_lists, work_connection
from curation.errors import UsageProblem
from curation.files import locked, sha256_file

_NUM_SHOWN = 5
SPLIT = "all"  # of the rows of a list without a column of splits


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnList:
    """One list of the user's and what was read of it."""

    key: str  # as it was given: a path
    card: Card
    rows: int  # lines with something on them
    clips: int
    unknown: int  # lines whose id cannot be read
    first_unknown: tuple[tuple[int, str], ...]  # line number and text of some of them
    shape: tuple[str, ...]  # what was understood, in words

    @property
    def name(self) -> str:
        """The name it goes by in manifests: the file's."""
        return self.card.dataset

    def as_json(self) -> dict[str, Any]:
        """Its part of `curate overlaps --json`."""
        return {
            "list": self.name,
            "rows": self.rows,
            "clips": self.clips,
            "unknown": self.unknown,
            "unknown_lines": [line for line, _ in self.first_unknown],
        }

    def same_as(self, digest: str, cards: dict[str, Card]) -> list[str]:
        """A line where the clips are those of a registered list."""
        known = [f"{c.dataset}@{n.name}" for c in cards.values() for n in c.lists if n.digest == digest]
        return [f"{self.name}: the same clips as {' and '.join(known)}"] if known else []

    def notes(self) -> list[str]:
        """What people should look at, a line each."""
        repeated = self.rows - self.clips - self.unknown
        lines = [
            f"{self.name}: {self.rows:,} rows = {self.clips:,} clips + {repeated:,} that repeat one "
            f"+ {self.unknown:,} unknown; {self.shape[0]}",
            *(f"{self.name}: {line}" for line in self.shape[1:]),
        ]
        if self.unknown:
            shown = ", ".join(f"line {line}: {text!r}" for line, text in self.first_unknown)
            lines.append(f"{self.name}: unknown: {shown}{', …' if self.unknown > _NUM_SHOWN else ''}")
        return lines


def take_lists(keys: Iterable[str], manifests: Path) -> list[OwnList]:
    """Build every list among these names that is new or changed.

    Raises:
        UsageProblem: a file is not there, two have one name, or no column names recordings.
        BadMetadata: a file cannot be read, or most of its lines name nothing.
    """
    paths: dict[str, str] = {}
    for key in dict.fromkeys(key for key in keys if is_own_list(key)):
        name = Path(key).name
        if paths.setdefault(name, key) != key and Path(key) != Path(paths[name]):
            raise UsageProblem(
                f"{paths[name]} and {key} are two lists of one name, expected names of their own — "
                "rename one"
            )
    if not paths:
        return []
    others = {name.lower(): name for name in built_lists(manifests)}
    for name in paths:
        if others.get(name.lower(), name) != name:
            raise UsageProblem(
                f"{name}: a list named {others[name.lower()]} was compared before, expected names that "
                "differ by more than capitals — rename one"
            )
    with locked(manifests):
        return [_take(key, manifests) for key in paths.values()]


def _take(key: str, manifests: Path) -> OwnList:
    path, name = Path(key), Path(key).name
    folder = dataset_folder(manifests, name)
    raw = folder / "raw" / name
    known = key == name and former_record(manifests, name) and raw.is_file()  # by its name alone
    if not path.is_file() and not known:
        raise UsageProblem(
            f"{key}: no such file, expected a list of clips (.csv, .tsv, .txt or .parquet), the name of "
            "a dataset, or a list that was compared before — check the path"
        )
    shape = shape_of(path if path.is_file() else raw)  # before anything is written
    if path.is_file() and not (raw.is_file() and sha256_file(path) == sha256_file(raw)):
        copy_raw(path, raw)
    write_card(folder, shape, path=name, title=name, split=SPLIT, role="test")
    card = load_card(folder)
    (built,) = build([card], manifests)
    if built.error is not None:
        raise built.error
    return _told(key, card, built, manifests, tuple(described(shape)))


def _told(key: str, card: Card, built: Built, manifests: Path, shape: tuple[str, ...]) -> OwnList:
    with work_connection(manifests) as db:
        first = db.execute(
            "select origin.row, coalesce(source_id, '') from read_parquet(?) "
            f"where verdict = 'failed' order by all limit {_NUM_SHOWN}",
            [str(dataset_folder(manifests, card.dataset) / PROBLEMS_FILE)],
        ).fetchall()
    return OwnList(
        key=key,
        card=card,
        rows=sum(former_record(manifests, card.dataset)["raw_rows"].values()),
        clips=built.tally.kept,
        unknown=sum(built.tally.failed.values()),
        first_unknown=tuple(first),
        shape=shape,
    )
