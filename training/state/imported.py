"""Files of MMAudio, and weights that were exported here, as a run begins with them.

    mmaudio_small_16k.pth    released weights by name; also as safetensors
    …_ckpt_last.pth          a training checkpoint: it, weights, optimizer, scheduler, ema
    ema_ckpts/0.5000.pt      a profile of averaged weights, each name after `ema_model.`

**The step to go on with.** In a checkpoint that MMAudio saved now and then, `it` is the iteration that
was finished last, and MMAudio repeats it; in one that it saved at the end, `it` is the next one. Here
no iteration is repeated: a run goes on at `it + 1`, or at `it` where AdamW has made no more than `it`
steps, which says that it was the end. (Each time that MMAudio went on from a file it repeated an
iteration, so that AdamW may have made more.)

Source: the specification of MMAudio@974010a, sections 7.13 and 8.8.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from curation.errors import UsageProblem, WrongWeights
from curation.files import disk_space
from features.weights.checkpoint_files import METADATA_KEY, read_tensors
from features.weights.checkpoint_kind import kind_of
from training.state.about import Origin
from training.state.mmaudio import Moments, State, averages_of, moments_of, plain
from training.state.pickles import profile_in, unpickled

# md5 is all that was published. Source: the specification, section 15
RELEASED = {
    "af93cde404179f58e3919ac085b8033b": "mmaudio_small_16k.pth",
    "babd74c884783d13701ea2820a5f5b6d": "mmaudio_small_44k.pth",
    "5a56b6665e45a1e65ada534defa903d0": "mmaudio_medium_44k.pth",
    "fed96c325a6785b85ce75ae1aafd2673": "mmaudio_large_44k.pth",
    "01ad4464f049b2d7efdaa4c1a59b8dfe": "mmaudio_large_44k_v2.pth",
}
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file gives; tensors have the released names and layout, and are mapped where they can be.

    Attributes:
        file: its name, without where it lies.
        step: to go on with; None: weights alone, and a run begins at 0.
        moments: of AdamW by name: averages of gradients and of their squares.
        adam_step: steps that AdamW has made.
        averages: weights averaged while they were trained, by width and name.
        averages_step: steps that they were averaged over.
        origin: of the weights.
    """

    file: str
    weights: State
    step: int | None = None
    moments: Moments = field(default_factory=dict)
    adam_step: int | None = None
    averages: dict[float, State] = field(default_factory=dict)
    averages_step: int | None = None
    origin: Origin = "unknown"


def imported(path: Path, names: Sequence[str]) -> Imported:
    """What is in a file of MMAudio or in one that was exported here.

    Args:
        names: of all that is trained, in order: see `model.released.trainable_names`.

    Raises:
        UsageProblem: there is no such file, or it is a folder.
        WrongWeights: it is damaged, asks to run code, or holds something else.
        BadWeights: its parts do not belong together.
    """
    refuse_no_file(path)
    if kind_of(path) == "safetensors":
        return Imported(file=path.name, weights=plain(read_tensors(path)), origin=_said_origin(path))
    content = unpickled(path)
    found = content if isinstance(content, Mapping) else {}
    if "weights" in found and ("it" in found or "optimizer" in found):
        return _checkpoint(path, found, names)
    if profile := profile_in(content):
        return Imported(file=path.name, weights=plain(profile))
    if not found or not _are_tensors(found):
        raise WrongWeights(
            f"{path}: holds {_held(content)}, expected tensors by name, or it, weights and optimizer "
            "of a training checkpoint — give a file of MMAudio, or one of: python -m training.export"
        )
    origin: Origin = "mmaudio" if _md5(path) in RELEASED else "unknown"
    return Imported(file=path.name, weights=plain(found), origin=origin)


def refuse_no_file(path: Path) -> None:
    """Raise UsageProblem where there is no file of weights."""
    if path.is_dir():
        exported = sorted([*path.glob("model.safetensors"), *path.glob("*.pth")])
        way = (
            f"give {exported[0]}"
            if exported
            else f"of the folder of a run, make one: python -m training.export {path} --out DIR"
        )
        raise UsageProblem(f"{path}: is a folder, expected a file of weights — {way}")
    if not path.exists():
        raise UsageProblem(
            f"{path}: no such file, expected one of weights — see how its name is written"
        )


def _checkpoint(path: Path, content: Mapping[Any, Any], names: Sequence[str]) -> Imported:
    """A training checkpoint; of what surrounds the weights, what is not there is left out."""
    weights, it = content["weights"], content.get("it")
    if not isinstance(weights, Mapping) or not _are_tensors(weights):
        raise WrongWeights(
            f"{path}: its weights are {_held(weights)}, expected tensors by name — give another file"
        )
    if type(it) is not int or it < 0:
        raise WrongWeights(
            f"{path}: its `it` is {it!r}, expected the number of an iteration — give another file"
        )
    weights = plain(weights)
    moments, adam_step = moments_of(path, content.get("optimizer"), weights, names)
    averages, averages_step = averages_of(path, content.get("ema"), weights)
    at_its_end = adam_step is not None and adam_step <= it
    return Imported(
        file=path.name, weights=weights, step=it if at_its_end else it + 1, moments=moments,
        adam_step=adam_step, averages=averages, averages_step=averages_step,
    )  # fmt: skip


def _are_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in content.values())


def _held(content: object) -> str:
    """What is in a file besides tensors, for a message."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    others = [
        f"{name} ({type(value).__name__})"
        for name, value in content.items()
        if not isinstance(value, Tensor)
    ]
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    return (", ".join(others[:_SHOWN]) or "nothing") + more


def _md5(path: Path) -> str:
    with disk_space(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _said_origin(path: Path) -> Origin:
    """What an export of ours says about its weights; one that says nothing is of anybody."""
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        origin = said.get("origin")
    except (SafetensorError, ValueError, AttributeError):
        return "unknown"
    return origin if origin in ("scratch", "mmaudio") else "unknown"
