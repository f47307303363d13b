"""The encoders of one extraction together: sound, pictures and words in, features in bf16 out.

Batches inside are fixed, and cut so that what a clip gives does not depend on its neighbours: pictures
and segments never share a batch with those of another clip, which fills a GPU all the same (64 pictures
are 46,720 tokens, 24 segments 37,656). Sounds and captions, which are small, go one by one on a CPU; on
a GPU in batches that are cut from the first row given, so that there the last bit of a feature may
depend on which rows were given together.

Shapes: B clips, T pictures, S samples or segments, N latents, C channels, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from curation.errors import UsageProblem
from features.encoders.mel import mel_spectrogram
from features.weights.published import PARTS, WeightChoice, encoder_files, identity_of, state_dict_of
from features.weights.untrained import untrained_state

if TYPE_CHECKING:
    from features.encoders.clip import Clip
    from features.encoders.synchformer import Synchformer
    from features.encoders.vae import Vae

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How many go through an encoder at a time; Synchformer cuts its segments itself."""

    sounds: int
    pictures: int  # of one clip
    captions: int


# On a CPU more at a time takes memory and brings nothing: each of these fills its cores.
_BATCHES = {
    "cpu": Batches(sounds=1, pictures=8, captions=1),
    "cuda": Batches(sounds=16, pictures=128, captions=64),
}


def default_precision(device: str) -> Precision:
    """bf16 on a GPU, whose cores are made for it; fp32 on a CPU, where bf16 is rarely faster."""
    return "bf16" if torch.device(device).type == "cuda" else "fp32"


