"""What `curate build` of one large JSON object is measured against: the same rows by DuckDB alone.

Reads the Freesound part of WavCaps as `curate fetch` leaves it and writes the columns of clips as
Parquet (zstd). It believes its input: no check of ids or duplicates, no problems, no digests. Written
for speed: `read_json` would take eight times as long over one object.

    python bare_json.py MANIFESTS OUT      reads MANIFESTS/wavcaps/raw, writes OUT/wavcaps.parquet
"""

import sys
from pathlib import Path

import duckdb

FILE = "json_files/FreeSound/fsd_final.json"
STRUCTURE = (
    '{"data": [{"id": "varchar", "caption": "varchar", "author": "varchar", "tags": ["varchar"]}]}'
)


def main(manifests: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    source = manifests / "wavcaps" / "raw" / FILE
    with duckdb.connect() as db:
        db.execute("set enable_progress_bar = false")
        db.execute(
            f"""copy (
                select 'wavcaps' as dataset, 'freesound/' || item.id as clip_id, 'freesound' as split,
                    []::varchar[] as lists, 'freesound' as source, item.id as source_id,
                    null::double as start_s, null::double as end_s, [item.caption] as captions,
                    item.tags as labels, null::varchar as licence,
                    nullif(trim(item.author), '') as uploader,
                    {{'file': '{FILE}', 'row': row}} as origin
                from (
                    select unnest(made.data) as item, generate_subscripts(made.data, 1) as row
                    from (
                        select from_json(json, '{STRUCTURE}') as made
                        from read_json_objects(
                            '{source}', maximum_object_size = {source.stat().st_size + 1024})))
            ) to '{out / "wavcaps.parquet"}' (format parquet, compression zstd)"""
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
