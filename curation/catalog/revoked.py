"""Recordings that were taken down: `revoked.json`, which every build of these manifests obeys."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from curation.catalog.identity import parse
from curation.catalog.store import sql_text
from curation.errors import ManifestChanged, UsageProblem
from curation.files import write_json

FILE = "revoked.json"
# What identifies a row's recording, as it stands in the file.
KEY = "(source || ':' || source_id)"


def revoked(manifests: Path) -> frozenset[str]:
    """Every revoked recording as `source:source_id`.

    Raises:
        ManifestChanged: the file is there and cannot be read: it must not be taken for empty.
    """
    path = manifests / FILE
    try:
        recordings = json.loads(path.read_text(encoding="utf-8"))["recordings"]
        if all(isinstance(key, str) for key in recordings):
            return frozenset(recordings)
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError, IsADirectoryError):
        pass
    raise ManifestChanged(
        f'{path}: not what curate revoke wrote, expected {{"recordings": ["source:id", …]}} — mend it, '
        "or remove it and revoke again"
    )


def write_revoked(manifests: Path, keys: Iterable[str]) -> None:
    """Write the file anew."""
    write_json(manifests / FILE, {"recordings": sorted(keys)})


def recording_key(text: str) -> str:
    """`source:source_id` of what `text` names, in any written form, or as `source:id`.

    Raises:
        UsageProblem: it names nothing.
    """
    if found := parse(text):
        return f"{found.source}:{found.source_id}"
    named = re.fullmatch(r"([a-z][a-z0-9_]*):(?!//)(.+)", text.strip())
    if named and named[1] not in ("youtube", "freesound"):
        return f"{named[1]}:{named[2]}"
    raise UsageProblem(
        f"{text!r}: names no recording, expected an id or link of YouTube or Freesound, or SOURCE:ID, "
        "as bbc:NHU05093027 — see the column source_id of clips"
    )


def is_revoked(keys: Iterable[str]) -> str:
    """The SQL condition that a row's recording is one of these."""
    listed = ", ".join(map(sql_text, sorted(keys)))
    return f"{KEY} in ({listed})" if listed else "false"
