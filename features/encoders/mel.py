"""Log-mel spectrograms, what the VAEs encode and the vocoders turn back into sound.

    samples   … reflected │ 0 … hop … 2·hop …                        │ reflected …
    frame 0        └─────── window ───────┘
    frame 1               └─────── window ───────┘        a frame for every hop, none centred

Shapes: B batch, S samples, M mels, T = S // hop frames, F = n_fft / 2 + 1 frequencies.
Source: the log-mel front end of hkchengrex/MMAudio@974010a, which is that of NVIDIA/BigVGAN.
"""

import functools

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional

from features.spec import AudioSpec, audio_spec

_TINY_POWER = 1e-9  # added to the power before its root is taken
_FLOOR = 1e-5  # below which no mel falls
_COMMON_LOG_HZ = 16000  # the rate whose logarithm is to base 10; the other's is natural


def mel_spectrogram(wave_bs: Tensor, sample_rate_hz: int) -> Tensor:
    """The log-mel (B, M, S // hop) in float32 of sound (B, S) within ±1, which is clamped to that.

    Always in float32, also under autocast. At 16 kHz the logarithm is to base 10, at 44.1 kHz natural.

    Raises:
        UsageProblem: there is no VAE of that rate.
    """
    spec = audio_spec(sample_rate_hz)
    pad = (spec.fft_samples - spec.hop_samples) // 2
    assert wave_bs.dim() == 2, f"sound of shape {tuple(wave_bs.shape)}, expected (batch, samples)"
    assert wave_bs.shape[1] > pad, (
        f"{wave_bs.shape[1]} samples, expected more than {pad}, which are reflected"
    )
    window, basis = _constants(spec, wave_bs.device)
    with torch.autocast(wave_bs.device.type, enabled=False):
        padded = functional.pad(wave_bs.float().clamp(-1.0, 1.0), (pad, pad), mode="reflect")
        spectrum = torch.stft(
            padded, spec.fft_samples, spec.hop_samples, window=window, center=False, return_complex=True
        )
        power = torch.view_as_real(spectrum).square().sum(dim=-1)
        mel = (basis @ power.add_(_TINY_POWER).sqrt_()).clamp_min_(_FLOOR)
        return mel.log10_() if sample_rate_hz == _COMMON_LOG_HZ else mel.log_()


@functools.cache
def _constants(spec: AudioSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """The periodic Hann window (n_fft) and the filterbank (M, F) of Slaney's scale and area."""
    with torch.inference_mode(False):  # what is made in inference mode could not be used outside of it
        window = torch.hann_window(spec.fft_samples, dtype=torch.float32, device="cpu")
        basis = torchaudio.functional.melscale_fbanks(
            spec.fft_samples // 2 + 1, 0.0, float(spec.max_hz), spec.num_mels, spec.sample_rate_hz,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        return window.to(device), basis.T.contiguous().to(device)
