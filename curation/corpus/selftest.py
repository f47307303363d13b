"""The self-test: how well the detector does on the user's own clips.

Copies of some clips are planted beside them, with near misses; all of it is scanned and searched as any
dataset is, and what is found is compared with what was planted. Everything lies in one folder:

    <out>/planted/…      see planting.py
    <out>/clips.csv      the list of these files
    <out>/manifests/…    fingerprints and duplicates of the dataset `selftest`
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.catalog.cards import load_cards
from curation.corpus.edits import ALL_EDITS
from curation.corpus.near_misses import PAIRS
from curation.corpus.planting import (
    BASE,
    NEAR_MISS,
    NO_SOURCE,
    UNREADABLE,
    PlantedFile,
    plant_all,
    stems,
)  # fmt: skip
from curation.corpus.recall import Found, Measured, measure
from curation.errors import UsageProblem
from curation.files import replacing
from curation.matching.compare_media import compared, find_duplicates, versions
from curation.media.decoder import DecoderConfig
from curation.media.fingerprint import read_fingerprints, read_scan
from curation.media.locate import media_folder
from curation.media.run import scan_media

DATASET = "selftest"


def choose(folder: Path, clips: int) -> list[Path]:
    """So many media files below a folder, the same ones at every run, spread over all of it.

    Raises:
        UsageProblem: there are none.
    """
    media = media_folder(folder)
    if not media.media:
        raise UsageProblem(f"{folder}: no media files below it, expected some clips — give another DIR")

    def drawn(name: str) -> bytes:
        return hashlib.sha256(os.fsencode(name)).digest()

    chosen = sorted(media.media, key=drawn)[:clips]
    return [Path(media.real_path(name)) for name in sorted(chosen)]


def known_edits(names: Sequence[str]) -> tuple[str, ...]:
    """The edits of these names, in the order of ALL_EDITS; all of them without any.

    Raises:
        UsageProblem: there is no such edit.
    """
    for name in names:
        if name not in ALL_EDITS:
            raise UsageProblem(f"{name}: no such edit, expected some of: {', '.join(ALL_EDITS)}")
    return tuple(name for name in ALL_EDITS if not names or name in names)


def plant_clips(
    chosen: Sequence[Path],
    out: Path,
    *,
    edits: Sequence[str],
    workers: int,
    tell: Callable[[str, int, int], None] = lambda label, done, total: None,
) -> list[PlantedFile]:
    """Plant copies and near misses of these clips; what is there is kept."""
    named = stems(chosen)
    files: list[PlantedFile] = []
    for done, made in enumerate(
        plant_all(named, out / "planted", edits=edits, pairs=tuple(PAIRS), workers=workers), start=1
    ):
        tell("planting", done, len(named) + 1)
        files += made
    return files


def asked_about(file: PlantedFile) -> bool:
    """Whether a file is on the test side: the clips themselves, and one of each two near misses."""
    if file.what == NEAR_MISS:
        return file.file.endswith("_1.mp4")
    return file.what in (BASE, NO_SOURCE)


def write_list(files: Iterable[PlantedFile], target: Path) -> None:
    """The list that scan reads: every file, and whether it is of the test split."""
    with replacing(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("id", "file", "split"))
        for file in sorted(files, key=lambda file: file.file):
            writer.writerow((file.file, file.file, "test" if asked_about(file) else "train"))


# ---- the detector ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a self-test found."""

    measured: Measured
    clips: list[str]  # names of the clips that were used
    unreadable: list[str]  # … and of those that cannot be read
    unscanned: dict[str, str]  # planted files that scan failed on, with the reason
    versions: dict[str, Any]  # of the detector: what decides which pairs are found


def run(
    chosen: Sequence[Path],
    out: Path,
    *,
    edits: Sequence[str],
    workers: int,
    tell: Callable[..., None] = lambda label, done=None, total=None: None,
) -> Result:
    """Plant, scan, look for duplicates, compare."""
    made = plant_clips(chosen, out, edits=edits, workers=workers, tell=tell)
    files = [file for file in made if file.what != UNREADABLE]
    write_list(files, out / "clips.csv")
    manifests = out / "manifests"
    scan_media(
        manifests, (), out / "planted", (DATASET,), out / "clips.csv", DecoderConfig(),
        workers=workers, share=None, progress=tell,
    )  # fmt: skip
    facts = {
        row["clip_id"]: row
        for row in read_fingerprints(manifests, DATASET, ("status", "reason", "duration_s")).to_pylist()
    }
    unscanned = {name: row["reason"] for name, row in facts.items() if row["status"] == "failed"}
    tests = {file.file for file in files if asked_about(file)}
    found = _found(manifests, workers, tell)
    return Result(
        measured=measure(
            files, found, tests, {name: row["duration_s"] or 0.0 for name, row in facts.items()}
        ),
        clips=[file.base or "" for file in files if file.what == BASE],
        unreadable=[file.base or "" for file in made if file.what == UNREADABLE],
        unscanned=unscanned,
        versions=versions({"picture": read_scan(manifests, DATASET)["about"]["hash_version"]}),
    )


def _found(manifests: Path, workers: int, tell: Callable[..., None]) -> list[Found]:
    """The pairs that touch a test file."""
    chosen = compared((f"{DATASET}/test",), None, manifests=manifests, cards=load_cards(manifests))
    found = find_duplicates(chosen, workers=workers, progress=tell)
    return [
        Found(
            a=row["a_clip_id"],
            b=row["b_clip_id"],
            rule=row["rule"],
            tier=row["tier"],
            offset_s=row["offset_s"],
        )
        for row in found.pairs.to_pylist()
    ]
