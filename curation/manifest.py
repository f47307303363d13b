"""The schema of a manifest, once: columns of `clips.parquet` and what stands beside them.

Provenance lies under one key of the Parquet metadata, as canonical JSON without times, paths of the
machine or host names, so that equal input gives equal bytes.
"""

import json
from typing import TYPE_CHECKING, Any

from curation.errors import BadManifest

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

METADATA_KEY = "foleyproof"
FORMAT = "foleyproof-clips/1"
# How COPY writes. Level 1 takes a fifth less time than the default 3, and ids do not shrink further.
PARQUET = "format parquet, compression zstd, compression_level 1"

# (column, DuckDB type); the meaning of each is in README.md, "The columns of clips"
CLIP_COLUMNS = (
    ("dataset", "varchar"),
    ("clip_id", "varchar"),
    ("split", "varchar"),
    ("lists", "varchar[]"),
    ("source", "varchar"),
    ("source_id", "varchar"),
    ("start_s", "double"),
    ("end_s", "double"),
    ("captions", "varchar[]"),
    ("labels", "varchar[]"),
    ("licence", "varchar"),
    ("uploader", "varchar"),
    ("origin", "struct(file varchar, row bigint)"),
)
# what clean adds for a removed row
EXCLUSION_COLUMNS = (
    ("reason", "varchar"),
    ("rule", "varchar"),
    ("tier", "varchar"),
    ("heldout_dataset", "varchar"),
    ("heldout_clip_id", "varchar"),
    ("measure", "double"),
    ("offset_s", "double"),
)
EVIDENCE_COLUMNS = (
    ("test_list", "varchar"),
    ("heldout_dataset", "varchar"),
    ("heldout_clip_id", "varchar"),
    ("train_dataset", "varchar"),
    ("train_clip_id", "varchar"),
    ("rule", "varchar"),
    ("measure", "double"),
    ("offset_s", "double"),
)
# what build could not take as it stood, one row each
PROBLEM_COLUMNS = (
    ("dataset", "varchar"),
    ("clip_id", "varchar"),
    ("source_id", "varchar"),
    ("stage", "varchar"),
    ("reason", "varchar"),
    ("verdict", "varchar"),
    ("detail", "varchar"),
    ("origin", "struct(file varchar, row bigint)"),
)
# a pair of near-duplicates; the meaning of each is in README.md, "The columns of duplicates"
FOUND_COLUMNS = (
    ("a_dataset", "varchar"),
    ("a_clip_id", "varchar"),
    ("b_dataset", "varchar"),
    ("b_clip_id", "varchar"),
    ("rule", "varchar"),
    ("tier", "varchar"),
    ("offset_s", "double"),
    ("speed", "double"),
    ("shared_s", "double"),
    ("video_score", "double"),
    ("audio_score", "double"),
    ("mirrored", "boolean"),
    ("box", "double[]"),
)
# … and in duplicates.parquet
DUPLICATE_COLUMNS = (
    *FOUND_COLUMNS,
    ("a_split", "varchar"),
    ("b_split", "varchar"),
    ("same_source", "boolean"),
)

# what scan found in the media of a clip; see README.md, "Scanning media"
FINGERPRINT_COLUMNS = (
    ("dataset", "varchar"),
    ("clip_id", "varchar"),
    ("start_s", "double"),
    ("end_s", "double"),
    ("file", "varchar"),
    ("status", "varchar"),
    ("reason", "varchar"),
    ("detail", "varchar"),
    ("content_digest", "varchar"),
    ("duration_s", "double"),
    ("video_codec", "varchar"),
    ("width_px", "integer"),
    ("height_px", "integer"),
    ("fps", "double"),
    ("rotation_deg", "integer"),
    ("num_frames", "integer"),
    ("video_start_s", "double"),
    ("audio_codec", "varchar"),
    ("sample_rate_hz", "integer"),
    ("channels", "integer"),
    ("audio_start_s", "double"),
    ("silent_share", "double"),
    ("bandwidth_hz", "double"),
    ("still_share", "double"),
    ("box", "float[]"),
    ("hash_version", "varchar"),
    ("hash_ms", "integer[]"),
    ("hash_view", "utinyint[]"),
    ("hash", "ubigint[]"),
    ("flatness", "float[]"),
    ("audio_version", "varchar"),
    ("audio_ms", "integer[]"),
    ("audio_item", "uinteger[]"),
)
# … and what two clips are aligned by
CONTENT_COLUMNS = (
    ("clip_id", "varchar"),
    ("thumb_fps", "double"),
    ("thumbs", "blob"),
    ("num_thumbs", "integer"),
    ("audio_bands", "blob"),
    ("num_audio_frames", "integer"),
)


def arrow_schema(columns: tuple[tuple[str, str], ...]) -> "pa.Schema":
    """The Arrow schema of such a list of columns."""
    import pyarrow as pa

    types = {
        "varchar": pa.string(),
        "double": pa.float64(),
        "varchar[]": pa.list_(pa.string()),
        "boolean": pa.bool_(),
        "float[]": pa.list_(pa.float32()),
        "double[]": pa.list_(pa.float64()),
        "integer": pa.int32(),
        "integer[]": pa.list_(pa.int32()),
        "utinyint[]": pa.list_(pa.uint8()),
        "uinteger[]": pa.list_(pa.uint32()),
        "ubigint[]": pa.list_(pa.uint64()),
        "blob": pa.binary(),
        "struct(file varchar, row bigint)": pa.struct([("file", pa.string()), ("row", pa.int64())]),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns])


def parse_provenance(value: bytes | None, *, path: "Path") -> dict[str, Any]:
    """The provenance that build or clean wrote into the metadata of `path`."""
    if value is None:
        raise BadManifest(
            f"{path}: no key {METADATA_KEY!r} in its metadata, expected a file that curate wrote — "
            "rebuild it with: curate build"
        )
    provenance: dict[str, Any] = json.loads(value)
    return provenance
