"""What is compared with what: names of test and training sets resolved against what is built."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.evidence import FILE as EVIDENCE_FILE
from curation.catalog.lists import Selection, built_path, heldout_selection, is_own_list, train_selection
from curation.catalog.record import RECORD, read_record
from curation.catalog.store import built_datasets, num_rows
from curation.errors import ManifestChanged, UsageProblem

if TYPE_CHECKING:
    import duckdb

SIX_TRAINING_SETS = ("audioset", "audiocaps", "clotho", "freesound", "wavcaps", "vggsound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared with what."""

    manifests: Path
    tests: tuple[Selection, ...]
    trains: tuple[Selection, ...]  # training sets: their pairs are evidence
    others: tuple[Selection, ...] = ()  # held-out splits of built datasets: counted only
    margin_s: float = 0.0
    heldout_where: str = "true"  # narrows the held-out clips, as `curate blame` does
    train_where: str = "true"
    publishers: tuple[str, ...] = ()  # datasets whose published evidence counts
    records: dict[str, dict[str, Any]] = field(default_factory=dict)  # build.json by dataset

    @property
    def datasets(self) -> list[str]:
        """Every dataset with a part in it, in alphabetical order."""
        return sorted({s.dataset for s in (*self.tests, *self.trains, *self.others)})

    def empty_splits(self, selection: Selection) -> list[str]:
        """Splits of a selection that have no rows: their files were not at hand."""
        splits = self.records[selection.dataset]["splits"]
        return [split for split in selection.splits if splits[split]["rows"] == 0]

    def is_input(self, dataset: str) -> str:
        """The condition that a row of the dataset is in a training set, and no test item."""
        chosen = " or ".join(s.where() for s in self.trains if s.dataset == dataset)
        return f"({chosen or 'false'}) and not {self.is_item(dataset)}"

    def is_item(self, dataset: str) -> str:
        """The condition that a row of the dataset is an item of one of the test sets."""
        return f"({' or '.join(t.where() for t in self.tests if t.dataset == dataset) or 'false'})"


def not_built(
    tests: Iterable[str], *, train: Iterable[str] | None, manifests: Path, cards: dict[str, Card]
) -> list[str]:
    """Datasets that these names mean and that are not built; without any built, the six training sets.

    Raises:
        UsageProblem: a name is unknown.
    """
    named = {heldout_selection(key, cards).dataset for key in tests}
    if train is not None:
        named |= {train_selection(key, cards).dataset for key in train}
    elif not built_datasets(manifests):
        named |= set(SIX_TRAINING_SETS)
    records = {name: built_path(manifests, name).with_name(RECORD) for name in named}
    return sorted(name for name, path in records.items() if not path.is_file())


def compare(
    tests: Iterable[str],
    *,
    train: Iterable[str] | None,
    manifests: Path,
    cards: dict[str, Card],
    margin_s: float = 0.0,
    publishers: Iterable[str] | None = None,
) -> Comparison:
    """Resolve names against what is built.

    Args:
        train: None: the train splits of all that is built, and beside them its other splits.
        publishers: datasets whose published evidence counts; None: all that is built.

    Raises:
        UsageProblem: a name is unknown or not built yet.
        ManifestChanged: a built file is not the one that build completed.
    """
    heldout = tuple(heldout_selection(key, cards) for key in dict.fromkeys(tests))
    for one, other in combinations(heldout, 2):
        if one.name == other.name:
            raise UsageProblem(
                f"{one.key!r} and {other.key!r} are one list, {one.name}, expected each list once"
            )
    built = built_datasets(manifests)
    if train is not None:
        trains = tuple(train_selection(key, cards) for key in dict.fromkeys(train))
        others: tuple[Selection, ...] = ()
    elif built:
        if strange := sorted(set(built) - set(cards)):
            raise UsageProblem(
                f"{', '.join(strange)}: built in {manifests}, but no card is known of that name — give "
                "its folder with --cards DIR, or name the training sets with --train"
            )
        trains = tuple(train_selection(n, cards) for n in built if cards[n].train_splits)
        others = tuple(
            train_selection(f"{name}/{split}", cards)
            for name in built
            for split in cards[name].splits
            if split not in cards[name].train_splits and _has_rows(manifests, name, split)
        )
    else:
        raise UsageProblem(
            f"{manifests}: nothing is built there; without --train the six training sets "
            f"are compared ({', '.join(SIX_TRAINING_SETS)}), and fetching them needs the network — add "
            "--yes to fetch them, or give a folder with their metadata: curate fetch --from DIR && "
            "curate build"
        )
    if not heldout or not trains:
        raise UsageProblem(
            "no test set was named, or nothing that is built has a train split, expected one of each — "
            "build one, or name splits with --train; see: curate datasets"
        )
    comparison = Comparison(
        manifests=manifests,
        tests=heldout,
        trains=trains,
        others=others,
        margin_s=margin_s,
        publishers=tuple(built if publishers is None else publishers),
    )
    for dataset in comparison.datasets:
        if not built_path(manifests, dataset).with_name(RECORD).is_file():
            if is_own_list(dataset):
                raise UsageProblem(
                    f"{dataset}: was not compared in {manifests} before, expected its path — name "
                    "the file"
                )
            raise UsageProblem(
                f"{dataset} is not built in {manifests}, expected "
                f"{built_path(manifests, dataset)} — run: curate fetch {dataset} --from DIR && "
                f"curate build {dataset}"
            )
        record = read_record(manifests, dataset)
        _check_size(built_path(manifests, dataset), record)
        comparison.records[dataset] = record
    for dataset in comparison.publishers:
        _check_size(manifests / dataset / EVIDENCE_FILE, read_record(manifests, dataset))
    return comparison


def _has_rows(manifests: Path, dataset: str, split: str) -> bool:
    splits = read_record(manifests, dataset)["splits"]
    return split in splits and splits[split]["rows"] > 0


def _check_size(path: Path, record: dict[str, Any]) -> None:
    size = path.stat().st_size if path.is_file() else 0
    if (recorded := record["outputs"][path.name]["bytes"]) != size:
        raise ManifestChanged(
            f"{path}: {size:,} bytes, build completed it with {recorded:,} — rebuild it with: "
            f"curate build {path.parent.name}"
        )


def check_rows(db: "duckdb.DuckDBPyConnection", comparison: Comparison) -> None:
    """Raise ManifestChanged where a file has other rows than build completed it with."""
    for dataset, record in comparison.records.items():
        path = built_path(comparison.manifests, dataset)
        if (found := num_rows(db, path)) != record["kept"]:
            raise ManifestChanged(
                f"{path}: {found:,} rows, build completed it with {record['kept']:,} — rebuild it "
                f"with: curate build {dataset}"
            )
