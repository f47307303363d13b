"""Commands on what may stay: clean manifests, why, and whether they are unchanged."""

from pathlib import Path
from typing import Any

import click

from curation import options
from curation.console import finish


class NamedFile(click.ParamType[tuple[str, Path]]):
    """`DATASET=FILE` as a name and a path."""

    name = "named file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        if isinstance(value, tuple):
            return value
        dataset, mark, path = value.partition("=")
        if not (dataset and mark and path):
            self.fail(f"{value!r}, expected DATASET=FILE, as vggsound=vgg-train.tsv", param, ctx)
        return dataset, Path(path)


@click.command()
@options.tests
@options.train
@click.option(
    "--policy",
    type=click.Choice(("prefer-test", "prefer-train", "drop-both", "report")),
    default="prefer-test",
    show_default=True,
    help="Which side of an overlap is dropped.",
)
@options.match
@options.margin
@options.match_content
@click.option("--dedup", is_flag=True, help="Also keep one only of training clips that are the same.")
@click.option("--use-published", is_flag=True, help="Also drop what published lists exclude.")
@click.option("--use-annotations", is_flag=True, help="Also drop what same_annotation suspects.")
@click.option(
    "--licence",
    "licences",
    type=options.CommaList(),
    metavar="NAMES",
    help="Keep clips of these licences only, as cc0,cc-by; unknown where none is published.",
)
@click.option("--name", default="default", show_default=True, help="The manifest is clean/NAME.")
@options.replace
@click.option(
    "--extracted",
    type=NamedFile(),
    multiple=True,
    metavar="DATASET=TSV",
    help="Also filter these extracted features: a tsv, and the folder of tensors beside it.",
)
@click.option(
    "--extracted-out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the filtered copies of --extracted are written.",
)
@options.shared
def clean(
    tests: tuple[str, ...],
    train: tuple[str, ...] | None,
    policy: str,
    match: str,
    margin_s: float,
    match_content: str,
    dedup: bool,
    use_published: bool,
    use_annotations: bool,
    licences: tuple[str, ...] | None,
    name: str,
    replace: bool,
    extracted: tuple[tuple[str, Path], ...],
    extracted_out: Path | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write what may be trained on: kept rows, excluded rows with reasons, and a certificate.

    \b
    Example: curate clean --test vggsound,audiocaps,clotho --name paper
    """
    from dataclasses import asdict

    from curation.catalog.cards import load_cards
    from curation.catalog.licence import known_licences
    from curation.catalog.lists import list_names
    from curation.catalog.record import stale_notes
    from curation.catalog.store import built_datasets, refresh_views
    from curation.commands.own import own_lists
    from curation.decision.clean import clean as make_clean
    from curation.decision.decision_text import clean_text, content_sentence
    from curation.decision.extracted import Extracted, check_inputs, filter_extracted
    from curation.decision.policy import CleanConfig, Policy
    from curation.files import locked
    from curation.matching.comparison import compare
    from curation.progress import Progress

    own = own_lists((*tests, *(train or ())), manifests)
    config = CleanConfig(
        tests=list_names(tests),
        train=train and list_names(train),
        policy=Policy(policy),
        match=match,
        margin_s=margin_s,
        match_content=match_content,
        dedup=dedup,
        use_published=use_published,
        use_annotations=use_annotations,
        licences=known_licences(licences or ()),
    )
    if bool(extracted) != (extracted_out is not None):
        raise click.UsageError("--extracted and --extracted-out go together, expected both or neither")
    known = load_cards(manifests, *cards)
    inputs = [Extracted(dataset=dataset, tsv=tsv) for dataset, tsv in extracted]
    if extracted_out:
        check_inputs(inputs, extracted_out, known, manifests)
    # nothing is made for a wrong name
    compare(config.tests, train=config.train, manifests=manifests, cards=known)
    with locked(manifests), Progress("clean") as progress:
        cleaned = make_clean(
            config,
            name=name,
            manifests=manifests,
            cards=known,
            replace=replace,
            progress=progress.query,
        )
        refresh_views(manifests)
    filtered = []
    if extracted_out:  # hours, maybe, and the manifests are only read: others may work on them
        with Progress("clean --extracted") as progress:
            filtered = filter_extracted(
                inputs,
                extracted_out,
                name=name,
                manifests=manifests,
                cards=known,
                progress=progress.bytes,
            )
    content = content_sentence(cleaned.document)
    finish(
        {
            "command": "clean",
            "folder": str(cleaned.folder),
            "certificate": cleaned.document,
            "extracted": [asdict(entry) for entry in filtered],
        },
        as_json,
        text="\n".join(
            [
                *(note for one in own for note in one.notes()),
                *stale_notes(manifests, built_datasets(manifests)),
                clean_text(cleaned),
            ]
        ),
        summary=f"clean/{name}: {cleaned.tally.sentence()}; {cleaned.held_out:,} held out, "
        f"{cleaned.not_chosen:,} not chosen"
        + "".join(f"; {entry.sentence}" for entry in filtered)
        + (f"; {content}" if content else ""),
        next_steps=("curate verify", "curate blame CLIP"),
    )


# An id may begin with `-`, and with `-h`.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("clip", required=False, type=click.UNPROCESSED)
@click.option("--test-item", metavar="CLIP", help="Ask from the other side: what overlaps this item.")
@click.option("--name", metavar="NAME", help="The clean manifest to ask; without it the newest.")
@click.option(
    "--test",
    "tests",
    type=options.CommaList(),
    metavar="NAMES",
    help="Hold it against these test sets instead of asking a clean manifest.",
)
@options.shared
def blame(
    clip: str | None,
    test_item: str | None,
    name: str | None,
    tests: tuple[str, ...] | None,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Say why CLIP was kept or dropped, by which evidence; CLIP in any written form, also a URL.

    \b
    Example: curate blame 4PjEi5fFD6A
    """
    from dataclasses import asdict

    from curation.catalog.cards import load_cards
    from curation.commands.own import own_lists
    from curation.decision.blame import blame as ask
    from curation.decision.decision_text import blame_text
    from curation.tables import number

    if (clip is None) == (test_item is None):
        raise click.UsageError("expected one CLIP, or --test-item CLIP")
    if name and tests:
        raise click.UsageError("--name asks a clean manifest, --test asks none: expected one of them")
    own_lists(tests or (), manifests)
    answer = ask(
        str(test_item if clip is None else clip),
        manifests=manifests,
        cards=load_cards(manifests, *cards),
        name=name,
        tests=tests or (),
        as_test_item=clip is None,
    )
    verdicts = [finding.verdict for finding in answer.findings]
    counted = " + ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    finish(
        {"command": "blame", **asdict(answer)},
        as_json,
        text=blame_text(answer),
        summary=f"{number(len(verdicts), 'row')} = {counted}",
        next_steps=("curate overlaps" if answer.manifest else "curate clean --name NAME",),
    )


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.shared
def verify(names: tuple[str, ...], manifests: Path, cards: tuple[Path, ...], as_json: bool) -> None:
    """Check built and clean manifests again: bytes, sums, certificates, no overlap in what is kept.

    \b
    Example: curate verify paper
    """
    from curation.catalog.cards import load_cards
    from curation.decision.verify import verify as check_again
    from curation.progress import Progress
    from curation.tables import render

    with Progress("verify") as progress:
        known = load_cards(manifests, *cards)
        checks = list(check_again(manifests, known, names=names, progress=progress.item))
    errors = [check.error for check in checks if check.error]
    cleaned = any(check.what.startswith("clean/") for check in checks)
    done = "train on clean/NAME" if cleaned else "curate clean --name NAME"
    rows = [[check.what, check.state] for check in checks]
    finish(
        {
            "command": "verify",
            "checks": [
                {"what": c.what, "ok": c.error is None, "error": str(c.error) if c.error else None}
                for c in checks
            ],
        },
        as_json,
        text="\n".join([render(["manifest", "state"], rows), *map(str, errors)]),
        summary=f"{len(checks)} manifests = {len(checks) - len(errors)} as recorded + {len(errors)} not",
        next_steps=("curate build", "curate clean") if errors else (done,),
        code=13 if any(e.exit_code == 13 for e in errors) else 1 if errors else 0,
    )


