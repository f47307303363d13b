"""Parquet with a description: Croissant metadata, or a Hugging Face dataset folder."""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import curation
from curation.catalog.cards import Card
from curation.decision.export.rows import (
    Rows,
    card_of,
    check_written,
    export_folder,
    licence_counts,
    reading_rows,
    write_parquets,
)
from curation.decision.policy import Policy
from curation.files import replacing, sha256_file
from curation.manifest import CLIP_COLUMNS
from curation.tables import Cell, render

if TYPE_CHECKING:
    import duckdb

# Source: the Croissant format specification 1.0, its JSON-LD context.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES = {"varchar": "sc:Text", "varchar[]": "sc:Text", "double": "sc:Float"}
# What a column means, in a few words; README.md has them all.
_MEANING = {
    "dataset": "the dataset that lists the clip",
    "clip_id": "its name, unique in the dataset",
    "split": "as published",
    "lists": "the named lists that hold it",
    "source": "where the recording is from",
    "source_id": "its id there",
    "start_s": "seconds in the recording; nothing where unknown",
    "end_s": "seconds in the recording, exclusive; nothing where unknown",
    "captions": "as published",
    "labels": "as published",
    "licence": "of the clip itself, as published",
    "uploader": "as published",
}


def to_croissant(rows: Rows, target: Path, manifests: Path, cards: dict[str, Card]) -> dict[str, int]:
    """Write `data/<dataset>.parquet` and `croissant.json`; rows by dataset."""
    with (
        reading_rows(rows, manifests) as (db, names),
        export_folder(target, manifests, format="croissant", what=rows.what) as folder,
    ):
        written = _with_parquets(db, rows, names, folder)
        document = {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "name": rows.what.replace("/", "-").replace("@", "-"),
            "description": f"{_about(rows)} {_LICENCES_VARY} {_licences(names, cards)}",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "version": "1.0.0",
            "license": _licence_values(names, cards),
            "url": card_of(names[0], cards).homepage,
            "sameAs": [card_of(name, cards).homepage for name in names],
            "citeAs": "; ".join(card_of(name, cards).citation for name in names),
            "isLiveDataset": False,
            "rai:dataPreprocessingProtocol": _about(rows),
            "rai:dataLimitations": "; ".join(_limits(rows)),
            "distribution": [
                {
                    "@type": "cr:FileObject",
                    "@id": f"{name}.parquet",
                    "name": f"{name}.parquet",
                    "contentUrl": f"data/{name}.parquet",
                    "contentSize": f"{path.stat().st_size} B",
                    "encodingFormat": "application/x-parquet",
                    "sha256": sha256_file(path),
                }
                for name, (path, _) in written.items()
            ],
            "recordSet": [_record_set(name, cards) for name in names],
        }
        with replacing(folder / "croissant.json") as temporary:
            text = json.dumps(document, ensure_ascii=False, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    return {name: count for name, (_, count) in written.items()}


def _record_set(name: str, cards: dict[str, Card]) -> dict[str, Any]:
    fields = []
    for column, kind in CLIP_COLUMNS:
        if kind not in _TYPES:
            continue  # origin, a struct: it is in the Parquet file
        field = {
            "@type": "cr:Field",
            "@id": f"{name}/{column}",
            "name": column,
            "description": _MEANING[column],
            "dataType": _TYPES[kind],
            "source": {"fileObject": {"@id": f"{name}.parquet"}, "extract": {"column": column}},
        }
        fields.append(field | ({"repeated": True} if kind.endswith("[]") else {}))
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"clips of {card_of(name, cards).title}",
        "key": {"@id": f"{name}/clip_id"},
        "field": fields,
    }


def to_huggingface(rows: Rows, target: Path, manifests: Path, cards: dict[str, Card]) -> dict[str, int]:
    """Write `data/<dataset>.parquet`, each a split, and the card `README.md`; rows by dataset."""
    with (
        reading_rows(rows, manifests) as (db, names),
        export_folder(target, manifests, format="huggingface", what=rows.what) as folder,
    ):
        written = _with_parquets(db, rows, names, folder)
        counts = {name: count for name, (_, count) in written.items()}
        text = "\n".join([*_front_matter(rows, counts, cards), *_card_text(rows, db, counts, cards)])
        with replacing(folder / "README.md") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    return counts


