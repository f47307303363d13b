"""The certificate beside a clean manifest, and the command that makes that manifest anew.

It is about the rows that clean kept. The other files beside it hold what clean took out of training:
they have no part in what it promises.
"""

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import ManifestChanged
from curation.files import digest_of

CERTIFICATE, KEPT = "certificate.json", "kept.parquet"
REMOVED, HELD_OUT = "rows that clean removed", "test rows that clean held out"
# options of curate clean by their keys in a certificate, with the value that need not be said
_OPTIONS = (
    ("train", "train", None), ("policy", "policy", "prefer-test"), ("match", "match", "id"),
    ("margin", "margin_s", 0), ("match-content", "match_content", "auto"),
    ("licence", "licences", None),
)  # fmt: skip
_FLAGS = (
    ("dedup", "dedup"), ("use-published", "use_published"), ("use-annotations", "use_annotations"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a certificate is to a file: its document, or in words why it is none of the file's."""

    document: dict[str, Any] | None = None
    uncertified: str = ""  # "": there is no certificate beside it, or it is certified


def standing_of(path: Path, digest: str) -> Standing:
    """What the certificate beside a manifest is to it.

    Args:
        digest: sha256 of the manifest's bytes.

    Raises:
        ManifestChanged: the certificate or the manifest is not what clean wrote.
    """
    place = path.with_name(CERTIFICATE)
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Standing()
    except (OSError, ValueError):
        document = None
    if not isinstance(document, dict) or document.get("digest") != digest_of(document):
        raise ManifestChanged(
            f"{place}: not the certificate that clean wrote, expected JSON with the digest of its "
            f"content — make it anew with: {rebuild(path.parent)}"
        )
    recorded = document.get("outputs", {}).get(path.name, {}).get("sha256")
    if recorded is None:
        return Standing(uncertified=f"{CERTIFICATE} does not name it")
    if recorded != digest:
        raise ManifestChanged(
            f"{path}: sha256 is {digest[:12]}…, its certificate records {recorded[:12]}… — it was "
            f"changed since; make it anew with: {rebuild(path.parent)}"
        )
    if path.name == KEPT:
        return Standing(document=document)
    return Standing(uncertified=HELD_OUT if path.name == "heldout_kept.parquet" else REMOVED)


def rebuild(folder: Path) -> str:
    """The command that makes a clean manifest anew, with the options that its certificate records.

    Of a certificate that says none, the command has the tests that clean takes by itself.
    """
    config: Any = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nothing is known but its name
        config = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8")).get("config")
    config = config if isinstance(config, dict) else {}
    words = ["curate", "clean"]
    if tests := config.get("tests"):
        words += ["--test", _word(tests)]
    for option, key, usual in _OPTIONS:
        value = config.get(key)
        if value and value != usual:
            words += [f"--{option}", _word(value)]
    words += [f"--{option}" for option, key in _FLAGS if config.get(key)]
    home = folder.resolve().parent.parent
    words += ["--name", folder.resolve().name, "--replace"]
    words += [] if home == Path("manifests").resolve() else ["--manifests", str(home)]
    return shlex.join(words)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
