"""What `torch.save` wrote, read without running what is in it: tensors, numbers, names and containers.

State dicts of AdamW, SequentialLR, LambdaLR and MultiStepLR are such; what else people put beside them
(configurations, numbers of numpy, arguments of a command) is not, and is refused.
"""

import pickle
import re
import shlex
import warnings
import zipfile
from pathlib import Path

import torch

from curation.errors import BadWeights, WrongWeights
from curation.tables import size_text
from features.weights.checkpoint_kind import kind_of

_CODE = re.compile(r"GLOBAL ([\w.]+)|Unsupported (?:class|global:?) (?:GLOBAL )?([\w.]+)")
# What torch's readers raise at damaged bytes. Source: `features/weights/checkpoint_files.py`
_UNREADABLE = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, AssertionError,
    ArithmeticError, OSError,
)  # fmt: skip


def unpickled(path: Path) -> object:
    """What is in a file, tensors on the CPU and mapped, where it was not written by an old version.

    Raises:
        WrongWeights: it asks to run code, is truncated or damaged, or is something else.
        BadWeights: there is too little memory for it.
    """
    kind = kind_of(path)
    assert kind != "safetensors", f"{path}: safetensors, expected what torch.save wrote"
    if kind == "zip" and not zipfile.is_zipfile(path):
        raise _damaged(path, "the end of a zip is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of another version; they are refused
            found: object = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except MemoryError as error:
        raise BadWeights(
            f"{path}: {size_text(path.stat().st_size)} did not fit into memory, expected so much to be "
            "free — end other programs, or use a machine with more memory"
        ) from error
    except _UNREADABLE as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise _damaged(path, lines[0][:200]) from error
    return found


def _refused(path: Path, error: Exception) -> WrongWeights:
    named = _CODE.search(str(error))
    does = f"asks to run {named[1] or named[2]}" if named else "is a pickle that may run code"
    quoted = shlex.quote(
        "import sys, torch; c = torch.load(sys.argv[1], weights_only=False); "
        'kept = {k: v for k, v in c.items() if k in ("it", "weights", "optimizer", "ema") '
        'or k.startswith("ema_model.")}; '
        "torch.save(kept, sys.argv[2])"
    )
    return WrongWeights(
        f"{path}: {does} when it is read, expected tensors, numbers and nothing else — it was refused; "
        "get the file from where it was published. If you made it yourself, write what is needed of it "
        f"anew: python -c {quoted} {shlex.quote(str(path))} plain.pth"
    )


def _damaged(path: Path, why: str) -> WrongWeights:
    return WrongWeights(
        f"{path}: {path.stat().st_size:,} bytes that cannot be read ({why}), expected a whole "
        "checkpoint: it is truncated or damaged — get it again"
    )
