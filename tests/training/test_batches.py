"""Batches: the same bits for any ranks, micro-batches and restarts, as brute force makes them."""

from collections import Counter
from pathlib import Path

import numpy as np
import plain_philox
import pytest
import torch
from small_shards import Planned, text_of, values_of
from small_training import TENSORS, bits_of, mixture_of, small_config, training_rows

from curation.errors import UsageProblem
from features.shards import ShardReader
from training.data.batch import Batch
from training.data.batches import Batches, share_of
from training.data.draws import Stream

Samples = dict[tuple[int, int], dict[str, bytes]]  # by step and slot
STEPS = 9


def in_index_order() -> list[Planned]:
    return sorted(training_rows(), key=lambda row: (row.dataset, row.clip_id, row.part))


def samples(
    folder: Path, *, world: int = 1, micro: int | None = None, first_step: int = 0, **changes: object
) -> Samples:
    """All that ranks compute from a step on to STEPS, each of them in the order it comes."""
    found: Samples = {}
    config = small_config(micro_batch=micro, **changes)
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, config)
        share = share_of(config, world)
        for rank in range(world):
            with Batches(
                reader, mixture, config, rank=rank, world=world, first_step=first_step
            ) as batches:
                for number in range((STEPS - first_step) * share.num_micro):
                    batch = next(batches)
                    assert (batch.step, batch.micro) == (
                        first_step + number // share.num_micro,
                        number % share.num_micro,
                    )
                    for place, slot in enumerate(batch.slots.tolist()):
                        assert (batch.step, slot) not in found, "a slot is dealt out twice"
                        found[batch.step, slot] = bits_of(batch, place)
    return found


@pytest.fixture(scope="module")
def whole(folder: Path) -> Samples:
    return samples(folder)


