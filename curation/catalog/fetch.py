"""Metadata files into `<manifests>/<dataset>/raw/`, uncompressed, with their digests on record.

From a folder, or over the network from the addresses of the cards. A file with a digest the card does
not know is an "unrecognised copy": accepted, recorded, said.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curation.catalog.cards import Card, RawFile
from curation.catalog.rawfiles import refuse_pages
from curation.catalog.record import FETCHED, dataset_folder, fetched_record
from curation.errors import BadMetadata, FoleyproofError, RemoteRefuses, UsageProblem
from curation.files import replacing, sha256_file, write_json

if TYPE_CHECKING:
    from curation.transport import (
        Transport,
    )  # loaded where files are fetched: a server needs much of the library

UNRECOGNISED = "unrecognised copy"
FROM_STATES = ("fetched", "absent", "failed")
NETWORK_STATES = ("fetched", "at hand", "by hand", "failed")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one metadata file."""

    dataset: str
    path: str  # as in the card
    state: str  # one of FROM_STATES or NETWORK_STATES
    optional: bool
    copy: str = ""  # name of the known copy, or UNRECOGNISED
    bytes: int = 0  # uncompressed
    sha256: str = ""  # of the uncompressed bytes
    detail: str = ""  # why it failed, or where it is to be had by hand
    refused: bool = False  # whether it failed because the server will not give it


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One metadata file before it is fetched."""

    dataset: str
    path: str
    url: str
    licence: str  # of the metadata
    state: str  # "to fetch", "at hand", "by hand"
    bytes: int | None = None  # still to come; None: the server does not say


def plan(
    cards: Sequence[Card],
    manifests: Path,
    transport: "Transport | None",
    *,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[Planned]:
    """What fetching these cards would bring, and how large it is; nothing is fetched yet.

    Args:
        transport: None: the servers are not asked.
    """
    wanted = [(card, file) for card in cards for file in card.files]
    planned = []
    for done, (card, file) in enumerate(wanted):
        progress(f"{card.dataset}/{file.path}", done, len(wanted))
        entry = partial(Planned, dataset=card.dataset, path=file.path, url=file.url,
                        licence=card.metadata_licence)  # fmt: skip
        if (dataset_folder(manifests, card.dataset) / "raw" / file.path).is_file():
            planned.append(entry(state="at hand"))
        elif file.by_hand:
            planned.append(entry(state="by hand"))
        else:
            size = _size(file.url, transport) if transport else None
            planned.append(entry(state="to fetch", bytes=size))
    return planned


def _size(url: str, transport: "Transport") -> int | None:
    try:
        return transport.look(url).size
    except FoleyproofError:  # not every server answers HEAD; what is wrong shows when it is fetched
        return None


def fetch(
    cards: Sequence[Card],
    manifests: Path,
    transport: "Transport",
    *,
    progress: Callable[[str, int, int | None], None] = lambda name, done, total: None,
) -> list[Fetched]:
    """Fetch every file that is not at hand from the address in its card.

    One bad file costs no other; what was cut off is continued by the next run.
    """
    return [
        _download(card, file, manifests, transport, progress) for card in cards for file in card.files
    ]


def _download(
    card: Card,
    file: RawFile,
    manifests: Path,
    transport: "Transport",
    progress: Callable[[str, int, int | None], None],
) -> Fetched:
    result = partial(Fetched, dataset=card.dataset, path=file.path, optional=file.optional)
    target = dataset_folder(manifests, card.dataset) / "raw" / file.path
    if target.is_file():
        return result(state="at hand", bytes=target.stat().st_size)
    if file.by_hand:
        return result(state="by hand", detail=file.url)
    name = f"{card.dataset}/{file.path}"
    progress(name, 0, None)
    try:
        digest, size = transport.fetch(
            file.url,
            target,
            check=lambda path: refuse_pages(path, file),
            progress=lambda done, total: progress(name, done, total),
        )
    except FoleyproofError as error:
        if error.exit_code == 14:
            raise
        return result(state="failed", detail=str(error), refused=isinstance(error, RemoteRefuses))
    fetched = result(state="fetched", copy=known_copy(file, digest), bytes=size, sha256=digest)
    _record(card, manifests, [fetched])
    return fetched


def fetch_from(
    folder: Path,
    cards: list[Card],
    manifests: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[Fetched]:
    """Copy what lies at `folder/<dataset>/<path in the card>`, with or without `.gz`.

    One bad file costs no other. Never touches the network.

    Raises:
        UsageProblem: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise UsageProblem(f"--from {folder}: not a folder, expected <dataset>/<metadata files> in it")
    wanted = [(card, file) for card in cards for file in card.files]
    results = []
    for done, (card, file) in enumerate(wanted):
        progress(f"{card.dataset}/{file.path}", done, len(wanted))
        results.append(_fetch_one(folder, card, file, manifests))
    for card in cards:
        _record(card, manifests, [result for result in results if result.dataset == card.dataset])
    return results


