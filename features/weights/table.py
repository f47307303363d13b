"""Every file of published weights: where it comes from, how large it is, its digest, licence and layout.

What a file is has one name here, the one it was published under; `published.py` says where it is looked
for. Sizes and md5 are those MMAudio states, its numbers of tensors and values those of the layout that
the networks here have; each file stores float32. Where nobody here has seen a file or its licence, it
is marked unverified.

Source: MMAudio `download_utils.py` and `docs/MODELS.md`@974010a; the model pages of the hub.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from curation.errors import UsageProblem

_RELEASE = "https://github.com/hkchengrex/MMAudio/releases/download/v0.1"
_HUB = "https://huggingface.co/hkchengrex/MMAudio/resolve/main/weights"
_BYTES_PER_VALUE = 4
# What a checkpoint holds besides its values: names, shapes, paddings, checksums. Synchformer's 513
# tensors need 0.1 MiB; a wrapping or an optimizer would need far more.
_OVERHEAD_BYTES = 4 << 20

VAE_16K, VAE_44K = "v1-16.pth", "v1-44.pth"
VOCODER_16K, VOCODER_44K = "best_netG.pt", "bigvgan_generator.pt"
SYNCHFORMER, CLIP, EMPTY_STRING = (
    "synchformer_state_dict.pth", "open_clip_pytorch_model.bin", "empty_string.pth",
)  # fmt: skip
VAES = {16000: VAE_16K, 44100: VAE_44K}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFile:
    """One published file of weights."""

    name: str  # as published
    title: str
    url: str
    licence: str
    num_tensors: int
    num_values: int
    needed_for: str
    md5: str | None = None  # as published; None: not known
    stated: str = ""  # the size that its publisher states
    inside: str | None = None  # the key of the published dict that holds the tensors
    also: tuple[str, ...] = ()  # other files with the same weights, in another format
    folders: tuple[str, ...] = ()  # in which it may lie too, as the hub's tools leave it
    unverified: tuple[str, ...] = ()  # what nobody here has seen: "url", "size", "licence", "layout"

    @property
    def num_bytes(self) -> int:
        """Of its values; the file is larger by its names and paddings."""
        return self.num_values * _BYTES_PER_VALUE

    @property
    def most_bytes(self) -> int:
        """Above which a file cannot be this one."""
        return self.num_bytes + self.num_bytes // 100 + _OVERHEAD_BYTES


_NETWORKS = (
    ("small_16k", "af93cde404179f58e3919ac085b8033b", "601 MiB", 251, 157_283_644),
    ("small_44k", "babd74c884783d13701ea2820a5f5b6d", "601 MiB", 251, 157_409_144),
    ("medium_44k", "5a56b6665e45a1e65ada534defa903d0", "2.4 GiB", 251, 621_805_944),
    ("large_44k", "fed96c325a6785b85ce75ae1aafd2673", "3.9 GiB", 416, 1_030_002_168),
    ("large_44k_v2", "01ad4464f049b2d7efdaa4c1a59b8dfe", "3.9 GiB", 416, 1_030_575_608),
)
FILES = (
    WeightFile(
        name=VAE_16K, title="VAE 16 kHz", url=f"{_RELEASE}/{VAE_16K}", licence="CC-BY-NC-4.0",
        md5="69f56803f59a549a1a507c93859fd4d7", stated="655 MiB", num_tensors=57, num_values=171_657_378,
        needed_for="extract --sr 16000", unverified=("url",),
    ),
    WeightFile(
        name=VAE_44K, title="VAE 44.1 kHz", url=f"{_RELEASE}/{VAE_44K}", licence="CC-BY-NC-4.0",
        md5="fab020275fa44c6589820ce025191600", stated="1.2 GiB", num_tensors=57, num_values=305_479_938,
        needed_for="extract --sr 44100", unverified=("url",),
    ),
    WeightFile(
        name=SYNCHFORMER, title="Synchformer", url=f"{_RELEASE}/{SYNCHFORMER}", licence="MIT",
        md5="5b2f5594b0730f70e41e549b7c94390c", stated="907 MiB",
        num_tensors=513, num_values=237_460_245, needed_for="extract", unverified=("url",),
    ),
    WeightFile(
        name=CLIP, title="CLIP DFN5B ViT-H/14 384",
        url=f"https://huggingface.co/apple/DFN5B-CLIP-ViT-H-14-384/resolve/main/{CLIP}",
        licence="Apple research only", num_tensors=686, num_values=986_714_881, needed_for="extract",
        also=("open_clip_model.safetensors", "model.safetensors", "pytorch_model.bin"),
        folders=("clip", "DFN5B-CLIP-ViT-H-14-384", "apple/DFN5B-CLIP-ViT-H-14-384",
                 "models--apple--DFN5B-CLIP-ViT-H-14-384/snapshots/*"),
        unverified=("url", "size", "licence"),
    ),
    WeightFile(
        name=EMPTY_STRING, title="CLIP feature of no words", url=f"{_RELEASE}/{EMPTY_STRING}",
        licence="Apple research only", num_tensors=1, num_values=77 * 1024,
        needed_for="comparison only", unverified=("url", "size", "licence"),
    ),
    WeightFile(
        name=VOCODER_16K, title="BigVGAN 16 kHz", url=f"{_RELEASE}/{VOCODER_16K}", licence="unknown",
        md5="eeaf372a38a9c31c362120aba2dde292", stated="429 MiB",
        num_tensors=784, num_values=112_233_866, inside="generator", needed_for="sound at 16 kHz",
        unverified=("url", "layout"),
    ),
    WeightFile(
        name=VOCODER_44K, title="BigVGAN v2 44.1 kHz",
        url=f"https://huggingface.co/nvidia/bigvgan_v2_44khz_128band_512x/resolve/main/{VOCODER_44K}",
        licence="MIT", num_tensors=783, num_values=122_187_145, inside="generator",
        folders=("bigvgan_v2_44khz_128band_512x", "nvidia/bigvgan_v2_44khz_128band_512x",
                 "models--nvidia--bigvgan_v2_44khz_128band_512x/snapshots/*"),
        needed_for="sound at 44.1 kHz", unverified=("url", "size"),
    ),
    *(
        WeightFile(
            name=f"mmaudio_{variant}.pth", title=f"MMAudio {variant.replace('_', ' ')}",
            url=f"{_HUB}/mmaudio_{variant}.pth", licence="CC-BY-NC-4.0", md5=md5, stated=stated,
            num_tensors=num_tensors, num_values=num_values, needed_for="training, generation",
            unverified=("url",),
        )
        for variant, md5, stated, num_tensors, num_values in _NETWORKS
    ),
)  # fmt: skip
ENCODERS = (VAE_16K, VAE_44K, SYNCHFORMER, CLIP)  # what `features extract` reads, of both rates
_ALIASES = {
    "vae-16k": VAE_16K, "vae-44k": VAE_44K, "synchformer": SYNCHFORMER, "clip": CLIP,
    "vocoder-16k": VOCODER_16K, "vocoder-44k": VOCODER_44K, "empty-string": EMPTY_STRING,
}  # fmt: skip


def find_files(names: Iterable[str]) -> tuple[WeightFile, ...]:
    """The files with these names, in the order of the table; without names all of them.

    Args:
        names: of files, or short ones as "vae-44k"; "encoders" means what extract reads, "all" all.

    Raises:
        UsageProblem: a name is unknown.
    """
    known = {file.name: file for file in FILES}
    wanted: set[str] = set()
    for name in names:
        found = (
            known if name == "all" else ENCODERS if name == "encoders" else (_ALIASES.get(name, name),)
        )
        for one in found:
            if one not in known:
                raise UsageProblem(
                    f"{name}: no file of weights has this name, expected one of {', '.join(known)}, or "
                    f"{', '.join(_ALIASES)}, encoders, all — give one of these"
                )
            wanted.add(one)
    return tuple(file for file in FILES if file.name in wanted or not wanted)


def file_named(name: str) -> WeightFile:
    """The file of the table with this name."""
    return find_files((name,))[0]
