"""Weights of a run for others: in the released layout, with a model card that says what they are.

DIR/model.safetensors   or <variant>.pth, a bare state dict as MMAudio publishes them
DIR/config.json         network, step, width of the average, settings, what it was trained on
DIR/README.md           the card; see `card`
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curation.errors import BadWeights, UsageProblem
from curation.files import digest_of, replacing, staged, write_json
from curation.tables import number
from features.weights.checkpoint_files import METADATA_KEY, write_safetensors
from training.model.adapters import adapter_state, merged
from training.model.released import released_layout, to_released
from training.model.variants import variant_named
from training.state.about import About
from training.state.card import CARD, CONFIG, Facts, model_card
from training.state.folders import FOLDER
from training.state.pieces import WEIGHTS, averages
from training.state.reading import Stored

Form = Literal["safetensors", "pth"]
FORMAT, ADAPTERS = "foleyproof-weights/1", "foleyproof-adapters/1"
_SHOWN = 3
_AVERAGES = averages(0).partition("0")[0]  # what all prefixes of averages begin with


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    files: tuple[Path, ...]  # the weights first
    facts: Facts
    num_tensors: int
    num_bytes: int  # of the tensors


def export(
    stored: Stored, out: Path, *, run: Path, sigma_rel: float | None, form: Form, replace: bool
) -> Exported:
    """Write the weights of a checkpoint into a folder.

    Args:
        run: the folder it is of, in which nothing is written over.
        sigma_rel: None: the weights as they were trained last; else their average of this width.
        replace: files of an earlier export.

    Raises:
        UsageProblem: files are in the way, or the run keeps no average of this width.
        BadWeights: it is not the whole network.
        NoSpace, NotWritable: nothing was written.
    """
    facts = facts_of(stored, sigma_rel=sigma_rel, form=form)
    names = (facts.file, CARD, CONFIG)
    _refuse_target(out, run, names, replace=replace)
    weights = released_weights(stored, sigma_rel=sigma_rel)
    with staged(out, last=CONFIG) as stage:
        _write_weights(stage / facts.file, weights, facts)
        with replacing(stage / CARD) as temporary:
            temporary.write_text(model_card(facts), encoding="utf-8")
        write_json(stage / CONFIG, _document(facts))
    return Exported(
        files=tuple(out / name for name in names), facts=facts, num_tensors=len(weights),
        num_bytes=sum(tensor.nbytes for tensor in weights.values()),
    )  # fmt: skip


def released_weights(stored: Stored, *, sigma_rel: float | None = None) -> dict[str, Tensor]:
    """The network of a checkpoint under released names; adapters go into the weights they are on.

    Raises:
        UsageProblem: it holds no average of this width.
        BadWeights: it is not the whole network.
    """
    config = stored.about.config
    names = stored.begins(WEIGHTS)
    if sigma_rel is not None:
        names |= _averages(stored, sigma_rel)  # beside adapters, these alone are averaged
    found = stored.read(dict.fromkeys(names.values()))
    state = merged({n: found[kept] for n, kept in names.items()}, alpha=config["lora_alpha"])
    variant = variant_named(str(config["variant"]))
    released = to_released(state, variant)
    missing = [n for n in released_layout(variant, fill=config["fill"]) if n not in released]
    if missing:
        raise BadWeights(
            f"{stored.folder}: lacks {number(len(missing), 'tensor')} of {variant.name} "
            f"({', '.join(missing[:_SHOWN])}), expected the whole network — give the folder of its run"
        )
    return released


def export_adapters(stored: Stored, out: Path, *, sigma_rel: float | None, replace: bool) -> int:
    """Write the adapters of a checkpoint into a file, without what is beneath; how many tensors.

    Raises:
        UsageProblem: it has none, the file is there, or is no *.safetensors.
        NoSpace, NotWritable: nothing was written.
    """
    names = stored.begins(WEIGHTS)
    if sigma_rel is not None:
        names |= _averages(stored, sigma_rel)
    kept = adapter_state({name: torch.empty(0) for name in names})
    if not kept:
        raise UsageProblem(
            f"{stored.folder}: has no adapters, expected a run with lora_rank — leave --adapters out to "
            "export its weights"
        )
    if out.suffix != ".safetensors" or (out.exists() and not replace):
        raise UsageProblem(
            f"--out {out}: {'is there already' if out.exists() else 'is no *.safetensors'}, expected "
            "the file to write — give another, or --replace"
        )
    found = stored.read(dict.fromkeys(names.values()))
    adapters = adapter_state({name: found[place] for name, place in names.items()})
    write_safetensors(out, adapters, said_of_adapters(stored.about))
    return len(adapters)


def said_of_adapters(about: About) -> dict[str, str]:
    """What a file of adapters says of them."""
    config = about.config
    return {"format": ADAPTERS, "variant": str(config["variant"]), "rank": str(config["lora_rank"]),
            "alpha": f"{config['lora_alpha']:g}", "init": str(about.init)}  # fmt: skip


def adapters_about(path: Path) -> dict[str, str]:
    """What a file of adapters says of them; nothing where it is not of here."""
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}  # `read_tensors` says what is wrong with it
    return said if isinstance(said, dict) and said.get("format") == ADAPTERS else {}


def _averages(stored: Stored, sigma_rel: float) -> dict[str, str]:
    found = stored.begins(averages(sigma_rel))
    if not found:
        kept = sorted({name.split("/")[1] for name in stored.tensors if name.startswith(_AVERAGES)})
        raise UsageProblem(
            f"--ema {sigma_rel:g}: {stored.folder} keeps averages of the widths "
            f"{', '.join(kept) or '(none)'}, expected one of them — of other widths, make weights of "
            f"its profiles: python -m training.ema {stored.folder.parent.parent} --sigma {sigma_rel:g} "
            "--out FILE"
        )
    return found


def facts_of(stored: Stored, *, sigma_rel: float | None, form: Form) -> Facts:
    """What is said of the weights of a checkpoint."""
    config = stored.about.config
    variant = variant_named(str(config["variant"]))
    average = "" if sigma_rel is None else f"_ema_{sigma_rel:g}"
    return Facts(
        file="model.safetensors" if form == "safetensors" else f"{variant.name}{average}.pth",
        variant=variant,
        step=stored.step,
        sigma_rel=sigma_rel,
        config_digest=digest_of(dict(config)),
        about=stored.about,
    )


def _write_weights(path: Path, weights: Mapping[str, Tensor], facts: Facts) -> None:
    if path.suffix == ".safetensors":
        write_safetensors(path, weights, {"format": FORMAT, **facts.brief()})
        return
    # parts of one tensor, as w1 and w3 were, must not share memory: each would hold both
    own = {name: tensor.clone() for name, tensor in weights.items()}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        try:
            torch.save(own, stream)
        except RuntimeError as error:  # on a full disk it hides what the disk said
            raise error.__context__ or error from None


def _is_exported(out: Path) -> bool:
    try:
        said = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("format") == FORMAT


def _document(facts: Facts) -> dict[str, Any]:
    """The contents of config.json."""
    variant = facts.variant
    return {
        "format": FORMAT,
        **facts.brief(),
        "step": facts.step,
        "sigma_rel": facts.sigma_rel,
        "sample_rate_hz": variant.sample_rate_hz,
        "latent_channels": variant.latent_channels,
        **facts.about.document(),
    }


def _refuse_target(out: Path, run: Path, names: tuple[str, ...], *, replace: bool) -> None:
    inside = out.resolve()
    if inside == run.resolve() or inside.is_relative_to((run / FOLDER).resolve()):
        raise UsageProblem(
            f"--out {out}: is where the run keeps its own files, expected another folder — give one, "
            f"such as {run / 'export'}"
        )
    if out.exists() and not out.is_dir():
        raise UsageProblem(f"--out {out}: is a file, expected a folder to write to — give another")
    there = [name for name in names if (out / name).exists()]
    if there and not (replace and _is_exported(out)):
        others = "" if _is_exported(out) else " by something else"
        raise UsageProblem(
            f"--out {out}: {', '.join(there)} there already{others}, expected a folder without — give "
            f"another{'' if others else ', or --replace'}"
        )
