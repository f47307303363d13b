"""`python compiled_launch.py …`: training.launch, whose compiler traces and generates no code."""

import functools
import sys

import torch

from curation import console
from training import launch

if __name__ == "__main__":
    torch.compile = functools.partial(torch.compile, backend="eager")
    sys.exit(console.run(launch.launch, "training.launch"))
