"""Which file is whose: clips of a manifest and the files below media folders."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import BadMetadata, UsageProblem
from curation.media.locate import (
    MEDIA_SUFFIXES,
    Located,
    MediaFolder,
    Wanted,
    file_name,
    locate,
    media_folder,
    of_list,
    unmatched,
)
from features.source import DatasetCard, Manifest

SOUND_SUFFIXES = frozenset((
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".eac3", ".flac", ".m4a",
    ".m4b", ".mka", ".mp2", ".mp3", ".oga", ".ogg", ".opus", ".snd", ".tta", ".w64", ".wav", ".weba",
    ".wma", ".wv",
))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """The files of all clips, in the order of the manifest's rows."""

    folders: Sequence[MediaFolder]
    files: Sequence[str | None]  # paths below one of the folders, as text
    num_files: int
    unmatched: int  # media files that no clip claims

    @property
    def found(self) -> int:
        """Clips with a file."""
        return sum(file is not None for file in self.files)

    def real_path(self, file: str) -> str:
        """What the system knows a file as: that of the first folder which has it."""
        return next(folder for folder in self.folders if file in folder.media).real_path(file)


def find_media(
    manifest: Manifest, places: Sequence[Path], *, media_list: Path | None = None, without: Path
) -> Media:
    """The files of the clips of a manifest, by absolute paths: others look for them too.

    Args:
        places: media folders; where several have a file of a clip, the first counts.
        media_list: a list with the columns `file` and `id`, and maybe `dataset`, which goes first.
        without: a folder that is left out: what is extracted may lie among the media.

    Raises:
        UsageProblem: a folder cannot be read, or there is no such list.
        BadMetadata: the list lacks a column.
    """
    folders = [media_folder(place.absolute(), without=without) for place in places]
    names = {} if media_list is None else _read_list(media_list)
    files: list[str | None] = [None] * manifest.table.num_rows
    left = 0
    for folder in folders:
        claimed = Located()
        for begin, dataset, wanted in _by_dataset(manifest):
            found = _located(dataset, wanted, manifest.cards[dataset], folder, names)
            claimed.files += found.files
            for at, file in enumerate(found.files, begin):
                files[at] = files[at] or file
        left += unmatched(folder, [claimed])
    num_files = sum(len(folder.media) for folder in folders)
    return Media(folders=folders, files=files, num_files=num_files, unmatched=left)


def _by_dataset(manifest: Manifest) -> Iterator[tuple[int, str, list[Wanted]]]:
    """The first row of each dataset, its name, and its clips."""
    table = manifest.table
    begin = 0
    for dataset, num in (pair.values() for pair in table["dataset"].value_counts().to_pylist()):
        rows = table.slice(begin, num).select(["clip_id", "source_id", "start_s", "end_s"])
        assert table["dataset"][begin].as_py() == dataset, "the rows are sorted by dataset"
        yield begin, dataset, [Wanted(**row) for row in rows.to_pylist()]
        begin += num


def _located(
    dataset: str,
    wanted: list[Wanted],
    card: DatasetCard,
    folder: MediaFolder,
    names: Mapping[tuple[str | None, str], str],
) -> Located:
    """By the list that was given, else by the dataset's own, else by the patterns of its card."""
    if card.listed is not None:
        found = of_list((card.listed.get(clip.clip_id) for clip in wanted), folder)
    else:
        found = locate(wanted, card.patterns, folder)
    if names:
        said = (names.get((dataset, one.clip_id)) or names.get((None, one.clip_id)) for one in wanted)
        listed = of_list(said, folder)
        found = Located([a or b for a, b in zip(listed.files, found.files, strict=True)])
    return found


def looked_for(card: DatasetCard, row: Mapping[str, Any]) -> str | None:
    """A name that the file of a row may have, for people."""
    clip = Wanted(**{name: row[name] for name in ("clip_id", "source_id", "start_s", "end_s")})
    if card.listed is not None:
        return card.listed.get(clip.clip_id)
    names = [name for pattern in card.patterns if (name := file_name(pattern, clip))]
    return next((name for name in names if Path(name).suffix in MEDIA_SUFFIXES), None)


def _read_list(path: Path) -> dict[tuple[str | None, str], str]:
    """The files of a list, by dataset, where it says one, and clip."""
    if not path.is_file():
        raise UsageProblem(
            f"--media-list {path}: no such file, expected a list with the columns `file` and `id` — "
            "check the path"
        )
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _text_rows(path)
    found: dict[tuple[str | None, str], str] = {}
    for row in rows:
        clip_id = row.get("id") or row.get("clip_id")
        if clip_id and row.get("file"):
            found.setdefault((row.get("dataset") or None, str(clip_id)), str(row["file"]))
    if not found:
        raise BadMetadata(
            f"--media-list {path}: no row with a file and an id, expected a CSV, TSV or Parquet list "
            "with the columns `file` and `id` (and `dataset` where ids repeat) — add them"
        )
    return found


def _parquet_rows(path: Path) -> list[dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows: list[dict[str, str]] = file.read().to_pylist()
            return rows
    except (pa.ArrowException, OSError) as error:
        raise BadMetadata(f"--media-list {path}: not Parquet: {error} — check the file") from error


def _text_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            delimiter = "\t" if first.count("\t") > first.count(",") else ","
            return list(csv.DictReader(text, delimiter=delimiter, restval=""))
    except (OSError, ValueError, csv.Error) as error:
        raise BadMetadata(
            f"--media-list {path}: {error}, expected a list in UTF-8 with a first line of names — "
            "check it"
        ) from error
