"""What is said of exported weights: a model card as model hubs show it, YAML and Markdown.

Names come from manifests and files, so they are quoted: strings of JSON are strings of YAML too.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from curation.tables import number, printable, render
from features.store.index import certificate_digest
from training.model.variants import Variant
from training.state.about import About

CARD, CONFIG = "README.md", "config.json"
BASE_MODEL = "hkchengrex/MMAudio"  # where the released weights are published
_RELEASED_LICENCE = "CC BY-NC 4.0"  # Source: MMAudio `docs/MODELS.md`, in the research notes, section 6
_DEFAULTS = {"fill": "own", "sync": "frame", "rope": "aligned"}  # the switches of released networks


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Weights of a run at a step.

    Attributes:
        file: its name.
        sigma_rel: width of their average; None: as they were trained last.
    """

    file: str
    variant: Variant
    step: int
    sigma_rel: float | None
    config_digest: str
    about: About

    @property
    def certificate(self) -> str | None:
        """Digest of the manifest's; None: uncertified."""
        return certificate_digest(self.about.certificate)

    @property
    def switches(self) -> dict[str, str]:
        """Those that differ from a released network's."""
        config = self.about.config
        return {name: str(config[name]) for name, own in _DEFAULTS.items() if config[name] != own}

    @property
    def is_released_kind(self) -> bool:
        """Whether MMAudio has a network of this layout."""
        return not self.switches and not self.variant.name.startswith("tiny")

    def brief(self) -> dict[str, str]:
        """As the header of a file says it."""
        return {
            "variant": self.variant.name,
            "step": str(self.step),
            "sigma_rel": "none" if self.sigma_rel is None else f"{self.sigma_rel:g}",
            "config_digest": self.config_digest,
            "origin": self.about.origin,
        }

    def title(self) -> str:
        """Network, step and average."""
        average = "" if self.sigma_rel is None else f", averaged with width {self.sigma_rel:g}"
        return f"{self.variant.name} at step {self.step:,}{average}"


def model_card(facts: Facts) -> str:
    """The card, of front matter and text."""
    parts = [
        "\n".join(_front_matter(facts)),
        f"# {facts.title()}",
        "The network of MMAudio (arXiv:2412.15322), which makes sound for video and text, trained with "
        f"Foleyproof. `{facts.file}` has the layout of released weights; `{CONFIG}` has all settings "
        f"(`{facts.config_digest}`).",
        *_loading(facts),
        "## Trained on",
        *_training(facts),
        "## Licence",
        _licence(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> Iterator[str]:
    yield "---"
    yield "license: other"
    if facts.about.origin == "mmaudio":
        yield f"base_model: {json.dumps(BASE_MODEL)}"
    if facts.about.datasets:
        yield "datasets:"
        for name in sorted(facts.about.datasets):
            yield f"- {json.dumps(name)}"
    yield "tags:"
    for tag in ("foleyproof", "video-to-audio", "text-to-audio"):
        yield f"- {tag}"
    yield "---"


def _loading(facts: Facts) -> Iterator[str]:
    name = facts.variant.name
    is_safe = facts.file.endswith(".safetensors")
    load = f'load_file("{facts.file}")' if is_safe else f'torch.load("{facts.file}", weights_only=True)'
    needed = "from safetensors.torch import load_file" if is_safe else "import torch"
    yield "## Use"
    if facts.switches:
        switched = ", ".join(f'{key}="{value}"' for key, value in facts.switches.items())
        lines = [
            needed, "from training.model.variants import VARIANTS, Switches",
            "from training.network import Network, load_released", "",
            f'network = Network(VARIANTS["{name}"], Switches({switched}))',
            f'load_released(network, {load}, what="{facts.file}")',
        ]  # fmt: skip
    else:
        lines = [
            needed, "from training.network import load_network", "",
            f'network = load_network("{name}", {load})',
        ]  # fmt: skip
    yield "\n".join(["```python", *lines, "```"])
    if facts.is_released_kind:
        yield f"MMAudio takes the same tensors as a network of the name `{name}`."
    elif facts.switches:
        yield f"MMAudio has no network with these switches ({switched}): its results would be others."
    else:
        yield "MMAudio has no network of this size."


def _training(facts: Facts) -> Iterator[str]:
    about = facts.about
    if about.datasets:
        yield render(["dataset", "clips"], sorted(about.datasets.items()), "markdown")
    if facts.certificate is None:
        yield (
            "**Not certified.** Nothing says that no clip of a test set was trained on, so that scores "
            "on test sets say little."
        )
    else:
        yield (
            f"Certified: the manifest's certificate `{_cell(facts.certificate)}` lists what was checked "
            "against which test sets, and what was not. It does not cover the encoders of the features."
        )
    if about.untrained:
        yield (
            "**Features of encoders with random weights.** The network has learned nothing that is of "
            "use; good for trials alone."
        )
    if about.init is not None:
        yield f"Training began with the weights of `{_cell(about.init)}`."
    digests = ", ".join(f"{name} `{digest}`" for name, digest in sorted(about.shards.items()))
    yield f"Shards: {digests or '(none)'}. {number(facts.step, 'step')} were made."


def _licence(facts: Facts) -> str:
    yours = "Whoever publishes these weights chooses their licence, within those of the clips above."
    if facts.about.origin == "mmaudio":
        return (
            f"Derived from the weights released at {BASE_MODEL}, which are under {_RELEASED_LICENCE}: "
            f"not for commercial use, and with attribution. {yours}"
        )
    if facts.about.origin == "unknown":
        return (
            f"Where the weights that training began with are from is not known here. If they are those "
            f"released at {BASE_MODEL}, or come from them, {_RELEASED_LICENCE} holds: not for "
            f"commercial use, and with attribution. {yours}"
        )
    return yours


def _cell(text: str) -> str:
    """A name in a line of Markdown."""
    return printable(text).replace("`", "'")
