"""Features that are extracted already: which of their rows a clean manifest keeps, and a copy of those.

A tsv names one clip a row, in its column `id`; beside it a folder of its name without suffix may hold
the tensors, as TensorDict writes them: `meta.json`, and `<tensor>.memmap` with the rows one after
another. An id that is no row of the manifest is unknown, and unknown is not clean: it is not kept.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.filenames import MMAUDIO, stem_sql, stems_sql
from curation.catalog.lists import built_path
from curation.catalog.store import one_thread, sql_text, work_connection
from curation.decision import certificate, memmap
from curation.errors import BadMetadata, UsageProblem
from curation.files import locked, outside, remove, replacing, sha256_file, write_json
from curation.manifest import PARQUET
from curation.tables import number
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb

_FORMAT = "foleyproof-extracted/1"
_VERDICTS = ("kept", "dropped", "unknown")
# Source: spec of MMAudio's extraction: a long sound gives up to five parts, `{stem}_{i}`.
_PART = "^(.*)_[0-4]$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """A tsv of extracted clips, and the folder of tensors beside it, if there is one."""

    dataset: str
    tsv: Path

    @property
    def folder(self) -> Path:
        """Where its tensors lie."""
        return self.tsv.with_suffix("")

    @property
    def stem(self) -> str:
        """The name of all that is made of it."""
        return self.tsv.stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What became of the rows of one tsv; kept + dropped + unknown is all of them."""

    tsv: str
    dataset: str
    rows: int
    kept: int
    dropped: int
    unknown: int
    tensors: tuple[str, ...]  # of the filtered folder; empty without one

    @property
    def sentence(self) -> str:
        """The sum as one line."""
        return (
            f"{self.tsv}: {number(self.rows, 'row')} = {self.kept:,} kept + {self.dropped:,} dropped + "
            f"{self.unknown:,} unknown"
        )


def check_inputs(
    inputs: Sequence[Extracted], out: Path, cards: dict[str, Card], manifests: Path
) -> None:
    """Raise UsageProblem for what cannot work, before anything is made."""
    outside(out, manifests, option="--extracted-out")
    stems = Counter(item.stem for item in inputs)
    for item in inputs:
        if item.dataset not in cards:
            raise UsageProblem(
                f"--extracted {item.dataset}={item.tsv}: unknown dataset {item.dataset!r}, expected one "
                f"of: {', '.join(cards)} — see: curate datasets"
            )
        if not item.tsv.is_file():
            raise UsageProblem(
                f"--extracted {item.dataset}={item.tsv}: no such file, expected a tsv with a column id; "
                "its tensors lie in the folder of that name without suffix"
            )
        if item.folder == item.tsv:
            raise UsageProblem(
                f"--extracted {item.dataset}={item.tsv}: has no suffix, expected NAME.tsv; its tensors "
                "lie in the folder NAME — rename it"
            )
        if stems[item.stem] > 1:
            raise UsageProblem(
                f"--extracted: {stems[item.stem]} files are named {item.stem}, expected each name once, "
                "as what is made of them is named so too — filter them one by one"
            )
        if item.tsv.parent.resolve() == out.resolve():
            raise UsageProblem(
                f"--extracted-out {out}: holds {item.tsv.name} itself, which the filtered copy would "
                "replace, expected another folder — give one"
            )
        memmap.check_replaceable(out / item.stem)


