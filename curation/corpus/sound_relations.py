"""How the sets that take from Freesound overlap: one sound is in several of them under one id."""

from collections import Counter

from curation.corpus.world import Row, World

_CLOTHO_NAMES = ("Rain on a roof.wav", "Tram, doors (closing).wav", "00.wav")
_CLOTHO_HZ = 44_100  # the metadata give starts and ends in samples


def plant_sounds(world: World) -> None:
    """ESC-50, UrbanSound8K, FSD50K, WavCaps, Clotho and LAION's collection of Freesound."""
    _fsd50k_and_wavcaps(world)
    _folds(world)
    _clotho(world)
    _laion(world)


def _fsd50k_and_wavcaps(world: World) -> None:
    for split, n in (("dev", 240), ("eval", 70)):
        for index in range(n):
            clip = world.fsd50k(split, world.number(30_000, 600_000))
            if split == "eval" and index < 9:
                part = world.wavcaps("freesound", clip.source_id or "")
                world.share("no times", clip, part)
    for _ in range(200):
        world.wavcaps("freesound", world.number(30_000, 600_000))


def _folds(world: World) -> None:
    for index in range(60):
        fold, source_id, target = (
            index % 5 + 1,
            world.number(30_000, 600_000),
            world.random.randrange(50),
        )
        takes = [world.esc50(fold, source_id, take, target) for take in "AB"[: 1 + index % 2]]
        _in_other_sets(world, index, source_id, takes)
    for index in range(50):
        fold, source_id = index % 10 + 1, world.number(30_000, 600_000)
        start = world.random.randrange(0, 40_000_000) / 1_000_000
        target = world.random.randrange(10)
        slices = [
            world.urbansound8k(fold, source_id, f"{target}-0-{i}", start + 4 * i, start + 4 * i + 4)
            for i in range(3)
        ]
        _in_other_sets(world, index, source_id, slices)
    # Neighbouring folds of UrbanSound8K, closer than a millisecond.
    #   fold 10   |-- 4 s --|
    #   fold 1              |-- 4 s --|        6.5 s: 6.4996 s is read as 6.5 s, 6.4994 s is not
    for kind, start in (
        ("ends touch when rounded to a millisecond", 6.4996),
        ("shifted by all but a millisecond", 6.4994),
        ("starts equal when rounded to a millisecond", 2.5004),
    ):
        source_id = world.number(30_000, 600_000)
        test = world.urbansound8k(10, source_id, "3-0-0", 2.5, 6.5)
        train = world.urbansound8k(1, source_id, "3-0-1", start, start + 4)
        world.share(kind, test, train, test_list="urbansound8k@fold10")


def _in_other_sets(world: World, index: int, source_id: str, clips: list[Row]) -> None:
    if index % 6 == 0:
        for clip in clips:
            world.share("no times", clip, _once(world, "fsd50k", "dev", source_id))
    elif index % 6 == 1:
        for clip in clips:
            world.share("no times", clip, _once(world, "wavcaps", "freesound", source_id))
    elif index == 2:
        for clip in clips:
            world.share("no times", clip, _once(world, "fsd50k", "eval", source_id))


def _once(world: World, dataset: str, split: str, source_id: str) -> Row:
    for row in world.of(dataset, split):
        if row.source_id == source_id:
            return row
    return world.fsd50k(split, source_id) if dataset == "fsd50k" else world.wavcaps(split, source_id)


def _lonely(world: World, dataset: str, split: str) -> list[str]:
    """The ids of this split that no other row has."""
    names = Counter((row.source, row.source_id) for row in world.rows)
    rows = world.of(dataset, split)
    return [row.source_id or "" for row in rows if names[row.source, row.source_id] == 1]


def _clotho(world: World) -> None:
    """The metadata files tell the sound and the cut of nearly all clips; of some they find none."""
    met = {
        "development": _lonely(world, "fsd50k", "eval")[-2:],
        "evaluation": _lonely(world, "wavcaps", "freesound")[:4] + _lonely(world, "fsd50k", "dev")[:3],
    }
    not_found = {"development": 3, "validation": 1, "evaluation": 2, "test": 1}
    for split, n in (("development", 60), ("validation", 20), ("evaluation", 25), ("test", 20)):
        names = [f"{split[:3]} sound {i:03d}.wav" for i in range(n - len(_CLOTHO_NAMES))]
        names = [f"test_{i:04d}.wav" for i in range(n)] if split == "test" else [*_CLOTHO_NAMES, *names]
        for index, name in enumerate(names):
            if index >= n - not_found[split]:
                world.clotho(split, name)
                continue
            ids = met.get(split, [])
            source_id = ids[index] if index < len(ids) else world.number(30_000, 600_000)
            start = world.random.randrange(0, 60 * _CLOTHO_HZ)
            end = start + world.random.randrange(15 * _CLOTHO_HZ, 30 * _CLOTHO_HZ)
            clip = world.clotho(split, name, source_id, start / _CLOTHO_HZ, end / _CLOTHO_HZ)
            world.share_recording("no times", clip)
    # As in the real files, where five sounds are in two splits; here one cut meets the other's.
    for kind, name, starts in (
        ("shifted", "twice {} near.wav", (3.0, 10.5)),
        ("apart", "twice {} far.wav", (0.0, 40.0)),
    ):
        source_id = world.number(30_000, 600_000)
        pair = [
            world.clotho(split, name.format(split[:3]), source_id, start, start + 20)
            for split, start in zip(("development", "evaluation"), starts, strict=True)
        ]
        world.share(kind, pair[1], pair[0])


def _laion(world: World) -> None:
    """LAION's collection has sounds of all the others; its own cleaned list still has a few."""
    for _ in range(150):
        world.freesound(world.number(30_000, 600_000))
    for dataset, split, n in (
        ("fsd50k", "eval", 3), ("clotho", "evaluation", 4), ("clotho", "development", 4),
        ("esc50", "fold1", 2), ("urbansound8k", "fold3", 2), ("wavcaps", "freesound", 10),
    ):  # fmt: skip
        there = {row.source_id for row in world.of("freesound")}
        ids = dict.fromkeys(row.source_id or "" for row in world.of(dataset, split)[8:])
        for source_id in [id_ for id_ in ids if id_ and id_ not in there][:n]:
            world.share_recording("no times", world.freesound(source_id))
