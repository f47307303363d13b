"""The settings of a run: what each means, what it may be, and which may change while a run goes on.

    config = configured("L-44k", ["batch=256", "repeat=vggsound=5,audiocaps=1"])

Neither torch nor numpy is imported: the help of the command shows names of presets.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, Self

from curation.errors import ConfigDiffers, UsageProblem
from curation.files import digest_of
from training.keys import close_names, expected, hints_of, parsed, setting, taken, text_of
from training.model.groups import GROUPS
from training.model.variants import VARIANTS, Switches
from training.powers import WIDEST

_OF_PRESETS = ("model", "variant")  # given by --model alone


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All that decides what a run computes.

    Source of the defaults, where nothing else is said: arXiv:2412.15322, Sec. H; MMAudio
    `config/base_config.yaml`@974010a.
    """

    model: str = setting(MISSING, "name of the preset")
    variant: str = setting(MISSING, "the network", names=tuple(VARIANTS))
    seed: int = setting(14159265, "all that is random follows from it", least=0, below=2**63)

    # optimisation
    steps: int = setting(300_000, "of the optimiser, in all", least=1, may_change=True)
    batch: int = setting(512, "samples of a step, on all ranks together", least=1)
    micro_batch: int | None = setting(
        None, "samples that a rank computes at a time; none: its share", least=1, may_change=True
    )
    learning_rate: float = setting(1e-4, "the base, which the schedule scales", above=0)
    warmup_steps: int = setting(1000, "in which it rises to the base", least=0)
    milestones: tuple[int, ...] = setting(
        (240_000, 270_000), "steps after the warm-up at which it falls", least=0
    )
    lr_factor: float = setting(0.1, "what is left of it at each milestone", above=0, most=1)
    betas: tuple[float, float] = setting((0.9, 0.95), "of AdamW", least=0, below=1)
    eps: float | None = setting(None, "of AdamW; none: 1e-6 in bf16, 1e-8 in fp32", above=0)
    weight_decay: float = setting(1e-6, "of AdamW", least=0)
    clip_norm: float = setting(1.0, "what the norm of the gradients is cut to", above=0)
    precision: Literal["bf16", "fp32"] = setting("bf16", "of forward and backward pass")

    # data
    drop_video: float = setting(
        0.1, "share of samples whose video is dropped; in v2 CLIP and sync each", least=0, most=1
    )
    drop_text: float = setting(0.1, "share of samples whose text is dropped", least=0, most=1)
    fill: Literal["own", "learned", "zeros"] = setting(
        "own", "what stands for a missing condition (Table A3)"
    )
    sync: Literal["frame", "sum"] = setting(
        "frame", "where features of synchronisation come in (figure A4)"
    )
    rope: Literal["aligned", "default"] = setting("aligned", "what positions count (figure A5)")
    repeat_audio_video: int = setting(5, "times that a row with pictures is in an epoch", least=0)
    repeat: tuple[tuple[str, int], ...] = setting(
        (), "the same by dataset, as vggsound=5,audiocaps=1", least=0
    )
    held_back: float = setting(
        0.01, "share of the audio-video sources kept for validation", least=0, below=1
    )

    # what is kept and shown
    ema_sigmas: tuple[float, ...] = setting(
        (0.05, 0.1), "widths of the averages", least=0.001, most=WIDEST
    )
    ema_profile_every: int = setting(
        5_000, "steps between averages that are kept; 0: none", least=0, may_change=True
    )
    log_every: int = setting(200, "steps between lines of the log", least=1, may_change=True)
    validate_every: int = setting(5_000, "steps between validations; 0: none", least=0, may_change=True)
    validate_samples: int = setting(2048, "rows that validate, at most", least=1, may_change=True)
    checkpoint_every: int = setting(10_000, "steps between checkpoints", least=1, may_change=True)
    keep_checkpoints: int = setting(2, "newest checkpoints that are kept", least=1, may_change=True)
    keep_every: int = setting(
        40_000, "checkpoints of multiples of it stay for ever; 0: none", least=0, may_change=True
    )

    # how it is computed
    activation_checkpointing: bool = setting(
        False, "compute blocks anew for the gradients: less memory, more work", may_change=True
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto", "the blocks; auto: on a GPU", may_change=True
    )
    repeatable: bool = setting(
        True, "sum in the same order each time on a GPU, as bit-exact resume needs", may_change=True
    )
    sharding: Literal["ddp", "fsdp"] = setting(
        "ddp", "each rank has all weights, or its part of them", may_change=True
    )

    # fine-tuning
    freeze: tuple[str, ...] = setting((), "what is not trained", names=tuple(GROUPS))
    lora_rank: int = setting(0, "train adapters of that rank alone; 0: none", least=0)
    lora_alpha: float = setting(16.0, "adapters weigh alpha / rank", above=0)

    def __post_init__(self) -> None:
        """Raise UsageProblem where a value is not what its key takes."""
        for entry in fields(self):
            value = getattr(self, entry.name)
            found = taken(entry.name, value, _HINTS[entry.name], entry.metadata)
            object.__setattr__(self, entry.name, found)  # frozen: a float for a whole number
        if list(self.milestones) != sorted(self.milestones):
            raise UsageProblem(
                f"milestones={text_of(self.milestones)}, expected ascending steps — sort them"
            )
        if len({f"{sigma:g}" for sigma in self.ema_sigmas}) < len(self.ema_sigmas):
            raise UsageProblem(
                f"ema_sigmas={text_of(self.ema_sigmas)}, expected widths that differ in their first six "
                "digits, by which they are named — leave one of them out"
            )
        if len(dict(self.repeat)) < len(self.repeat):
            raise UsageProblem(
                f"repeat={text_of(self.repeat)}, expected each dataset once — leave one of them out"
            )

    @property
    def switches(self) -> Switches:
        """Of the network."""
        return Switches(fill=self.fill, sync=self.sync, rope=self.rope)

    def document(self) -> dict[str, Any]:
        """As JSON has it, by key; tuples as lists."""
        return {entry.name: _listed(getattr(self, entry.name)) for entry in fields(self)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any], where: str) -> Self:
        """The settings that gave `document`.

        Args:
            where: what holds it, for errors.

        Raises:
            ConfigDiffers: its keys are not those of this version.
            UsageProblem: a value is not what its key takes.
        """
        if differing := sorted(document.keys() ^ _HINTS.keys()):
            whose = "lacks" if differing[0] in _HINTS else "has"
            raise ConfigDiffers(
                f"{where}: {whose} the setting {differing[0]}, expected the settings of this version — "
                "continue with the version that began it, or begin anew with --init"
            )
        return cls(**document)

    def digest(self) -> str:
        """`sha256:…` of all settings."""
        return digest_of(self.document())

    def differences(self, other: Self) -> list[tuple[str, Any, Any]]:
        """The keys whose values differ, each with ours and theirs."""
        pairs = ((key, getattr(self, key), getattr(other, key)) for key in _HINTS)
        return [(key, mine, theirs) for key, mine, theirs in pairs if mine != theirs]

    def continues(self, begun: Self, where: str) -> None:
        """Raise ConfigDiffers where a run that began with other settings cannot go on with these.

        Args:
            where: the run, for the message.
        """
        fixed = [entry for entry in self.differences(begun) if not may_change(entry[0])]
        if not fixed:
            return
        named = "; ".join(
            f"{key} is {text_of(mine) or 'nothing'} here and {text_of(theirs) or 'nothing'} there"
            for key, mine, theirs in fixed
        )
        back = " ".join(
            f"--model {theirs}" if key == "model" else f"--set {key}={text_of(theirs)}"
            for key, _, theirs in fixed
            if key != "variant"
        )
        raise ConfigDiffers(
            f"{where}: {named}; expected the settings that it began with — give {back}, or another --run"
        )


