"""The clean manifest: every training row ends as kept or as excluded with a reason, and the sum holds.

Input are the rows of the train splits; rows that are test items themselves are held out, and no
input. `kept.parquet` has the columns of clips, `excluded.parquet` adds the first evidence by rule
order. Both keep the order of the built manifests, datasets in alphabetical order.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog.cards import NAME, Card
from curation.catalog.lists import built_path, is_own_list
from curation.catalog.record import read_record
from curation.catalog.store import built_datasets, num_rows, one_thread, sql_text, work_connection
from curation.decision import certificate
from curation.decision.checked import check_digests, licences, what_was_checked
from curation.decision.drops import cases, check_dedup, define_drops, train_datasets
from curation.decision.policy import (
    CONTENT_TIERS,
    REASONS,
    Acting,
    CleanConfig,
    Policy,
    acting,
    acts_sql,
)
from curation.errors import ConfigDiffers, UsageProblem
from curation.files import canonical_json, replacing_folder, sha256_file, write_json
from curation.manifest import CLIP_COLUMNS, EXCLUSION_COLUMNS, FORMAT, METADATA_KEY, PARQUET
from curation.matching import overlap
from curation.matching.comparison import Comparison, check_rows, compare
from curation.matching.matrix import matrix
from curation.matching.near import Duplicates, check_fresh, read_duplicates
from curation.verdict import Tally

if TYPE_CHECKING:
    import duckdb

_CLIPS = ", ".join(name for name, _ in CLIP_COLUMNS)
_EXCLUSION = ", ".join(f"{name}::{kind} as {name}" for name, kind in EXCLUSION_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What clean made."""

    folder: Path
    tally: Tally
    held_out: int  # rows that are test items, or of splits that nobody trains on
    not_chosen: int  # rows of train splits that --train leaves out
    document: dict[str, Any]  # the certificate


def clean(
    config: CleanConfig,
    *,
    name: str,
    manifests: Path,
    cards: dict[str, Card],
    replace: bool = False,
    progress: Callable[[str, "duckdb.DuckDBPyConnection"], Any] = lambda name, db: None,
) -> Cleaned:
    """Write `clean/<name>`: kept, excluded and certificate, whole or not at all.

    Raises:
        UsageProblem: a name is unknown or not built.
        ConfigDiffers: `clean/<name>` was made with other options and `replace` is not set.
        ManifestChanged: a manifest differs from what build completed, or duplicates from the media's
            fingerprints.
    """
    if not NAME.fullmatch(name):
        raise UsageProblem(f"--name {name!r}, expected lower case letters, digits and _")
    folder = manifests / "clean" / name
    _same_config(folder, config, replace=replace)
    comparison = compare(
        config.tests, train=config.train, manifests=manifests, cards=cards, margin_s=config.margin_s
    )
    check_digests(comparison)
    with work_connection(manifests) as db, replacing_folder(folder) as temporary:
        progress(name, db)
        check_rows(db, comparison)
        duplicates = _duplicates(db, comparison, config)
        rules = acting(config, compared=duplicates is not None)
        overlap.find(db, comparison)
        tests = matrix(db, comparison)
        overlap.write_evidence(db, comparison, tests)
        found = define_drops(db, comparison, config, rules, duplicates)
        tally, held_out, not_chosen = _write_train(db, comparison, config, temporary)
        heldout = _write_heldout(db, comparison, config, rules, temporary)
        document = certificate.seal(
            {
                **what_was_checked(
                    db, comparison, config, cards, tests, rules, duplicates, temporary / "kept.parquet"
                ),
                "licences": licences(db, temporary / "kept.parquet"),
                "dedup": found,
                "counts": {
                    "input": tally.seen,
                    "kept": tally.kept,
                    "excluded": tally.dropped,
                    "held_out": held_out,
                    "not_chosen": not_chosen,
                },
                "heldout_counts": heldout,
                "outputs": {
                    path.name: {
                        "sha256": sha256_file(path),
                        "bytes": path.stat().st_size,
                        "rows": num_rows(db, path),
                    }
                    for path in sorted(temporary.glob("*.parquet"))
                },
            }
        )
        write_json(temporary / certificate.FILE, document)
    return Cleaned(
        folder=folder, tally=tally, held_out=held_out, not_chosen=not_chosen, document=document
    )


