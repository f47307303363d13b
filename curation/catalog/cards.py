"""Dataset cards: all that is known of a dataset, in one `card.toml` and one SELECT.

Adding a dataset adds a folder with these two files and no Python. Cards come with the package
(`manifests/<dataset>/` in a clone, `curation/cards/` in a wheel); `--cards DIR` adds a user's own, and
build keeps a copy of those beside what it makes, where every later command finds them.
"""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from curation.catalog.entries import make, named_tables, tables
from curation.catalog.identity import ID_SYNTAX
from curation.catalog.record import OWN_LISTS
from curation.errors import BadCard, UsageProblem

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # of datasets and files: safe as SQL identifier and path
# a list of one's own, given to --test or --train as a file: a dataset of the file's name
OWN_LIST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,80}\.(csv|tsv|txt|parquet)", flags=re.IGNORECASE)
# names of our own views, files and folders beside the datasets; a dataset may be named `clips`, as
# folders of clips are, and then has no view of its own
RESERVED = (
    "problems", "evidence", "overlaps", "twins", "clean", "fingerprints", "duplicates",
    "manifests", OWN_LISTS,
)  # fmt: skip
_Entry = TypeVar("_Entry")
CARD_FILES = ("card.toml", "clips.sql")
LIST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SPLIT_ROLES = ("train", "validation", "test")
RULES = ("known_reupload", "published_list", "same_annotation")
PARTNERS = ("same_id", "unknown")
MODALITIES = ("audio-video", "audio")
FORMATS = ("csv", "json", "parquet")
PINS = ("recording", "clip_id")
_JSON_TYPE = re.compile(r"[a-z][a-z0-9_ ,()\[\]]*")  # a DuckDB type, and nothing that ends a statement


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFile:
    """One metadata file of a dataset, as its publisher writes it."""

    name: str
    table: str  # its name in the card's SQL; files with one table are read one after another
    path: str  # below raw/, and below <dataset>/ in a folder given to `fetch --from`
    url: str
    format: str = "csv"  # one of FORMATS
    columns: tuple[str, ...] | dict[str, str] = ()  # names (csv: in order); json: name to DuckDB type
    header: bool = True  # csv: whether the first line names the columns
    delimiter: str = ","
    ragged: bool = False  # csv: each line is a row, whatever it holds; its number is that of the line
    by_hand: bool = False  # the address is a page on which people find it
    optional: bool = False  # without it the dataset is still built, and says what is missing
    unverified: bool = False  # nobody here has built from the real file yet
    short_lines: bool = False  # csv: a line may end early, the rest of its columns is null
    whole: bool = False  # json: the object itself is the one column, a map with ids for keys
    sha256: dict[str, str] = field(default_factory=dict)  # name of a known copy → digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One official split and what its publisher says of it."""

    role: str  # "train", "validation" or "test"
    published: int | None = None  # rows, as stated by `counted_by`
    counted_by: str = ""
    apart: bool = False  # the name of the dataset does not mean it: only a later edition has its clips


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedList:
    """A test set (or any other selection of clips) that papers name, pinned by digest."""

    name: str  # with the dataset: "vggsound@mmaudio"
    title: str
    split: str | None = None  # the list is this split, or …
    sql: str | None = None  # … the clips this SELECT names: source_id and, where published, start_s
    default: bool = False  # what `--test <dataset>` means
    size: int | None = None  # published number of clips
    digest: str | None = None  # "sha256:…" of the canonical lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Overlaps that others found and published."""

    name: str
    rule: str  # one of RULES
    # published_list: datasets whose test clips it is about; a re-upload is one of every test set
    heldout: tuple[str, ...]
    citation: str
    groups: tuple[tuple[str, ...], ...] = ()  # known_reupload: ids of one recording
    source: str = "youtube"  # of the ids in `groups`
    annotations: str | None = None  # same_annotation: the dataset whose labels are compared
    sql: str | None = None  # published_list: SELECT of source, source_id and maybe start_s
    # published_list: "same_id" where it names held-out recordings, "unknown" where it names clips
    # that equal some clip it does not tell
    partner: str = "same_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erratum:
    """Something wrong with the published files that is understood."""

    why: str
    split: str | None = None  # of which there are other rows than published …
    rows: int | None = None  # … namely these


