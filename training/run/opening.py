"""What a run trains and validates on, opened and checked before anything is computed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curation.progress import note
from curation.tables import number
from features.shards import ShardReader
from features.store.places import Numbers
from training.config import TrainConfig
from training.data.held_back import split_rows
from training.data.mixture import Mixture
from training.data.opening import Opened, open_shards
from training.run.asked import Asked
from training.run.distributed import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The shards of a run.

    Attributes:
        validation_rows: of `validation`, in their order; there may be none.
        digests: of the folders, by what they are for.
    """

    opened: Opened
    mixture: Mixture
    validation: ShardReader
    validation_rows: Numbers
    digests: dict[str, str]

    @property
    def reader(self) -> ShardReader:
        """Of the training shards."""
        return self.opened.reader

    @property
    def duration_s(self) -> float:
        """Of each sample."""
        return float(self.reader.about["duration_s"])

    def datasets(self) -> dict[str, int]:
        """Rows of each dataset that are trained on."""
        counts: dict[str, int] = {}
        for part in self.mixture.parts:
            if part.times:
                counts[part.dataset] = counts.get(part.dataset, 0) + part.rows
        return counts

    def clips(self, rows: Sequence[int], *, validation: bool = False) -> list[str]:
        """`dataset/clip_id` of rows, with the part of a long sound that has several.

        Args:
            validation: of the shards that validate, not of those that are trained on.
        """
        reader = self.validation if validation else self.reader
        table: Any = reader.index.select(["dataset", "clip_id", "part"]).take(list(rows))
        named = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
        return [f"{dataset}/{clip}" + (f" part {part}" if part else "") for dataset, clip, part in named]


@contextlib.contextmanager
def opened_data(config: TrainConfig, asked: Asked, world: World) -> Iterator[Data]:
    """Open the shards; the first rank says what is to be said of them.

    Raises:
        UsageProblem: they do not fit the run; see `data.opening.open_shards`.
        ManifestChanged: a file is not what was sealed.
    """
    with contextlib.ExitStack() as stack:
        opened = open_shards(asked.shards, config, allow_untrained=asked.allow_untrained)
        reader = stack.enter_context(opened.reader)
        notes, digests, other = list(opened.notes), {"training": reader.sealed["digest"]}, None
        if asked.val_shards is not None:
            validating = open_shards(
                asked.val_shards, config, allow_untrained=asked.allow_untrained, like=reader
            )
            other = stack.enter_context(validating.reader)
            notes += validating.notes
            digests["validation"] = other.sealed["digest"]
        split = split_rows(reader, config.held_back, validation=other)
        mixture = Mixture.read(reader, config, split.training_rows)
        if world.is_first:
            for line in (*notes, *mixture.lines()):
                note(line)
            note(
                f"{number(split.left_out, 'row')} of {len(reader):,} held back from training, "
                f"{number(len(split.validation_rows), 'row')} to validate with"
            )
        yield Data(
            opened=opened,
            mixture=mixture,
            validation=split.validation,
            validation_rows=split.validation_rows,
            digests=digests,
        )