def _same_config(folder: Path, config: CleanConfig, *, replace: bool) -> None:
    """Refuse to give a name that people train on a different meaning."""
    path = folder / certificate.FILE
    if replace or not path.is_file():
        return
    try:
        former = asdict(certificate.config_of(json.loads(path.read_text(encoding="utf-8"))))
    except (ValueError, KeyError, TypeError):
        return  # damaged: clean writes it anew
    wanted = asdict(config)
    differing = [
        f"{key} was {former.get(key)}, now {wanted[key]}"
        for key in wanted
        if former.get(key) != wanted[key]
    ]
    if differing:
        raise ConfigDiffers(
            f"{folder}: was made with other options ({'; '.join(differing)}) — give another --name, "
            "or --replace to make it anew"
        )


def _duplicates(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, config: CleanConfig
) -> Duplicates | None:
    """What was found in the media, which must be of the fingerprints at hand where it is acted on."""
    duplicates = read_duplicates(db, comparison.manifests)
    if config.dedup:
        check_dedup(duplicates, comparison)
    if duplicates and (config.dedup or CONTENT_TIERS[config.match_content]):
        check_fresh(duplicates, comparison.manifests)
    return duplicates


def _provenance(config: CleanConfig) -> str:
    text = canonical_json({
        "format": FORMAT, "made_by": f"foleyproof {curation.__version__}", "clean": asdict(config),
    })  # fmt: skip
    return f"kv_metadata {{{METADATA_KEY}: {sql_text(text)}}}"


def _write_train(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    folder: Path,
) -> tuple[Tally, int, int]:
    """Write kept.parquet and excluded.parquet; the sum, and rows held out and not chosen."""
    datasets = train_datasets(comparison)
    for index, dataset in enumerate(datasets):
        _define_is_dropped(db, comparison, dataset, f"is_dropped_{index}")
    # A filter by position keeps the order of the rows, which a join does not promise.
    kept, excluded = (
        " union all ".join(
            _rows_of(comparison, dataset, f"{condition} is_dropped_{index}(file_row_number)")
            for index, dataset in enumerate(datasets)
        )
        for condition in ("not", "")
    )
    about = _provenance(config)
    with one_thread(db):
        db.execute(
            f"copy (select {_CLIPS} from ({kept})) to {sql_text(folder / 'kept.parquet')} "
            f"({PARQUET}, {about})"
        )
    db.execute(
        f"""copy (select {_CLIPS}, {_EXCLUSION} from ({excluded}) e
            join first_evidence f on f.train_dataset = e.dataset and f.train_row = e.file_row_number
            order by e.dataset, e.file_row_number)
        to {sql_text(folder / "excluded.parquet")} ({PARQUET}, {about})"""
    )
    return _tally(db, comparison, folder)


def _define_is_dropped(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, dataset: str, name: str
) -> None:
    """The SQL function `name`: whether the row of the dataset at a position is dropped.

    A bit string that SQL asks costs its whole length for every 2,048 rows.
    """
    import numpy as np
    import pyarrow as pa
    from duckdb.func import PythonUDFType

    dropped = np.zeros(comparison.records[dataset]["kept"], dtype=bool)
    found = db.execute(
        "select train_row from first_evidence where train_dataset = ?", [dataset]
    ).fetchnumpy()["train_row"]
    dropped[found] = True
    db.create_function(
        name,
        lambda positions: pa.array(dropped[positions.to_numpy()]),
        ["BIGINT"],
        "BOOLEAN",
        type=PythonUDFType.ARROW,
    )


