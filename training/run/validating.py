"""The loss on what is not trained on: the same samples, noise and times each time."""

import torch

from curation.progress import note
from curation.tables import number
from training.config import TrainConfig
from training.data.validation import Validation
from training.run.distributed import World
from training.run.opening import Data
from training.run.step import Meter, Trained, losses_of

_NAMED = 3  # clips in a message


def validation_of(config: TrainConfig, data: Data, world: World) -> Validation | None:
    """This rank's part of it; None where the run does not validate."""
    if not config.validate_every or not len(data.validation_rows):
        return None
    return Validation(data.validation, data.validation_rows, config, rank=world.rank, world=world.size)


def validated(
    trained: Trained, validation: Validation, data: Data
) -> tuple[float, list[float | None], int]:
    """The mean loss of all ranks' samples, by time, and of how many; the same noise each time.

    Samples whose loss is not finite are named and left out.
    """
    world, bad = trained.world, []
    meter = Meter(world.device)
    with torch.no_grad():
        for there in validation:
            batch = there.to(world.device)
            model = trained.network if trained.config.sharding == "ddp" else trained.model
            losses, t = losses_of(model, trained.network, batch, precision=trained.config.precision)
            finite = torch.isfinite(losses)
            meter.add(losses.where(finite, 0.0), t, batch.counted & finite)
            bad += there.rows[(batch.counted & ~finite).cpu().numpy()].tolist()
    everyone = [row for rows in world.gathered(bad) for row in rows]
    if everyone and world.is_first:
        clips = data.clips(everyone[:_NAMED], validation=True)
        note(
            f"{number(len(everyone), 'validation sample')} left out, whose loss is not finite: "
            f"{', '.join(clips)} — `features verify --full` says what is in them"
        )
    loss, by_time = meter.told(world)
    return loss, by_time, len(validation.rows) - len(everyone)
