"""What `curate build` is measured against: the same manifests by a bare DuckDB script.

Reads what `curate fetch` leaves and writes the same rows and columns as Parquet (zstd), one file for
each dataset. It believes its input: fixed dialects, typed columns, no check, no problems, no twins,
no published evidence, no counts, no digests, no provenance. Written for speed, as somebody would who
builds these nine files once.

    python bare_build.py MANIFESTS OUT      reads MANIFESTS/<dataset>/raw, writes OUT/<dataset>.parquet
"""

import sys
from collections.abc import Callable
from pathlib import Path

import duckdb

VIDEO = r"^(.{11})_(\d{6})"  # VGGSound's way, also of file names
AUDIO = r"Y(.{11})\.wav$"  # AudioCaps' way
# The columns that a dataset leaves out.
EMPTY = {
    "lists": "[]::varchar[]",
    "start_s": "null::double",
    "end_s": "null::double",
    "captions": "[]::varchar[]",
    "labels": "[]::varchar[]",
    "licence": "null::varchar",
    "uploader": "null::varchar",
}
COLUMNS = [
    "dataset", "clip_id", "split", "lists", "source", "source_id", "start_s", "end_s", "captions",
    "labels", "licence", "uploader", "origin",
]  # fmt: skip
INDEX = "columns = {clips: 'map(varchar, struct(audio varchar[]))'}"  # of soundata


def rows(dataset: str, source: str, given: dict[str, str], table: str, tail: str = "") -> str:
    """A SELECT of one dataset in the columns of clips."""
    fixed = {"dataset": f"'{dataset}'", "origin": "{'file': file, 'row': row}"}
    given = EMPTY | fixed | {"source": f"'{source}'"} | given
    return f"select {', '.join(f'{given[name]} as {name}' for name in COLUMNS)} from {table} {tail}"


def write(db: duckdb.DuckDBPyConnection, out: Path, dataset: str, select: str) -> None:
    db.execute(f"copy ({select}) to '{out / dataset}.parquet' (format parquet, compression zstd)")


def load(db: duckdb.DuckDBPyConnection, table: str, raw: Path, files: list[str], options: str) -> None:
    """The rows of some CSV files, numbered, as a temporary table: a scan of it runs in parallel,
    where numbering inside the COPY makes all of it serial."""
    for index, file in enumerate(files):
        verb = f"insert into {table}" if index else f"create temp table {table} as"
        db.execute(
            f"{verb} select *, '{file}' as file, row_number() over () as row "
            f"from read_csv('{raw / file}', {options})"
        )


