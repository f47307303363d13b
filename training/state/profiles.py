"""Stored averages of weights, which others are made of: where they lie and what is in them.

A profile is one track of averages at one step. Two kinds of files hold them:

    RUN/ema/5000-0.05.safetensors     step and width; names of the released layout
    ema_ckpts/0.5000.pt               of MMAudio and ema-pytorch: track and step; names begin with
                                      `ema_model.`, what does not is about the track

Source: MMAudio `train.py`@974010a, whose tracks 0 and 1 have the widths 0.05 and 0.10.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from curation.errors import BadWeights, UsageProblem, WrongWeights
from curation.files import disk_space
from curation.tables import number
from features.encoders.state_dicts import is_finite
from features.weights.checkpoint_files import read_tensors
from training.state.pickles import PROFILE, profile_in, unpickled

PUBLISHED_SIGMAS = (0.05, 0.10)  # of the tracks 0 and 1
_OURS = re.compile(r"(?P<step>[0-9]+)-(?P<sigma>[0-9]+(\.[0-9]+)?)\.safetensors")
_PUBLISHED = re.compile(r"(?P<track>[0-9]+)\.(?P<step>[0-9]+)\.pt")
_PLACES = ("", "ema", "ema_ckpts")  # below the folder that is named
_NOTHING = 1e-10  # a weight whose share float32 does not see: its file's values are not read
_SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The averages of one track at one step."""

    step: int
    sigma_rel: float
    name: str  # in messages
    tensors: Callable[[], Mapping[str, Tensor]]  # reads them; those of files are mapped


def profile_name(step: int, sigma_rel: float) -> str:
    """The file of a profile in the folder `ema` of a run: "5000-0.05.safetensors"."""
    return f"{step}-{sigma_rel:g}.safetensors"


def profiles_in(folder: Path) -> list[Profile]:
    """The profiles that lie in a folder, or in its folder `ema` or `ema_ckpts`, by width and step.

    Raises:
        UsageProblem: there is no such folder, none in it, or one of a track whose width nobody knows.
    """
    if not folder.is_dir():
        raise UsageProblem(f"{folder}: no such folder, expected that of a run, or of its profiles")
    for place in _PLACES:
        with disk_space(folder):
            files = sorted((folder / place).iterdir()) if (folder / place).is_dir() else []
        found = [profile for path in files if (profile := _profile(path)) is not None]
        if found:
            return sorted(found, key=lambda profile: (profile.sigma_rel, profile.step))
    raise UsageProblem(
        f"{folder}: no profiles of averaged weights, expected files such as "
        f"ema/{profile_name(5000, 0.05)} or ema_ckpts/0.5000.pt — a run writes the first after "
        "`ema_profile_every` steps"
    )


def given_profiles(given: Iterable[tuple[int, float, Mapping[str, Tensor]]]) -> list[Profile]:
    """Profiles in memory: step, width and tensors by name of each."""
    return [
        Profile(
            step=step,
            sigma_rel=sigma_rel,
            name=f"profile {place} (step {step:,}, width {sigma_rel:g})",
            tensors=partial(_same, tensors),
        )
        for place, (step, sigma_rel, tensors) in enumerate(given)
    ]


def _same(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return tensors


def weighted_sum(stored: Sequence[Profile], weights: Sequence[float]) -> dict[str, Tensor]:
    """The floating tensors of profiles by their weights, in float32 on the CPU; one is read at a time.

    Raises:
        BadWeights: profiles hold other tensors than the first, or values that are not finite.
    """
    total: dict[str, Tensor] = {}
    for profile, weight in zip(stored, weights, strict=True):
        tensors = {
            name: one.detach() for name, one in profile.tensors().items() if one.is_floating_point()
        }
        if not total:
            total = {name: torch.zeros(one.shape, dtype=torch.float32) for name, one in tensors.items()}
        refuse_others(total, tensors, what=profile.name, than=f"those of {stored[0].name}")
        if abs(weight) < _NOTHING:
            continue
        for name, one in tensors.items():
            total[name].add_(one.to("cpu", torch.float32), alpha=weight)
    bad = [name for name, tensor in total.items() if not is_finite(tensor)]
    if bad:
        raise BadWeights(
            f"{number(len(bad), 'tensor')} of the profiles not finite ({', '.join(bad[:_SHOWN])}), "
            "expected numbers — the training had failed by then; move the profiles since away"
        )
    return total


def refuse_others(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], *, what: str, than: str
) -> None:
    """Raise BadWeights where tensors have other names or shapes than those expected.

    Args:
        what: names the given tensors in the message, and
        than: the expected ones, in the plural.
    """
    wrong = [f"{name} missing" for name in expected if name not in given]
    wrong += [f"{name} unknown" for name in given if name not in expected]
    wrong += [
        f"{name} of shape {tuple(one.shape)} for {tuple(expected[name].shape)}"
        for name, one in given.items()
        if name in expected and one.shape != expected[name].shape
    ]
    if wrong:
        rest = f" and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise BadWeights(
            f"{what}: {', '.join(wrong[:_SHOWN])}{rest}, expected the tensors to be {than} — give what "
            "comes from one run of one network"
        )


def _profile(path: Path) -> Profile | None:
    """The profile that a file holds, by its name; None: it is something else."""
    if found := _OURS.fullmatch(path.name):
        return Profile(
            step=int(found["step"]),
            sigma_rel=float(found["sigma"]),
            name=str(path),
            tensors=partial(read_tensors, path),
        )
    if found := _PUBLISHED.fullmatch(path.name):
        track = int(found["track"])
        if track >= len(PUBLISHED_SIGMAS):
            raise UsageProblem(
                f"{path}: of track {track}, expected 0 (width 0.05) or 1 (0.10), as MMAudio has "
                "them — move it away, or call training.ema.synthesize with a list that says widths"
            )
        return Profile(
            step=int(found["step"]),
            sigma_rel=PUBLISHED_SIGMAS[track],
            name=str(path),
            tensors=partial(_published, path),
        )
    return None


def _published(path: Path) -> dict[str, Tensor]:
    """The averages in a file of MMAudio or ema-pytorch, mapped.

    Raises:
        WrongWeights: it asks to run code, is damaged, or holds no averages.
    """
    averages = profile_in(unpickled(path))
    if not averages:
        raise WrongWeights(
            f"{path}: no tensor under a name that begins with {PROFILE}, expected averages as MMAudio "
            "and ema-pytorch store them — give another folder, or move the file away"
        )
    return averages
