"""What one sees of a run: a line an interval on stderr, stats.jsonl, and TensorBoard.

    step 1,200 of 300,000 (0.4 %): loss 1.2345, lr 1.0e-04, norm 0.531, 2,501 samples/s, MFU 46.4 %, data
    wait 0.2 %, 61.2 GB, about 1 d 9 h left

The first rank of a run tells; on others all of it does nothing. Numbers come once an interval, when the
loop fetches them from the device anyway.
"""

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from curation.closing import Closing
from curation.errors import FoleyproofError
from curation.progress import note
from curation.tables import size_text
from training.config import TrainConfig
from training.run.board import Board, board_of
from training.run.stats import Stats, read_stats

logger = logging.getLogger(__name__)

_RATES = 20  # intervals whose rates say how long is left
_PATIENCE = 3  # validations without a new best, after which an alarm is raised
_TOLERANCE = 0.01  # by which the last of them must be worse than the best
BOARD = "tensorboard"  # the folder of its files in a run's


class Report(Closing):
    """To be used in a `with` block around the steps.

    Attributes:
        overfits: whether validation has been getting worse.
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        *,
        resumed_step: int = 0,
        flops_per_sample: int,
        peak_flops: float | None = None,
        ranks: int = 1,
        device: str = "cpu",
        is_first: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to tell of a run.

        Args:
            resumed_step: steps that were done before; what was told of later ones is forgotten.
            peak_flops: of one rank's device, a second; None: no MFU is told.
            device: its name, as the driver has it.
            is_first: whether this rank tells.
            clock: seconds, that only go forward.
        """
        self._config, self._clock = config, clock
        self._flops, self._peak_flops = flops_per_sample, peak_flops and peak_flops * ranks
        self._step, self._at_s = resumed_step, clock()
        self._aside_s = self._waited_s = 0.0  # since the last interval; of the data, altogether
        self._step_s: deque[float] = deque(maxlen=_RATES)  # of each interval, without what was aside
        self._begun, self._all_aside_s = resumed_step, 0.0
        self._stats: Stats | None = None
        self._board: Board | None = None
        self._validated: list[tuple[int, float]] = []
        self.overfits = False
        if is_first:
            with contextlib.ExitStack() as opened:
                opened.push(self)  # if what follows fails
                self._stats = Stats(run, resumed_step=resumed_step)
                self._board = board_of(run / BOARD, resumed_step=resumed_step)
                self._validated = _validations(run)
                self._stats.add(
                    "begin", resumed_step, model=config.model, device=device, ranks=ranks,
                    batch=config.batch, peak_flops_per_rank=peak_flops,
                    flops_per_sample=flops_per_sample, config_digest=config.digest(),
                )  # fmt: skip
                opened.pop_all()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What happens here is no training: validation, or waiting for a checkpoint."""
        begun_s = self._clock()
        try:
            yield
        finally:
            self._aside_s += self._clock() - begun_s

    def interval(
        self,
        step: int,
        *,
        loss: float,
        loss_by_t: Sequence[float | None],
        learning_rate: float,
        gradient_norm: float,
        waited_s: float,
        memory_bytes: int | None = None,
    ) -> None:
        """Tell of the steps since the last interval.

        Args:
            step: steps that are done.
            loss: the mean over the interval; so is
            loss_by_t: in bins of equal width, None where there was no sample.
            learning_rate: of the last step; so is
            gradient_norm: before it was cut.
            waited_s: how long this rank has waited for data since the run began here.
            memory_bytes: the most that this rank has needed on its GPU.
        """
        now_s = self._clock()
        steps = max(step - self._step, 1)
        taken_s = max(now_s - self._at_s - self._aside_s, 1e-9)
        self._step_s.append(taken_s / steps)
        self._all_aside_s += self._aside_s
        samples_per_s = steps * self._config.batch / taken_s
        numbers: dict[str, Any] = {
            "loss": loss,
            "learning_rate": learning_rate,
            "gradient_norm": gradient_norm,
            "samples_per_s": samples_per_s,
            "mfu_percent": self._mfu_percent(samples_per_s),
            "data_wait_percent": 100 * (waited_s - self._waited_s) / taken_s,
            "memory_bytes": memory_bytes,
            "interval_s": now_s - self._at_s,
            "left_s": self._left_s(step),
        }
        self._step, self._at_s, self._aside_s, self._waited_s = step, now_s, 0.0, waited_s
        if self._stats:
            note(f"{self._place(step)}: {_training_text(numbers)}")
            self._keep("training", step, numbers, loss_by_t)

    def _mfu_percent(self, samples_per_s: float) -> float | None:
        return 100 * samples_per_s * self._flops / self._peak_flops if self._peak_flops else None

    def _left_s(self, step: int) -> float:
        """By the usual time of a step, and what came aside so far."""
        aside_s = self._all_aside_s / max(step - self._begun, 1)
        return max(self._config.steps - step, 0) * (median(self._step_s) + aside_s)

    def _place(self, step: int) -> str:
        return f"step {step:,} of {self._config.steps:,} ({step / self._config.steps:.1%})".replace(
            "%", " %"
        )

    def validation(
        self, step: int, *, loss: float, loss_by_t: Sequence[float | None], num_samples: int
    ) -> None:
        """Tell of a validation, and raise an alarm where it has been getting worse."""
        if math.isfinite(loss):
            self._validated.append((step, loss))
        best_step, best = min(self._validated, key=lambda entry: entry[1], default=(step, loss))
        self.overfits = overfits([one for _, one in self._validated])
        if not self._stats:
            return
        beside = "the best so far" if best_step == step else f"best {best:.4f} at step {best_step:,}"
        note(f"{self._place(step)}: validation loss {loss:.4f} of {num_samples:,} samples, {beside}")
        if self.overfits:
            note(
                f"step {step:,}: overfits — validation has not been as good as {best:.4f} since step "
                f"{best_step:,}; stop here and take the weights of that step, or train on more data, "
                "with fewer repeats or a smaller learning rate"
            )
        numbers = {"loss": loss, "num_samples": num_samples, "best_step": best_step}
        self._keep("validation", step, numbers, loss_by_t)

    def _keep(
        self, kind: str, step: int, numbers: dict[str, Any], loss_by_t: Sequence[float | None]
    ) -> None:
        assert self._stats is not None, "only the first rank tells"
        self._stats.add(kind, step, **numbers, loss_by_t=list(loss_by_t))
        if self._board is None:
            return
        values = {f"{kind}/{name}": value for name, value in numbers.items()}
        for place, value in enumerate(loss_by_t):
            values[f"{kind} loss by t/{(place + 0.5) / len(loss_by_t):.2f}"] = value
        self._board.add(step, {tag: value for tag, value in values.items() if value is not None})

    def close(self) -> None:
        """Write what is still held, and let go of all files.

        Raises:
            NoSpace: the disk is full.
        """
        try:
            if self._stats:
                self._stats.close()
        finally:
            if self._board:
                self._board.close()

    def leave(self, error: BaseException | None) -> None:
        """Close it; an error of that does not hide one that is on its way."""
        try:
            self.close()
        except (FoleyproofError, OSError) as late:
            if error is None:
                raise
            logger.warning("the last numbers were not written: %s", late)


def _validations(run: Path) -> list[tuple[int, float]]:
    """Steps and losses of the validations so far."""
    lines = (line for line in read_stats(run) if line["kind"] == "validation")
    return [(line["step"], line["loss"]) for line in lines if line["loss"] is not None]


def _training_text(numbers: dict[str, Any]) -> str:
    words = [
        f"loss {numbers['loss']:.4f}",
        f"lr {numbers['learning_rate']:.1e}",
        f"norm {numbers['gradient_norm']:.3g}",
        f"{numbers['samples_per_s']:,.{0 if numbers['samples_per_s'] >= 100 else 1}f} samples/s",
    ]
    if numbers["mfu_percent"] is not None:
        words.append(f"MFU {numbers['mfu_percent']:.1f} %")
    words.append(f"data wait {numbers['data_wait_percent']:.1f} %")
    if numbers["memory_bytes"] is not None:
        words.append(size_text(numbers["memory_bytes"]))
    return ", ".join(words) + f", about {time_text(numbers['left_s'])} left"


def time_text(seconds: float) -> str:
    """A length of time for people, in its two largest units: "1 d 9 h", "48 s"."""
    left = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (name, size), (smaller, small) in pairwise(units):
        if left >= size:
            rest = left % size // small
            return f"{left // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{left} s"


def overfits(losses: Sequence[float]) -> bool:
    """Whether validation has got worse: no new best for some time, and the last clearly not as good."""
    if len(losses) <= _PATIENCE:
        return False
    best = min(losses)
    return min(losses[-_PATIENCE:]) > best and losses[-1] > best * (1 + _TOLERANCE)
