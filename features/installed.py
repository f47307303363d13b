"""Whether what `features` computes with is installed: the base package is `curate` alone."""

import importlib.util
from typing import Any

import click

from curation.errors import FoleyproofError

_NEEDED = ("torch", "torchaudio", "torchvision", "open_clip", "safetensors")


def check_installed() -> None:
    """Raise FoleyproofError where the packages of the extra `train` are not there."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FoleyproofError(
            f"{', '.join(missing)}: not installed here, expected what `features` computes with — run: "
            "pip install 'foleyproof[train]'"
        )


class ComputingCommand(click.Command):
    """A command that needs those packages; its help is shown without them too."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or say what to install."""
        check_installed()
        return super().invoke(ctx)
