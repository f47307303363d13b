"""The certificate of a clean manifest: what was checked against what, and what was not.

Canonical JSON whose key `digest` is the sha256 of all the rest, so that any change shows.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from curation.catalog import evidence as published_evidence
from curation.catalog.cards import Card
from curation.catalog.record import read_record
from curation.catalog.store import FINGERPRINTS, clean_folders
from curation.decision.policy import CleanConfig, Policy
from curation.errors import ManifestChanged, UsageProblem
from curation.files import digest_of, sha256_file
from curation.matching.comparison import Comparison, compare
from curation.matching.near import FILE as DUPLICATES_FILE
from curation.matching.near import scans

FORMAT = "foleyproof-certificate/1"
FILE = "certificate.json"
# What no clean manifest can promise. Sources: MMAudio (arXiv:2412.15322), supplement D, F and H;
# v-iashin/Synchformer data/ lists; research on the metric networks is their authors'.
NOT_COVERED = (
    "the audio VAE: trained on AudioSet, and Freesound at 44.1 kHz",
    "Synchformer: trained on AudioSet; its VGGSound variant saw official test clips",
    "CLIP: trained on web images that nobody can list",
    "the networks behind the scores (PaSST, PANNs, VGGish, CLAP, ImageBind)",
)


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with its digest."""
    return {**document, "digest": digest_of(document)}


def read(folder: Path) -> dict[str, Any]:
    """The certificate in `folder`.

    Raises:
        UsageProblem: there is none.
        ManifestChanged: it is not JSON, or not what was sealed.
    """
    path = folder / FILE
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageProblem(
            f"{path}: missing, expected a clean manifest in that folder — run: "
            f"curate clean --name {folder.name}"
        ) from error
    except (ValueError, IsADirectoryError) as error:
        raise ManifestChanged(f"{path}: not JSON ({error}); it was changed since clean wrote it — "
                              f"run again: curate clean --name {folder.name}") from error  # fmt: skip
    if not isinstance(document, dict) or document.get("digest") != digest_of(document):
        raise ManifestChanged(
            f"{path}: its digest does not match its content; it was changed since clean wrote it — "
            f"run again: curate clean --name {folder.name}"
        )
    return document


def check_files(folder: Path, document: dict[str, Any]) -> None:
    """Compare every file that the certificate names with its sha256.

    Raises:
        ManifestChanged: naming the first file that differs.
    """
    places = [(folder, document["outputs"]), (folder.parent.parent, document["manifests"])]
    for root, files in places:
        for name, entry in files.items():
            path = root / name
            found = sha256_file(path) if path.is_file() else "missing"
            if found != entry["sha256"]:
                raise ManifestChanged(
                    f"{path}: sha256 is {found[:12]}…, the certificate of {folder.name} records "
                    f"{entry['sha256'][:12]}… — the file was changed since; run again: "
                    f"{command(folder, document)}"
                )


def check_content(folder: Path, document: dict[str, Any]) -> None:
    """Compare what was found in the media, and the fingerprints it was found in, with what there is.

    Fingerprints that are not here at all are nobody's fault: manifests may travel without them.

    Raises:
        ManifestChanged: naming the first that differs.
    """
    if not (content := document.get("content")):  # a certificate may be older
        return
    manifests = folder.parent.parent
    path, recorded = manifests / DUPLICATES_FILE, content["duplicates"]["sha256"]
    found = sha256_file(path) if path.is_file() else "missing"
    if found != recorded:
        raise ManifestChanged(
            f"{path}: sha256 is {found[:12]}…, the certificate of {folder.name} records "
            f"{recorded[:12]}… — duplicates were looked for anew since; run again: "
            f"{command(folder, document)}"
        )
    now = scans(manifests)
    for dataset, digest in sorted(content["fingerprints"].items()):
        place = manifests / FINGERPRINTS / dataset
        if place.is_dir() and now.get(dataset) != digest:
            raise ManifestChanged(
                f"{place}: holds other fingerprints than the certificate of {folder.name} records, "
                f"expected the same — run again: curate duplicates && {command(folder, document)}"
            )


