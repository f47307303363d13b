"""Published weights: found in a folder, checked before they are loaded, converted to safetensors once.

A folder of weights, `--weights DIR`, may be laid out in any of these ways, tried in this order:

    DIR/v1-44.pth                             as `features weights --fetch` leaves them
    DIR/ext_weights/v1-44.pth                 a checkout of MMAudio is DIR, with its
    DIR/weights/mmaudio_large_44k_v2.pth      two folders below
    DIR/../ext_weights/v1-44.pth              one of these two folders is DIR, the other beside it
    DIR/clip/open_clip_pytorch_model.bin      what the hub holds under a plain name, in a folder named
    DIR/models--apple--…/snapshots/…/…        clip, after the model, or as the hub's tools name it;
                                              there also model.safetensors and pytorch_model.bin

What is read is `DIR/converted/<name>-<sha256, 12 digits>.safetensors`, made of the published file when
it is first used, and mapped from then on. The identity of weights is the sha256 of the published file.
"""

import logging
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.errors import NotWritable, UsageProblem, WrongWeights
from curation.files import holding, sweep
from curation.tables import size_text
from features.weights.checkpoint_kind import kind_of
from features.weights.digests import Digests, Note, Report, not_writable, read_note, silent
from features.weights.table import CLIP, SYNCHFORMER, VAES, WeightFile, file_named

if TYPE_CHECKING:
    import torch

PARTS = ("vae", "clip", "synchformer")  # the encoders
CONVERTED = "converted"
_PLACES = (".", "ext_weights", "weights", "../ext_weights", "../weights")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightChoice:
    """Which weights: those of a folder, or random ones that follow from a seed."""

    folder: Path | None = None
    untrained_seed: int | None = None
    tiny: bool = False  # two layers, 64 wide, at the same input and output shapes; untrained only
    offline: bool = False

    def __post_init__(self) -> None:
        if (self.folder is None) == (self.untrained_seed is None):
            raise UsageProblem(
                f"weights from {self.folder} and untrained seed {self.untrained_seed}, expected one of "
                "the two — give --weights DIR or --untrained SEED"
            )
        if self.tiny and self.untrained_seed is None:
            raise UsageProblem(
                "--tiny without --untrained SEED: nobody has published tiny weights, expected a seed "
                "— give --untrained 0, or leave out --tiny"
            )


def encoder_files(sample_rate_hz: int) -> dict[str, WeightFile]:
    """The file of each encoder: "vae", "clip" and "synchformer"."""
    names = {"vae": VAES[sample_rate_hz], "clip": CLIP, "synchformer": SYNCHFORMER}
    return {part: file_named(name) for part, name in names.items()}


def locate(folder: Path, file: WeightFile) -> Path | None:
    """Where a file of weights lies, the first place of those named above; None: nowhere."""
    return next((path for path in _candidates(folder, file) if path.is_file()), None)


def _candidates(folder: Path, file: WeightFile) -> Iterator[Path]:
    for place in _PLACES:
        yield (
            Path(os.path.normpath(folder.absolute() / place / file.name))
            if ".." in place
            else (folder / place / file.name)
        )
        for pattern in file.folders:
            for inner in sorted((folder / place).glob(pattern)):
                for name in (file.name, *file.also):
                    yield inner / name


def identity_of(
    weights: WeightChoice,
    sample_rate_hz: int,
    *,
    parts: Sequence[str] = PARTS,
    progress: Report = silent,
) -> dict[str, str]:
    """What the encoders are: "sha256:…" of each published file, or "untrained:SEED" (":tiny").

    Raises:
        UsageProblem, WrongWeights, BadWeights: as `state_dict_of`.
    """
    if weights.untrained_seed is not None:
        name = f"untrained:{weights.untrained_seed}" + (":tiny" if weights.tiny else "")
        return dict.fromkeys(parts, name)
    files = encoder_files(sample_rate_hz)
    refuse_missing(weights, [files[part] for part in parts])
    notes = {part: checked(weights, files[part], progress=progress)[1] for part in parts}
    return {part: f"sha256:{note.sha256}" for part, note in notes.items()}


