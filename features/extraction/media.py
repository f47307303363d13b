"""Which file is whose: clips of a manifest and the files below media folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import BadMetadata, UsageProblem
from curation.media.lists import below, read_list
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
from curation.progress import note
from curation.tables import number
from features.source import DatasetCard, Manifest

_OPTION = "--media-list"
_COLUMNS = ("file", "id", "dataset")
Names = dict[tuple[str | None, str], str]  # the file of a clip, by its dataset, None for any, and id


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
        media_list: a list with the columns `file` and `id`, and maybe `dataset`. It goes before all that
            cards say, in whatever folder its file is; a file that is in none of them leaves it to them.
        without: a folder that is left out: what is extracted may lie among the media.

    Raises:
        UsageProblem: a folder cannot be read, there is no such list, it lacks a column, or a path of it
            leads to another file of that name too.
        BadMetadata: the list cannot be read, or names no file.
    """
    folders = [media_folder(place.absolute(), without=without) for place in places]
    none: list[str | None] = [None] * manifest.table.num_rows
    names = {} if media_list is None else _names(media_list)
    said = _said(manifest, names) if names else none
    listed = [_of_paths(said, folder) for folder in folders]
    _check_alone(folders, listed)
    files = _with_first(none, listed)
    if media_list is not None:
        _tell(media_list, names, said, files)
    by_card = [_by_cards(manifest, folder, files) for folder in folders]
    claims = zip(folders, listed, by_card, strict=True)
    return Media(
        folders=folders,
        files=_with_first(files, by_card),
        num_files=sum(len(folder.media) for folder in folders),
        unmatched=sum(unmatched(folder, claimed) for folder, *claimed in claims),
    )


def _with_first(files: list[str | None], located: Sequence[Located]) -> list[str | None]:
    """The file that each clip has, else that of the first folder with one."""
    for one in located:
        files = [file or found for file, found in zip(files, one.files, strict=True)]
    return files


def _by_cards(manifest: Manifest, folder: MediaFolder, files: Sequence[str | None]) -> Located:
    """The files in a folder of clips that have none yet: by their own lists, or by patterns."""
    located = Located()
    for begin, dataset, wanted in _by_dataset(manifest):
        card = manifest.cards[dataset]
        if card.listed is not None:
            found = of_list((card.listed.get(clip.clip_id) for clip in wanted), folder)
        else:
            found = locate(wanted, card.patterns, folder)
        theirs = files[begin : begin + len(wanted)]
        located.files += [None if have else file for have, file in zip(theirs, found.files, strict=True)]
    return located


def _by_dataset(manifest: Manifest) -> Iterator[tuple[int, str, list[Wanted]]]:
    """The first row of each dataset, its name, and its clips."""
    table = manifest.table
    begin = 0
    for dataset, num in (pair.values() for pair in table["dataset"].value_counts().to_pylist()):
        rows = table.slice(begin, num).select(["clip_id", "source_id", "start_s", "end_s"])
        assert table["dataset"][begin].as_py() == dataset, "the rows are sorted by dataset"
        yield begin, dataset, [Wanted(**row) for row in rows.to_pylist()]
        begin += num


def looked_for(card: DatasetCard, row: Mapping[str, Any]) -> str | None:
    """A name that the file of a row may have, for people."""
    clip = Wanted(**{name: row[name] for name in ("clip_id", "source_id", "start_s", "end_s")})
    if card.listed is not None:
        return card.listed.get(clip.clip_id)
    names = [name for pattern in card.patterns if (name := file_name(pattern, clip))]
    return next((name for name in names if Path(name).suffix in MEDIA_SUFFIXES), None)


# ---- a list of one's own --------------------------------------------------------------------------


def _names(path: Path) -> Names:
    """What a list says."""
    names: Names = {}
    for row in read_list(path, _COLUMNS, needed=2, option=_OPTION):
        if row["id"] and row["file"]:
            file = names.setdefault((row.get("dataset") or None, row["id"]), row["file"])
            if file != row["file"]:
                raise UsageProblem(
                    f"{_OPTION} {path}: {row['id']} has the files {file} and {row['file']}, expected "
                    "one for each clip — remove the other line"
                )
    if not names:
        raise BadMetadata(
            f"{_OPTION} {path}: no row with a file and an id, expected one for each clip (and its "
            "dataset where ids repeat) — add them"
        )
    return names


def _said(manifest: Manifest, names: Names) -> list[str | None]:
    """The path that a list says of each clip."""
    keys = (manifest.table[name].to_pylist() for name in ("dataset", "clip_id"))
    pairs = zip(*keys, strict=True)
    return [names.get((dataset, clip)) or names.get((None, clip)) for dataset, clip in pairs]


def _tell(
    media_list: Path, names: Names, said: Sequence[str | None], files: Sequence[str | None]
) -> None:
    """Say which lines of a list are of no use, where there are such."""
    asked = sum(path is not None for path in said)
    used = sum(file is not None for file in files)
    if used < len(names):
        note(
            f"{_OPTION} {media_list}: of {number(len(names), 'clip')} {used:,} have their file from it, "
            f"{asked - used:,} name one that is in no media folder, "
            f"{max(0, len(names) - asked):,} are not in the manifest"
        )


def _of_paths(said: Sequence[str | None], folder: MediaFolder) -> Located:
    """The files in a folder that are meant; a path that is absolute or begins with ./ is exact."""
    seen = below(said, folder)
    found = zip(said, seen, of_list(seen, folder).files, strict=True)
    return Located([file if file == path or path == before else None for before, path, file in found])


def _check_alone(folders: Sequence[MediaFolder], listed: Sequence[Located]) -> None:
    """Raise UsageProblem where an earlier folder has another file of the path that a list means."""
    for files in zip(*(one.files for one in listed), strict=True):
        place = next((place for place, file in enumerate(files) if file), 0)
        other = next((folder for folder in folders[:place] if files[place] in folder.media), None)
        if other is not None:
            raise UsageProblem(
                f"{_OPTION}: {files[place]} is in {other.root} and in {folders[place].root}, and the "
                "second is meant, expected one file of that path — give one --media above both"
            )