def check_manifests(folder: Path, document: dict[str, Any]) -> None:
    """Compare the manifests that the certificate names with what build completed since.

    Raises:
        ManifestChanged: naming the first one that was built anew.
    """
    manifests = folder.parent.parent
    for name, entry in document["manifests"].items():
        place, _, file = name.rpartition("/")
        output = read_record(manifests, place.rpartition("/")[2]).get("outputs", {}).get(file, {})
        if output.get("sha256") != entry["sha256"]:
            raise ManifestChanged(
                f"{manifests / name}: was built anew since clean/{folder.name} was made from it, "
                f"expected the same — run again: {command(folder, document)}"
            )


def outdated(manifests: Path) -> list[str]:
    """A line for each clean manifest that was made from other near-duplicates than there are now."""
    notes = []
    for folder in clean_folders(manifests):
        try:
            document = read(folder)
        except ManifestChanged:
            continue  # damaged, as verify says
        try:
            check_content(folder, document)
        except ManifestChanged:
            again = command(folder, document)
            notes.append(f"clean/{folder.name}: was made from other pairs — run again: {again}")
    return notes


def config_of(document: dict[str, Any]) -> CleanConfig:
    """The options that a certificate records."""
    saved = document["config"]
    train = None if saved["train"] is None else tuple(saved["train"])
    return CleanConfig(
        **{
            **saved,
            "tests": tuple(saved["tests"]),
            "train": train,
            "policy": Policy(saved["policy"]),
            "licences": tuple(saved.get("licences", ())),  # a certificate may be older
        }
    )


def command(folder: Path, document: dict[str, Any]) -> str:
    """The command that makes a clean manifest again, with the options it was made with."""
    config = config_of(document)
    words = ["curate", "clean", "--test", ",".join(config.tests)]
    words += ["--train", ",".join(config.train)] if config.train else []
    words += ["--policy", config.policy] if config.policy != Policy.PREFER_TEST else []
    words += ["--match", config.match] if config.match != "id" else []
    words += ["--margin", f"{config.margin_s:g}"] if config.margin_s else []
    content = config.match_content
    words += ["--match-content", content] if content != "auto" else []
    words += ["--dedup"] if config.dedup else []
    words += ["--use-published"] if config.use_published else []
    words += ["--licence", ",".join(config.licences)] if config.licences else []
    words += ["--use-annotations"] if config.use_annotations else []
    return shlex.join([*words, "--name", folder.name])


def comparison_of(document: dict[str, Any], *, manifests: Path, cards: dict[str, Card]) -> Comparison:
    """The comparison that a certificate stands for, whatever was built since."""
    config = config_of(document)
    comparison = compare(
        config.tests,
        train=tuple(document["train"]),
        manifests=manifests,
        cards=cards,
        margin_s=config.margin_s,
        publishers=[
            name.partition("/")[0]
            for name in document["manifests"]
            if name.endswith(published_evidence.FILE)
        ],
    )
    named_then, named_now = set(document["tests"]), {test.name for test in comparison.tests}
    if named_then != named_now:
        raise ManifestChanged(
            f"{manifests}: {', '.join(config.tests)} now means {', '.join(sorted(named_now))}, the "
            f"certificate records {', '.join(sorted(named_then))} — a card was changed; run again: "
            "curate clean"
        )
    return comparison


def named(manifests: Path, name: str) -> Path:
    """The folder of the clean manifest of that name.

    Raises:
        UsageProblem: there is none; the known ones are listed.
    """
    known = [folder.name for folder in clean_folders(manifests)]
    if name not in known:
        raise UsageProblem(
            f"no clean manifest {name!r}, expected one of: {', '.join(known) or 'none yet'} — "
            "make it with: curate clean --name NAME"
        )
    return manifests / "clean" / name


def newest(manifests: Path) -> Path | None:
    """The folder of the clean manifest that was written last."""
    folders = clean_folders(manifests)
    return max(folders, key=lambda f: ((f / FILE).stat().st_mtime_ns, f), default=None)