def prepare(
    weights: WeightChoice,
    sample_rate_hz: int,
    *,
    progress: Report = silent,
) -> None:
    """Check and convert the files of the encoders, once, before several processes load them.

    Raises:
        UsageProblem, WrongWeights, BadWeights: as `state_dict_of`.
    """
    if weights.folder is None:
        return
    for file in encoder_files(sample_rate_hz).values():
        path, note = checked(weights, file, progress=progress)
        convert(weights.folder, path, note, file, progress=progress)


def checked(weights: WeightChoice, file: WeightFile, *, progress: Report = silent) -> tuple[Path, Note]:
    """A published file and what it is, after its size and digests were looked at.

    Raises:
        UsageProblem: it is not in the folder.
        WrongWeights: it is not the published file, or not what it was when it was first seen.
    """
    assert weights.folder is not None, "untrained weights have no files"
    path = locate(weights.folder, file)
    if path is None:
        raise _missing(weights, [file])
    return path, checked_file(weights.folder, path, file, progress=progress)


def refuse_missing(weights: WeightChoice, files: Sequence[WeightFile]) -> None:
    """Raise UsageProblem that names all files which are not in the folder, and how to bring them."""
    assert weights.folder is not None, "untrained weights have no files"
    if missing := [file for file in files if locate(weights.folder, file) is None]:
        raise _missing(weights, missing)


def _missing(weights: WeightChoice, files: Sequence[WeightFile]) -> UsageProblem:
    sizes = [size_text(file.num_bytes) for file in files]
    names = shlex.join(file.name for file in files)
    bring = f"features weights --fetch {names} --weights {shlex.quote(str(weights.folder))}"
    if weights.offline:
        places = ", ".join(f"{size} from {file.url}" for size, file in zip(sizes, files, strict=True))
        bring = f"copy {'it' if len(files) == 1 else 'them'} there by hand ({places})"
    said = ", ".join(
        f"{file.name} ({file.title}, {size})" for size, file in zip(sizes, files, strict=True)
    )
    are, them = ("is", "it") if len(files) == 1 else ("are", "each")
    return UsageProblem(
        f"{weights.folder}: {said} {are} not there, expected {them} in one of the places that "
        f"`features weights --help` names — {bring}, or use --untrained SEED for a trial"
    )


def checked_file(folder: Path, path: Path, file: WeightFile, *, progress: Report = silent) -> Note:
    """Size and digests of a file at `path`, noted in `folder`.

    Raises:
        WrongWeights: it is not the published file, or not what it was when it was first seen.
    """
    digests = Digests(folder)
    note = digests.believed(path)
    if note is None:
        kind_of(path)
        note = read_note(path, progress=progress)
        refuse_others(path, file, note, remedy=fetch_again(folder, path, file))
        refuse_other_tensors(path, file, note)
        _refuse_changed(path, file, note, digests.noted(path))
        digests.write(path, note)
    else:
        refuse_others(path, file, note, remedy=fetch_again(folder, path, file))
    return note


def fetch_again(folder: Path, path: Path, file: WeightFile) -> str:
    """What brings a file that lies at `path` anew into a folder of weights."""
    place, where = shlex.quote(str(path)), shlex.quote(str(folder))
    return f"run: rm {place}; features weights --fetch {file.name} --weights {where}"


def refuse_others(path: Path, file: WeightFile, note: Note, *, remedy: str) -> None:
    """Raise WrongWeights where bytes are not those of the published file, as far as they are known."""
    renamed = path.name.removesuffix(".part") != file.name  # the same weights in another format
    fits = "size" in file.unverified or file.num_bytes <= note.bytes <= file.most_bytes
    if renamed or (fits and file.md5 in (None, note.md5)):
        return
    known = f"md5 {file.md5}" if file.md5 else "an unknown digest"
    raise WrongWeights(
        f"{path}: {note.bytes:,} bytes with md5 {note.md5}, expected {file.num_bytes:,} bytes and a few "
        f"more ({file.stated or 'of its values'}) with {known}: it is truncated, damaged or another "
        f"file — {remedy}"
    )


