"""Why a clip was kept or dropped: where an id occurs, what became of each row, by which evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.cards import Card
from curation.catalog.identity import Identity, parse
from curation.catalog.licence import licence_name
from curation.catalog.lists import built_path
from curation.catalog.problems import FILE as PROBLEMS_FILE
from curation.catalog.record import dataset_folder
from curation.catalog.revoked import revoked
from curation.catalog.store import built_datasets, built_lists, sql_text, work_connection
from curation.decision import certificate
from curation.decision.policy import (
    DEFAULT_TESTS,
    LICENCE,
    REASONS,
    Acting,
    CleanConfig,
    Policy,
    acting,
    acts,
)
from curation.errors import UsageProblem
from curation.matching import overlap
from curation.matching.comparison import Comparison, compare
from curation.matching.near import FILE as DUPLICATES_FILE
from curation.matching.near import RULES as NEAR_RULES
from curation.verdict import Reason

if TYPE_CHECKING:
    import duckdb


# what is known of a pair by a near rule, beside its evidence
MEDIA = ("speed", "mirrored", "video_score", "audio_score", "by_others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of a manifest that an id names, and everything known about it."""

    dataset: str
    clip_id: str
    split: str
    source: str
    source_id: str | None
    start_s: float | None
    end_s: float | None
    verdict: str  # "kept", "dropped", "held out", "no input" or "no test item"
    reason: str | None  # of a dropped row, as in excluded.parquet
    rule: str | None  # that dropped it
    licence: str  # its name, as licence.py has it
    evidence: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """The answer to one question."""

    asked: str
    identity: Identity | None  # None: read as a clip_id
    manifest: str | None  # the clean manifest that decided, None where there is none
    tests: tuple[str, ...]
    as_test_item: bool  # whether the findings are test items, and their evidence training rows
    findings: list[Finding]


def blame(
    clip: str,
    *,
    manifests: Path,
    cards: dict[str, Card],
    name: str | None = None,
    tests: Sequence[str] = (),
    as_test_item: bool = False,
) -> Blame:
    """What became of the clip that `clip` names, in any written form of an id, and why.

    Args:
        name: the clean manifest to ask; None: the newest.
        tests: the test sets to hold it against, instead of asking a clean manifest.
        as_test_item: ask which training rows overlap it, rather than what it overlaps.

    Raises:
        UsageProblem: no built manifest has such a clip.
        ManifestChanged: the manifests are not those the clean manifest was made from.
    """
    folder = (
        certificate.named(manifests, name) if name else None if tests else certificate.newest(manifests)
    )
    if folder is None:
        config = CleanConfig(tests=tuple(tests) or DEFAULT_TESTS)
        comparison = compare(config.tests, train=None, manifests=manifests, cards=cards)
        rules: Acting = acting(config, compared=(manifests / DUPLICATES_FILE).is_file())
    else:
        document = certificate.read(folder)
        config = certificate.config_of(document)
        comparison = certificate.comparison_of(document, manifests=manifests, cards=cards)
        certificate.check_manifests(folder, document)
        certificate.check_content(folder, document)
        rules = document["rules"]
    identity = parse(clip)
    with work_connection(manifests) as db:
        rows = _rows(db, manifests, clip, identity)
        if not rows:
            raise UsageProblem(
                f"{clip!r}: no built manifest has such a clip ({read_as(identity)}), looked in "
                f"{', '.join(_built(manifests))} — {_what_else(db, manifests, clip, identity)}"
            )
        comparison = _narrowed(comparison, rows, as_test_item=as_test_item)
        overlap.find(db, comparison)
        citations = overlap.citations(db, comparison)
        findings = [
            _finding(db, comparison, config, rules, row, citations, as_test_item=as_test_item)
            for row in rows
        ]
        if folder is not None and config.dedup and not as_test_item:
            findings = [_as_twin(db, folder, finding) for finding in findings]
    return Blame(
        asked=clip,
        identity=identity,
        manifest=folder.name if folder else None,
        tests=tuple(test.name for test in comparison.tests),
        as_test_item=as_test_item,
        findings=findings,
    )


