"""Where a run begins: at its own last checkpoint, with weights that were given, or with random ones."""

from pathlib import Path

import torch

from curation.errors import UsageProblem
from curation.progress import note
from features.weights.checkpoint_files import read_tensors
from training.config import TrainConfig
from training.ema import Tracks
from training.model.adapters import add_adapters, load_adapters
from training.model.released import from_released, trainable_names
from training.model.variants import variant_named
from training.network import Network
from training.run.asked import Asked
from training.run.assembly import assembled, averages_of, new_network
from training.run.distributed import World
from training.run.opening import Data
from training.run.saving import begin_moments, restore
from training.run.step import Trained
from training.state.about import About
from training.state.exported import adapters_about
from training.state.folders import latest
from training.state.imported import Imported, imported, refuse_no_file
from training.state.reading import Stored, opened


def begun(
    config: TrainConfig, asked: Asked, data: Data, world: World
) -> tuple[Trained, Tracks, int, About]:
    """What is trained, its averages, the steps that are done, and what checkpoints say of the run.

    Raises:
        ConfigDiffers: the run in this folder has other settings or shards.
        BadWeights, WrongWeights: weights do not fit.
    """
    given = None
    stored = _own(asked.run, world)
    if stored is None and asked.init is not None:
        names = trainable_names(variant_named(config.variant), fill=config.fill)
        given = imported(asked.init, names)
    about = _about(config, data, given) if stored is None else _continued(config, data, stored)
    network = new_network(
        config,
        latent_mean=data.opened.latent_mean,
        latent_std=data.opened.latent_std,
        empty_text=data.opened.empty_text,
        weights=None if given is None else given.weights,
        what=str(asked.init),
    )
    if stored is None and given is None:
        _refuse_nothing_beneath(config)
    if config.lora_rank:
        add_adapters(network, rank=config.lora_rank, alpha=config.lora_alpha, seed=config.seed)
    if asked.adapters is not None and stored is None:
        _take_adapters(network, config, asked.adapters)
    trained = assembled(network, config, world)
    tracks = averages_of(trained)
    if stored is not None:
        restore(trained, tracks, stored)
    elif given is not None and given.step is not None:
        _take_over(trained, tracks, given)
    step = stored.step if stored is not None else (given and given.step) or 0
    if world.is_first:
        note(_told(asked, stored, given, step))
    return trained, tracks, step, about


def _refuse_nothing_beneath(config: TrainConfig) -> None:
    """Raise UsageProblem where the last layer, which begins at zero, would stay there."""
    if config.lora_rank or "final" in config.freeze:
        key = "lora_rank" if config.lora_rank else "freeze=final"
        raise UsageProblem(
            f"{key} without --init: the last layer of random weights is zero and would stay so, "
            "expected trained weights to begin with — give --init FILE, or leave the setting out"
        )


def _take_adapters(network: Network, config: TrainConfig, path: Path) -> None:
    """Put adapters that were trained before on a network that has new ones."""
    refuse_no_file(path)
    about = adapters_about(path)
    if not config.lora_rank:
        raise UsageProblem(
            f"--adapters {path}: the run trains none, expected a rank for them — give --set "
            f"lora_rank={about.get('rank', '…, that of the file')}"
        )
    for key, mine in (("variant", config.variant), ("alpha", f"{config.lora_alpha:g}")):
        if about.get(key, mine) != mine:
            way = f"--set lora_alpha={about[key]}" if key == "alpha" else "the --model they are of"
            raise UsageProblem(
                f"--adapters {path}: were trained with {key} {about[key]}, expected {mine} as here — "
                f"give {way}"
            )
    load_adapters(network, read_tensors(path), what=str(path))


def _own(run: Path, world: World) -> Stored | None:
    """The checkpoint that all ranks go on from: the newest that loads, as the first one found it."""
    found = latest(run) if world.is_first else None
    folder = world.told(None if found is None else str(found.folder))
    if folder is None or found is not None:
        return found
    return opened(Path(folder))


def _about(config: TrainConfig, data: Data, given: Imported | None) -> About:
    return About(
        config=config.document(),
        shards=data.digests,
        certificate=data.reader.certificate,
        untrained=data.reader.untrained,
        datasets=data.datasets(),
        init=None if given is None else given.file,
        origin="scratch" if given is None else given.origin,
    )


def _continued(config: TrainConfig, data: Data, stored: Stored) -> About:
    """What is said of a run that goes on: what it began with stays."""
    fresh = _about(config, data, None)
    fresh.continues(stored.about, str(stored.folder))
    old = stored.about
    return About(
        config=fresh.config, shards=fresh.shards, certificate=fresh.certificate,
        untrained=fresh.untrained, datasets=fresh.datasets, init=old.init, origin=old.origin,
    )  # fmt: skip


def _take_over(trained: Trained, tracks: Tracks, given: Imported) -> None:
    """Go on with a training checkpoint of MMAudio: moments and averages, as far as it has them."""
    config = trained.config
    if config.lora_rank or config.sharding == "fsdp":
        raise UsageProblem(
            f"--init {given.file}: is a training checkpoint, expected weights alone with lora_rank or "
            "sharding=fsdp — give released weights, or leave these settings out"
        )
    if given.moments:
        trained.updates = given.adam_step or 0
        begin_moments(trained)
        kinds = [
            from_released({n: pair[kind] for n, pair in given.moments.items()}) for kind in range(2)
        ]
        with torch.no_grad():
            for name, parameter in trained.network.named_parameters():
                if parameter.requires_grad:
                    state = trained.optimizer.state[parameter]
                    state["exp_avg"].copy_(kinds[0][name])
                    state["exp_avg_sq"].copy_(kinds[1][name])
    if given.averages and set(tracks.averages) <= set(given.averages):
        for sigma, averages in tracks.averages.items():
            theirs = from_released(given.averages[sigma])
            for name, average in averages.items():
                average.copy_(theirs[name])
        tracks.step = given.averages_step or 0


def _told(asked: Asked, stored: Stored | None, given: Imported | None, step: int) -> str:
    if stored is not None:
        unread = [n for n, path in (("--init", asked.init), ("--adapters", asked.adapters)) if path]
        besides = (
            f"; {' and '.join(unread)} is for a run that begins, and was not read" if unread else ""
        )
        return f"{stored.folder}: goes on at step {step:,}{besides}"
    if given is None:
        return f"{asked.run}: begins with random weights"
    if given.step is None:
        return f"{asked.init}: begins with its weights at step 0"
    return f"{asked.init}: goes on at step {step:,} of that training"
