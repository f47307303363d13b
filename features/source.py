"""The manifest that is extracted: its rows, its certificate, and what the cards say of its datasets.

A clean manifest mixes datasets. What a card says (file names of the media, modality, roles of splits)
stands in the metadata of each dataset's `clips.parquet`, which lies beside: `<root>/<dataset>/`. A
dataset made from a folder of media has a list of its own files instead of patterns.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import BadManifest, ManifestChanged, UsageProblem
from curation.files import digest_of, sha256_file
from curation.manifest import METADATA_KEY

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CERTIFICATE = "certificate.json"
KEPT, CLIPS = "kept.parquet", "clips.parquet"
# columns of a manifest that decide what is extracted
COLUMNS = (
    "dataset", "clip_id", "split", "source", "source_id", "start_s", "end_s", "captions", "labels",
)  # fmt: skip
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The rows of a manifest, sorted by (dataset, clip_id), and where they come from."""

    path: Path
    digest: str  # sha256 of its bytes
    certificate: dict[str, Any] | None  # the whole document; None: not from clean
    table: "pa.Table"  # COLUMNS
    cards: Mapping[str, DatasetCard]

    @property
    def name(self) -> str:
        """As people know it: `clean/paper`, the dataset, or the name of the file."""
        if self.path.name not in (KEPT, CLIPS):
            return self.path.name
        folder = self.path.resolve().parent
        return f"{folder.parent.name}/{folder.name}" if self.path.name == KEPT else folder.name


def find_manifest(asked: Path | None, manifests: Path = Path("manifests")) -> Path:
    """The Parquet file that is meant.

    Args:
        asked: a folder `clean/<name>`, the folder of a dataset, or a Parquet file, as given or below
            `manifests`; None: the clean manifest that was written last.

    Raises:
        UsageProblem: there is none; the message names the command that makes it.
    """
    if asked is None:
        found = sorted(
            (path.stat().st_mtime_ns, path.parent) for path in manifests.glob(f"clean/*/{CERTIFICATE}")
        )
        if not found:
            raise UsageProblem(
                f"there is no clean manifest below {manifests}, expected {manifests}/clean/<name> — "
                "run: curate clean --test vggsound,audiocaps"
            )
        return found[-1][1] / KEPT
    for place in (asked, manifests / asked):
        for path in (place / KEPT, place / CLIPS, place):
            if path.is_file():
                return path
    raise UsageProblem(
        f"--manifest {asked}: no such manifest, expected clean/<name>, the folder of a dataset with its "
        f"{CLIPS}, or a Parquet file — make one with: curate clean --name NAME"
    )


def read_manifest(path: Path) -> Manifest:
    """The rows to extract, with all that stands beside them.

    Raises:
        BadManifest: it cannot be read, lacks a column, or has two rows of one clip.
        ManifestChanged: it is not what its certificate is about.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest = sha256_file(path)
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise BadManifest(
                    f"{path}: no column {', '.join(missing)}, expected the columns of clips — make it "
                    "with: curate build, or curate clean"
                )
            about = _provenance(file)
            table = file.read(columns=list(COLUMNS)).cast(_schema(file))
    except (pa.ArrowException, OSError) as error:
        raise BadManifest(f"{path}: cannot be read as Parquet: {error} — check the file") from error
    table = table.sort_by([("dataset", "ascending"), ("clip_id", "ascending")]).combine_chunks()
    _check_ids(path, table)
    datasets = table["dataset"].unique().to_pylist()
    cards = {name: _card(path, name, about) for name in datasets}
    certificate = _certificate(path, digest)
    return Manifest(path=path, digest=digest, certificate=certificate, table=table, cards=cards)


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
    ids = table.select(["dataset", "clip_id"])
    if ids.group_by(["dataset", "clip_id"]).aggregate([]).num_rows != table.num_rows:
        counts = ids.group_by(["dataset", "clip_id"]).aggregate([([], "count_all")])
        twice = next(row for row in counts.to_pylist() if row["count_all"] > 1)
        raise BadManifest(
            f"{path}: {twice['dataset']}/{twice['clip_id']} stands in {twice['count_all']} rows, "
            "expected each clip once — remove the others"
        )


def _certificate(path: Path, digest: str) -> dict[str, Any] | None:
    """The certificate beside a manifest that clean wrote."""
    place = path.with_name(CERTIFICATE)
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("digest") != digest_of(document):
        raise ManifestChanged(
            f"{place}: not the certificate that clean wrote, expected JSON with the digest of its "
            "content — make it anew with: curate clean --replace"
        )
    recorded = document.get("outputs", {}).get(path.name, {}).get("sha256")
    if recorded is None:  # a file of somebody else's in that folder
        return None
    if recorded != digest:
        raise ManifestChanged(
            f"{path}: sha256 is {digest[:12]}…, its certificate records {recorded[:12]}… — it was "
            "changed since; make it anew with: curate clean --replace"
        )
    return document


def _card(path: Path, dataset: str, about: dict[str, Any]) -> DatasetCard:
    """What is known of a dataset, from the file itself or from the dataset's folder beside it."""
    from curation.media.folder import files_of, is_folder_dataset

    below = dataset if "." not in dataset else f"lists/{dataset}"  # lists of one's own have a suffix
    roots = list(path.resolve().parents)[:3]
    root = next((root for root in roots if (root / below / CLIPS).is_file()), None)
    if about.get("dataset") != dataset:
        if root is None:
            return DatasetCard()
        import pyarrow.parquet as pq

        with pq.ParquetFile(root / below / CLIPS) as file:
            about = _provenance(file)
    listed = None
    if root is not None and "." not in dataset and is_folder_dataset(root, dataset):
        listed = files_of(root, dataset)
    return DatasetCard(
        patterns=tuple(about.get("media") or BY_ID),
        sound_only=about.get("modality") == "audio",
        roles=dict(about.get("splits") or {}),
        listed=listed,
    )