def _rows_of(comparison: Comparison, dataset: str, condition: str) -> str:
    path = sql_text(built_path(comparison.manifests, dataset))
    return f"""select * from read_parquet({path}, file_row_number = true)
        where {comparison.is_input(dataset)} and {condition}"""


def _tally(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, folder: Path
) -> tuple[Tally, int, int]:
    """Count the input by itself, so that the sum can fail; and the other rows of all that is built."""
    seen = held_out = not_chosen = 0
    own = filter(is_own_list, comparison.datasets)
    for dataset in [*built_datasets(comparison.manifests), *own]:
        splits = read_record(comparison.manifests, dataset)["splits"]
        trained = ", ".join(sql_text(name) for name in splits if splits[name]["role"] == "train")
        rows = db.execute(
            f"""select count(*) filter (where {comparison.is_input(dataset)}),
                count(*) filter (where not ({comparison.is_input(dataset)})
                    and ({comparison.is_item(dataset)} or split not in ({trained or "''"}))),
                count(*)
            from read_parquet({sql_text(built_path(comparison.manifests, dataset))})"""
        ).fetchone() or (0, 0, 0)
        seen += rows[0]
        held_out += rows[1]
        not_chosen += rows[2] - rows[0] - rows[1]
    dropped = dict(
        db.execute(
            "select reason, count(*) from read_parquet(?) group by 1 order by 1",
            [str(folder / "excluded.parquet")],
        ).fetchall()
    )
    tally = Tally(seen=seen, kept=num_rows(db, folder / "kept.parquet"), dropped=dropped)
    tally.check()
    return tally, held_out, not_chosen


def _write_heldout(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    rules: Acting,
    folder: Path,
) -> dict[str, Any]:
    """Where test items give way: heldout_kept.parquet and heldout_excluded.parquet, a sum each."""
    if config.policy not in (Policy.PREFER_TRAIN, Policy.DROP_BOTH):
        return {}
    db.execute(
        f"""create temp table leaked as
        select * from (
            select *, row_number() over (partition by test, heldout_clip_id
                order by rule_order, train_dataset, train_clip_id, offset_s, via) as rank
            from evidence
            where {acts_sql(rules)} and heldout_clip_id is not null and not train_is_item
        ) where rank = 1"""
    )
    parts = " union all ".join(
        f"""select {index} as test, {sql_text(test.name)} as test_list, {_CLIPS}
        from read_parquet({sql_text(built_path(comparison.manifests, test.dataset))})
        where {test.where()}"""
        for index, test in enumerate(comparison.tests)
    )
    about = _provenance(config)
    columns = f"""{cases("rule", REASONS)} as reason, rule, tier, train_dataset, train_clip_id,
        measure, offset_s"""
    for name, selected, condition in (
        ("heldout_kept", "", "l.rule is null"),
        ("heldout_excluded", f", {columns}", "l.rule is not null"),
    ):
        db.execute(
            f"""copy (select h.test_list, {_CLIPS}{selected} from ({parts}) h
                left join (select * exclude test_list from leaked) l
                    on l.test = h.test and l.heldout_clip_id = h.clip_id
                where {condition} order by h.test, origin.file, origin.row, clip_id)
            to {sql_text(folder / (name + ".parquet"))}
            ({PARQUET}, {about})"""
        )
    counts = {}
    for index, test in enumerate(comparison.tests):
        size, dropped = db.execute(
            "select (select count(*) from heldout where test = $1), "
            "(select count(*) from leaked where test = $1)",
            [index],
        ).fetchone() or (0, 0)
        counts[test.name] = {"input": size, "kept": size - dropped, "excluded": dropped}
    total = sum(entry["kept"] for entry in counts.values())
    assert total == num_rows(db, folder / "heldout_kept.parquet"), "test items do not add up"
    return counts