def brute_force(step: int, slot: int, *, batch: int = 8, seed: int = 14159265) -> dict[str, bytes]:
    """A sample from the rows that were planned and plain generators."""
    planned = in_index_order()
    times = [5 if row.kind == "av" else 1 for row in planned]
    rows = [row for row, count in enumerate(times) for _ in range(count)]
    copies = [copy for count in times for copy in range(count)]
    epoch, place = divmod(step * batch + slot, len(rows))
    entry = plain_philox.permutation(seed, Stream.ORDER, epoch, len(rows))[place]
    row = rows[entry]
    words = plain_philox.words(seed, Stream.CAPTIONS)
    first = next(word for number, word in enumerate(words) if number == row)
    captions = planned[row].captions
    caption = captions[(first + epoch * times[row] + copies[entry]) % len(captions)]
    values = values_of(planned[row])
    video = planned[row].kind == "av"
    small, *large = (
        np.random.Generator(
            np.random.Philox(
                key=np.array([seed, 0], np.uint64),
                counter=np.array([0, slot // 32, step, part], np.uint64),
            )
        )
        for part in range(3)
    )
    clip, _, text = small.random((32, 3))[slot % 32]
    z = small.standard_normal(32, np.float32)[[slot % 32]]
    noise, x0 = (draw.standard_normal((32, 32, 20), np.float32)[slot % 32] for draw in large)
    tensors = {
        "latent_mean": values["latent_mean"],
        "latent_std": values["latent_std"],
        "clip": values["clip"] if video else torch.zeros(8, 1024, dtype=torch.bfloat16),
        "sync": values["sync"] if video else torch.zeros(16, 768, dtype=torch.bfloat16),
        "text": text_of(caption),
        "has_video": torch.tensor([video]),
        "noise": torch.from_numpy(noise),
        "x0": torch.from_numpy(x0),
        "z": torch.from_numpy(z),
        "drop_clip": torch.tensor([clip < 0.1]),
        "drop_sync": torch.tensor([clip < 0.1]),
        "drop_text": torch.tensor([text < 0.1]),
        "counted": torch.tensor([True]),
    }
    return {
        "row": np.int64(row).tobytes(),
        **{name: tensors[name].view(-1).view(torch.uint8).numpy().tobytes() for name in TENSORS},
    }


def test_every_sample_is_what_brute_force_makes_of_seed_epoch_step_and_slot(whole: Samples) -> None:
    assert set(whole) == {(step, slot) for step in range(STEPS) for slot in range(8)}
    for (step, slot), found in whole.items():
        assert found == brute_force(step, slot), f"step {step}, slot {slot}"


@pytest.mark.parametrize(
    ("world", "micro"),
    [(1, 1), (1, 2), (1, 4), (2, None), (2, 1), (2, 2), (4, None), (4, 1), (8, None), (8, 64)],
)
def test_ranks_and_micro_batches_change_no_bit(
    folder: Path, whole: Samples, world: int, micro: int | None
) -> None:
    assert samples(folder, world=world, micro=micro) == whole


def test_shares_that_cut_groups_of_draws_change_no_bit(folder: Path) -> None:
    """A step of 96 samples has three groups of 32."""
    whole = samples(folder, batch=96, first_step=STEPS - 1)
    for world, micro in ((1, 8), (2, 24), (3, None), (4, 12), (6, None)):
        assert samples(folder, batch=96, world=world, micro=micro, first_step=STEPS - 1) == whole


@pytest.mark.parametrize("first_step", [1, 4, 7, 8])
def test_a_run_that_begins_anywhere_has_the_same_samples(
    folder: Path, whole: Samples, first_step: int
) -> None:
    rest = {key: value for key, value in whole.items() if key[0] >= first_step}
    assert samples(folder, first_step=first_step, world=2, micro=2) == rest


def test_another_batch_takes_the_same_rows_one_after_another(folder: Path) -> None:
    def rows(batch: int) -> list[int]:
        config = small_config(batch=batch)
        with (
            ShardReader(folder) as reader,
            Batches(reader, mixture_of(reader, config), config) as batches,
        ):
            return [row for _ in range(224 // batch) for row in next(batches).rows.tolist()]

    assert rows(4) == rows(8) == rows(56) == rows(112) == rows(224)


@pytest.mark.parametrize("batch", [8, 224])
def test_an_epoch_has_each_row_exactly_its_number_of_times(folder: Path, batch: int) -> None:
    """Of 56 samples; a step of 224 holds four epochs."""
    config = small_config(batch=batch)
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        rows = [row for _ in range(224 // batch) for row in next(batches).rows.tolist()]
    for epoch in range(4):
        counts = Counter(rows[56 * epoch : 56 * (epoch + 1)])
        assert counts == {
            number: 5 if row.kind == "av" else 1 for number, row in enumerate(in_index_order())
        }


def test_sources_that_are_held_back_never_come(folder: Path) -> None:
    config = small_config(held_back=0.4)
    with ShardReader(folder) as reader:
        mixture = mixture_of(reader, config)
        held = set(range(len(reader))) - set(mixture.rows.tolist())
        assert held
        with Batches(reader, mixture, config) as batches:
            seen = {row for _ in range(40) for row in next(batches).rows.tolist()}
    assert not seen & held
    assert seen | held == set(range(16))


# ---- dropping -------------------------------------------------------------------------------------


# ---- shares ---------------------------------------------------------------------------------------


def test_shares_deal_out_the_whole_batch() -> None:
    for batch in (1, 8, 12, 512):
        for world in (1, 2, 4):
            for micro in (None, 1, 2, 4, 700):
                if batch % world or (micro and micro < batch // world and (batch // world) % micro):
                    continue
                share = share_of(small_config(batch=batch, micro_batch=micro), world)
                assert share.size * share.num_micro * world == batch
                assert micro is None or share.size <= micro


def test_ranks_that_do_not_divide_the_batch_are_refused_with_those_that_do() -> None:
    with pytest.raises(UsageProblem, match=r"a batch of 512 on 3 ranks, .* start one of 1, 2, 4 ranks"):
        share_of(small_config(batch=512), 3)
    with pytest.raises(UsageProblem, match=r"a batch of 2 on 4 ranks, .* start one of 1, 2 ranks"):
        share_of(small_config(batch=2), 4)


def test_a_micro_batch_that_does_not_divide_is_refused_with_one_that_does() -> None:
    with pytest.raises(UsageProblem, match=r"micro_batch 48 .* 256 samples .* --set micro_batch=32"):
        share_of(small_config(batch=512, micro_batch=48), 2)


# ---- the ring -------------------------------------------------------------------------------------


def test_a_batch_stays_until_the_next_is_asked_for(folder: Path, whole: Samples) -> None:
    """While the thread fills all that it may."""
    config = small_config()
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        for step in range(STEPS):
            batch = next(batches)
            while batches._ready.qsize() < 3:
                pass
            for place, slot in enumerate(batch.slots.tolist()):
                assert bits_of(batch, place) == whole[step, slot]


def test_buffers_are_used_again(folder: Path) -> None:
    config = small_config()
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        places = [next(batches).x0.data_ptr() for _ in range(12)]
    assert len(set(places)) == 4
    assert places[:4] == places[4:8] == places[8:]


def test_a_buffer_waits_for_its_copy_before_it_is_filled_again(folder: Path) -> None:
    """With an event in the place of CUDA's, which says when it was waited for."""
    waited: list[int] = []

    class Event:
        def synchronize(self) -> None:
            waited.append(len(waited))

    config = small_config()
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        batch = next(batches)
        batch.memory._copied = Event()
        while batches._ready.qsize() < 3:
            pass
        assert not waited, "the loop still has it"
        rest = [next(batches).memory for _ in range(4)]
        assert waited == [0]
        assert rest.index(batch.memory) == 3


def test_on_a_cpu_a_batch_is_where_it_is_wanted(folder: Path) -> None:
    config = small_config()
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        batch = next(batches)
        assert batch.to("cpu") is batch
        moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {getattr(moved, name).device.type for name in TENSORS} == {"meta"}
    assert moved.rows is batch.rows


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_batches_arrive_as_they_were_and_stay(folder: Path, whole: Samples) -> None:
    config = small_config()
    with ShardReader(folder) as reader, Batches(reader, mixture_of(reader, config), config) as batches:
        torch.cuda.set_sync_debug_mode("error")
        try:
            moved = [next(batches).to("cuda") for _ in range(STEPS)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert batches._in_use is not None
        assert all(tensor.is_pinned() for tensor in batches._in_use.shards.values())
    for batch in moved:
        tensors = {name: getattr(batch, name) for name in TENSORS}
        assert {tensor.device.type for tensor in tensors.values()} == {"cuda"}
        for place, slot in enumerate(batch.slots.tolist()):
            expected = whole[batch.step, slot]
            for name, tensor in tensors.items():
                found = tensor[place].cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
                assert found == expected[name], f"{name} of step {batch.step}, slot {slot}"


# ---- shards that change -----------------------------------------------------------------------------