def _front_matter(rows: Rows, counts: dict[str, int], cards: dict[str, Card]) -> list[str]:
    """The YAML head that the datasets library reads; every text is quoted as JSON, which YAML takes."""
    lines = [
        "---",
        f"pretty_name: {json.dumps(rows.what)}",
        "license: other",
        'license_name: "see-licences-below"',
        "tags:",
        *(f"- {tag}" for tag in ("audio", "foleyproof", "metadata-only")),
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for name in counts:
        # of a list of one's own the name has a dot, which the name of a split may not have
        lines += [
            f"  - split: {re.sub(r'[^A-Za-z0-9_]', '_', name)}",
            f"    path: {json.dumps(f'data/{name}.parquet')}",
        ]
    return [*lines, "---", ""]


def _card_text(
    rows: Rows, db: "duckdb.DuckDBPyConnection", counts: dict[str, int], cards: dict[str, Card]
) -> list[str]:
    """What stands below: what it is, licences, what was checked and what not, whom to cite."""
    own = licence_counts(db)
    table: list[list[Cell]] = [
        [
            card_of(name, cards).title,
            count,
            card_of(name, cards).metadata_licence,
            card_of(name, cards).media_licence,
            "; ".join(f"{licence or 'not published'}: {n:,}" for licence, n in own[name].items()),
        ]
        for name, count in counts.items()
    ]
    header = [
        "dataset",
        "clips",
        "licence of the metadata",
        "of the media",
        "clips by their own licence",
    ]
    return [
        f"# {rows.what}",
        "",
        _about(rows),
        "Only metadata: no sound and no picture is in here.",
        "",
        "## Licences",
        "",
        render(header, table, "markdown"),
        "",
        "## What this does not promise",
        "",
        *(f"- {limit}" for limit in _limits(rows)),
        "",
        "## Citation",
        "",
        *(f"- {card_of(name, cards).citation} ({card_of(name, cards).homepage})" for name in counts),
    ]


def _with_parquets(
    db: "duckdb.DuckDBPyConnection", rows: Rows, names: list[str], folder: Path
) -> dict[str, tuple[Path, int]]:
    written = write_parquets(db, names, folder)
    (total,) = db.execute("select count(*) from chosen").fetchone() or (0,)
    check_written(folder, sum(count for _, count in written.values()), total)
    if rows.certificate:
        with replacing(folder / rows.certificate.name) as temporary:
            shutil.copyfile(rows.certificate, temporary)
    return written


def _about(rows: Rows) -> str:
    """One or two sentences on what the rows are, and what was removed from them."""
    if rows.document is None:
        return (
            f"The rows of {rows.what} as published, brought to one form by Foleyproof "
            f"{curation.__version__}. Overlaps with test sets were not removed."
        )
    counts, policy = rows.document["counts"], rows.document["config"]["policy"]
    held_against = (
        f"{', '.join(rows.document['tests'])} by the rules {', '.join(rows.document['rules'])}"
    )
    if policy in (Policy.PREFER_TEST, Policy.DROP_BOTH):
        done = (
            f"Training clips held against {held_against}: of {counts['input']:,} clips, "
            f"{sum(counts['excluded'].values()):,} were removed, {counts['kept']:,} are kept."
        )
    else:
        done = (
            f"{counts['kept']:,} training clips, held against {held_against}. Those that overlap are "
            f"still in here (policy {policy})."
        )
    return (
        f"{done} Made by Foleyproof {curation.__version__}; certificate.json says what was checked, "
        f"{rows.document['digest']}."
    )


_LICENCES_VARY = "The licences are those of each dataset:"


def _licences(names: list[str], cards: dict[str, Card]) -> str:
    return "; ".join(
        f"{card_of(name, cards).title}: metadata {card_of(name, cards).metadata_licence}, media "
        f"{card_of(name, cards).media_licence}"
        for name in names
    )


def _licence_values(names: list[str], cards: dict[str, Card]) -> list[str]:
    values = (
        f"{card_of(name, cards).title}: {licence}"
        for name in names
        for licence in (card_of(name, cards).metadata_licence, card_of(name, cards).media_licence)
    )
    return list(dict.fromkeys(values))


def _limits(rows: Rows) -> list[str]:
    """What the rows do not promise, from the certificate."""
    if rows.document is None:
        return ["overlaps with test sets were not removed"]
    unknown = [
        f"at most {entry['leaked_test_items_at_most']:,} items of {test} may be in here, which ids "
        "cannot tell"
        for test, entry in rows.document["unknown"].items()
    ]
    return [*unknown, *(f"not covered: {what}" for what in rows.document["not_covered"])]
