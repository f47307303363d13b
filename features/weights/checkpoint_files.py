"""Files of tensors from anywhere, read without running what is in them, and written as safetensors.

What `torch.save` wrote is read by `torch.load(weights_only=True)`, which knows tensors and containers
and refuses everything else; zips and safetensors are mapped, not read.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from curation.errors import BadWeights, WrongWeights
from curation.files import canonical_json, replacing
from curation.tables import size_text
from features.weights.checkpoint_kind import kind_of

METADATA_KEY = "foleyproof"  # the only one: safetensors writes several in random order
BARE = "tensor"  # the name of a tensor that was saved without one
_CODE = re.compile(r"GLOBAL ([\w.]+)|Unsupported (?:class|global:?) (?:GLOBAL )?([\w.]+)")
# All that torch's readers raise at damaged bytes, as a test with 400 damaged files shows.
_UNREADABLE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, AssertionError,
    ArithmeticError, MemoryError, OSError, struct.error,
)  # fmt: skip
# what PyTorch and safetensors say where memory is short
_NO_MEMORY = re.compile(r"tried to allocate (\d+) bytes|[Cc]annot allocate memory")


def read_tensors(path: Path, *, inside: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU; those of zips and safetensors mapped.

    Args:
        inside: a key of the checkpoint under which they lie, if it is there.

    Raises:
        WrongWeights: truncated, damaged, no checkpoint at all; it asks to run code, or holds other
            things than tensors.
        BadWeights: there is too little memory for it.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        return _read_safetensors(path)
    found = unpickled(path)
    if isinstance(found, torch.Tensor):
        return {BARE: found}
    if isinstance(found, Mapping) and inside in found:
        found = found[inside]
    if not isinstance(found, Mapping):
        raise WrongWeights(
            f"{path}: holds a {type(found).__name__}, expected tensors by name — give a state dict"
        )
    others = [f"{k} ({type(v).__name__})" for k, v in found.items() if not _is_plain(v)]
    if others or not found:
        raise WrongWeights(
            f"{path}: holds {', '.join(others[:3]) or 'nothing'}, expected only tensors by name — give "
            "a state dict without what surrounds it"
        )
    return {str(name): tensor.detach() for name, tensor in found.items()}


def _is_plain(value: object) -> bool:
    """Whether it is a tensor whose values lie in memory one after another or with strides."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


def unpickled(
    path: Path,
    *,
    holds: str = "tensors",
    advice: str = "get the file from where it was published, or as safetensors",
) -> object:
    """What `torch.save` wrote: tensors, numbers, names and containers; zips are mapped.

    Args:
        holds: what it should, and
        advice: for a file that asks to run code, in messages.

    Raises:
        WrongWeights: truncated, damaged, no such file at all, or it asks to run code.
        BadWeights: there is too little memory for it.
    """
    mapped = kind_of(path) == "zip"
    if mapped and not zipfile.is_zipfile(path):
        raise _damaged(path, "the end of a zip is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of another version; they are refused
            found: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        named = _CODE.search(str(error))
        does = f"asks to run {named[1] or named[2]}" if named else "is a pickle that may run code"
        raise WrongWeights(
            f"{path}: {does} when it is read, expected {holds} and nothing else — it was refused; "
            f"{advice}"
        ) from error
    except _UNREADABLE as error:
        raise _short_of_memory(path, error) or _damaged(path, _reason(error)) from error
    return found


def _short_of_memory(path: Path, error: Exception) -> BadWeights | None:
    """Of a file that did not fit into memory; None where damaged bytes asked for more than it has."""
    size, said = path.stat().st_size, _NO_MEMORY.search(str(error))
    if said is None and not isinstance(error, MemoryError):
        return None
    wanted = int(said[1]) if said and said[1] else size
    if wanted > size:
        return None
    return BadWeights(
        f"{path}: {size_text(wanted)} of it did not fit into memory, expected so much to be free — end "
        "other programs, or read it on a machine with more memory"
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, MemoryError) as error:
        raise _short_of_memory(path, error) or _damaged(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    """The first line of what a reader says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _damaged(path: Path, why: str) -> WrongWeights:
    return WrongWeights(
        f"{path}: {path.stat().st_size:,} bytes that cannot be read ({why}), expected a whole "
        "checkpoint: it is truncated or damaged — get it again"
    )


def write_safetensors(
    target: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, str]
) -> None:
    """Write tensors as they are, with `about` in the header; equal input gives equal bytes.

    Only as much is in memory as the system keeps of mapped files.
    """
    seen: set[int] = set()
    given: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        place, size = tensor.untyped_storage().data_ptr(), tensor.numel() * tensor.element_size()
        # safetensors wants each tensor in memory of its own: views and tied ones are copied
        alone = place not in seen and size == tensor.untyped_storage().nbytes()
        whole = alone and tensor.is_contiguous()
        given[name] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(place)
    with replacing(target) as temporary:
        save_file(given, temporary, metadata={METADATA_KEY: canonical_json(dict(about))})
        temporary.chmod(0o644)  # safetensors lets only its owner read it