def refuse_other_tensors(path: Path, file: WeightFile, note: Note) -> None:
    """Raise WrongWeights where a file without a published digest holds other tensors than its network.

    Before its digest is noted: what is noted of a wrong file would make the right one wrong later.
    """
    if not _is_published(path, file, note):
        from features.weights.checkpoint_files import read_tensors
        from features.weights.layout import refuse_layout

        refuse_layout(path, file, read_tensors(path, inside=file.inside))


def _is_published(path: Path, file: WeightFile, note: Note) -> bool:
    """Whether the publisher's digest says already that it is the file."""
    return file.md5 == note.md5 and path.name.removesuffix(".part") == file.name


def _refuse_changed(path: Path, file: WeightFile, note: Note, former: Note | None) -> None:
    if former is None or file.md5 is not None or former.sha256 == note.sha256:
        return
    raise WrongWeights(
        f"{path}: {note.bytes:,} bytes with sha256 {note.sha256}, expected sha256 {former.sha256} "
        f"({former.bytes:,} bytes), as it was when it was first seen; no digest of it is published — "
        "bring the former file back, or remove its lines from digests.json if the new one is meant"
    )


def state_dict_of(
    weights: WeightChoice, file: WeightFile, *, progress: Report = silent
) -> "dict[str, torch.Tensor]":
    """The tensors of a published file by name, mapped from its converted copy.

    Raises:
        UsageProblem: it is not in the folder.
        WrongWeights: it is truncated, damaged, another file, or asks to run code.
        BadWeights: the folder cannot keep digests and converted files.
    """
    from features.weights.checkpoint_files import read_tensors

    path, note = checked(weights, file, progress=progress)
    assert weights.folder is not None, "checked() asserts it"
    return read_tensors(convert(weights.folder, path, note, file, progress=progress))


def converted_path(folder: Path, path: Path, note: Note) -> Path:
    """Where the safetensors copy of a file lies, or will; a file that is safetensors is its own."""
    if path.suffix == ".safetensors":
        return path
    return folder / CONVERTED / f"{path.name}-{note.sha256[:12]}.safetensors"


def convert(
    folder: Path, path: Path, note: Note, file: WeightFile, *, progress: Report = silent
) -> Path:
    """The safetensors copy of a checked file; made if it is not there or not what it was.

    Raises:
        WrongWeights, BadWeights: as `state_dict_of`.
    """
    target = converted_path(folder, path, note)
    if target == path or _is_noted(target, Digests(folder)):
        return target
    try:
        # several processes may start with the same weights
        with holding(folder / ".convert.lock", patience_s=math.inf):
            return _convert(folder, path, note, file, progress)
    except NotWritable as error:
        raise not_writable(folder, error) from error


def _convert(folder: Path, path: Path, note: Note, file: WeightFile, progress: Report) -> Path:
    from features.weights.checkpoint_files import read_tensors, write_safetensors
    from features.weights.layout import refuse_layout

    target, digests = converted_path(folder, path, note), Digests(folder)
    if not _is_whole(target, digests, progress):
        sweep(target.parent)  # what a killed process left; whoever is in here is alone
        progress(f"conversion of {path.name}", 0, None)
        tensors = read_tensors(path, inside=file.inside)
        if not _is_published(path, file, note):  # noted by an earlier version, which did not compare
            refuse_layout(path, file, tensors)
        write_safetensors(target, tensors, {"source": f"sha256:{note.sha256}", "name": path.name})
        digests.write(target, read_note(target, progress=progress))
    return target


def _is_noted(target: Path, digests: Digests) -> bool:
    """Whether a converted file is there and unchanged since it was written."""
    return target.is_file() and digests.believed(target) is not None


def _is_whole(target: Path, digests: Digests, progress: Report) -> bool:
    """Whether a converted file is what was written."""
    if not target.is_file():
        return False
    if _is_noted(target, digests):
        return True
    former, note = digests.noted(target), read_note(target, progress=progress)
    if former is not None and former.sha256 == note.sha256:
        digests.write(target, note)
        return True
    if former is not None:
        logger.warning("%s: not what was written; it is converted anew", target)
    return False
