"""What a certificate says was checked: manifests, lists, what was found in media, and the unknown."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog.annotations import FILE as ANNOTATIONS_FILE
from curation.catalog.cards import Card
from curation.catalog.evidence import FILE as EVIDENCE_FILE
from curation.catalog.licence import licence_name
from curation.catalog.lists import built_path
from curation.catalog.record import dataset_folder, read_record
from curation.catalog.store import built_datasets, sql_text
from curation.decision import certificate
from curation.decision.content import content_unknown
from curation.decision.policy import CONTENT_TIERS, Acting, CleanConfig
from curation.decision.unknown import local_rows, respelled_items, unidentified_rows, unknown
from curation.errors import ManifestChanged
from curation.files import canonical_json, sha256_file
from curation.matching.comparison import Comparison
from curation.matching.near import Duplicates

if TYPE_CHECKING:
    import duckdb

_SAID = (EVIDENCE_FILE, ANNOTATIONS_FILE)  # what decides beside the clips


def check_digests(comparison: Comparison) -> None:
    """What is decided on must be what build completed, byte for byte.

    Raises:
        ManifestChanged: naming the first file that is not.
    """
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


def _place(dataset: str, file: str) -> str:
    """Where a file of a dataset lies, seen from the manifests folder."""
    return (dataset_folder(Path(), dataset) / file).as_posix()


def what_was_checked(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    cards: dict[str, Card],
    tests: dict[str, Any],
    rules: Acting,
    duplicates: Duplicates | None,
    kept: Path,
) -> dict[str, Any]:
    """The certificate without its counts and outputs.

    Args:
        tests: what `matrix` found.
        kept: kept.parquet.
    """
    import duckdb

    return {
        "format": certificate.FORMAT,
        "made_by": {"foleyproof": curation.__version__, "duckdb": duckdb.__version__},
        "config": json.loads(canonical_json(asdict(config))),
        "rules": dict(rules),
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
        "manifests": _manifests(comparison),
        "content": _content(comparison, config, tests, duplicates),
        "published_lists": {test["list"]: test["published_lists"] for test in tests.values()},
        "unknown": _unknown(db, comparison, config, tests, duplicates, kept),
        "not_covered": not_covered(config, duplicates),
    }


def _manifests(comparison: Comparison) -> dict[str, Any]:
    """The digest of every file that decided."""
    return {
        _place(dataset, "clips.parquet"): {
            "sha256": record["outputs"]["clips.parquet"]["sha256"],
            "rows": record["kept"],
            "raw": record["inputs"]["raw"],
            "incomplete": record["missing"],
        }
        for dataset, record in comparison.records.items()
    } | {
        _place(dataset, name): entry
        for dataset in comparison.publishers
        for name, entry in read_record(comparison.manifests, dataset)["outputs"].items()
        if name in _SAID
    }


def _content(
    comparison: Comparison, config: CleanConfig, tests: dict[str, Any], duplicates: Duplicates | None
) -> dict[str, Any] | None:
    """What duplicates were acted on, None where there are none or none was to be."""
    if duplicates is None or not (CONTENT_TIERS[config.match_content] or config.dedup):
        return None
    return {
        "duplicates": {"sha256": duplicates.sha256, "rows": duplicates.rows},
        "fingerprints": duplicates.fingerprints,
        "versions": duplicates.versions,
        "compared_tests": [
            test.name
            for test in comparison.tests
            if duplicates.compares(test, tests[test.key]["digest"])
        ],
        "compared_train": [s.key for s in comparison.trains if duplicates.compares_train(s)],
    }


def _unknown(
    db: "duckdb.DuckDBPyConnection",
    comparison: Comparison,
    config: CleanConfig,
    tests: dict[str, Any],
    duplicates: Duplicates | None,
    kept: Path,
) -> dict[str, Any]:
    unidentified = unidentified_rows(db, comparison)
    respelled = respelled_items(db, comparison)
    has_local = local_rows(db, comparison)
    by_content = content_unknown(db, comparison, config, duplicates, kept)
    entries = {}
    for index, test in enumerate(comparison.tests):
        entries[test.name] = unknown(
            db, comparison, config, index, tests[test.key], unidentified, respelled.get(index, 0),
            has_local=has_local,
        )  # fmt: skip
        if index in by_content:
            entries[test.name]["content"] = by_content[index]
    return entries


def not_covered(config: CleanConfig, duplicates: Duplicates | None) -> list[str]:
    """What a clean manifest cannot promise."""
    first = "re-uploads under ids that no list names: media were not compared"
    if duplicates is not None:
        named = sorted(duplicates.versions.items())
        versions = ", ".join(f"{name} {version}" for name, version in named)
        first = (
            "re-uploads under other ids in media that were not compared, and those that the detector "
            f"({versions or 'of unknown version'}) does not find"
        )
        if config.match_content == "auto":
            first += "; its matches of review tier stay"
        if config.match_content == "none":
            first = "re-uploads under ids that no list names: --match-content none leaves them"
    return [first, *certificate.NOT_COVERED]


def licences(db: "duckdb.DuckDBPyConnection", kept: Path) -> dict[str, dict[str, int]]:
    """Kept rows by dataset and name of the licence."""
    rows = db.execute(
        f"""select dataset, {licence_name("licence")}, sum(n)::bigint
        from (select dataset, licence, count(*) as n from read_parquet({sql_text(kept)}) group by all)
        group by all order by all"""
    ).fetchall()
    counts: dict[str, dict[str, int]] = {}
    for dataset, name, n in rows:
        counts.setdefault(dataset, {})[name] = n
    return counts
