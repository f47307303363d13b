"""What surrounds the weights in a training checkpoint of MMAudio: moments of AdamW, averages of weights.

    optimizer   state dict of AdamW: moments by the number of a parameter, in the order of the network
    ema         ema_models.0.ema_model.<name>  of width 0.05, and 1 of 0.10
                ema_models.0._extra_state      {initted, step}

Source: the specification of MMAudio@974010a, sections 8.6 and 8.8.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.errors import BadWeights
from curation.tables import number
from features.encoders.state_dicts import is_finite
from training.model.released import LEGACY
from training.state.profiles import PUBLISHED_SIGMAS

State = dict[str, Tensor]
Moments = dict[str, tuple[Tensor, Tensor]]
_TRACK = re.compile(r"ema_models\.([0-9]+)\.(?:ema_model\.(.+)|_extra_state)")
_SHOWN = 3


def moments_of(
    path: Path, optimizer: Any, weights: State, names: Sequence[str]
) -> tuple[Moments, int | None]:
    """Moments by name, and the steps that were made; none of an AdamW that has made no step.

    Args:
        optimizer: its state dict, or None.
        names: of its parameters, in order.

    Raises:
        BadWeights: they are not those of these parameters.
    """
    if optimizer is None:
        return {}, None
    try:
        (group,) = optimizer["param_groups"]
        order, state = list(group["params"]), dict(optimizer["state"])
        named = list(group.get("param_names", names))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadWeights(
            f"{path}: its optimizer is not an AdamW with one group ({type(error).__name__}: {error}), "
            "expected the one of MMAudio — give its weights alone, to begin with a new optimizer"
        ) from error
    if not state:
        return {}, 0
    if len(order) != len(named) or set(order) != set(state) or set(named) != set(names):
        raise BadWeights(
            f"{path}: its optimizer has {number(len(order), 'parameter')}, {len(state):,} of them with "
            f"moments, expected the {len(names):,} that are trained in this network — give the variant "
            "it was trained as, or its weights alone"
        )
    found, steps = {}, set()
    for key, name in zip(order, named, strict=True):
        found[name], step = _moment(path, name, state[key], weights)
        steps.add(step)
    if len(steps) > 1:
        raise BadWeights(
            f"{path}: its parameters have made {_listed(steps)} steps, expected one count for all — "
            "give its weights alone, to begin with a new optimizer"
        )
    return found, steps.pop()


def _moment(path: Path, name: str, state: Any, weights: State) -> tuple[tuple[Tensor, Tensor], int]:
    try:
        first, second, step = state["exp_avg"], state["exp_avg_sq"], int(state["step"])
        shapes = {tuple(tensor.shape) for tensor in (first, second, weights[name])}
        good = len(shapes) == 1 and all(map(_is_good, (first, second)))
        good = good and (second.numel() == 0 or bool(torch.amin(second) >= 0))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        good = False
    if not good:
        raise BadWeights(
            f"{path}: the moments of {name} are missing, of another shape than it, not finite, or "
            "negative, expected those of AdamW — give its weights alone, to begin with a new optimizer"
        )
    return (first, second), step


def _is_good(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and is_finite(tensor)


def averages_of(path: Path, ema: Any, weights: State) -> tuple[dict[float, State], int | None]:
    """Averages by width and name, and the steps they are over; none where averaging had not begun.

    Args:
        ema: the state dict of both tracks, or None.

    Raises:
        BadWeights: they are not two of one count, of the tensors that `weights` has.
    """
    if ema is None:
        return {}, None
    tracks: dict[int, State] = {}
    steps = set()
    for key, value in ema.items() if isinstance(ema, Mapping) else ():
        matched = _TRACK.fullmatch(str(key))
        if matched and matched[2] is None:
            steps.add(_steps_of(value))
        elif matched and isinstance(value, Tensor):
            tracks.setdefault(int(matched[1]), {})[matched[2]] = value
    if steps == {0}:
        return {}, 0
    averages = {track: plain(tensors) for track, tensors in tracks.items()}
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    fit = all({n: t.shape for n, t in one.items()} == shapes for one in averages.values())
    if set(averages) != set(range(len(PUBLISHED_SIGMAS))) or len(steps) != 1 or not fit:
        others = "" if fit else ", of other tensors than its weights"
        raise BadWeights(
            f"{path}: its ema holds {number(len(averages), 'track')} after {_listed(steps)} steps"
            f"{others}; expected two of one count, as MMAudio keeps them — give its weights alone, to "
            "begin with new averages"
        )
    return {PUBLISHED_SIGMAS[track]: averages[track] for track in sorted(averages)}, steps.pop()


def _steps_of(state: Any) -> int:
    """Of a track; -1 where it does not say."""
    try:
        return int(state["step"]) if state["initted"] else 0
    except (KeyError, TypeError, ValueError):
        return -1


def _listed(steps: set[int]) -> str:
    return ", ".join(f"{step:,}" for step in sorted(steps)[:_SHOWN]) or "no"


def plain(tensors: Mapping[Any, Tensor]) -> State:
    """Tensors without the tables of older files."""
    return {str(name): tensor.detach() for name, tensor in tensors.items() if name not in LEGACY}
