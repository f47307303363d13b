"""The `features` command: a group of the commands in `commands/`."""

import sys
from typing import NoReturn

import click

from curation import __version__
from curation.console import run
from features.commands import exchange, extract, info, seal, verify, weights


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="features")
def features() -> None:
    """Turn clean manifests and their media into tensors on disk.

    \b
    Try it offline, with small networks of random weights:
      features extract --sr 44100 --untrained 0 --tiny
      features verify shards/44100
    """


for command in (
    extract.extract,
    *(seal.seal, verify.verify, info.info),
    *(exchange.import_, exchange.export),
    weights.weights,
):
    features.add_command(command)


def main() -> NoReturn:
    """Run `features` and end the process with its documented exit code."""
    sys.exit(run(features, "features"))