class Suite:
    """Encoders on one device; every method takes tensors on the CPU and gives bf16 there."""

    def __init__(
        self,
        *,
        sample_rate_hz: int,
        device: str,
        precision: Precision,
        identity: dict[str, str],
        vae: "Vae | None" = None,
        clip: "Clip | None" = None,
        synchformer: "Synchformer | None" = None,
    ) -> None:
        self.sample_rate_hz, self.precision, self.identity = sample_rate_hz, precision, identity
        self.device = torch.device(device)
        self.batches = _BATCHES[self.device.type]
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._vae = None if vae is None else vae.to(self.device, dtype)
        self._clip = None if clip is None else clip.to(self.device, dtype)
        self._synchformer = None if synchformer is None else synchformer.to(self.device, dtype)

    @torch.inference_mode()
    def encode_audio(self, wave_bs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, each (B, N, C), of float32 waveforms (B, S)."""
        vae = self._vae
        assert vae is not None, "the suite was loaded without its VAE"
        encoded = [
            vae.encode(mel_spectrogram(self._moved(batch_bs), self.sample_rate_hz))
            for batch_bs in torch.split(wave_bs, self.batches.sounds)
        ]
        return _joined([mean for mean, _ in encoded]), _joined([std for _, std in encoded])

    @torch.inference_mode()
    def encode_clip(self, frames_btchw: Tensor) -> Tensor:
        """CLIP's features (B, T, 1024) of uint8 pictures (B, T, 3, 384, 384)."""
        clip = self._clip
        assert clip is not None, "the suite was loaded without CLIP"
        clips = []
        for frames_tchw in frames_btchw:
            batches = torch.split(self._moved(frames_tchw), self.batches.pictures)
            encoded = [clip.encode_image(clip.prepare(batch_tchw)) for batch_tchw in batches]
            clips.append(torch.cat(encoded)[None])
        return _joined(clips)

    @torch.inference_mode()
    def encode_sync(self, frames_btchw: Tensor) -> Tensor:
        """Synchformer's features (B, 8 S, 768) of uint8 pictures (B, T, 3, 224, 224)."""
        synchformer = self._synchformer
        assert synchformer is not None, "the suite was loaded without Synchformer"
        return _joined([
            synchformer(synchformer.segments(self._moved(frames_tchw)[None]))
            for frames_tchw in frames_btchw
        ])  # fmt: skip

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """CLIP's features (B, 77, 1024) of captions, one for each token."""
        from features.encoders.tokens import tokenize

        clip = self._clip
        assert clip is not None, "the suite was loaded without CLIP"
        batches = torch.split(tokenize(list(texts)), self.batches.captions)
        return _joined([clip.encode_text(self._moved(ids_bt)) for ids_bt in batches])

    def _moved(self, tensor: Tensor) -> Tensor:
        """On the device; to a GPU from pinned memory, so that the copy waits for nothing."""
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _joined(batches: Sequence[Tensor]) -> Tensor:
    """All rows, in bf16 on the CPU; the device is waited for once."""
    return torch.cat([batch.to(torch.bfloat16) for batch in batches]).to("cpu")


def load_suite(
    weights: WeightChoice,
    *,
    sample_rate_hz: int,
    device: str = "cpu",
    precision: Precision | None = None,
    parts: Sequence[str] = PARTS,
) -> Suite:
    """The encoders with these weights; the VAE without its decoder.

    Args:
        precision: None: as `default_precision` says.
        parts: which encoders; the others cost nothing.

    Raises:
        UsageProblem: a file of weights is missing, or the device is.
        WrongWeights, BadWeights: a file is not what it should be.
    """
    _refuse_absent(device)
    if precision not in (None, *get_args(Precision)):
        known = ", ".join(get_args(Precision))
        raise UsageProblem(f"precision {precision}, expected one of {known} — give one of these")
    identity = identity_of(weights, sample_rate_hz, parts=parts)
    return Suite(
        sample_rate_hz=sample_rate_hz,
        device=device,
        precision=precision or default_precision(device),
        identity=identity,
        vae=_vae(weights, sample_rate_hz) if "vae" in parts else None,
        clip=_clip(weights, sample_rate_hz) if "clip" in parts else None,
        synchformer=_synchformer(weights, sample_rate_hz) if "synchformer" in parts else None,
    )


def _vae(weights: WeightChoice, sample_rate_hz: int) -> "Vae":
    from features.encoders.vae import Vae, VaeConfig, load_vae

    config = (VaeConfig.tiny if weights.tiny else VaeConfig.published)(sample_rate_hz)
    state = _state(weights, sample_rate_hz, "vae", lambda: Vae(config))
    vae = load_vae(sample_rate_hz, state, config=config)
    del vae.decoder  # more than half of it, and not needed here
    return vae


def _clip(weights: WeightChoice, sample_rate_hz: int) -> "Clip":
    from features.encoders.clip import TINY, Clip, ClipConfig, load_clip

    config = TINY if weights.tiny else ClipConfig()
    return load_clip(_state(weights, sample_rate_hz, "clip", lambda: Clip(config)), config=config)


def _synchformer(weights: WeightChoice, sample_rate_hz: int) -> "Synchformer":
    from features.encoders.synchformer import TINY, Synchformer, SynchformerConfig, load_synchformer

    config = TINY if weights.tiny else SynchformerConfig()
    state = _state(weights, sample_rate_hz, "synchformer", lambda: Synchformer(config))
    return load_synchformer(state, config=config)


def _state(
    weights: WeightChoice, sample_rate_hz: int, part: str, build: Callable[[], torch.nn.Module]
) -> dict[str, Tensor]:
    """The tensors of one encoder: of its published file, or random ones in the shapes of `build()`."""
    if weights.untrained_seed is None:
        return state_dict_of(weights, encoder_files(sample_rate_hz)[part])
    with torch.device("meta"):
        return untrained_state(build().state_dict(), weights.untrained_seed)


def _refuse_absent(device: str) -> None:
    """Raise UsageProblem where there is no such device."""
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = None
    kinds = [*_BATCHES] if torch.cuda.is_available() else ["cpu"]
    gpus = torch.cuda.device_count()
    if asked is None or asked.type not in kinds or (asked.index or 0) >= max(1, gpus):
        raise UsageProblem(
            f"device {device}: not there, expected cpu or one of the {gpus} GPUs that PyTorch sees, as "
            "cuda:0 — give others with --devices"
        )
