"""Named lists: what a name given to --test or --train stands for, and the digest that pins it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.catalog.cards import OWN_LIST, Card
from curation.catalog.record import dataset_folder
from curation.errors import UsageProblem

_CLIP = "dataset || '/' || clip_id"
# The line of a clip, by what a card says pins its lists. Clip ids stay where source ids come and go
# with the files at hand.
_LINES = {
    "recording": f"coalesce(source || ':' || source_id || coalesce('@' || start_ms, ''), {_CLIP})",
    "clip_id": _CLIP,
}


def list_digest(pinned_by: str) -> str:
    """SQL that aggregates clips to the digest of their list.

    sha256 over the lines `source:source_id@start_ms\\n` (nothing after the id where the start is
    unknown; `dataset/clip_id\\n` where there is no source id, and where the card pins by clip_id),
    unique and sorted by bytes, which is how DuckDB compares strings.
    """
    line = f"({_LINES[pinned_by]} || chr(10))"
    return f"'sha256:' || sha256(coalesce(string_agg(distinct {line}, '' order by {line}), ''))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows of one dataset, by named list or by splits."""

    key: str  # as the user wrote it: "vggsound", "vggsound@mmaudio", "audioset/eval"
    dataset: str
    splits: tuple[str, ...] = ()  # rows of these splits, or …
    list_name: str | None = None  # … of this list, full name; of a list of one's own only its name
    known_digest: str | None = None  # of the registry, for lists that have one
    title: str = ""
    pinned_by: str = "recording"  # what its digest is made of, as the card says

    @property
    def lists(self) -> tuple[str, ...]:
        """The list as a sequence, empty for a selection by splits."""
        return (self.list_name,) if self.list_name and not self.splits else ()

    def where(self) -> str:
        """The SQL condition that selects these rows of the dataset's clips."""
        from curation.catalog.store import sql_text

        if self.splits:
            return f"split in ({', '.join(sql_text(split) for split in self.splits)})"
        assert self.list_name is not None, "a selection is by splits or by list"
        return f"list_contains(lists, {sql_text(self.list_name)})"

    @property
    def name(self) -> str:
        """The full name of the list; `<dataset>@<split>` for a split without one."""
        return self.list_name or f"{self.dataset}@{'+'.join(self.splits)}"


def heldout_selection(key: str, cards: dict[str, Card]) -> Selection:
    """What a name given to --test means: a dataset's default list, a named list, or a split.

    Raises:
        UsageProblem: no dataset, list or split of that name; the known ones are listed.
    """
    if is_own_list(key):
        return _own(key, cards, role="test")
    dataset, mark, name = _parts(key)
    card = _card(dataset, cards, key)
    if not name:
        default = next((named for named in card.lists if named.default), None)
        if default is not None:
            name = default.name
        else:
            if not card.test_splits:
                raise UsageProblem(
                    f"{key!r} has no test split or default list, expected one of: {_choices(card)}"
                )
            return _of_splits(key, card, card.test_splits, card.title)
    return _named(key, card, mark, name)


def train_selection(key: str, cards: dict[str, Card]) -> Selection:
    """What a name given to --train means: a dataset's train splits, a split, or a named list."""
    if is_own_list(key):
        return _own(key, cards, role="train")
    dataset, mark, name = _parts(key)
    card = _card(dataset, cards, key)
    if not name:
        if not card.train_splits:
            raise UsageProblem(f"{key!r} has no train split, expected one of: {_choices(card)}")
        return _of_splits(key, card, card.train_splits, card.title)
    return _named(key, card, mark, name)


def is_own_list(key: str) -> bool:
    """Whether a name given to --test or --train is that of a file."""
    return OWN_LIST.fullmatch(Path(key).name) is not None


def list_names(keys: Iterable[str]) -> tuple[str, ...]:
    """The names without the folders of lists of one's own: no path shall be in what is written."""
    return tuple(Path(key).name if is_own_list(key) else key for key in keys)


def _own(key: str, cards: dict[str, Card], *, role: str) -> Selection:
    """A list of one's own: its rows of the splits that have the role, all where none has it."""
    name = Path(key).name
    card = _card(name, cards, key)
    splits = tuple(s for s, split in card.splits.items() if split.role == role) or tuple(card.splits)
    return Selection(key=key, dataset=name, splits=splits, list_name=name, title=card.title)


def _of_splits(key: str, card: Card, splits: tuple[str, ...], title: str) -> Selection:
    return Selection(key=key, dataset=card.dataset, splits=splits, title=title, pinned_by=card.pinned_by)


def _parts(key: str) -> tuple[str, str, str]:
    """Dataset, mark and name of `dataset@list` and `dataset/split`; the last two empty without."""
    dataset, mark, name = re.fullmatch(r"([^@/]*)([@/]?)(.*)", key, flags=re.DOTALL).groups()  # type: ignore[union-attr]  # fits any text
    return dataset, mark, name


def _named(key: str, card: Card, mark: str, name: str) -> Selection:
    """Behind `/` the split; else the list, or the split where no list has that name."""
    for named in card.lists if mark != "/" else ():
        if named.name == name:
            return Selection(
                key=key,
                dataset=card.dataset,
                list_name=f"{card.dataset}@{name}",
                known_digest=named.digest,
                title=named.title,
                pinned_by=card.pinned_by,
            )
    if name in card.splits:
        return _of_splits(key, card, (name,), f"split {name}")
    what, known = "list", _choices(card)
    if mark == "/":
        what, known = "split", ", ".join(f"{card.dataset}/{split}" for split in card.splits)
    raise UsageProblem(f"unknown {what} {key!r}, expected one of: {known} — see: curate datasets")


def _card(dataset: str, cards: dict[str, Card], key: str) -> Card:
    if dataset not in cards:
        if Path(key).exists():
            raise UsageProblem(
                f"{key}: is no list of clips, expected a dataset, or a file whose name ends in .csv, "
                ".tsv, .txt or .parquet — unpack or rename it"
            )
        raise UsageProblem(
            f"unknown dataset {key!r}, expected one of: {', '.join(cards)}, or <dataset>@<list> — "
            "see: curate datasets, or give the folder of its card with --cards"
        )
    return cards[dataset]


def _choices(card: Card) -> str:
    names = [named.name for named in card.lists] + list(card.splits)
    return ", ".join(f"{card.dataset}@{name}" for name in dict.fromkeys(names))


def registry(cards: dict[str, Card], record: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every named list: registered size and digest beside those of the built one."""
    rows = []
    for card in cards.values():
        built = record.get(card.dataset, {}).get("lists", {})
        for named in card.lists:
            full = f"{card.dataset}@{named.name}"
            entry = built.get(full, {})
            known = named.digest == entry.get("digest")
            rows.append(
                {
                    "list": full,
                    "title": named.title,
                    "default": named.default,
                    "registered_size": named.size,
                    "registered_digest": named.digest,
                    "size": entry.get("size"),
                    "digest": entry.get("digest"),
                    "state": "not built"
                    if not entry
                    else "not registered"
                    if named.digest is None
                    else "known"
                    if known
                    else "unknown",
                }
            )
    return rows


def built_path(manifests: Path, dataset: str) -> Path:
    """Where the clips of a dataset lie."""
    return dataset_folder(manifests, dataset) / "clips.parquet"