# An id may begin with `-`.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("recordings", metavar="[ID]...", nargs=-1, type=click.UNPROCESSED)
@options.dry_run
@click.option("--undo", is_flag=True, help="Let them come back.")
@options.shared
def revoke(
    recordings: tuple[str, ...],
    dry_run: bool,
    undo: bool,
    manifests: Path,
    cards: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Take recordings out of everything that is built, and keep them out; run again to continue.

    \b
    Example: curate revoke 4PjEi5fFD6A --dry-run
    """
    from dataclasses import asdict

    from curation.catalog.cards import load_cards
    from curation.catalog.revoked import recording_key, revoked
    from curation.catalog.store import refresh_views
    from curation.decision.revoke import derived, looked_at
    from curation.decision.revoke import revoke as take_out
    from curation.files import locked
    from curation.progress import Progress
    from curation.tables import number, render

    keys = [recording_key(text) for text in recordings]
    before = derived(manifests, keys or sorted(revoked(manifests)))
    media = looked_at(manifests, keys)
    made: list[str] = []
    if keys and not dry_run:
        with locked(manifests), Progress("revoke") as progress:
            made = take_out(
                keys,
                manifests=manifests,
                cards=load_cards(manifests, *cards),
                undo=undo,
                progress=progress.query,
            )
            refresh_views(manifests)
    after = before if dry_run or undo or not keys else derived(manifests, keys)
    total, left = (sum(one.rows for one in rows) for rows in (before, after))
    finish(
        {
            "command": "revoke",
            "recordings": keys,
            "revoked": sorted(revoked(manifests)),
            "found": [asdict(one) for one in before],
            "made_anew": made,
            "media": media,
        },
        as_json,
        text="\n".join(
            [
                render(["file", "rows"], [[one.file, one.rows] for one in before]),
                *(
                    f"{one.file}: still holds {number(one.rows, 'row')}: it was made from other "
                    "manifests or lists than there are now, make it anew with curate clean"
                    for one in after
                    if keys and not (dry_run or undo)
                ),
                *media,
            ]
        ),
        summary=f"{total:,} rows = {max(0, total - left):,} removed + {min(total, left):,} there; "
        f"{len(revoked(manifests))} recordings revoked"
        + (f"; made anew: {', '.join(made)}" if made else ""),
        next_steps=("curate verify" if made else "curate revoke ID",),
        code=1 if left and not (dry_run or undo) and keys else 0,
    )
