"""Fingerprints on disk: a folder for each part of a dataset, written by scan, read by all who compare.

    fingerprints/<dataset>/scan.json                  written last: what was scanned how, and every part
    fingerprints/<dataset>/<part>/clips.parquet       a row for each clip, sorted by clip_id
    fingerprints/<dataset>/<part>/content.parquet     a row for each scanned clip, in the same order

Both carry under `foleyproof` in their metadata the format, the dataset and the versions of the hashes;
readers refuse to mix them.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.catalog.store import FINGERPRINTS, SCAN, scan_record
from curation.closing import Closing
from curation.errors import BadManifest, UsageProblem
from curation.files import canonical_json
from curation.manifest import CONTENT_COLUMNS, FINGERPRINT_COLUMNS, METADATA_KEY, arrow_schema
from curation.media.answer import Answer
from curation.media.columns import table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FORMAT = "foleyproof-fingerprints/1"
CLIPS, CONTENT = "clips.parquet", "content.parquet"
CONTENT_ROWS = 16  # of a row group: what is read at once
_FILES_HELD = 32  # open at a time, of maybe thousands
_GROUPS_HELD = 64  # of all files together, each of some hundred KiB
_LISTS = ("box", "hash_ms", "hash_view", "hash", "flatness", "audio_ms", "audio_item")
Row = dict[str, Any]


def fingerprint_folder(manifests: Path, dataset: str) -> Path:
    """Where the fingerprints of a dataset lie."""
    return manifests / FINGERPRINTS / dataset


# ---- writing --------------------------------------------------------------------------------------


def row_of(answer: Answer, clip: Row) -> tuple[Row, Row | None]:
    """A row of clips.parquet, and of content.parquet where the clip was scanned.

    Args:
        clip: dataset, clip_id, start_s, end_s and file.
    """
    known = {name for name, _ in FINGERPRINT_COLUMNS}
    arrays = answer.arrays
    row: Row = {
        **dict.fromkeys(known),
        **{name: np.zeros(0) for name in _LISTS},
        **clip,
        "status": answer.status,
        "reason": answer.reason,
        "detail": answer.detail,
        "content_digest": answer.content_digest,
        **{name: value for name, value in answer.values.items() if name in known},
        **{name: array for name, array in arrays.items() if name in known},
    }
    if answer.status != "scanned":
        return row, None
    thumbs, bands = arrays.get("thumbs"), arrays.get("audio_bands")
    content = {
        "clip_id": clip["clip_id"],
        "thumb_fps": answer.values.get("thumb_fps"),
        "thumbs": b"" if thumbs is None else thumbs.tobytes(),
        "num_thumbs": 0 if thumbs is None else len(thumbs),
        "audio_bands": b"" if bands is None else bands.tobytes(),
        "num_audio_frames": 0 if bands is None else len(bands),
    }
    return row, content


class PartWriter(Closing):
    """Writes both files of a part, clip by clip, in order; only their light columns are held."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        import pyarrow.parquet as pq

        self._folder, self._about = folder, {"format": FORMAT, **about}
        self._rows: list[Row] = []
        self._content: list[Row] = []
        schema = _schema(CONTENT_COLUMNS, self._about)
        self._writer = pq.ParquetWriter(
            folder / CONTENT, schema, compression="none", use_dictionary=False, write_statistics=False
        )

    def leave(self, error: BaseException | None) -> None:
        """Write the tables, where all went well."""
        if error is None:
            self._flush()
            self._writer.close()
            self._write_rows()
        else:
            self._writer.close()

    def add(self, row: Row, content: Row | None) -> None:
        """Take the rows of the next clip."""
        self._rows.append(row)
        if content is not None:
            self._content.append(content)
            if len(self._content) == CONTENT_ROWS:
                self._flush()

    def _flush(self) -> None:
        if self._content:
            self._writer.write_table(
                table(self._content, _schema(CONTENT_COLUMNS, self._about)), row_group_size=CONTENT_ROWS
            )
            self._content = []

    def _write_rows(self) -> None:
        import pyarrow.parquet as pq

        rows = table(self._rows, _schema(FINGERPRINT_COLUMNS, self._about))
        pq.write_table(rows, self._folder / CLIPS, compression="zstd", compression_level=1)


def _schema(columns: tuple[tuple[str, str], ...], about: dict[str, Any]) -> "pa.Schema":
    return arrow_schema(columns).with_metadata({METADATA_KEY: canonical_json(about)})


# ---- reading --------------------------------------------------------------------------------------


def read_scan(manifests: Path, dataset: str) -> dict[str, Any]:
    """The record of a finished scan.

    Raises:
        UsageProblem: the dataset was not scanned, or not to its end.
        BadManifest: it is not what scan wrote.
    """
    record = scan_record(manifests, dataset)
    if not record:
        raise UsageProblem(
            f"{dataset}: its media were not scanned, or not to the end, expected "
            f"{fingerprint_folder(manifests, dataset) / SCAN} — run: curate scan --dataset {dataset} DIR"
        )
    return record


