"""What `torch.save` wrote of a training: state dicts of AdamW and of schedulers, averages, weights.

What people put beside them (configurations, numbers of numpy, arguments of a command) is refused.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from features.weights import checkpoint_files

PROFILE = "ema_model."  # what the names in a profile begin with
_PLAIN = (
    "import sys, torch; c = torch.load(sys.argv[1], weights_only=False); "
    'kept = {k: v for k, v in c.items() if k in ("it", "weights", "optimizer", "ema") '
    'or k.startswith("ema_model.")}; '
    "torch.save(kept, sys.argv[2])"
)


def profile_in(content: object) -> dict[str, Tensor]:
    """The averages in a profile of MMAudio or ema-pytorch, by name; none in anything else."""
    entries = content.items() if isinstance(content, Mapping) else ()
    return {
        str(name).removeprefix(PROFILE): value
        for name, value in entries
        if str(name).startswith(PROFILE) and isinstance(value, Tensor)
    }


def unpickled(path: Path) -> object:
    """What is in a file; see `checkpoint_files.unpickled`."""
    return checkpoint_files.unpickled(
        path,
        holds="tensors, numbers",
        advice="get the file from where it was published. Only if you made it yourself, as this runs "
        f"what is in it, write what is needed of it anew: python -c {shlex.quote(_PLAIN)} "
        f"{shlex.quote(str(path))} plain.pth",
    )