def audioset(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    load(
        db,
        "segments",
        raw,
        ["balanced_train_segments.csv", "unbalanced_train_segments.csv", "eval_segments.csv"],
        "delim = ', ', quote = '\"', header = false, skip = 3, auto_detect = false, columns = "
        "{'id': 'varchar', 'start': 'double', 'end': 'double', 'labels': 'varchar'}",
    )
    db.execute(
        f"""create temp table ontology as
        select map(list(mid), list(display_name)) as names
        from read_csv('{raw / "class_labels_indices.csv"}')"""
    )
    given = {
        "clip_id": "id || '_' || (start * 1000)::bigint",
        "split": "split_part(file, '_', 1)",
        "source_id": "id",
        "start_s": "start",
        "end_s": '"end"',
        "labels": "list_transform(string_split(labels, ','), lambda mid: names[mid])",
    }
    write(db, out, "audioset", rows("audioset", "youtube", given, "segments, ontology"))


def audiocaps(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    columns = (
        "{'number': 'bigint', 'id': 'varchar', 'start': 'bigint', 'caption': 'varchar'}, "
        "header = true, auto_detect = false, quote = '\"'"
    )
    load(
        db,
        "captioned",
        raw,
        ["dataset/train.csv", "dataset/val.csv", "dataset/test.csv"],
        f"columns = {columns}",
    )
    timed = " union all ".join(
        f"select distinct 'audiocaps@{name}' as list, id, start "
        f"from read_csv('{raw / file}', columns = {columns})"
        for name, file in (
            ("v2", "dataset2.0/test.csv"),
            ("v2-val", "dataset2.0/val.csv"),
            ("aac-train-v2", "aac-datasets/train_v2.csv"),
        )
    )
    db.execute(
        f"""create temp table memberships as
        select id, start, list(list) as lists from (
            {timed}
            union all
            select distinct 'audiocaps@wavcaps', regexp_extract(file_name, '{AUDIO}', 1), null
            from read_csv('{raw / "lists/wavcaps_test_957.csv"}')
            union all
            select distinct 'audiocaps@audioldm', regexp_extract(clip.wav, '{AUDIO}', 1), null
            from (select unnest(data) as clip
                from read_json('{raw / "lists/audioldm_eval_test_964.json"}',
                    columns = {{data: 'struct(wav varchar)[]'}}))
        ) group by all"""
    )
    given = {
        "clip_id": "id || '_' || lpad(start::varchar, 6, '0')",
        "split": "string_split(replace(file, '.csv', ''), '/')[-1]",
        "lists": """list_sort(list_concat(
            case file when 'dataset/test.csv' then ['audiocaps@v1']
                      when 'dataset/val.csv' then ['audiocaps@v1-val'] else [] end,
            coalesce(timed.lists, []), coalesce(untimed.lists, [])))""",
        "source_id": "id",
        "start_s": "start::double",
        "end_s": "start::double + 10",
        "captions": "captions",
    }
    clips = """(select id, start, file, list(caption order by row) as captions, min(row) as row
                from captioned group by id, start, file) c
        left join memberships timed using (id, start)
        left join (from memberships where start is null) untimed using (id)"""
    write(db, out, "audiocaps", rows("audiocaps", "youtube", given, clips, "order by file, row"))


def avsync15(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    given = {
        "clip_id": "vid",
        "split": "split",
        "source_id": "left(vid, 11)",
        "start_s": "vid[13:18]::double",
        "end_s": "vid[20:25]::double",
        "labels": "[label]",
    }
    table = f"""(select *, 'asva_metadata.csv' as file, row_number() over () as row
                 from read_csv('{raw / "asva_metadata.csv"}'))"""
    write(db, out, "avsync15", rows("avsync15", "youtube", given, table))


def clotho(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    load(
        db,
        "recordings",
        raw,
        [f"clotho_captions_{split}.csv" for split in ("development", "evaluation", "validation")],
        "header = true, delim = ',', quote = '\"', escape = '\"', all_varchar = true",
    )
    split = r"regexp_extract(file, 'captions_(.*)\.csv', 1)"
    given = {
        "clip_id": f"{split} || '/' || file_name",
        "split": split,
        "lists": f"""case {split} when 'evaluation' then ['clotho@v2.1-evaluation']
            when 'validation' then ['clotho@v2.1-validation'] else [] end""",
        "source_id": "null::varchar",
        "captions": "[caption_1, caption_2, caption_3, caption_4, caption_5]",
    }
    index = raw / "soundata_index_v2.1.json"
    unlabelled = {
        "clip_id": "path",
        "split": "'test'",
        "lists": "['clotho@v2.1-test']",
        "source_id": "null::varchar",
    }
    table = f"""(select unnest(map_values(clips)).audio[1] as path,
                        generate_subscripts(map_keys(clips), 1) as row,
                        'soundata_index_v2.1.json' as file
                 from read_json('{index}', {INDEX}))"""
    write(
        db,
        out,
        "clotho",
        rows("clotho", "freesound", given, "recordings")
        + " union all "
        + rows("clotho", "freesound", unlabelled, table, "where starts_with(path, 'test/')"),
    )


def esc50(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    given = {
        "clip_id": "filename",
        "split": "'fold' || fold",
        "lists": "['esc50@all']",
        "source_id": "src_file",
        "labels": "[category]",
    }
    table = f"""(select *, 'esc50.csv' as file, row_number() over () as row
                 from read_csv('{raw / "esc50.csv"}', all_varchar = true))"""
    write(db, out, "esc50", rows("esc50", "freesound", given, table))


def fsd50k(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    index = raw / "soundata_index.json"
    given = {
        "clip_id": "clip.key",
        "split": r"regexp_extract(clip.value.audio[1], '^FSD50K\.(dev|eval)_audio/', 1)",
        "source_id": "clip.key",
    }
    table = f"""(select unnest(map_entries(clips)) as clip,
                        generate_subscripts(map_keys(clips), 1) as row, 'soundata_index.json' as file
                 from read_json('{index}', {INDEX}))"""
    write(db, out, "fsd50k", rows("fsd50k", "freesound", given, table))


def urbansound8k(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    given = {
        "clip_id": "slice_file_name",
        "split": "'fold' || fold",
        "lists": "['urbansound8k@all']",
        "source_id": "fsID::varchar",
        "start_s": "start::double",
        "end_s": '"end"::double',
        "labels": "[class_name]",
    }
    table = f"""(select *, 'UrbanSound8K.csv' as file, row_number() over () as row
                 from read_csv('{raw / "UrbanSound8K.csv"}'))"""
    write(db, out, "urbansound8k", rows("urbansound8k", "freesound", given, table))


def vggsound(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    load(
        db,
        "videos",
        raw,
        ["vggsound.csv"],
        "header = false, auto_detect = false, quote = '\"', columns = "
        "{'id': 'varchar', 'start': 'bigint', 'label': 'varchar', 'split': 'varchar'}",
    )
    named = " union all ".join(
        f"select distinct 'vggsound@{name}' as list, regexp_extract({column}, '{VIDEO}', 1) as id, "
        f"regexp_extract({column}, '{VIDEO}', 2)::bigint as start "
        f"from read_csv('{raw / file}', {options})"
        for name, file, column, options in (
            ("mmaudio", "lists/mmaudio_vgg-test.tsv", "id", r"delim = '\t'"),
            ("mmaudio-val", "lists/mmaudio_vgg-val.tsv", "id", r"delim = '\t'"),
            ("vggsounder", "lists/vggsounder.csv", "video_id", "delim = ','"),
            ("github-test", "github/test.csv", "name", "header = false, names = ['name', 'label']"),
        )
    )
    db.execute(
        f"""create temp table memberships as
        select id, start, list(list) as lists from (
            {named}
            union all
            select distinct 'vggsound@vggss', regexp_extract(file, '{VIDEO}', 1),
                   regexp_extract(file, '{VIDEO}', 2)::bigint
            from read_json('{raw / "lists/vggss.json"}', columns = {{file: 'varchar'}})
            union all
            select distinct 'vggsound@sparse-clean', video_id, start_sec
            from read_csv('{raw / "lists/vggsound_sparse_clean.csv"}')
        ) group by all"""
    )
    given = {
        "clip_id": "id || '_' || lpad(start::varchar, 6, '0')",
        "split": "split",
        "lists": """list_sort(list_concat(
            case split when 'test' then ['vggsound@official'] else [] end, coalesce(lists, [])))""",
        "source_id": "id",
        "start_s": "start::double",
        "end_s": "start::double + 10",
        "labels": "[label]",
    }
    table = "videos left join memberships using (id, start)"
    write(db, out, "vggsound", rows("vggsound", "youtube", given, table, "order by row"))


def wavcaps(db: duckdb.DuckDBPyConnection, raw: Path, out: Path) -> None:
    file = "json_files/SoundBible/sb_final.json"
    given = {
        "clip_id": "'soundbible/' || item.id",
        "split": "'soundbible'",
        "source_id": "item.id",
        "captions": "[item.caption]",
        "uploader": "nullif(trim(item.author), '')",
    }
    table = f"""(select unnest(data) as item, generate_subscripts(data, 1) as row, '{file}' as file
                 from read_json('{raw / file}',
                     columns = {{data: 'struct(id varchar, caption varchar, author varchar)[]'}}))"""
    write(db, out, "wavcaps", rows("wavcaps", "soundbible", given, table))


DATASETS: tuple[Callable[[duckdb.DuckDBPyConnection, Path, Path], None], ...] = (
    audiocaps, audioset, avsync15, clotho, esc50, fsd50k, urbansound8k, vggsound, wavcaps,
)  # fmt: skip


def main(manifests: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for dataset in DATASETS:
        with duckdb.connect() as db:
            db.execute("set enable_progress_bar = false")
            dataset(db, manifests / dataset.__name__ / "raw", out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
