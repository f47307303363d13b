"""The `features` command: parsing and printing only."""

import sys
from typing import NoReturn

import click

from curation import __version__
from curation.console import run
from curation.errors import FoleyproofError


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="features")
def features() -> None:
    """Turn clean manifests and their media into tensors on disk (not there yet)."""


# What its options will be is open: whatever is given, the answer is the same.
@features.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option(
    "--sr",
    "sample_rate_hz",
    type=click.Choice([16000, 44100]),
    default=44100,
    show_default=True,
    metavar="HZ",
    help="Sample rate of the audio that would be encoded.",
)
def extract(sample_rate_hz: int) -> None:
    """Encode the clips of a clean manifest: not there yet, and says so.

    \b
    Example: features extract --sr 44100
    """
    raise FoleyproofError(
        f"extract --sr {sample_rate_hz}: feature extraction is not there yet in {__version__}, "
        "expected only curation — what may be trained on: curate clean --test vggsound,audiocaps"
    )


def main() -> NoReturn:
    """Run `features` and end the process with its documented exit code."""
    sys.exit(run(features, "features"))
