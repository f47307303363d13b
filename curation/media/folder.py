"""A folder of media as a dataset of its own, with a list of its clips or without.

What is found becomes `raw/folder.parquet` and a card made for it; from there on it is a dataset like any
other, built by its card's SELECT. Without a list each file is a clip, its id the path below the folder.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from curation.catalog.cards import CARD_FILES, NAME, RESERVED, Card, card_folders, load_card
from curation.catalog.record import dataset_folder
from curation.catalog.shape import ROLES
from curation.errors import UsageProblem
from curation.files import replacing
from curation.manifest import arrow_schema
from curation.media.columns import table
from curation.media.lists import below, read_list
from curation.media.locate import SOUND_SUFFIXES, MediaFolder

FILE = "folder.parquet"
# the columns of a list; `media` is the column `file`, whose name the rows of every raw file need
COLUMNS = ("clip_id", "media", "split", "source", "source_id", "start_s", "end_s", "caption")
LOCAL = "local"  # the source of what has no id elsewhere
_LISTED = ("file", "id", "split", "start_s", "end_s", "source", "source_id", "caption")
_TO_FILL_IN = "unknown: fill in"
_SQL = """-- Made by `curate scan` for a folder of media.
select
    nullif(clip_id, '') as clip_id,
    split,
    source,
    nullif(source_id, '') as source_id,
    seconds(start_s) as start_s,
    seconds(end_s) as end_s,
    case when caption <> '' then [caption] else [] end as captions,
    file,
    row
from rows
"""


def dataset_name(folder: Path) -> str:
    """The name of a folder's dataset: its last component, in the letters that names have."""
    name = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return name if name[:1].isalpha() else f"media_{name}".rstrip("_")


def is_folder_dataset(manifests: Path, name: str) -> bool:
    """Whether a dataset was made from a folder."""
    return (dataset_folder(manifests, name) / "raw" / FILE).is_file()


def check_name(manifests: Path, name: str) -> None:
    """Raise UsageProblem where a folder cannot become a dataset of that name."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise UsageProblem(
            f"--dataset {name!r}, expected lower case letters, digits and _, and none of our own "
            "names — give another"
        )
    if name in card_folders(manifests) and not is_folder_dataset(manifests, name):
        raise UsageProblem(
            f"{name}: there is a card of that name, expected a new name for a folder — give another "
            f"--dataset, or without --list scan the media of that dataset with --dataset {name}"
        )


def take_folder(
    manifests: Path, name: str, folder: MediaFolder, *, list_file: Path | None = None
) -> Card:
    """Write the list and the card of a folder's dataset, ready to be built; its card.

    Raises:
        UsageProblem: the list has no column `file`, or the folder no media.
        BadMetadata: the list cannot be read.
    """
    rows = _of_files(folder, name) if list_file is None else _of_list(list_file, folder, name)
    if not rows:
        raise UsageProblem(
            f"{list_file or folder.root}: no clips, expected video or sound files — check the path"
        )
    place = dataset_folder(manifests, name)
    _write_list(place / "raw" / FILE, rows)
    for path, text in ((place / CARD_FILES[0], _card_toml(name, rows)), (place / CARD_FILES[1], _SQL)):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return load_card(place)


def files_of(manifests: Path, name: str) -> dict[str, str]:
    """The path below the folder that each clip of a folder's dataset was listed with."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(dataset_folder(manifests, name) / "raw" / FILE) as file:
        listed = file.read(columns=["clip_id", "media"], use_threads=False)
    files: dict[str, str] = {}
    for clip_id, path in zip(listed["clip_id"].to_pylist(), listed["media"].to_pylist(), strict=True):
        files.setdefault(clip_id, path)  # of a clip that is listed twice, the first row counts
    return files


def _of_list(path: Path, folder: MediaFolder, dataset: str) -> list[dict[str, str]]:
    rows = read_list(path, _LISTED)
    for row, file in zip(rows, below([row["file"] for row in rows], folder), strict=True):
        row["file"] = file or ""
    return [_row(row, dataset) for row in rows]


def _of_files(folder: MediaFolder, dataset: str) -> list[dict[str, str]]:
    return [_row({"file": path}, dataset) for path in folder.media]


def _row(cells: dict[str, str], dataset: str) -> dict[str, str]:
    file = cells.get("file", "")
    source_id = cells.get("source_id", "")
    if not source_id and not cells.get("source"):
        # A name of its own: two folders may hold files of one name that are not one recording.
        source_id = f"{dataset}/{file}"
    return {
        "clip_id": cells.get("id") or file,
        "media": file,
        "split": cells.get("split") or "train",
        "source": cells.get("source") or LOCAL,
        "source_id": source_id,
        "start_s": cells.get("start_s", ""),
        "end_s": cells.get("end_s", ""),
        "caption": cells.get("caption", ""),
    }


# ---- what is written ------------------------------------------------------------------------------


def _write_list(target: Path, rows: list[dict[str, str]]) -> None:
    """As Parquet: a file name may hold anything."""
    import pyarrow.parquet as pq

    listed = table(rows, arrow_schema(tuple((name, "varchar") for name in COLUMNS)))
    with replacing(target) as temporary:
        pq.write_table(listed, temporary, compression="zstd", compression_level=1)


def _toml(value: Any) -> str:
    """A string or a list of strings as TOML: as JSON, which knows surrogates and lets DEL pass."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _card_toml(name: str, rows: list[dict[str, str]]) -> str:
    suffixes = {os.path.splitext(row["media"])[1].lower() for row in rows}
    by_id = all(row["clip_id"] == row["media"] for row in rows)
    lines = [f"title = {_toml(name)}"]
    lines += [
        f"{key} = {_toml(_TO_FILL_IN)}"
        for key in ("homepage", "citation", "metadata_licence", "media_licence")
    ]
    lines += [
        f'modality = "{"audio" if suffixes <= SOUND_SUFFIXES else "audio-video"}"',
        "unidentified = true",
    ]
    lines += [f"media = {_toml(['{clip_id}'] if by_id else [])}", ""]
    lines += ["[files.rows]", f"path = {_toml(FILE)}", f"url = {_toml(_TO_FILL_IN)}", "by_hand = true"]
    lines += ['format = "parquet"', f"columns = {_toml(list(COLUMNS))}"]
    for split in sorted({row["split"] for row in rows}):
        role = ROLES.get(split.lower(), "train")
        lines += ["", f"[splits.{_toml(split)}]", f"role = {_toml(role)}"]
    return "\n".join(lines) + "\n"
