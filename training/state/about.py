"""What a run says of itself in its checkpoints: settings, what it trains on, what it began with."""

import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from curation import __version__
from curation.errors import ConfigDiffers
from training.config import TrainConfig

# Where weights come from: a random beginning, files that MMAudio published, or nobody knows.
Origin = Literal["scratch", "mmaudio", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A run; all of it as JSON has it.

    Attributes:
        config: the document of its `TrainConfig`.
        shards: digest of what it trains on, of each folder by a name.
        certificate: of the manifest they were made from; None: uncertified.
        untrained: whether they are features of encoders with random weights.
        datasets: rows of each that are trained on.
        init: name of the file whose weights it began with; None: random ones.
        origin: of those weights, and so of these.
    """

    config: Mapping[str, Any]
    shards: Mapping[str, Any]
    certificate: Any = None
    untrained: bool = False
    datasets: Mapping[str, int]
    init: str | None = None
    origin: Origin = "scratch"

    def document(self) -> dict[str, Any]:
        """As a checkpoint has it."""
        return asdict(self)

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """What gave `document`; raises TypeError where it is another's."""
        return cls(**document)

    def continues(self, begun: Self, where: str) -> None:
        """Raise ConfigDiffers where this run cannot go on from what another one saved.

        Args:
            where: names that one.
        """
        mine = TrainConfig.of_document(self.config, "this run")
        mine.continues(TrainConfig.of_document(begun.config, where), where)
        if dict(self.shards) != dict(begun.shards):
            raise ConfigDiffers(
                f"{where}: was trained on the shards {_listed(begun.shards)}, here are "
                f"{_listed(self.shards)}; expected the same — give the --shards it began with, or "
                "another --run; with --init another run begins with the weights of this one"
            )


def of_code() -> dict[str, str | None]:
    """What computes: its version and, in a checkout, the commit; + after it is "and changes"."""
    root = Path(__file__).parents[2]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = commit and _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"version": __version__, "commit": commit and commit + ("+" if changed else "")}


def _git(root: Path, *words: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _listed(shards: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({digest})" for name, digest in sorted(shards.items())) or "(none)"