def read_as(identity: Identity | None) -> str:
    """What a clip was taken for, in words."""
    if identity is None:
        return "read as a clip_id"
    return f"read as {identity.source}:{identity.source_id}"


def _built(manifests: Path) -> list[str]:
    return [*built_datasets(manifests), *built_lists(manifests)]


def _files(manifests: Path) -> str:
    return ", ".join(sql_text(built_path(manifests, name)) for name in _built(manifests))


def _rows(
    db: "duckdb.DuckDBPyConnection", manifests: Path, clip: str, identity: Identity | None
) -> list[dict[str, Any]]:
    """Every row that `clip` names: `dataset/clip_id` alone, else by clip_id, by source_id, or by
    source_id and start where it tells one."""
    files = _files(manifests)
    condition = "$clip in (clip_id, dataset || '/' || clip_id)"
    parameters: dict[str, Any] = {"clip": clip}
    if identity is not None:
        condition += " or (source_id = $source_id and source = $source"
        if identity.start_s is not None:
            condition += " and (start_s is null or abs(start_s - $start_s) < 0.0005)"
            parameters["start_s"] = identity.start_s
        condition += ")"
        parameters |= {"source": identity.source, "source_id": identity.source_id}
    result = db.execute(
        f"""select dataset, clip_id, split, lists, source, source_id, start_s, end_s,
            {licence_name("licence")} as licence
        from read_parquet([{files}], union_by_name = true, hive_partitioning = false)
        where {condition} order by dataset, clip_id""",
        parameters,
    )
    names = [column[0] for column in result.description]
    rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    named = [row for row in rows if clip == f"{row['dataset']}/{row['clip_id']}"]
    return named or rows


def _what_else(
    db: "duckdb.DuckDBPyConnection", manifests: Path, clip: str, identity: Identity | None
) -> str:
    """What to do about a clip that nobody has: taken down, failed, spelled otherwise, or not built."""
    if identity and f"{identity.source}:{identity.source_id}" in revoked(manifests):
        return f"it was taken down; to let it come back: curate revoke --undo {identity.source_id}"
    problems = ", ".join(
        sql_text(dataset_folder(manifests, name) / PROBLEMS_FILE) for name in _built(manifests)
    )
    failed = db.execute(
        f"""select dataset, reason, origin.file, origin.row
        from read_parquet([{problems}], hive_partitioning = false)
        where verdict = 'failed' and (clip_id = $clip or source_id = $id) order by all limit 1""",
        {"clip": clip, "id": identity.source_id if identity else clip},
    ).fetchall()
    for dataset, reason, file, row in failed:
        return f"it failed in the build of {dataset} as {reason}: {file}, row {row}"
    files = _files(manifests)
    twins = db.execute(
        f"""select distinct source_id from read_parquet([{files}], hive_partitioning = false)
        where lower(source_id) = lower($id) order by 1 limit 3""",
        {"id": identity.source_id if identity else None},
    ).fetchall()
    if twins:
        return f"with other capitals there is {', '.join(id_ for (id_,) in twins)}"
    return "is its dataset built? See: curate datasets"


def _narrowed(comparison: Comparison, rows: list[dict[str, Any]], *, as_test_item: bool) -> Comparison:
    """The comparison with one side cut down to these rows."""
    clips = ", ".join(f"({sql_text(row['dataset'])}, {sql_text(row['clip_id'])})" for row in rows)
    condition = f"(dataset, clip_id) in ({clips})"
    if as_test_item:
        return replace(comparison, heldout_where=condition)
    return replace(comparison, train_where=condition)