_HINTS = hints_of(TrainConfig)
_ABOUT = {entry.name: entry.metadata for entry in fields(TrainConfig)}
KEYS = tuple(_HINTS)


def may_change(key: str) -> bool:
    """Whether a run may go on with another value of this key."""
    return bool(_ABOUT[key]["may_change"])


def meaning(key: str) -> str:
    """What a key says."""
    return str(_ABOUT[key]["says"])


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


# A short schedule on a CPU that learns a handful of clips by heart, for tests and the demo.
_TINY: dict[str, Any] = {
    "steps": 300, "batch": 8, "learning_rate": 1e-3, "warmup_steps": 20, "milestones": (220, 250),
    "precision": "fp32", "held_back": 0.0, "validate_every": 0, "ema_profile_every": 50,
    "log_every": 10, "checkpoint_every": 50, "keep_every": 0,
}  # fmt: skip

# Training on clips with pictures alone: shards of them with --set repeat_audio_video=1; of shards that
# hold more, what is to stay out by name: --set repeat=audiocaps=0,clotho=0.
PRESETS: dict[str, TrainConfig] = {
    preset.model: preset
    for preset in (
        TrainConfig(model="S-16k", variant="small_16k"),
        TrainConfig(model="S-44k", variant="small_44k"),
        # Source: arXiv:2412.15322, Sec. H: three times in medium and large, against overfitting
        TrainConfig(model="M-44k", variant="medium_44k", repeat_audio_video=3),
        TrainConfig(model="L-44k", variant="large_44k", repeat_audio_video=3),
        TrainConfig(model="L-44k-v2", variant="large_44k_v2", repeat_audio_video=3),
        TrainConfig(model="tiny-16k", variant="tiny_16k", **_TINY),
        TrainConfig(model="tiny-44k", variant="tiny_44k", **_TINY),
    )
}


def configured(model: str, settings: Iterable[str] = ()) -> TrainConfig:
    """The preset of a model with these settings, each `key=value`; of equal keys the last one counts.

    Raises:
        UsageProblem: there is no such preset or key, or a value is not what its key takes.
    """
    if model not in PRESETS:
        raise UsageProblem(
            f"--model {model}: no such preset, expected {close_names(model, list(PRESETS))} — give one "
            "that is known"
        )
    changes: dict[str, Any] = {}
    for given in settings:
        key, mark, text = (part.strip() for part in given.partition("="))
        if not mark:
            raise UsageProblem(f"--set {given}, expected key=value — as --set steps=100_000")
        changes[key] = _value(key, text)
    return replace(PRESETS[model], **changes)


def _value(key: str, text: str) -> Any:
    if key in _OF_PRESETS:
        raise UsageProblem(f"--set {key}={text}, expected it by its preset — give --model instead")
    if key not in _HINTS:
        raise UsageProblem(
            f"--set {key}={text}: no such setting, expected {close_names(key, KEYS)} — give one that is "
            "known"
        )
    try:
        return parsed(text, _HINTS[key])
    except ValueError:
        raise UsageProblem(
            f"--set {key}={text}, expected {expected(_HINTS[key], _ABOUT[key])} ({meaning(key)}) — give "
            "another value"
        ) from None
