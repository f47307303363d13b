"""Reads and draws what a plan says into buffers: the work of the thread that is ahead."""

import shlex
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curation.closing import Closing
from curation.errors import ManifestChanged
from features.shards import ShardReader
from features.store.index import INDEX_FILE
from features.store.places import Numbers
from features.store.recorded import sealed_table
from training.config import TrainConfig
from training.data.batch import Batch, Buffers
from training.data.draws import Draws, Piece, Stream
from training.model.variants import variant_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be in a micro-batch of B samples."""

    step: int
    micro: int
    slots: Numbers  # (B,)
    rows: Numbers  # (B,)
    texts: Numbers | None  # (B,) rows of text; None: first captions
    draws: list[Piece]
    counted: int  # samples from here on fill up


class Filler(Closing):
    """Fills buffers by plans.

    One row of each batch is compared with its crc32: a folder that was damaged as a whole is noticed at
    once, a single byte in the end, and the time is that of reading one row.
    """

    def __init__(self, reader: ShardReader, config: TrainConfig, stream: Stream) -> None:
        self._reader, self._config = reader, config
        self._joint = not variant_named(config.variant).v2
        self._draws = Draws(config.seed, stream)
        table = sealed_table(reader.folder, reader.sealed, INDEX_FILE, ["crc32"])
        self._crcs = table.column("crc32").to_numpy()

    def fill(self, plan: Plan, buffers: Buffers) -> Batch:
        """The micro-batch of a plan, in these buffers.

        Raises:
            ManifestChanged: a shard is not what was sealed.
        """
        assert len(plan.rows) == buffers.size, f"{len(plan.rows)} rows, expected all of the buffers"
        buffers.wait()
        self._reader.batch(plan.rows, out=buffers.shards, names=False, text=plan.texts)
        self._compare(buffers.shards, (plan.step + plan.micro) % len(plan.rows), plan.rows)
        self._draws.fill(plan.draws, buffers.drawn)
        self._drop(buffers)
        np.less(np.arange(len(plan.rows)), plan.counted, out=buffers.own["counted"].numpy())
        # no views: each tensor that the loop lets go of makes it queue for the interpreter
        return Batch(
            step=plan.step, micro=plan.micro, slots=plan.slots, rows=plan.rows, memory=buffers,
            **buffers.shards, **buffers.own,
        )  # fmt: skip

    def _drop(self, buffers: Buffers) -> None:
        """Which conditions are dropped: pictures whole in the first version, apart in the second.

        Source: spec 8.4; DESIGN 8 for v2.
        """
        clip, sync, text = buffers.drawn.uniforms.T
        config = self._config
        for name, draws, share in (
            ("drop_clip", clip, config.drop_video),
            ("drop_sync", clip if self._joint else sync, config.drop_video),
            ("drop_text", text, config.drop_text),
        ):
            np.less(draws, share, out=buffers.own[name].numpy())

    def _compare(self, read: dict[str, Tensor], place: int, rows: Numbers) -> None:
        columns = ["latent_mean", "latent_std"]
        if read["has_video"][place]:
            columns += ["clip", "sync"]
        found, row = 0, int(rows[place])
        for name in columns:
            found = zlib.crc32(read[name][place].view(torch.int16).numpy().data, found)
        if found != self._crcs[row]:
            raise self._damaged(row, found)

    def _damaged(self, row: int, found: int) -> ManifestChanged:
        names = ["dataset", "clip_id", "part", "shard"]
        at = self._reader.index.select(names).slice(row, 1).to_pylist()[0]
        folder, clip = self._reader.folder, f"{at['dataset']}/{at['clip_id']} part {at['part']}"
        return ManifestChanged(
            f"{folder / at['shard']}: crc32 of {clip} is {found:08x}, expected {self._crcs[row]:08x} as "
            "it was sealed — the file has changed since; what else has is named by: features verify "
            f"{shlex.quote(str(folder))} --full"
        )

    def close(self) -> None:
        """End the threads of the draws."""
        self._draws.close()

    def leave(self, error: BaseException | None) -> None:
        """Close it."""
        self.close()
