"""Tensors by name into a network: all of them, of the right shapes, with finite values, or an error.

A network is built on the meta device, which costs neither time nor memory, and takes over the tensors
it is given (`assign`), so that those of a mapped file are read from the disk as they are used and are
shared between processes. Constant buffers (filters, windows, tables) follow from the architecture: a
state dict may lack them, and a module makes them on the CPU itself, with `device="cpu"`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch

from curation.errors import BadWeights
from curation.tables import number

FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # each converts to float32 without loss
_FIRST = 3  # names in a message; a checkpoint of another network would give thousands
_Module = TypeVar("_Module", bound=torch.nn.Module)


def load_strictly(
    module: _Module, state_dict: Mapping[str, torch.Tensor], *, what: str, constant: Iterable[str] = ()
) -> _Module:
    """`module` with the tensors of `state_dict`, in eval mode, float32, without gradients.

    The module shares memory with `state_dict` where a tensor is float32 already: what folds or scales
    weights afterwards makes new tensors.

    Args:
        module: on the meta device or the CPU; what is in it is replaced.
        what: names the checkpoint in messages, as "v1-44.pth" or "the VAE of 44100 Hz".
        constant: names, or last parts of names after a dot, that may be absent from `state_dict`; the
            module keeps its own. One that the module lacks is passed over.

    Raises:
        BadWeights: tensors are missing, unknown, misshaped, of another kind of number, or not finite.
    """
    expected = module.state_dict()
    refuse_misfits(expected, state_dict, what=what, constant=constant)
    given = {
        name: tensor.to(expected[name].dtype) for name, tensor in state_dict.items() if name in expected
    }
    module.load_state_dict(given, strict=False, assign=True)
    nowhere = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
    assert not nowhere, f"{what}: constants {nowhere[:_FIRST]} were made on the meta device"
    return module.eval().requires_grad_(False)


def refuse_misfits(
    expected: Mapping[str, torch.Tensor],
    state_dict: Mapping[str, torch.Tensor],
    *,
    what: str,
    constant: Iterable[str] = (),
    advice: str = "give the checkpoint of this network; `features weights` lists them",
) -> None:
    """Raise BadWeights where tensors are not those of a network, `expected`; see `load_strictly`.

    Tensors on the meta device are compared by name, shape and kind of number alone.
    """
    is_constant = _matcher(constant)
    wrong: dict[str, list[str]] = {}
    for name, tensor in state_dict.items():
        if name not in expected:
            if not is_constant(name):
                wrong.setdefault("unknown", []).append(name)
        elif fault := _fault(tensor, expected[name]):
            kind, detail = fault
            wrong.setdefault(kind, []).append(name + detail)
    missing = [name for name in expected if name not in state_dict and not is_constant(name)]
    if missing:
        wrong["missing"] = missing
    if wrong:
        said = _message(what, wrong, len(state_dict), len(expected))
        raise BadWeights(f"{said} — {advice}")


def _matcher(constant: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is that of a constant."""
    names = frozenset(constant)
    return lambda name: name in names or name.rpartition(".")[2] in names


def _fault(tensor: object, expected: torch.Tensor) -> tuple[str, str] | None:
    """What is wrong with a tensor, and how to say it after its name; None: nothing."""
    if not isinstance(tensor, torch.Tensor):
        return "no tensor", f" ({type(tensor).__name__})"
    if tensor.shape != expected.shape:
        return "misshaped", f" ({_shape(tensor)} for {_shape(expected)})"
    allowed = FLOATS if expected.is_floating_point() else (expected.dtype,)
    if tensor.dtype not in allowed or tensor.layout != torch.strided:
        return "of another type", f" ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.is_floating_point() and not is_finite(tensor):
        return "not finite", ""
    return None


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite, in one pass without a copy; a meta tensor has no values."""
    if tensor.is_meta or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor)  # NaN goes through
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _message(what: str, wrong: Mapping[str, list[str]], given: int, expected: int) -> str:
    """`what: 2 tensors missing (a, b); 1 misshaped (c)`, with what was expected."""
    parts = []
    for kind, names in sorted(wrong.items()):
        rest = len(names) - _FIRST
        more = f", and {rest:,} more" if rest > 0 else ""
        parts.append(f"{number(len(names), 'tensor')} {kind}: {', '.join(names[:_FIRST])}{more}")
    return (
        f"{what}: {'; '.join(parts)}. It holds {number(given, 'tensor')}, expected the {expected:,} of "
        "the network with finite values"
    )
