"""What there is: every card and named list, beside what is fetched and built of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.catalog.cards import Card, find_cards
from curation.catalog.lists import registry
from curation.catalog.record import fetched_since_build, former_record
from curation.tables import number


def overview(cards: dict[str, Card], manifests: Path) -> dict[str, Any]:
    """The document of `curate datasets --json`."""
    cards = {card.dataset: card for card in find_cards(cards, ())}
    records = {name: former_record(manifests, name) for name in cards}
    return {
        "datasets": [_dataset(card, records[name], manifests) for name, card in cards.items()],
        "lists": registry(cards, records),
    }


def _dataset(card: Card, record: dict[str, Any], manifests: Path) -> dict[str, Any]:
    raw = manifests / card.dataset / "raw"
    at_hand = [file.path for file in card.files if (raw / file.path).is_file()]
    splits = record.get("splits", {})
    if record:
        state = "built, incomplete" if record["missing"] else "built"
        if fetched_since_build(manifests, card.dataset):
            state = "built, older than its files"
    else:
        state = "fetched" if at_hand else "no files"
    return {
        "dataset": card.dataset,
        "title": card.title,
        "state": state,
        "rows": record.get("kept"),
        "train_rows": sum(splits[s]["rows"] for s in card.train_splits) if record else None,
        "licences": record.get("licences", {}),
        "splits": {
            name: {
                "role": split.role,
                "published": split.published,
                "rows": splits.get(name, {}).get("rows"),
            }
            for name, split in card.splits.items()
        },
        "format": _format(card),
        "modality": card.modality,
        "homepage": card.homepage,
        "citation": card.citation,
        "metadata_licence": card.metadata_licence,
        "media_licence": card.media_licence,
        "media": list(card.media),
        "errata": [asdict(erratum) for erratum in card.errata],
        "evidence": [{"name": e.name, "rule": e.rule, "said_by": e.citation} for e in card.evidence],
        "files": [
            {
                "path": f.path,
                "url": f.url,
                "sha256": f.sha256,
                "at_hand": f.path in at_hand,
                "optional": f.optional,
                "unverified": f.path in card.unverified_files,
            }
            for f in card.files
        ],
    }


def _format(card: Card) -> str:
    """Whether somebody here has built the dataset from its real files."""
    if not card.shipped:
        return "yours"
    if card.unverified:
        return "format unverified"
    unseen = len(card.unverified_files)
    return f"verified, {number(unseen, 'file')} not" if unseen else "verified"
