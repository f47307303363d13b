"""The sizes of the networks, and the paper's switches.

Source: arXiv:2412.15322, Table A6 and Sec. G.1; MMAudio `networks.py`@974010a.
"""

import math
from dataclasses import dataclass
from typing import Literal

from curation.errors import UsageProblem
from features.spec import SequenceSpec, audio_spec

HEAD_WIDTH = 64
TOKENS, TEXT_WIDTH, CLIP_WIDTH, SYNC_WIDTH = 77, 1024, 1024, 768
SEGMENT = 8  # features of Synchformer that share a table of positions
_HIDDEN_STEP = 256  # hidden units come in multiples of it

Fill = Literal["own", "learned", "zeros"]
Injection = Literal["frame", "sum"]
Rotation = Literal["aligned", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One network of the family."""

    name: str
    heads: int
    num_joint: int  # blocks of three streams
    num_fused: int  # blocks of the latents alone
    sample_rate_hz: int
    v2: bool = False  # other projections and a faster time embedding

    @property
    def width(self) -> int:
        """D, of every token."""
        return self.heads * HEAD_WIDTH

    @property
    def hidden(self) -> int:
        """Units of a gated MLP: two thirds of 4 D, rounded up to a multiple of 256."""
        return _HIDDEN_STEP * math.ceil((8 * self.width // 3) / _HIDDEN_STEP)

    @property
    def latent_channels(self) -> int:
        """C, of the VAE of its rate."""
        return audio_spec(self.sample_rate_hz).latent_channels

    @property
    def time_width(self) -> int:
        """Of the sinusoids that embed t."""
        return self.width if self.v2 else 256

    @property
    def time_scale(self) -> int:
        """By which their frequencies are multiplied."""
        return 10_000 if self.v2 else 1


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(name="small_16k", heads=7, num_joint=4, num_fused=8, sample_rate_hz=16000),
        Variant(name="small_44k", heads=7, num_joint=4, num_fused=8, sample_rate_hz=44100),
        Variant(name="medium_44k", heads=14, num_joint=4, num_fused=8, sample_rate_hz=44100),
        Variant(name="large_44k", heads=14, num_joint=7, num_fused=14, sample_rate_hz=44100),
        Variant(name="large_44k_v2", heads=14, num_joint=7, num_fused=14, sample_rate_hz=44100, v2=True),
        # ours, for tests and the demo: nothing of them is published
        Variant(name="tiny_16k", heads=1, num_joint=2, num_fused=2, sample_rate_hz=16000),
        Variant(name="tiny_44k", heads=1, num_joint=2, num_fused=2, sample_rate_hz=44100),
    )
}


def variant_named(name: str) -> Variant:
    """The variant of this name.

    Raises:
        UsageProblem: there is none.
    """
    if name not in VARIANTS:
        raise UsageProblem(
            f"network {name!r}, expected one of {', '.join(VARIANTS)} — name one of these"
        )
    return VARIANTS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """The paper's ablations; the defaults are the released networks.

    Attributes:
        fill: what stands for a missing condition. `own`: learned vectors for CLIP and sync, the features
            of the empty string for text; `learned`: a learned sequence for text too; `zeros`: zeros for
            all. Source: Table A3.
        sync: `frame`: features of synchronisation condition the latents frame by frame; `sum`: CLIP
            tokens are repeated to their rate and summed with them. Source: Sec. G.5, figure A4.
        rope: `aligned`: positions of latents and CLIP tokens count the same time; `default`: each counts
            its own tokens. Source: Sec. G.6, figure A5.
    """

    fill: Fill = "own"
    sync: Injection = "frame"
    rope: Rotation = "aligned"


def lengths(num_latents: int, variant: Variant) -> SequenceSpec:
    """The lengths of the conditions that belong to N latents, by the duration they stand for.

    N is rounded up from a duration: the 345 latents of 8 s at 44.1 kHz are 8.0109 s of sound.
    """
    rate_hz = variant.sample_rate_hz
    covered_s = num_latents * audio_spec(rate_hz).samples_per_latent / rate_hz
    if covered_s >= 1:
        whole = SequenceSpec(sample_rate_hz=rate_hz, duration_s=float(int(covered_s)))
        if whole.num_latents == num_latents:
            return whole
    return SequenceSpec(sample_rate_hz=rate_hz, duration_s=covered_s)