def filter_extracted(
    inputs: Sequence[Extracted],
    out: Path,
    *,
    name: str,
    manifests: Path,
    cards: dict[str, Card],
    progress: Callable[[str, int, int | None], Any] = lambda label, done, total: None,
) -> list[Filtered]:
    """Write into `out`, for each tsv, what `clean/<name>` keeps of it; run again to continue.

    `<stem>.rows.parquet` says of every row what became of it, `<stem>.mask.npy` is true where it is
    kept; `<stem>.tsv` and the folder `<stem>` hold the kept rows; `<stem>.json`, written last, tells
    that all of them belong together.

    Raises:
        UsageProblem: a file, dataset or clean manifest is not there.
        BadMetadata: a tsv or its tensors cannot be read, or have different numbers of rows.
        ManifestChanged: the clean manifest is not what its certificate says.
    """
    check_inputs(inputs, out, cards, manifests)
    folder = certificate.named(manifests, name)
    document = certificate.read(folder)
    certificate.check_files(folder, document)
    done = []
    with locked(out):
        for item in inputs:
            header, lines, ids = _read_tsv(item.tsv)
            tensors, meta = (
                memmap.read_meta(item.folder, len(ids), item.tsv.name)
                if item.folder.is_dir()
                else ([], {})
            )
            (out / f"{item.stem}.json").unlink(missing_ok=True)
            with work_connection(out) as db:
                _define_verdicts(db, item, folder, built_path(manifests, item.dataset), cards)
                mask, counts = _write_rows(db, item, ids, out)
            if not tensors:
                remove(out / item.stem)  # of a former run, from a tsv that had tensors
            else:
                memmap.write_rows(tensors, meta, mask, out / item.stem, progress)
            with replacing(out / f"{item.stem}.tsv") as temporary:
                kept_lines = (line for line, kept in zip(lines, mask, strict=True) if kept)
                temporary.write_bytes(b"".join([header, *kept_lines]))
            filtered = Filtered(
                tsv=item.tsv.name,
                dataset=item.dataset,
                rows=len(ids),
                kept=counts["kept"],
                dropped=counts["dropped"],
                unknown=counts["unknown"],
                tensors=tuple(tensor.name for tensor in tensors),
            )
            assert filtered.rows == filtered.kept + filtered.dropped + filtered.unknown, filtered
            write_json(
                out / f"{item.stem}.json",
                {
                    "format": _FORMAT,
                    "dataset": item.dataset,
                    "clean": name,
                    "certificate": document["digest"],
                    "counts": {verdict: counts[verdict] for verdict in _VERDICTS},
                    "tensors": list(filtered.tensors),
                    "tsv": sha256_file(item.tsv),
                },
            )
            done.append(filtered)
    return done


def _read_tsv(path: Path) -> tuple[bytes, list[bytes], list[str]]:
    """Its header and its rows as they stand there, and their ids."""

    def fail(what: str, expected: str) -> BadMetadata:
        return BadMetadata(
            f"{path}: {what}, expected {expected} — give the tsv that was written with the features"
        )

    consumed: list[bytes] = []

    def text_lines(stream: IO[bytes]) -> Iterator[str]:
        for line in stream:
            consumed.append(line)
            yield line.decode("utf-8-sig" if len(records) == 0 else "utf-8")

    records: list[bytes] = []
    ids: list[str] = []
    try:
        with path.open("rb") as stream:
            for cells in csv.reader(text_lines(stream), delimiter="\t"):
                if not records:
                    if cells.count("id") != 1:
                        raise fail(f"columns {', '.join(cells)[:80]!r}", "a header with one column id")
                    names = cells
                elif len(cells) != len(names):
                    raise fail(f"row {len(records):,} has {number(len(cells), 'cell')}", f"{len(names)}")
                else:
                    ids.append(cells[names.index("id")])
                records.append(b"".join(consumed))
                consumed.clear()
    except (UnicodeDecodeError, csv.Error) as error:
        raise fail(f"row {len(records):,}: {error}", "tab-separated UTF-8") from error
    if not records:
        raise fail("is empty", "a header with a column id")
    if not records[-1].endswith(b"\n"):
        records[-1] += b"\n"
    return records[0], records[1:], ids


