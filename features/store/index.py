"""The tables beside the shards, once: which row is which clip, what was rejected, which captions.

A task writes `rows.parquet`, `rejects.parquet` and `captions.parquet`; sealing makes one of each for all
tasks, where captions have become numbers of rows of the text shards. Equal content gives equal bytes.
"""

import hashlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.errors import ManifestChanged, UsageProblem
from curation.files import canonical_json, digest_of, replacing
from curation.tables import number
from features.store.shard_file import FORMAT, METADATA_KEY

EXTRACT_FILE = "extract.json"
SHARDS_FILE = "shards.json"
INDEX_FILE = "index.parquet"
REJECTS_FILE = "rejects.parquet"
CAPTIONS_FILE = "captions.parquet"
STATISTICS_FILE = "statistics.safetensors"
ROWS_FILE = "rows.parquet"  # of a task
CLIPS, TEXT = "clips", "text"  # the folders of tasks
KEY = ("dataset", "clip_id", "part")
CLIP_KEY = KEY[:2]

_HEAD = [
    ("dataset", pa.string()),
    ("clip_id", pa.string()),
    ("part", pa.int32()),
    ("start_sample", pa.int64()),
    ("end_sample", pa.int64()),
    ("source_rate_hz", pa.int32()),
    ("split", pa.string()),
    ("shard", pa.string()),  # of a task: the name of the file; sealed: its path below the folder
    ("row", pa.int32()),
    ("has_video", pa.bool_()),
]
_TAIL = [
    ("caption_digest", pa.string()),
    ("key_digest", pa.string()),
    ("content_digest", pa.string()),
    ("crc32", pa.uint32()),
    ("flags", pa.list_(pa.string())),
    ("av_offset_s", pa.float64()),
    ("peak", pa.float64()),
    ("bandwidth_hz", pa.float64()),
    ("silent_share", pa.float64()),
    ("still_share", pa.float64()),
]
ROWS = pa.schema([*_HEAD, ("captions", pa.list_(pa.string())), *_TAIL])
INDEX = pa.schema([*_HEAD, ("text_index", pa.list_(pa.int32())), *_TAIL])
REJECTS = pa.schema(
    [
        ("dataset", pa.string()),
        ("clip_id", pa.string()),
        ("part", pa.int32()),  # null: the whole clip
        ("file", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
TASK_CAPTIONS = pa.schema([("caption", pa.string()), ("crc32", pa.uint32())])
CAPTIONS = pa.schema([("text_index", pa.int32()), *TASK_CAPTIONS])


def clip_captions(captions: Sequence[str] | None, labels: Sequence[str] | None) -> list[str]:
    """What is said of a clip: its captions, else its labels in one, else the empty string."""
    return list(captions or ()) or [", ".join(labels or ())]


def caption_digest(captions: Sequence[str]) -> str:
    """`sha256:…` of the captions of a clip, in their order."""
    return _sha256(canonical_json(list(captions)))


def key_digest(dataset: str, clip_id: str, source: str | None, source_id: str | None) -> str:
    """`sha256:…` of `source:source_id`, by which whole recordings are held back from training.

    Where the source is unknown, of the clip's own key.
    """
    known = source is not None and source_id is not None
    return _sha256(f"{source}:{source_id}" if known else canonical_json([dataset, clip_id]))


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table; a key that the schema lacks is an error, one that a row lacks is null."""
    listed = list(rows)
    strange = {name for row in listed for name in row} - set(schema.names)
    assert not strange, f"columns {sorted(strange)}, expected {schema.names}"
    return pa.Table.from_pylist(listed, schema=schema)


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet, atomically; equal tables give equal bytes.

    Raises:
        NoSpace, NotWritable: nothing is half written.
    """
    described = table.replace_schema_metadata({METADATA_KEY: canonical_json({"format": FORMAT})})
    with replacing(path) as temporary:
        pq.write_table(described, temporary, compression="zstd", compression_level=3)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, or some columns of it, as it was written.

    Raises:
        ManifestChanged: it is missing, unreadable, or of other columns.
    """
    again = advice(path)
    try:
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow.remove_metadata()
            if found != schema:
                names = dict.fromkeys((*found.names, *schema.names))
                differing = [name for name in names if _type(found, name) != _type(schema, name)]
                raise ManifestChanged(
                    f"{path}: its columns differ in {', '.join(differing) or 'their order'}, expected "
                    f"those of {FORMAT} — {again}"
                )
            return file.read(columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise ManifestChanged(
            f"{path}: cannot be read ({str(error).splitlines()[0]}), expected the table that was "
            f"written there — {again}"
        ) from error


def advice(path: Path) -> str:
    """What makes a file anew: its task done again, or, beside the shards, sealing."""
    place = shlex.quote(str(path.parent))
    if path.parent.parent.name in (CLIPS, TEXT) and "-of-" in path.parent.name:
        return f"run: rm -r {place} and the same extract or import again"
    return f"run: features seal {place}"


def _type(schema: pa.Schema, name: str) -> pa.DataType | str:
    place = schema.get_field_index(name)
    return "none" if place < 0 else schema.field(place).type


def read_extract(out: Path) -> dict[str, Any]:
    """What was asked for when the folder was begun: about, certificate, tasks.

    Raises:
        UsageProblem: nothing was extracted there.
        ManifestChanged: the file is not what was written.
    """
    return _read_document(
        out / EXTRACT_FILE,
        missing=f"{out}: holds no {EXTRACT_FILE}, expected a folder that extract or import wrote — run: "
        "features extract --sr 44100",
        again="remove it and run the same extract or import again, which does no task twice",
    )


def read_sealed(out: Path) -> dict[str, Any]:
    """The contents of shards.json: format, about, certificate, files, tables, totals.

    Raises:
        UsageProblem: the folder is not sealed, or holds no shards.
        ManifestChanged: the file is not what seal wrote, or of another format version.
    """
    again = advice(out / SHARDS_FILE)
    if (out / EXTRACT_FILE).is_file() or (out / CLIPS).is_dir():
        what, mend = "is not sealed", f"where tasks are left run the same extract again, else {again}"
    else:
        what = "holds no shards" if out.is_dir() else "no such folder"
        mend = f"run: features extract --sr 44100 --out {shlex.quote(str(out))}"
    missing = f"{out}: {what}, expected {SHARDS_FILE} — {mend}"
    return _read_document(out / SHARDS_FILE, missing=missing, again=again)


def _read_document(path: Path, *, missing: str, again: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageProblem(missing) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestChanged(f"{path}: cannot be read ({error}), expected JSON — {again}") from error
    version = document.get("format") if isinstance(document, dict) else None
    if version != FORMAT:
        raise ManifestChanged(
            f"{path}: its format is {version!r}, expected {FORMAT} — use the version that wrote it, or "
            f"extract anew"
        )
    if document.get("digest") != digest_of(document):
        raise ManifestChanged(
            f"{path}: its digest does not match its content, expected what was written — {again}"
        )
    return dict(document)


def certificate_digest(certificate: Any) -> str | None:
    """How a certificate is told apart: its digest; None where there is none."""
    if isinstance(certificate, dict):
        certificate = certificate.get("digest")
    return None if certificate is None else str(certificate)


def is_untrained(about: Mapping[str, Any]) -> bool:
    """Whether any encoder had random weights."""
    return any(str(identity).startswith("untrained") for identity in about["encoders"].values())


def sorted_by_key(table: pa.Table) -> pa.Table:
    """The rows by (dataset, clip_id, part)."""
    return table.sort_by([(name, "ascending") for name in KEY])


def repeated_keys(table: pa.Table) -> pa.Table:
    """The keys that several rows of a table sorted by them have, each once."""
    if table.num_rows < 2:
        return table.select(KEY).slice(0, 0)
    same = None
    for name in KEY:
        column = table.column(name).combine_chunks()
        equal = pc.equal(column.slice(1), column.slice(0, len(column) - 1))
        same = equal if same is None else pc.and_(same, equal)
    return table.select(KEY).slice(1).filter(same)


def named(keys: pa.Table, most: int = 3) -> str:
    """Some rows of a table by their keys, for a message."""
    rows = keys.slice(0, most).to_pylist()
    text = ", ".join(f"{row['dataset']}/{row['clip_id']}" + _part(row.get("part")) for row in rows)
    return text + (", …" if keys.num_rows > most else "")


def differences(
    rows: pa.Table,
    rejects: pa.Table,
    certificate: Any,
    manifest: pa.Table,
    manifest_certificate: Any,
) -> list[str]:
    """What a manifest says otherwise than when it was extracted: a line each, none where all is alike.

    Args:
        rows, rejects: of what was extracted; of rows dataset, clip_id and caption_digest are looked at.
        certificate: of the manifest as it was; a document or its digest, None: uncertified.
        manifest: rows as they are now, with dataset, clip_id, captions and labels.
        manifest_certificate: likewise.
    """
    lines = []
    then, now = certificate_digest(certificate), certificate_digest(manifest_certificate)
    if then != now:
        lines.append(f"certificate: {then or 'none'} when extracted, {now or 'none'} in the manifest")
    clip = ["dataset", "clip_id"]
    done = rows.select([*clip, "caption_digest"]).group_by([*clip, "caption_digest"]).aggregate([])
    both = (manifest.column("captions").to_pylist(), manifest.column("labels").to_pylist())
    digests = [caption_digest(clip_captions(*said)) for said in zip(*both, strict=True)]
    asked = manifest.select(clip).append_column("caption_now", pa.array(digests, pa.string()))
    known = done.join(asked, clip, join_type="left outer")
    gone = known.filter(pc.is_null(known.column("caption_now")))
    changed = known.filter(pc.not_equal(known.column("caption_digest"), known.column("caption_now")))
    tried = pa.concat_tables([done.select(clip), rejects.select(clip)])
    new = asked.join(tried, clip, join_type="left anti")
    for found, what in (
        (changed, "captions differ from those that were extracted"),
        (gone, "extracted, and not in the manifest any more"),
        (new, "in the manifest, and neither extracted nor rejected"),
    ):
        if found.num_rows:
            some = found.sort_by([(name, "ascending") for name in clip])
            lines.append(f"{number(found.num_rows, 'clip')} ({named(some)}): {what}")
    return lines


def _part(part: int | None) -> str:
    return f" part {part}" if part else ""