def _parts(manifests: Path, dataset: str) -> list[Path]:
    """The folders of a finished scan, each as large as it was when it was written."""
    folder = fingerprint_folder(manifests, dataset)
    parts = []
    for part in read_scan(manifests, dataset)["parts"]:
        path = folder / part["name"]
        for name, entry in part["outputs"].items():
            if not (path / name).is_file() or (path / name).stat().st_size != entry["bytes"]:
                raise BadManifest(
                    f"{path / name}: is not as scan wrote it, expected {entry['bytes']:,} bytes — "
                    f"scan again: curate scan --dataset {dataset} DIR"
                )
        parts.append(path)
    return parts


def read_fingerprints(manifests: Path, dataset: str, columns: Iterable[str] | None = None) -> "pa.Table":
    """All clips of a scanned dataset, sorted by clip_id, with the columns of FINGERPRINT_COLUMNS.

    Raises:
        UsageProblem: the dataset was not scanned.
        BadManifest: a part is damaged, or made in another way than the others.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = None if columns is None else list(dict.fromkeys(("clip_id", *columns)))
    tables = []
    about: dict[str, Any] | None = None
    for part in _parts(manifests, dataset):
        path = part / CLIPS
        found, rows = read_part(path, wanted)
        if about is not None and found != about:
            raise BadManifest(
                f"{path}: was made by other versions than the parts beside it — scan again"
            )
        about = found
        tables.append(rows)
    every = pa.concat_tables(tables)
    return every.take(pc.sort_indices(every, sort_keys=[("clip_id", "ascending")]))


def read_part(path: Path, columns: list[str] | None = None) -> tuple[dict[str, Any], "pa.Table"]:
    """What is written about a file of fingerprints, and its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            about = _about(file, path)
            rows = file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise BadManifest(f"{path}: cannot be read as Parquet ({error}) — scan again") from error
    return about, rows


def _about(file: "pq.ParquetFile", path: Path) -> dict[str, Any]:
    metadata = file.schema_arrow.metadata or {}
    about: dict[str, Any] = json.loads(metadata.get(METADATA_KEY.encode(), b"{}"))
    if about.get("format") != FORMAT:
        raise BadManifest(f"{path}: format {about.get('format')!r}, expected {FORMAT} — scan again")
    return about


class _ContentFile:
    """One open content.parquet, and the place of each clip in it."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, memory_map=True)
        ids = self._file.read(columns=["clip_id"], use_threads=False)["clip_id"].to_pylist()
        self.places: dict[str, int] = {clip_id: row for row, clip_id in enumerate(ids)}

    def group(self, number: int) -> "pa.Table":
        return self._file.read_row_group(number, use_threads=False)

    def close(self) -> None:
        self._file.close()


class Contents:
    """Random access to any number of content.parquet, of which the last used are held."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _ContentFile] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    def open(self, path: Path) -> None:
        """Raise OSError or ValueError where it cannot be read as Parquet."""
        self._file(path)

    def row(self, path: Path, clip_id: str) -> Row:
        """The columns of one clip; KeyError where it is not there."""
        group, at = self._find(path, clip_id)
        row: Row = {name: group[name][at].as_py() for name, _ in CONTENT_COLUMNS}
        return row

    def arrays(self, path: Path, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Thumbnails `(n, S, S)` and bands `(T, F)`, uint8, without a copy."""
        group, at = self._find(path, clip_id)
        thumbs = np.frombuffer(group["thumbs"][at].as_buffer(), np.uint8)
        bands = np.frombuffer(group["audio_bands"][at].as_buffer(), np.uint8)
        num_thumbs, num_frames = group["num_thumbs"][at].as_py(), group["num_audio_frames"][at].as_py()
        side = int(np.sqrt(len(thumbs) // num_thumbs)) if num_thumbs else 0
        return (
            thumbs.reshape(num_thumbs, side, side),
            bands.reshape(num_frames, len(bands) // num_frames if num_frames else 0),
        )

    def _find(self, path: Path, clip_id: str) -> tuple["pa.Table", int]:
        """The row group of a clip, and its row there."""
        file = self._file(path)
        number, at = divmod(file.places[clip_id], CONTENT_ROWS)
        group = self._groups.pop((path, number), None)
        if group is None:
            group = file.group(number)
            if len(self._groups) >= _GROUPS_HELD:
                self._groups.popitem(last=False)
        self._groups[path, number] = group
        return group, at

    def _file(self, path: Path) -> _ContentFile:
        file = self._files.pop(path, None)
        if file is None:
            file = _ContentFile(path)
            if len(self._files) >= _FILES_HELD:
                self._files.popitem(last=False)[1].close()
        self._files[path] = file
        return file


class ContentReader:
    """What was kept of one dataset's clips, by clip_id; opened anew in each process it is sent to."""

    def __init__(self, manifests: Path, dataset: str) -> None:
        self._manifests, self._dataset = manifests, dataset
        self._paths = [part / CONTENT for part in _parts(manifests, dataset)]
        self._contents = Contents()

    def __reduce__(self) -> tuple[type["ContentReader"], tuple[Path, str]]:
        return ContentReader, (self._manifests, self._dataset)

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Thumbnails `(n, S, S)` and audio bands `(T, F)`, uint8; empty where there are none.

        Raises:
            KeyError: no such clip was scanned.
        """
        return self._contents.arrays(self._paths[part_of(clip_id, len(self._paths))], clip_id)


def part_of(clip_id: str, count: int) -> int:
    """The part of `count` in which a clip lies."""
    import hashlib

    digest = hashlib.sha256(clip_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count
