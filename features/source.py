"""The manifest that is extracted: its rows, its certificate, and what the cards say of its datasets.

A clean manifest mixes datasets. What a card says (file names of the media, modality, roles of splits)
stands in the metadata of each dataset's `clips.parquet`, which lies beside, `<root>/<dataset>/`, or in
the folder of manifests. A dataset made from a folder of media has a list of its own files instead of
patterns.
"""

import difflib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import BadManifest, UsageProblem
from curation.files import sha256_file
from curation.manifest import METADATA_KEY
from features.certificate import CERTIFICATE, KEPT, rebuild, standing_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CLIPS = "clips.parquet"
MANIFESTS = Path("manifests")
MAKE = "curate clean --test vggsound,audiocaps"
# columns of a manifest that decide what is extracted
COLUMNS = (
    "dataset", "clip_id", "split", "source", "source_id", "start_s", "end_s", "captions", "labels",
)  # fmt: skip
# Names of datasets are those of folders, so that nothing may lead out of the one they lie in.
_NAME = re.compile(r"[^./\0-\x1f][^/\0-\x1f]*")
_LONGEST_NAME_BYTES = 200
_CLEAN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_MOST_NAMES = 6  # in a message
# the patterns of media where no card is at hand
BY_ID = (
    "{clip_id}",
    *(f"{{clip_id}}.{suffix}" for suffix in ("mp4", "webm", "mkv", "flac", "wav", "mp3")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCard:
    """What a manifest says of one of its datasets."""

    patterns: tuple[str, ...] = BY_ID  # of file names
    sound_only: bool = False  # pictures, where files have some, mean nothing
    roles: Mapping[str, str] = field(default_factory=dict)  # of splits: train, validation or test
    listed: Mapping[str, str] | None = None  # the file of each clip, where a list says it
    known: bool = True  # False: no card is at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The rows of a manifest, sorted by (dataset, clip_id), and where they come from."""

    path: Path
    digest: str  # sha256 of its bytes
    certificate: dict[str, Any] | None  # the whole document; None: not what clean kept
    uncertified: str  # why not, where a certificate lies beside it
    table: "pa.Table"  # COLUMNS
    cards: Mapping[str, DatasetCard]

    @property
    def name(self) -> str:
        """As people know it: `clean/paper`, the dataset, or the name of the file."""
        if self.path.name not in (KEPT, CLIPS):
            return self.path.name
        folder = self.path.resolve().parent
        return f"{folder.parent.name}/{folder.name}" if self.path.name == KEPT else folder.name


def find_manifest(asked: Path | None, manifests: Path = MANIFESTS) -> Path:
    """The Parquet file that is meant.

    Args:
        asked: a folder `clean/<name>`, the folder of a dataset, or a Parquet file, as given or below
            `manifests`, or the name of a clean manifest; None: the clean manifest that was written last.

    Raises:
        UsageProblem: there is none; the message names the command that makes it.
        BadManifest: the last one has a certificate and no rows.
    """
    if asked is None:
        found = sorted(
            (path.stat().st_mtime_ns, path.parent)
            for path in manifests.glob(f"clean/*/{CERTIFICATE}")
            if path.is_file()
        )
        if not found:
            close = _close(Path(CLIPS), manifests)
            raise UsageProblem(
                f"there is no clean manifest below {manifests}, expected clean/<name> there{close} "
                f"— name one with --manifest, or run: {_make(manifests)}"
            )
        newest = found[-1][1] / KEPT
        if not newest.is_file():
            raise BadManifest(
                f"{newest}: is missing beside its {CERTIFICATE}, expected the rows that clean kept — "
                f"make it anew with: {rebuild(newest.parent)}, or name another with --manifest"
            )
        return newest
    for place in (asked, manifests / asked, manifests / "clean" / asked):
        for path in (place / KEPT, place / CLIPS, place):
            if path.is_file():
                return path
    raise UsageProblem(
        f"--manifest {asked}: no such manifest, expected clean/<name>, the folder of a dataset with its "
        f"{CLIPS}, or a Parquet file{_close(asked, manifests)} — make one with: "
        f"{_make(manifests, asked.name)}"
    )


def _close(asked: Path, manifests: Path) -> str:
    """The names of manifests that are like the one asked for, else of all."""
    names = {path.parent.name: path.parent for path in sorted(manifests.glob(f"*/{CLIPS}"))}
    names |= {path.parent.name: path.parent for path in sorted(manifests.glob(f"clean/*/{KEPT}"))}
    close = difflib.get_close_matches(asked.name, names) or sorted(names)[:_MOST_NAMES]
    if not close:
        return f"; there is none below {manifests}"
    there = ", ".join(names[name].relative_to(manifests).as_posix() for name in close)
    return f"; below {manifests} there is {there}"


def _make(manifests: Path, name: str = "") -> str:
    """The command that makes a clean manifest, of that name where it may have it."""
    words = f" --name {name}" if _CLEAN_NAME.fullmatch(name) else ""
    place = f" --manifests {shlex.quote(str(manifests))}" if manifests != MANIFESTS else ""
    return f"{MAKE}{words}{place}"


def read_manifest(path: Path, manifests: Path = MANIFESTS) -> Manifest:
    """The rows to extract, with all that stands beside them.

    Args:
        manifests: where datasets are looked for that do not lie beside it.

    Raises:
        BadManifest: it cannot be read, lacks a column, has two rows of one clip, or a row that says what
            cannot be; or the dataset beside it that it is made from cannot be read.
        ManifestChanged: it is not what its certificate is about.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        digest = sha256_file(path)
        with pq.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise BadManifest(
                    f"{path}: no column {', '.join(missing)}, expected the columns of clips — make it "
                    "with: curate build, or curate clean"
                )
            about = _provenance(file)
            table = file.read(columns=list(COLUMNS)).cast(_schema(file))
            table.validate(full=True)  # text that is none, too
    except (pa.ArrowException, OSError) as error:
        raise BadManifest(f"{path}: cannot be read as Parquet: {error} — check the file") from error
    table = table.sort_by([("dataset", "ascending"), ("clip_id", "ascending")]).combine_chunks()
    _check_ids(path, table)
    _check_texts(path, table)
    _check_times(path, table)
    datasets = table["dataset"].unique().to_pylist()
    cards = {name: _card(path, name, about, manifests) for name in datasets}
    standing = standing_of(path, digest)
    return Manifest(
        path=path, digest=digest, certificate=standing.document, uncertified=standing.uncertified,
        table=table, cards=cards,
    )  # fmt: skip


def warnings(manifest: Manifest, manifests: Path = MANIFESTS) -> list[str]:
    """What people should know before they extract it, a line each."""
    lines = []
    if manifest.uncertified:
        lines.append(
            f"{manifest.path}: uncertified ({manifest.uncertified}), expected {KEPT}, which is all that "
            f"its {CERTIFICATE} is about — give --manifest {manifest.path.parent} to train on it"
        )
    unknown = sorted(name for name, card in manifest.cards.items() if not card.known)
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
        lines.append(
            f"{manifest.path}: no {CLIPS} of {', '.join(unknown[:_MOST_NAMES])}{more} beside it or in "
            f"{manifests}, expected one to say the names of its files: they are looked for as "
            "{clip_id}.mp4 and the like, and count as audio-video — say where it is: --manifests DIR"
        )
    return lines


def _schema(file: "pq.ParquetFile") -> "pa.Schema":
    """COLUMNS with the types of clips, whatever writer made the file."""
    from curation.manifest import CLIP_COLUMNS, arrow_schema

    wanted = arrow_schema(CLIP_COLUMNS)
    import pyarrow as pa

    # in the order of the file, as read() gives them
    return pa.schema([wanted.field(name) for name in file.schema_arrow.names if name in COLUMNS])


def _provenance(file: "pq.ParquetFile") -> dict[str, Any]:
    """What curate wrote into the metadata; empty where another program made the file."""
    try:
        found = json.loads((file.schema_arrow.metadata or {})[METADATA_KEY.encode()])
    except (KeyError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_ids(path: Path, table: "pa.Table") -> None:
    for name in ("dataset", "clip_id", "split"):
        if table[name].null_count:
            raise BadManifest(f"{path}: {name} is empty in a row, expected one in each — build it anew")
    for dataset in table["dataset"].unique().to_pylist():
        size = len(dataset.encode())
        if size > _LONGEST_NAME_BYTES or not _NAME.fullmatch(dataset):
            raise BadManifest(
                f"{path}: dataset {dataset[:60]!r} ({size} bytes), expected a name that a folder may "
                f"have: at most {_LONGEST_NAME_BYTES} bytes, no / and no dot at first — name it anew"
            )
    ids = table.select(["dataset", "clip_id"])
    if ids.group_by(["dataset", "clip_id"]).aggregate([]).num_rows != table.num_rows:
        counts = ids.group_by(["dataset", "clip_id"]).aggregate([([], "count_all")])
        twice = next(row for row in counts.to_pylist() if row["count_all"] > 1)
        raise BadManifest(
            f"{path}: {twice['dataset']}/{twice['clip_id']} stands in {twice['count_all']} rows, "
            "expected each clip once — remove the others"
        )


def _check_texts(path: Path, table: "pa.Table") -> None:
    """Raise BadManifest where a caption or a label is null."""
    import pyarrow.compute as pc

    for name in ("captions", "labels"):
        if not pc.list_flatten(table[name]).null_count:
            continue
        for place, said in enumerate(table[name]):
            if said.is_valid and said.values.null_count:
                raise BadManifest(
                    f"{path}: {_clip(table, place)} has an empty entry among its {name} "
                    f"{said.as_py()!r}, expected text in each — remove the entry"
                )


def _check_times(path: Path, table: "pa.Table") -> None:
    """Raise BadManifest where a clip begins or ends at no time, or ends before it begins."""
    import pyarrow.compute as pc

    start, end = table["start_s"], table["end_s"]
    wrong = pc.fill_null(pc.greater(start, end), False)
    for times in (start, end):
        is_none = pc.or_(pc.invert(pc.is_finite(times)), pc.less(times, 0))
        wrong = pc.or_(wrong, pc.fill_null(is_none, False))
    place = pc.index(wrong, True).as_py()
    if place >= 0:
        raise BadManifest(
            f"{path}: {_clip(table, place)} is from {start[place].as_py()} to {end[place].as_py()} s, "
            "expected seconds from 0 on, the end after the start — mend the row"
        )


def _clip(table: "pa.Table", place: int) -> str:
    return f"{table['dataset'][place].as_py()}/{table['clip_id'][place].as_py()}"


def _card(path: Path, dataset: str, about: dict[str, Any], manifests: Path) -> DatasetCard:
    """What is known of a dataset, from the file itself, from its folder beside it or in `manifests`."""
    import pyarrow as pa

    below = dataset if "." not in dataset else f"lists/{dataset}"  # lists of one's own have a suffix
    roots = [*[*path.resolve().parents][:3], manifests]
    root = next((root for root in roots if (root / below / CLIPS).is_file()), None)
    if root is None:
        if about.get("dataset") == dataset:
            return _card_of(about, None)
        return DatasetCard(known=False)
    place = root / below
    try:
        if about.get("dataset") != dataset:
            about = _about(place / CLIPS)
        return _card_of(about, None if "." in dataset else _listed(root, dataset))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise BadManifest(
            f"{place}: dataset {dataset} cannot be read ({error}), expected what {path.name} was made "
            f"from — build it anew with: curate build {dataset}"
        ) from error


def _about(path: Path) -> dict[str, Any]:
    """What curate wrote into the metadata of a file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return _provenance(file)


def _listed(root: Path, dataset: str) -> Mapping[str, str] | None:
    """The file of each clip of a folder made a dataset; None: it is another dataset."""
    from curation.media.folder import files_of, is_folder_dataset

    return files_of(root, dataset) if is_folder_dataset(root, dataset) else None


def _card_of(about: Mapping[str, Any], listed: Mapping[str, str] | None) -> DatasetCard:
    return DatasetCard(
        patterns=tuple(about.get("media") or BY_ID),
        sound_only=about.get("modality") == "audio",
        roles=dict(about.get("splits") or {}),
        listed=listed,
    )
