"""What a run was asked for besides its settings: where things are, and what to do."""

from dataclasses import dataclass
from pathlib import Path

from curation.errors import UsageProblem
from training.config import PRESETS
from training.model.variants import variant_named

_RATES_HZ = (44100, 16000)  # of shards, the usual one first
_SMALL = {44100: "S-44k", 16000: "S-16k"}
_FOLDER = Path("shards")
_SEALED = "shards.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of `training.launch`, with the defaults found.

    `run.loop.train` and `run.preflight.preflight` take the settings and this, and give what the command
    prints as JSON on the first rank: `summary`, its last line, and whatever else there is to tell.

    Attributes:
        init: weights to begin with, released ones or an MMAudio training checkpoint; None: random ones,
            or the run's own checkpoint where it has one.
        adapters: trained adapters to begin with, of a run with lora_rank; None: new ones.
        device: as torch names it; None: this rank's GPU, or the CPU where there is none.
        profile_steps: steps that a profiler writes a trace of; 0: none.
    """

    shards: Path
    run: Path
    val_shards: Path | None = None
    init: Path | None = None
    adapters: Path | None = None
    allow_untrained: bool = False
    device: str | None = None
    profile_steps: int = 0


def is_sealed(shards: Path) -> bool:
    """Whether shards are there and can be read."""
    return (shards / _SEALED).is_file()


def found_shards(given: Path | None, model: str | None, *, must_be: bool) -> Path:
    """The folder of shards: what is given, else ./shards/HZ of the model's rate, or of the first there.

    Args:
        must_be: it is needed now, and not only planned with.

    Raises:
        UsageProblem: it must be there and is not.
    """
    rates: tuple[int, ...] = _RATES_HZ
    if model in PRESETS:
        rates = (variant_named(PRESETS[model].variant).sample_rate_hz,)
    usual = [_FOLDER / str(rate) for rate in rates]
    there = [folder for folder in usual if is_sealed(folder)] or [f for f in usual if f.is_dir()]
    found = given or next(iter(there), usual[0])
    if must_be and not found.is_dir():
        options = f" --out {found}" if given else ""
        raise UsageProblem(
            f"{found}: no such folder, expected sealed shards to train on — run: features extract --sr "
            f"{rates[0]}{options}"
        )
    return found


def model_for(shards: Path, *, must_be: bool) -> str:
    """The model that is meant where none is named: S at the rate of the shards.

    Raises:
        UsageProblem: `must_be`, and the shards are not sealed.
        ManifestChanged: shards.json is not what seal wrote.
    """
    if not must_be and not is_sealed(shards):
        return _SMALL[16000 if shards.name == "16000" else 44100]
    from features.store.index import read_sealed

    return _SMALL[read_sealed(shards)["about"]["sample_rate_hz"]]
