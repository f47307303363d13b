"""`python -m training.launch`: parsing and printing only."""

import sys

import click

from curation import __version__
from curation.console import run
from curation.errors import FoleyproofError


# What its options will be is open: whatever is given, the answer is the same.
@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_extra_args": True,
    }
)
@click.version_option(__version__, prog_name="training.launch")
def launch() -> None:
    """Train the network on extracted shards: not there yet, and says so.

    \b
    Example: python -m training.launch
    """
    raise FoleyproofError(
        f"the trainer is not there yet in {__version__}, expected only what comes before it — "
        "features of what may be trained on: features extract --sr 44100"
    )


if __name__ == "__main__":
    sys.exit(run(launch, "training.launch"))