def _define_verdicts(
    db: "duckdb.DuckDBPyConnection", item: Extracted, folder: Path, built: Path, cards: dict[str, Card]
) -> None:
    """The table `names`: each name of a clip of the dataset, and what becomes of who is called so.

    A name of several clips is dropped where one of them is, and kept only where all are.
    """
    dataset = sql_text(item.dataset)
    kept, excluded = (sql_text(folder / f"{part}.parquet") for part in ("kept", "excluded"))
    nothing = "null::varchar as reason, null::varchar as rule, null::varchar as heldout_dataset, " \
        "null::varchar as heldout_clip_id"  # fmt: skip
    columns = "clip_id, source_id, start_s, end_s"
    db.execute(
        f"""create temp table judged as
        select {columns}, 'kept' as verdict, {nothing} from read_parquet({kept})
            where dataset = {dataset}
        union all
        select {columns}, 'dropped', reason, rule, heldout_dataset, heldout_clip_id
            from read_parquet({excluded}) where dataset = {dataset}"""
    )
    if db.execute("select count(*) from judged").fetchone() == (0,):
        raise UsageProblem(
            f"--extracted {item.dataset}={item.tsv}: clean/{folder.name} has no row of {item.dataset}, "
            "expected one of its training sets — make it with: curate clean --train "
            f"{item.dataset} --name NAME"
        )
    db.execute(
        f"""insert into judged
        select {columns}, 'held out', {nothing} from read_parquet({sql_text(built)})
        where clip_id not in (select clip_id from judged)"""
    )
    stems = [stem_sql(MMAUDIO), *stems_sql(cards[item.dataset].media)]
    db.execute(
        f"""create temp table names as
        select name, case
                when bool_or(verdict = 'dropped') then 'dropped'
                when bool_and(verdict = 'kept') then 'kept'
                else 'unknown' end as verdict,
            case when bool_or(verdict = 'dropped') then first.reason
                when bool_and(verdict = 'kept') then null
                when bool_or(verdict = 'kept') then '{Reason.AMBIGUOUS_ID}'
                else '{Reason.HELD_OUT}' end as reason,
            first.rule as rule, first.heldout_dataset as heldout_dataset,
            first.heldout_clip_id as heldout_clip_id
        from (
            select name, verdict, min(if(verdict = 'dropped', {{'clip_id': clip_id, 'reason': reason,
                'rule': rule, 'heldout_dataset': heldout_dataset,
                'heldout_clip_id': heldout_clip_id}}, null)) over (partition by name) as first
            from (select unnest(list_distinct([clip_id, {", ".join(stems)}])) as name, * from judged)
            where name is not null
        )
        group by name, first"""
    )


def _write_rows(
    db: "duckdb.DuckDBPyConnection", item: Extracted, ids: list[str], out: Path
) -> tuple[Any, Counter[str]]:
    """Write what became of each row, and the mask; that mask and the sum."""
    import numpy as np
    import pyarrow as pa

    table = pa.table({"row": pa.array(range(len(ids)), pa.int64()), "id": pa.array(ids, pa.string())})
    db.register("ids", table)
    columns = ("verdict", "reason", "rule", "heldout_dataset", "heldout_clip_id")
    missing = {"verdict": "'unknown'", "reason": f"'{Reason.NO_SUCH_CLIP}'"}
    # a clip of that name, and a part of the sound whose name it begins with
    ambiguous = {"verdict": "'unknown'", "reason": f"'{Reason.AMBIGUOUS_ID}'"}
    chosen = ", ".join(
        f"case when n.verdict <> p.verdict then {ambiguous.get(c, 'null')} "
        f"when n.name is not null then n.{c} when p.name is not null then p.{c} "
        f"else {missing.get(c, 'null')} end as {c}"
        for c in columns
    )
    db.execute(
        f"""create temp table rows as
        select ids.row, ids.id, {chosen}
        from ids left join names n on n.name = ids.id
        left join names p on p.name = regexp_extract(ids.id, '{_PART}', 1)
        order by ids.row"""
    )
    with one_thread(db), replacing(out / f"{item.stem}.rows.parquet") as temporary:
        db.execute(f"copy (from rows order by row) to {sql_text(temporary)} ({PARQUET})")
    verdicts = db.execute("select verdict from rows order by row").fetchnumpy()["verdict"]
    mask = np.asarray(verdicts == "kept", dtype=bool)
    assert len(mask) == len(ids), f"{len(mask)} verdicts for {len(ids)} rows"
    with replacing(out / f"{item.stem}.mask.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, mask)
    return mask, Counter(str(verdict) for verdict in verdicts)
