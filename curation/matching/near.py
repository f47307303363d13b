"""Overlaps by content: what `curate duplicates` found, as evidence of a comparison.

| rule | the pair | tier |
|---|---|---|
| `near_av` | shows the same picture and has the same sound, at one offset | of the pair |
| `near_video` | shows the same picture | of the pair |
| `near_audio` | has the same sound | of the pair |

`duplicates.parquet` has each pair once, whichever clip is the test item; here it is turned so that the
held-out clip comes first: time in the training clip = time in the held-out clip + offset_s. Pairs of
clips that are not built any more are nobody's. Copies of copies are added (chains.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog.lists import Selection
from curation.catalog.store import FINGERPRINTS, first_line, sql_text
from curation.errors import BadManifest, ManifestChanged
from curation.files import digest_of, sha256_file
from curation.manifest import METADATA_KEY
from curation.matching.chains import follow
from curation.matching.comparison import Comparison

if TYPE_CHECKING:
    import duckdb

RULES = ("near_av", "near_video", "near_audio")
FILE = "duplicates.parquet"
_SCAN = "scan.json"
FORMAT = "foleyproof-duplicates/1"
# The columns of `near` beside test, split, lists and train_row, with their types.
_NEAR = (
    ("heldout_dataset", "varchar"), ("heldout_clip_id", "varchar"), ("train_dataset", "varchar"),
    ("train_clip_id", "varchar"), ("rule", "varchar"), ("tier", "varchar"), ("shared_s", "double"),
    ("offset_s", "double"), ("speed", "double"), ("video_score", "double"), ("audio_score", "double"),
    ("mirrored", "boolean"), ("by_others", "boolean"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """A duplicates.parquet, and what it says it was made from.

    Its metadata hold, as canonical JSON: format, tests (digests by name of the list, null for all
    pairs), train (names as given to --train, null for all that was scanned), fingerprints (what
    `scans` gives, of the datasets compared) and versions (of the detector, by name).
    """

    path: Path
    rows: int
    tests: dict[str, str | None] | None  # digests by name of the list; None: all pairs were looked for
    trains: tuple[str, ...] | None  # names as given to --train; None: all that was scanned
    fingerprints: dict[str, str]  # digest of the scan by dataset
    versions: dict[str, Any]  # of the detector

    @property
    def sha256(self) -> str:
        """Of the file as it is now."""
        return sha256_file(self.path)

    def compares(self, test: Selection, digest: str | None = None) -> bool:
        """Whether the pairs of this test set, as it is now, were looked for."""
        if test.dataset not in self.fingerprints:
            return False
        if self.tests is None:
            return True
        recorded = self.tests.get(test.name)
        return test.name in self.tests and (None in (recorded, digest) or recorded == digest)

    def compares_train(self, train: Selection) -> bool:
        """Whether the pairs of this training set were looked for."""
        asked = self.trains is None or train.key in self.trains
        return asked and train.dataset in self.fingerprints

    def command(self) -> str:
        """The command that makes it anew."""
        words = ["curate duplicates"]
        words += [f"--test {','.join(self.tests)}"] if self.tests else []
        words += [f"--train {','.join(self.trains)}"] if self.trains else []
        return " ".join(words)


def read_duplicates(db: "duckdb.DuckDBPyConnection", manifests: Path) -> Duplicates | None:
    """What `curate duplicates` wrote last, None where it did not.

    Raises:
        BadManifest: it cannot be read, or lacks a column.
    """
    import duckdb

    path = manifests / FILE
    if not path.is_file():
        return None
    try:
        found = db.execute(
            "select value from parquet_kv_metadata(?) where key::varchar = ?", [str(path), METADATA_KEY]
        ).fetchall()
        ((rows,),) = db.execute("select count(*) from read_parquet(?)", [str(path)]).fetchall()
        described = db.execute("describe from read_parquet(?)", [str(path)]).fetchall()
        about = json.loads(found[0][0]) if found else {}
    except (duckdb.Error, ValueError) as error:
        raise BadManifest(
            f"{path}: cannot be read as Parquet ({first_line(error)}) — make it anew: curate duplicates"
        ) from error
    lacking = {name for name, _ in _columns()} - {row[0] for row in described}
    if lacking or about.get("format") != FORMAT:
        what = f"without the columns {', '.join(sorted(lacking))}" if lacking else "of another format"
        raise BadManifest(f"{path}: is {what}, expected {FORMAT} — make it anew: curate duplicates")
    return Duplicates(
        path=path,
        rows=rows,
        tests=_digests(about.get("tests")),
        trains=tuple(about["train"]) if about.get("train") else None,
        fingerprints=dict(about.get("fingerprints") or {}),
        versions=dict(about.get("versions") or {}),
    )


def _digests(tests: Any) -> dict[str, str | None] | None:
    """Test lists with their digests, from a dictionary or a list of names; None for none."""
    if not tests:
        return None
    return dict(tests) if isinstance(tests, dict) else dict.fromkeys(tests)


def scans(manifests: Path) -> dict[str, str]:
    """Datasets whose media were scanned, and the digest of each scan."""
    return {
        path.parent.name: _digest(path)
        for path in sorted((manifests / FINGERPRINTS).glob(f"*/{_SCAN}"))
        if ".tmp-" not in path.parent.name
    }


def _digest(path: Path) -> str:
    """The digest that scan sealed its record with; where it does not fit, that of the bytes."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.get("digest") == digest_of(record):
            return str(record["digest"])
    except ValueError:
        pass
    return f"sha256:{sha256_file(path)}"


