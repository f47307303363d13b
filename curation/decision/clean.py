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
from curation.catalog.annotations import FILE as ANNOTATIONS_FILE
from curation.catalog.cards import NAME, Card
from curation.catalog.evidence import FILE as EVIDENCE_FILE
from curation.catalog.licence import licence_name
from curation.catalog.lists import built_path, is_own_list
from curation.catalog.record import dataset_folder, read_record
from curation.catalog.store import (
    built_datasets,
    num_rows,
    one_thread,
    sql_text,
    work_connection,
)
from curation.decision import certificate
from curation.decision.policy import LICENCE, REASONS, TIERS, CleanConfig, Policy
from curation.decision.unknown import respelled_items, unidentified_rows, unknown
from curation.errors import ConfigDiffers, ManifestChanged, UsageProblem
from curation.files import canonical_json, replacing_folder, sha256_file, write_json
from curation.manifest import CLIP_COLUMNS, EXCLUSION_COLUMNS, FORMAT, METADATA_KEY, PARQUET
from curation.matching import overlap
from curation.matching.comparison import Comparison, check_rows, compare
from curation.matching.matrix import matrix
from curation.verdict import Tally

if TYPE_CHECKING:
    import duckdb

_SAID = (EVIDENCE_FILE, ANNOTATIONS_FILE)  # what decides beside the clips
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
        ManifestChanged: a manifest differs from what build completed.
    """
    if not NAME.fullmatch(name):
        raise UsageProblem(f"--name {name!r}, expected lower case letters, digits and _")
    folder = manifests / "clean" / name
    _same_config(folder, config, replace=replace)
    comparison = compare(
        config.tests, train=config.train, manifests=manifests, cards=cards, margin_s=config.margin_s
    )
    _check_digests(comparison)
    with work_connection(manifests) as db, replacing_folder(folder) as temporary:
        progress(name, db)
        check_rows(db, comparison)
        overlap.find(db, comparison)
        tests = matrix(db, comparison)
        overlap.write_evidence(db, comparison, tests)
        tally, held_out, not_chosen = _write_train(db, comparison, config, temporary)
        heldout = _write_heldout(db, comparison, config, temporary)
        document = certificate.seal(
            {
                **_what_was_checked(db, comparison, config, cards, tests),
                "licences": _licences(db, temporary),
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


def _check_digests(comparison: Comparison) -> None:
    """What is decided on must be what build completed, byte for byte."""
    manifests = comparison.manifests
    files = [(built_path(manifests, name), record) for name, record in comparison.records.items()]
    for dataset in built_datasets(manifests):
        record = read_record(manifests, dataset)
        files += [(manifests / dataset / name, record) for name in _SAID if name in record["outputs"]]
    for path, record in files:
        recorded = record["outputs"][path.name]["sha256"]
        if (found := sha256_file(path)) != recorded:
            raise ManifestChanged(
                f"{path}: sha256 is {found[:12]}…, build completed it with {recorded[:12]}… — the "
                f"file was changed since; rebuild it with: curate build {path.parent.name}"
            )


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
    drops = config.policy in (Policy.PREFER_TEST, Policy.DROP_BOTH)
    rules = ", ".join(sql_text(rule) for rule in config.rules)
    db.execute(
        f"""create temp table first_evidence as
        select train_dataset, train_row, {_cases("rule", REASONS)} as reason, rule,
               {_cases("rule", TIERS)} as tier, heldout_dataset, heldout_clip_id, measure, offset_s
        from (
            select *, row_number() over (
                partition by train_dataset, train_row
                order by rule_order, test, heldout_clip_id, offset_s, via) as rank
            from evidence where {str(drops).lower()} and rule in ({rules})
        ) where rank = 1"""
    )
    datasets = sorted({selection.dataset for selection in comparison.trains})
    for index, dataset in enumerate(datasets):
        _refuse_licences(db, comparison, dataset, config.licences)
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


def _refuse_licences(
    db: "duckdb.DuckDBPyConnection", comparison: Comparison, dataset: str, allowed: tuple[str, ...]
) -> None:
    """Add to `first_evidence` input rows of other licences that nothing else drops."""
    if not allowed:
        return
    names = ", ".join(map(sql_text, allowed))
    db.execute(
        f"""insert into first_evidence
        select {sql_text(dataset)}, file_row_number, '{REASONS[LICENCE]}', '{LICENCE}',
               '{TIERS[LICENCE]}', null, null, null, null
        from read_parquet({sql_text(built_path(comparison.manifests, dataset))}, file_row_number = true)
        where {comparison.is_input(dataset)} and {licence_name("licence")} not in ({names})
          and file_row_number not in (
              select train_row from first_evidence where train_dataset = {sql_text(dataset)})"""
    )


def _cases(column: str, values: dict[str, Any]) -> str:
    cases = " ".join(f"when '{key}' then '{value}'" for key, value in values.items())
    return f"case {column} {cases} end"


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
    folder: Path,
) -> dict[str, Any]:
    """Where test items give way: heldout_kept.parquet and heldout_excluded.parquet, a sum each."""
    if config.policy not in (Policy.PREFER_TRAIN, Policy.DROP_BOTH):
        return {}
    rules = ", ".join(sql_text(rule) for rule in config.rules)
    db.execute(
        f"""create temp table leaked as
        select * from (
            select *, row_number() over (partition by test, heldout_clip_id
                order by rule_order, train_dataset, train_clip_id, offset_s, via) as rank
            from evidence
            where rule in ({rules}) and heldout_clip_id is not null and not train_is_item
        ) where rank = 1"""
    )
    parts = " union all ".join(
        f"""select {index} as test, {sql_text(test.name)} as test_list, {_CLIPS}
        from read_parquet({sql_text(built_path(comparison.manifests, test.dataset))})
        where {test.where()}"""
        for index, test in enumerate(comparison.tests)
    )
    about = _provenance(config)
    columns = f"""{_cases("rule", REASONS)} as reason, rule, {_cases("rule", TIERS)} as tier,
        train_dataset, train_clip_id, measure, offset_s"""
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


def _licences(db: "duckdb.DuckDBPyConnection", folder: Path) -> dict[str, dict[str, int]]:
    """Kept rows by dataset and name of the licence."""
    rows = db.execute(
        f"""select dataset, {licence_name("licence")}, sum(n)::bigint
        from (select dataset, licence, count(*) as n from read_parquet(?) group by all)
        group by all order by all""",
        [str(folder / "kept.parquet")],
    ).fetchall()
    counts: dict[str, dict[str, int]] = {}
    for dataset, name, n in rows:
        counts.setdefault(dataset, {})[name] = n
    return counts


def _place(dataset: str, file: str) -> str:
    """Where a file of a dataset lies, seen from the manifests folder."""
    return (dataset_folder(Path(), dataset) / file).as_posix()


def _what_was_checked(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    cards: dict[str, Card],
    tests: dict[str, Any],
) -> dict[str, Any]:
    import duckdb

    records = comparison.records
    unidentified = unidentified_rows(db, comparison)
    respelled = respelled_items(db, comparison)
    return {
        "format": certificate.FORMAT,
        "made_by": {"foleyproof": curation.__version__, "duckdb": duckdb.__version__},
        "config": json.loads(canonical_json(asdict(config))),
        "rules": {rule: TIERS[rule] for rule in config.rules},
        "tests": {
            test["list"]: {
                "size": test["size"],
                "digest": test["digest"],
                "registered": test["registered"],
            }
            for test in tests.values()
        },
        "train": {
            selection.key: {"dataset": selection.dataset, "title": cards[selection.dataset].title}
            for selection in comparison.trains
        },
        "manifests": {
            _place(dataset, "clips.parquet"): {
                "sha256": record["outputs"]["clips.parquet"]["sha256"],
                "rows": record["kept"],
                "raw": record["inputs"]["raw"],
                "incomplete": record["missing"],
            }
            for dataset, record in records.items()
        }
        | {
            _place(dataset, name): entry
            for dataset in comparison.publishers
            for name, entry in read_record(comparison.manifests, dataset)["outputs"].items()
            if name in _SAID
        },
        "published_lists": {test["list"]: test["published_lists"] for test in tests.values()},
        "unknown": {
            test.name: unknown(
                db, comparison, config, index, tests[test.key], unidentified, respelled.get(index, 0)
            )
            for index, test in enumerate(comparison.tests)
        },
        "not_covered": list(certificate.NOT_COVERED),
    }
