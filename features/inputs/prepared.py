"""What is asked of a clip's media, and what comes back: frames and waveforms as encoders want them.

Shapes: T frames, C channels, H W, S samples. Times are seconds, places samples at the source's own rate.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from curation.errors import UsageProblem
from curation.media.answer import Answer
from curation.verdict import Reason
from features.inputs.partition import MAX_PARTS
from features.spec import DURATION_S, SequenceSpec

if TYPE_CHECKING:
    import numpy as np

PREPARATION_VERSION = "inputs/1"  # another one, other frames or waveforms from the same media
FLAGS = (Reason.NO_PICTURE, Reason.PARTLY_DAMAGED, Reason.STILL, Reason.UPSAMPLED)
_LONGER_S = 0.1  # by which a part of a long sound exceeds the duration: 8.1 s for 8 s


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """How media become inputs, and how much each clip may ask for."""

    sample_rate_hz: int
    duration_s: float = DURATION_S
    compat: bool = False  # frames and sound as MMAudio's own scripts take them
    peak: Literal["track", "none"] = "track"  # to what the sound is normalised
    part_s: float | None = None  # of a long sound; None: 0.1 s more than the duration
    max_parts: int = MAX_PARTS
    reject: tuple[str, ...] = ()  # flags that fail
    max_duration_s: float = 3600.0
    timeout_s: float = 600.0
    memory_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        needed_s = self.sequence.num_samples / self.sample_rate_hz
        if self.segment_s < needed_s:
            raise UsageProblem(
                f"parts of {self.segment_s:g} s, expected at least {needed_s:.3f} s: that much sound "
                f"makes an example of {self.duration_s:g} s — give longer parts"
            )
        if self.compat and self.peak == "none":
            raise UsageProblem(
                "--peak none with --compat: compat says itself where sound is normalised, expected one "
                "of both — leave one out"
            )
        if self.max_parts < 1:
            raise UsageProblem(f"{self.max_parts} parts of a sound, expected 1 or more — give another")
        if unknown := sorted(set(self.reject) - set(FLAGS)):
            raise UsageProblem(
                f"{', '.join(unknown)}: no flag, expected some of {', '.join(FLAGS)} — give one of them"
            )

    @property
    def sequence(self) -> SequenceSpec:
        """All lengths of an example."""
        return SequenceSpec(sample_rate_hz=self.sample_rate_hz, duration_s=self.duration_s)

    @property
    def segment_s(self) -> float:
        """How long a part of a long sound is."""
        return self.duration_s + _LONGER_S if self.part_s is None else self.part_s

    def about(self) -> dict[str, Any]:
        """What decides which inputs come of a file, for the header of what is made from them."""
        return {
            "version": PREPARATION_VERSION,
            "compat": "mmaudio" if self.compat else None,
            "sample_rate_hz": self.sample_rate_hz,
            "duration_s": self.duration_s,
            "peak": "as mmaudio" if self.compat else self.peak,
            "part_s": self.segment_s,
            "max_parts": self.max_parts,
            "reject": sorted(set(self.reject)),
            "max_duration_s": self.max_duration_s,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One clip whose inputs are wanted."""

    clip_id: str
    path: str  # of the file, as the system opens it
    start_s: float | None = None  # the clip in its recording
    end_s: float | None = None  # exclusive
    split: str = "train"
    sound_only: bool = False  # its dataset is one of sounds: pictures do not count, long ones have parts
    number: int = 0  # place among the clips of the run
    scan: bool = False  # whether the fingerprint of `curate scan` is made on the same decode


@dataclass(slots=True, kw_only=True)
class Part:
    """One row: a stretch of a clip with its inputs, or the reason why there are none."""

    part: int
    start_sample: int  # on the clip's clock, at the source's own rate
    end_sample: int
    source_rate_hz: int
    wave_s: "np.ndarray | None" = None  # float32 (S,)
    clip_tchw: "np.ndarray | None" = None  # uint8 (T, 3, 384, 384) at 8 fps; None: a row of sound
    sync_tchw: "np.ndarray | None" = None  # uint8 (T, 3, 224, 224) at 25 fps
    reason: Reason | None = None
    detail: str | None = None
    flags: list[str] = field(default_factory=list)
    values: dict[str, float | None] = field(default_factory=dict)


# of a part, all numbers: what was measured where it was
VALUES = ("av_offset_s", "peak", "bandwidth_hz", "silent_share", "still_share")


@dataclass(slots=True, kw_only=True)
class Prepared:
    """What became of one clip."""

    reason: Reason | None = None  # of the whole clip: it has no parts
    detail: str | None = None
    content_digest: str | None = None  # of the file, "sha256:…"
    parts: list[Part] = field(default_factory=list)
    scan: Answer | None = None  # what a scan says of the clip, where that was asked for
