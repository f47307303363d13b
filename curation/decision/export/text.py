"""Plain text for the programs of others: MMAudio's tsv files, and lists of ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card
from curation.catalog.filenames import MMAUDIO, stem_sql
from curation.catalog.store import sql_text
from curation.decision.export.rows import Rows, card_of, export_file, export_folder, reading_rows
from curation.files import replacing

if TYPE_CHECKING:
    import duckdb

# MMAudio's readers split at tabs, and some take a leading quote for the begin of a quoted cell.
_CLEAN = "nullif(trim(regexp_replace(replace({text}, '\"', ''''), '[\\pC\\pZ]+', ' ', 'g')), '')"
_UNWRITABLE = r"[\pC\x{2028}\x{2029}\"]"


@dataclass(slots=True)
class Counts:
    """What became of the rows: those written and, by reason, those that could not be."""

    total: int = 0
    written: int = 0
    repeated: int = 0  # another row has that name
    without_text: int = 0
    without_id: int = 0
    unwritable_id: int = 0  # it holds a character that would end the line or the cell

    def check(self) -> None:
        """Raise AssertionError unless all rows are accounted for."""
        rest = self.repeated + self.without_text + self.without_id + self.unwritable_id
        assert self.total == self.written + rest, f"rows do not add up: {self}"

    @property
    def parts(self) -> dict[str, int]:
        """The parts in words, without those that are empty."""
        parts = {
            "written": self.written,
            "repeated": self.repeated,
            "without text": self.without_text,
            "without id": self.without_id,
            "with an id that a line cannot hold": self.unwritable_id,
        }
        return {name: count for name, count in parts.items() if count or name == "written"}


def to_mmaudio(rows: Rows, target: Path, manifests: Path, cards: dict[str, Card]) -> Counts:
    """Write a tsv for each dataset: `id` and `label` where there are pictures, else `id` and `caption`.

    Source: spec of MMAudio's extraction: VGGSound's tsv has id and label, audio sets id and caption.
    """
    counts = Counts()
    with (
        reading_rows(rows, manifests) as (db, names),
        export_folder(target, manifests, format="mmaudio", what=rows.what) as folder,
    ):
        for name in names:
            card = card_of(name, cards)
            pictures = card.modality == "audio-video"
            first, second = ("labels", "captions") if pictures else ("captions", "labels")
            text = {
                "labels": "nullif(array_to_string(labels, ', '), '')",
                "captions": "nullif(captions[1], '')",
            }
            db.execute(
                f"""create or replace temp table named as
                select row_number() over () as position, {_id(card)} as id,
                       {_CLEAN.format(text=f"coalesce({text[first]}, {text[second]})")} as text
                from chosen where dataset = {sql_text(name)}"""
            )
            with replacing(folder / f"{name}.tsv") as temporary:
                header = ("id", "label" if pictures else "caption")
                _write_lines(
                    db, counts, temporary, header="\t".join(header), columns="id || chr(9) || text"
                )
    counts.check()
    return counts


def _id(card: Card) -> str:
    """SQL of the name that MMAudio's files have, else of what people call the file."""
    patterns = [Path(pattern).stem for pattern in card.media]
    if MMAUDIO in patterns:
        return f"coalesce({stem_sql(MMAUDIO)}, clip_id)"
    return f"coalesce({stem_sql(card.media[0])}, clip_id)" if card.media else "clip_id"


def to_ids(rows: Rows, target: Path, manifests: Path, *, column: str) -> Counts:
    """Write each `clip_id` or `source_id` once, one a line, sorted by bytes."""
    counts = Counts()
    with reading_rows(rows, manifests) as (db, _), export_file(target, manifests) as temporary:
        db.execute(
            f"""create temp table named as
            select row_number() over () as position, {column} as id, '' as text from chosen"""
        )
        _write_lines(db, counts, temporary, header="", columns="id", order="id")
    counts.check()
    return counts


def _write_lines(
    db: "duckdb.DuckDBPyConnection",
    counts: Counts,
    target: Path,
    *,
    header: str,
    columns: str,
    order: str = "position",
) -> None:
    """Write the table `named`, whose rows each end in one of the counts."""
    db.execute(
        f"""create or replace temp table judged as
        select *, case
            when id is null then 'without_id'
            when regexp_matches(id, '{_UNWRITABLE}') or id = '' then 'unwritable_id'
            when text is null then 'without_text'
            when row_number() over (partition by id order by text is null, position) > 1
                then 'repeated'
            else 'written' end as verdict
        from named"""
    )
    for verdict, count in db.execute("select verdict, count(*) from judged group by 1").fetchall():
        setattr(counts, verdict, getattr(counts, verdict) + count)
        counts.total += count
    cursor = db.execute(f"select {columns} from judged where verdict = 'written' order by {order}")
    with target.open("w", encoding="utf-8", newline="") as out:
        if header:
            out.write(header + "\n")
        while lines := cursor.fetchmany(10_000):
            out.writelines(line + "\n" for (line,) in lines)