@dataclass(frozen=True, kw_only=True)
class Card:
    """A dataset: where its metadata comes from, what its rows mean, how it is tested on."""

    dataset: str
    title: str
    homepage: str
    citation: str
    metadata_licence: str
    media_licence: str
    files: tuple[RawFile, ...]
    splits: dict[str, Split]
    lists: tuple[NamedList, ...]
    evidence: tuple[Evidence, ...]
    errata: tuple[Erratum, ...]
    media: tuple[str, ...]  # file names under which people keep the media
    modality: str  # "audio-video" or "audio"
    unidentified: bool  # whether rows without source_id are as published
    unverified: bool  # whether nobody here has built it from the real files
    pinned_by: str  # what the digest of its lists is made of: "recording" or "clip_id"
    sql: str
    folder: Path

    @property
    def train_splits(self) -> tuple[str, ...]:
        """The splits that `<dataset>` means as a training set."""
        return self._meant("train")

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits that `<dataset>` means as a test set, where it has no default list."""
        return self._meant("test")

    def _meant(self, role: str) -> tuple[str, ...]:
        splits = self.splits.items()
        return tuple(name for name, split in splits if split.role == role and not split.apart)

    @property
    def unverified_files(self) -> tuple[str, ...]:
        """Paths of the files from which nobody here has built, all of them on a card of that kind."""
        return tuple(file.path for file in self.files if self.unverified or file.unverified)

    @property
    def shipped(self) -> bool:
        """Whether it comes with the package."""
        return is_shipped(self.folder)

    @cached_property
    def digest(self) -> str:
        """sha256 over both files of the card."""
        import hashlib

        parts = [(self.folder / name).read_bytes() for name in CARD_FILES]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _shipped() -> Path:
    package = Path(__file__).resolve().parent.parent
    cards = package / "cards"
    return cards if cards.is_dir() else package.parent / "manifests"


def is_shipped(folder: Path) -> bool:
    """Whether a folder holds a card that comes with the package."""
    folder = folder.resolve()
    return folder.parent == _shipped() and (folder / CARD_FILES[0]).is_file()


def card_folders(*roots: Path) -> dict[str, Path]:
    """Every card folder by dataset name: of the last root that has one, else ours."""
    folders = {}
    for root in (_shipped(), *roots):
        for path in sorted([*root.glob("*/card.toml"), *root.glob(f"{OWN_LISTS}/*/card.toml")]):
            folders[path.parent.name] = path.parent
        if (root / "card.toml").is_file():
            folders[root.resolve().name] = root
    return dict(sorted(folders.items()))


def load_cards(*roots: Path) -> dict[str, Card]:
    """All cards by dataset name, in alphabetical order.

    Args:
        roots: folders with cards of a user: that of the manifests, then those given with --cards.
    """
    return {name: load_card(folder) for name, folder in card_folders(*roots).items()}


def find_cards(cards: dict[str, Card], datasets: tuple[str, ...]) -> list[Card]:
    """The cards of these datasets, all where none is named."""
    for name in datasets:
        if name not in cards:
            raise UsageProblem(
                f"unknown dataset {name!r}, expected one of: {', '.join(cards)} — see: curate datasets, "
                "or give the folder of its card with --cards"
            )
    own = {name for name in cards if OWN_LIST.fullmatch(name)}  # made when they are compared
    return [cards[name] for name in datasets or cards if datasets or name not in own]


def load_card(folder: Path) -> Card:
    """The card in `folder`.

    Raises:
        BadCard: a file is missing or says something a card cannot say.
    """
    path = folder / "card.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        card = _card(folder, table, (folder / "clips.sql").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadCard(f"{error.filename}: missing, expected beside {path.name}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadCard(f"{path}: not TOML and SQL in UTF-8: {error}") from error
    except TypeError as error:
        raise BadCard(f"{path}: {error} — see manifests/README.md for what a card holds") from error
    _check(card, path)
    return card


def _card(folder: Path, table: dict[str, Any], sql: str) -> Card:
    files, splits = (named_tables(table, key) for key in ("files", "splits"))
    made = {
        "files": tuple(
            make(RawFile, f"files.{name}", {"name": name, "table": name, **entry})
            for name, entry in files.items()
        ),
        "splits": {name: make(Split, f"splits.{name}", entry) for name, entry in splits.items()},
        "lists": _with_sql(NamedList, "a list", tables(table, "lists")),
        "evidence": _with_sql(Evidence, "an evidence", tables(table, "evidence")),
        "errata": tuple(make(Erratum, "an erratum", entry) for entry in tables(table, "errata")),
    }
    defaults = {
        "media": (), "modality": "audio-video", "unidentified": False, "unverified": False,
        "pinned_by": "recording",
    }  # fmt: skip
    about = {"dataset": folder.resolve().name, "folder": folder, "sql": _statement(sql)}
    if given := table.keys() & about.keys():
        raise TypeError(f"the card has {min(given)!r}, expected no such key: its folder tells that")
    return make(Card, "the card", {**defaults, **table, **made, **about})


def _with_sql(kind: type[_Entry], where: str, entries: list[dict[str, Any]]) -> tuple[_Entry, ...]:
    for entry in entries:
        if isinstance(entry.get("sql"), str):
            entry["sql"] = _statement(entry["sql"])
    return tuple(make(kind, where, entry) for entry in entries)


def _statement(sql: str) -> str:
    """A semicolon at its end is no second statement, and would end the view it becomes part of."""
    return sql.rstrip().removesuffix(";")


def _check(card: Card, path: Path) -> None:
    """Names are identifiers, paths stay below raw/, roles and rules exist, one list is the default."""

    def fail(what: str, expected: str) -> None:
        raise BadCard(f"{path}: {what}, expected {expected} — see manifests/README.md")

    if not NAME.fullmatch(card.dataset) and not OWN_LIST.fullmatch(card.dataset):
        fail(f"the folder is named {card.dataset!r}", "lower case letters, digits and _")
    if card.dataset in RESERVED:
        fail(f"the folder is named {card.dataset!r}", "a name that is none of ours")
    for file in card.files:
        if not NAME.fullmatch(file.name):
            fail(f"file name {file.name!r}", "lower case letters, digits and _")
        if not _stays_inside(file.path):
            fail(f"path {file.path!r} of {file.name}", "a path below raw/")
        if file.format not in FORMATS:
            fail(f"format {file.format!r} of {file.name}", f"one of {', '.join(FORMATS)}")
        if isinstance(file.columns, dict) != (file.format == "json"):
            fail(f"columns of {file.name}", "names with types for json, a list of names else")
        if not file.columns or len({name.lower() for name in file.columns}) < len(file.columns):
            fail(f"columns of {file.name}", "one or more, each once")
        if isinstance(file.columns, dict):
            for name, kind in file.columns.items():
                if not _JSON_TYPE.fullmatch(kind):
                    fail(f"type {kind!r} of {name} in {file.name}", "a DuckDB type in lower case")
        if file.whole and (file.format != "json" or len(file.columns) != 1):
            fail(f"whole of {file.name}", "one column of a json file")
        if file.short_lines and file.format != "csv":
            fail(f"short_lines of {file.name}", "a csv file")
        if not 1 <= len(file.delimiter) <= 4:
            fail(f"delimiter {file.delimiter!r} of {file.name}", "one to four characters")
    by_table: dict[str, Any] = {}
    for file in card.files:
        if not NAME.fullmatch(file.table):
            fail(f"table {file.table!r} of {file.name}", "lower case letters, digits and _")
        if by_table.setdefault(file.table, file.columns) != file.columns:
            fail(f"columns of {file.name}", f"those of the other files of table {file.table}")
    for name, split in card.splits.items():
        if split.role not in SPLIT_ROLES:
            fail(f"role {split.role!r} of split {name!r}", f"one of {', '.join(SPLIT_ROLES)}")
    for named in card.lists:
        if not LIST_NAME.fullmatch(named.name):
            fail(f"list name {named.name!r}", "letters, digits and . _ -")
        if (named.split is None) == (named.sql is None):
            fail(f"list {named.name!r}", "either split or sql")
        if named.split is not None and named.split not in card.splits:
            fail(f"split {named.split!r} of list {named.name!r}", f"one of {', '.join(card.splits)}")
        if named.name in card.splits and named.split != named.name:
            fail(f"list {named.name!r}", "that split, or a name that no split has")
    if len({named.name for named in card.lists}) < len(card.lists):
        fail("two lists with one name", "a name each")
    if sum(named.default for named in card.lists) > 1:
        fail("several default lists", "one at most")
    for evidence in card.evidence:
        if evidence.rule not in RULES:
            fail(f"rule {evidence.rule!r} of evidence", f"one of {', '.join(RULES)}")
        given = {
            "known_reupload": bool(evidence.groups),
            "published_list": evidence.sql is not None,
            "same_annotation": evidence.annotations is not None,
        }
        if [rule for rule, there in given.items() if there] != [evidence.rule]:
            fail(
                f"evidence {evidence.name!r}",
                "groups for known_reupload, sql for published_list, annotations for same_annotation",
            )
        if evidence.partner not in PARTNERS:
            fail(f"partner {evidence.partner!r} of {evidence.name!r}", f"one of {', '.join(PARTNERS)}")
        for id_ in (id_ for group in evidence.groups for id_ in group):
            if not re.fullmatch(ID_SYNTAX.get(evidence.source, ".+"), id_):
                fail(f"id {id_!r} of evidence {evidence.name!r}", f"one of {evidence.source}")
    if len({evidence.name for evidence in card.evidence}) < len(card.evidence):
        fail("two evidence entries with one name", "a name each")
    if card.modality not in MODALITIES:
        fail(f"modality {card.modality!r}", f"one of {', '.join(MODALITIES)}")
    if card.pinned_by not in PINS:
        fail(f"pinned_by {card.pinned_by!r}", f"one of {', '.join(PINS)}")
    for pattern in card.media:
        if not _stays_inside(pattern):
            fail(f"media {pattern!r}", "a path below the folder of the media")
    if len({file.path for file in card.files}) < len(card.files):
        fail("two files with one path", "a path each")


def _stays_inside(path: str) -> bool:
    """Whether a relative path of a card names something below the folder it is relative to."""
    parts = Path(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\\" not in path