def _fetch_one(folder: Path, card: Card, file: RawFile, manifests: Path) -> Fetched:
    plain = folder / card.dataset / file.path
    packed = plain.with_name(plain.name + ".gz")
    result = partial(Fetched, dataset=card.dataset, path=file.path, optional=file.optional)
    if not plain.is_file() and not packed.is_file():
        return result(state="absent")
    target = dataset_folder(manifests, card.dataset) / "raw" / file.path
    source = plain if plain.is_file() else packed
    try:
        digest, size = copy_raw(source, target)
    except BadMetadata as error:
        return result(state="failed", detail=str(error))
    return result(state="fetched", copy=known_copy(file, digest), bytes=size, sha256=digest)


def copy_raw(source: Path, target: Path) -> tuple[str, int]:
    """Copy (and unpack) `source` to `target`; sha256 and size of what was written."""
    sha256, size = hashlib.sha256(), 0
    with replacing(target) as temporary, temporary.open("wb") as out:
        for chunk in _chunks(source):
            sha256.update(chunk)
            size += out.write(chunk)
        if size == 0:
            raise BadMetadata(f"{source}: is empty, expected metadata — get the file again")
    return sha256.hexdigest(), size


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadMetadata(f"{source}: not a whole gzip file ({error}) — get the file again") from error
    except OSError as error:
        raise BadMetadata(
            f"{source}: cannot be read ({error.strerror}), expected metadata — allow it, or copy the "
            "file to a place where it can be read"
        ) from error


def known_copy(file: RawFile, digest: str) -> str:
    """The name the card gives to the copy with this sha256."""
    names = {known: name for name, known in file.sha256.items()}
    return names.get(digest, UNRECOGNISED)


def _record(card: Card, manifests: Path, results: list[Fetched]) -> None:
    """Note digest, size and modification time of each file, so that build need not hash again."""
    raw = dataset_folder(manifests, card.dataset) / "raw"
    record = fetched_record(raw)
    for result in results:
        if result.state == "fetched":
            stamp = (raw / result.path).stat().st_mtime_ns
            record[result.path] = {**asdict(result), "mtime_ns": stamp}
    if record:
        write_json(raw / FETCHED, record)


def raw_digests(card: Card, manifests: Path) -> dict[str, dict[str, str]]:
    """For each raw file at hand: its sha256 and the name of that copy.

    The record of fetch is believed while size and modification time are unchanged.
    """
    raw = dataset_folder(manifests, card.dataset) / "raw"
    record = fetched_record(raw)
    digests = {}
    for file in card.files:
        path = raw / file.path
        if not path.is_file():
            continue
        entry, stat = record.get(file.path, {}), path.stat()
        if (entry.get("bytes"), entry.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns):
            digest = entry["sha256"]
        else:
            digest = sha256_file(path)
        digests[file.path] = {"sha256": digest, "copy": known_copy(file, digest)}
    return digests