def stale(duplicates: Duplicates, manifests: Path) -> list[str]:
    """Datasets that were scanned anew since these duplicates were looked for."""
    now = scans(manifests)
    return [name for name, digest in sorted(duplicates.fingerprints.items()) if now.get(name) != digest]


def near_notes(db: "duckdb.DuckDBPyConnection", manifests: Path) -> list[str]:
    """A line for each dataset that was scanned, or scanned anew, since duplicates were looked for."""
    duplicates = read_duplicates(db, manifests)
    if duplicates is None:
        return [
            f"{name}: was scanned and not compared — run: curate duplicates" for name in scans(manifests)
        ]
    anew = [
        f"{name}: was scanned anew since duplicates were looked for — run: {duplicates.command()}"
        for name in stale(duplicates, manifests)
    ]
    return anew + [
        f"{name}: was scanned and not compared — run: curate duplicates"
        for name in scans(manifests)
        if name not in duplicates.fingerprints
    ]


def check_fresh(duplicates: Duplicates, manifests: Path) -> None:
    """Raise ManifestChanged where duplicates were looked for in other fingerprints than there are."""
    for name in stale(duplicates, manifests):
        raise ManifestChanged(
            f"{duplicates.path}: was made from other fingerprints of {name} than lie in "
            f"{manifests / FINGERPRINTS / name}, expected the same — make it anew: "
            f"{duplicates.command()}"
        )


def _columns() -> list[tuple[str, str]]:
    """Columns of duplicates.parquet that are read, and their types."""
    sides = [(f"{side}_{name}", "varchar") for side in "ab" for name in ("dataset", "clip_id")]
    return [*sides, *_NEAR[4:-1]]


def _both_ways(path: Path) -> str:
    """A SELECT of every pair, once with each clip as the held-out one."""
    facts = "rule, tier, shared_s, video_score, audio_score, mirrored, false as by_others"
    rows = f"read_parquet({sql_text(path)})"
    return f"""
        select a_dataset as heldout_dataset, a_clip_id as heldout_clip_id,
               b_dataset as train_dataset, b_clip_id as train_clip_id, offset_s, speed, {facts}
        from {rows}
        union all
        -- not -offset_s: that of 0 is -0
        select b_dataset, b_clip_id, a_dataset, a_clip_id, 0 - offset_s, 1 / speed, {facts}
        from {rows}"""


def find_near(db: "duckdb.DuckDBPyConnection", comparison: Comparison, train_rows: str) -> None:
    """Make the temporary table `near`: pairs of a held-out clip and a row of the training side.

    Needs the tables `heldout` and `items` of the comparison.

    Args:
        train_rows: a SELECT of all rows of the training side.
    """
    names = ", ".join(f"d.{name}" for name, _ in _NEAR)
    if (duplicates := read_duplicates(db, comparison.manifests)) is None:
        typed = ", ".join(f"null::{kind} as {name}" for name, kind in _NEAR)
        db.execute(
            f"""create temp table near as select 0 as test, {typed}, ''::varchar as split,
                ['']::varchar[] as lists, 0::bigint as train_row where false"""
        )
        return
    db.execute(f"create temp table found as {_both_ways(duplicates.path)}")
    db.execute(
        f"""create temp table near as
        select h.test, {names}, t.split, t.lists, t.train_row
        from ({train_rows}) t
        join found d on d.train_clip_id = t.clip_id and d.train_dataset = t.dataset
        join heldout h on h.dataset = d.heldout_dataset and h.clip_id = d.heldout_clip_id
        -- a row that is itself an item of the test set is held out, not evidence
        where not exists (select 1 from items i
                  where i.test = h.test and i.dataset = t.dataset and i.clip_id = t.clip_id)"""
    )
    follow(db, duplicates.path, train_rows)
