"""From the words of `curate scan` to the datasets that are scanned, and what became of them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.catalog.build import Built, build
from curation.catalog.cards import Card, card_folders, load_cards
from curation.catalog.record import dataset_folder, read_record
from curation.catalog.store import built_datasets, refresh_views
from curation.errors import UsageProblem
from curation.files import locked
from curation.media.decoder import DecoderConfig
from curation.media.folder import check_name, dataset_name, files_of, is_folder_dataset, take_folder
from curation.media.locate import Located, MediaFolder, Wanted, locate, media_folder, of_list, unmatched
from curation.media.scan import Clips, Scanned, scan
from curation.ray_engine import Engine
from curation.tasks import ALL, Share, still_busy

DEFAULT_FOLDER = Path("media")
_PATIENCE_S = 120.0  # that processes sharing a scan wait for the one that builds the dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One dataset: whose clips were looked for, and what became of them."""

    located: Located
    scanned: Scanned
    built: Built | None  # of a folder's dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All datasets of one run, and the files of its media folder."""

    parts: list[Part]
    media: MediaFolder
    unmatched: int

    @property
    def sealed(self) -> bool:
        """Whether nothing is left to do for others."""
        return all(part.scanned.sealed for part in self.parts)

    @property
    def num_failed(self) -> int:
        """Clips without fingerprints, and rows of a list that are no clips."""
        failed = sum(sum(part.scanned.counts.failed.values()) for part in self.parts)
        return failed + sum(sum(part.built.tally.failed.values()) for part in self.parts if part.built)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """A dataset that is to be scanned, with the places of its clips."""

    clips: Clips
    located: Located
    built: Built | None = None


def scan_media(
    manifests: Path,
    cards: Sequence[Path],
    folder: Path | None,
    names: tuple[str, ...] | None,
    list_file: Path | None,
    config: DecoderConfig,
    *,
    workers: int,
    share: Share | None,
    engine: Engine | None = None,
    progress: Callable[..., Any],
) -> Found:
    """Scan the media of a folder.

    Args:
        engine: a cluster of Ray whose actors work; None: threads of this process.

    Raises:
        UsageProblem: there is no such folder, dataset or list.
        Locked: another process works on the same.
    """
    if list_file is not None and folder is None:
        raise UsageProblem("--list names files of a folder, expected that folder too — give DIR")
    if folder is None and not DEFAULT_FOLDER.is_dir():
        raise UsageProblem(
            "there is no folder ./media, expected one with video or sound files — say where they are: "
            "curate scan DIR"
        )
    progress("files")
    media = media_folder(folder or DEFAULT_FOLDER, without=manifests)
    patience_s = _PATIENCE_S if share else 0.0
    with locked(manifests, patience_s=patience_s):
        if folder is not None and (names is None or _is_folder(manifests, cards, names, list_file)):
            name = names[0] if names else dataset_name(folder)
            chosen = [_own(manifests, name, media, list_file)]
        else:
            known = load_cards(manifests, *cards)
            chosen = _built(manifests, known, names, media, list_file)
    total = sum(len(one.clips.clip_ids) for one in chosen)
    counter = _Counter(total, progress)
    parts = []
    for one in chosen:
        counter.label = one.clips.dataset
        scanned = scan(
            manifests,
            one.clips,
            media,
            config,
            workers=workers,
            share=share or ALL,
            engine=engine,
            progress=counter.add,
        )
        still_busy(manifests / "fingerprints" / one.clips.dataset, scanned.busy)
        parts.append(Part(located=one.located, scanned=scanned, built=one.built))
    if any(part.scanned.changed or (part.built and part.built.state == "built") for part in parts):
        with locked(manifests, patience_s=patience_s):
            refresh_views(manifests)
    left = unmatched(media, [one.located for one in chosen])
    return Found(parts=parts, media=media, unmatched=left)


class _Counter:
    """Clips that are done, for the line on the terminal; several threads tell it."""

    def __init__(self, total: int, progress: Callable[..., Any]) -> None:
        self._total, self._progress, self._done = total, progress, 0
        self._lock = threading.Lock()
        self.label = ""

    def add(self, clips: int) -> None:
        with self._lock:
            self._done += clips
            self._progress(f"{self.label}: clips", self._done, self._total)


# ---- which datasets -------------------------------------------------------------------------------


def _is_folder(
    manifests: Path, cards: Sequence[Path], names: tuple[str, ...], list_file: Path | None
) -> bool:
    """Whether the name is that of a folder's dataset, which may not be there yet."""
    if len(names) != 1:
        return False
    known = card_folders(manifests, *cards)
    return list_file is not None or names[0] not in known or is_folder_dataset(manifests, names[0])


def _own(manifests: Path, name: str, media: MediaFolder, list_file: Path | None) -> _Chosen:
    """The dataset of a folder, built."""
    check_name(manifests, name)
    card = take_folder(manifests, name, media, list_file=list_file)
    (built,) = build([card], manifests)
    if built.error is not None:
        raise built.error
    rows = _rows(manifests, name)
    located = _listed(manifests, name, rows, media)
    return _Chosen(clips=_with_files(name, rows, located), located=located, built=built)


def _listed(manifests: Path, name: str, rows: list[Wanted], media: MediaFolder) -> Located:
    listed = files_of(manifests, name)
    return of_list((listed.get(row.clip_id) for row in rows), media)


def _built(
    manifests: Path,
    known: dict[str, Card],
    names: tuple[str, ...] | None,
    media: MediaFolder,
    list_file: Path | None,
) -> list[_Chosen]:
    """Datasets that are built; without names those that have media in the folder."""
    if list_file is not None:
        raise UsageProblem(
            "--list makes one dataset of a folder, expected one --dataset with it — give one new name, "
            "or leave --list out"
        )
    built = built_datasets(manifests)
    for name in names or ():
        if name not in built:
            what = "is not built" if name in known else "unknown dataset"
            raise UsageProblem(
                f"{name}: {what}, expected one of: {', '.join(built) or 'none is built'} — run: "
                f"curate fetch --from DIR && curate build {name}"
            )
    chosen = []
    for name in dict.fromkeys(names or built):
        rows = _rows(manifests, name)
        if is_folder_dataset(manifests, name):
            located = _listed(manifests, name, rows, media)
        else:
            located = locate(rows, known[name].media if name in known else (), media)
        if names or located.found:
            chosen.append(_Chosen(clips=_with_files(name, rows, located), located=located))
    if not chosen:
        raise UsageProblem(
            f"{media.root}: no file of a built dataset ({', '.join(built) or 'none is built'}), "
            "expected file names as in the cards — for a folder as a dataset of its own: curate scan DIR"
        )
    return chosen


def _rows(manifests: Path, dataset: str) -> list[Wanted]:
    """The clips of a built dataset, sorted by clip_id."""
    import pyarrow.parquet as pq

    read_record(manifests, dataset)  # raises where it was changed
    path = dataset_folder(manifests, dataset) / "clips.parquet"
    names = ("clip_id", "source_id", "start_s", "end_s")
    with pq.ParquetFile(path) as file:
        table = file.read(columns=list(names), use_threads=False)
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [
        Wanted(clip_id=clip_id, source_id=source_id, start_s=start_s, end_s=end_s)
        for clip_id, source_id, start_s, end_s in sorted(rows, key=lambda row: row[0])
    ]


def _with_files(dataset: str, rows: list[Wanted], located: Located) -> Clips:
    return Clips(
        dataset=dataset,
        clip_ids=[row.clip_id for row in rows],
        start_s=[row.start_s for row in rows],
        end_s=[row.end_s for row in rows],
        files=located.files,
    )