def _finding(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    rules: Acting,
    row: dict[str, Any],
    citations: dict[str, str],
    *,
    as_test_item: bool,
) -> Finding:
    side = "heldout" if as_test_item else "train"
    result = db.execute(
        f"""select test_list, heldout_dataset, heldout_clip_id, train_dataset, train_clip_id, rule,
            evidence.tier, measure, evidence.offset_s, via, train_is_item, {", ".join(MEDIA)}
        from evidence left join near using (
            test, heldout_dataset, heldout_clip_id, train_dataset, train_clip_id, rule)
        where {side}_dataset = ? and {side}_clip_id = ?
        order by rule_order, test, heldout_clip_id, train_clip_id, via""",
        [row["dataset"], row["clip_id"]],
    )
    names = [column[0] for column in result.description]
    evidence = []
    for values in result.fetchall():
        entry = dict(zip(names, values, strict=True))
        not_trained_on = entry.pop("train_is_item") and as_test_item
        entry["acted_on"] = (
            acts(rules, entry["rule"], entry["tier"])
            and config.policy != Policy.REPORT
            and not not_trained_on
        )
        media = {name: entry.pop(name) for name in MEDIA}
        themselves = "the ids themselves"
        if entry["rule"] in NEAR_RULES:
            themselves, entry["media"] = "the media themselves", media
        entry["said_by"] = citations.get(entry.pop("via")) or themselves
        evidence.append(entry)
    verdict = _verdict(db, comparison, config, row, evidence, as_test_item=as_test_item)
    rule = None
    if verdict == "dropped":
        rule = next((entry["rule"] for entry in evidence if entry["acted_on"]), LICENCE)
    return Finding(
        **{key: value for key, value in row.items() if key != "lists"},
        verdict=verdict,
        reason=REASONS[rule] if rule else None,
        rule=rule,
        evidence=evidence,
    )


def _as_twin(db: "duckdb.DuckDBPyConnection", folder: Path, finding: Finding) -> Finding:
    """The finding on a row that went because another training clip is the same."""
    rows = db.execute(
        """select rule, tier, heldout_dataset, heldout_clip_id, measure, offset_s from read_parquet(?)
        where dataset = ? and clip_id = ? and reason = ?""",
        [str(folder / "excluded.parquet"), finding.dataset, finding.clip_id, str(Reason.IN_TRAINING)],
    ).fetchall()
    for rule, tier, dataset, clip_id, measure, offset_s in rows:
        entry = {
            "test_list": None, "heldout_dataset": dataset, "heldout_clip_id": clip_id,
            "train_dataset": finding.dataset, "train_clip_id": finding.clip_id, "rule": rule,
            "tier": tier, "measure": measure, "offset_s": offset_s, "acted_on": True,
            "said_by": "the media themselves",
        }  # fmt: skip
        return replace(
            finding, verdict="dropped", reason=Reason.IN_TRAINING, rule=rule,
            evidence=[entry, *finding.evidence],
        )  # fmt: skip
    return finding


def _verdict(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    row: dict[str, Any],
    evidence: list[dict[str, Any]],
    *,
    as_test_item: bool,
) -> str:
    def chosen(selections: Sequence[Any]) -> bool:
        return any(
            s.dataset == row["dataset"]
            and (row["split"] in s.splits if s.splits else s.list_name in row["lists"])
            for s in selections
        )

    gives_way = {
        Policy.PREFER_TEST: not as_test_item,
        Policy.PREFER_TRAIN: as_test_item,
        Policy.DROP_BOTH: True,
        Policy.REPORT: False,
    }[config.policy]
    if chosen(comparison.tests):
        dropped = as_test_item and gives_way and any(e["acted_on"] for e in evidence)
        return "dropped" if dropped else "held out"
    if as_test_item:
        return "no test item"
    if not chosen(comparison.trains):
        return "no input"
    refused = bool(config.licences) and row["licence"] not in config.licences
    return "dropped" if refused or (gives_way and any(e["acted_on"] for e in evidence)) else "kept"
