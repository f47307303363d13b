"""How the datasets of the miniature world overlap, in the proportions of the real ones."""

from collections import Counter

from curation.corpus.editions import plant_editions
from curation.corpus.sound_relations import plant_sounds
from curation.corpus.world import Row, World


def plant_relations(world: World) -> None:
    """Rows of all ten datasets; every two that share a recording are told to the world."""
    _background(world)
    _audiocaps_inside_audioset(world)
    _vggsound_and_audioset(world)
    _inside_vggsound(world)
    _avsync15_out_of_vggsound(world)
    _wavcaps_by_id(world)
    plant_sounds(world)
    plant_editions(world)
    _paper_reuploads(world)


def _background(world: World) -> None:
    """Clips that meet nothing. One in five recordings of VGGSound's train split has two clips."""
    for split, n in (("balanced", 260), ("unbalanced", 700), ("eval", 160)):
        for _ in range(n):
            length = 10 if world.random.random() < 0.97 else world.random.choice([3, 6, 9])
            start = 0 if length < 10 else world.start()
            world.audioset(split, world.youtube_id(), start, start + length)
    for _ in range(900):
        source_id, start = world.youtube_id(), world.start()
        world.vggsound("train", source_id, start)
        if world.random.random() < 0.2:
            world.vggsound("train", source_id, start + world.random.choice([4, 10, 40]))
    for _ in range(130):
        world.vggsound("test", world.youtube_id(), world.start())
    for _ in range(60):
        world.wavcaps("soundbible", world.number(900, 3_000))
    for _ in range(90):
        world.wavcaps("bbc", f"NHU{world.number(5_000_000, 6_000_000)}")


def _audiocaps_inside_audioset(world: World) -> None:
    """AudioCaps lies wholly in AudioSet's unbalanced part, and some of it in VGGSound's train split."""
    for split, n in (("train", 420), ("val", 40), ("test", 60)):
        for index in range(n):
            source_id, start = world.youtube_id(), world.start()
            clip = world.audiocaps(split, source_id, start)
            world.share("same start", clip, world.audioset("unbalanced", source_id, start))
            if index % 7 == 0:
                world.share("same start", clip, world.vggsound("train", source_id, start))
            elif split == "test" and index == 1:  # two clips of one recording: more pairs than items
                for later in (start + 40, start + 90):
                    world.share("apart", clip, world.vggsound("train", source_id, later))
            elif split == "train" and index in (1, 2, 3, 4, 5):
                kind, offset = (("same start", 0), ("shifted", 3), ("apart", 60))[index % 3]
                test = world.vggsound("test", source_id, start + offset)
                world.share(kind, test, clip)
                world.share(kind, test, _last(world, "audioset", source_id))


def _last(world: World, dataset: str, source_id: str) -> Row:
    return next(row for row in reversed(world.of(dataset)) if row.source_id == source_id)


# How AudioSet's segment lies to VGGSound's: kind, start relative to VGGSound's, how often in the
# balanced, unbalanced and eval part.
#   VGGSound        |----------|
#   shifted by 3       |----------|
#   ends touch                 |----------|        half open: no moment is shared
_AUDIOSET_SEGMENTS = (
    ("same start", 0, (0, 8, 80)),
    ("shifted", 3, (1, 2, 1)),
    ("shifted", -4, (1, 1, 2)),
    ("shifted by all but a millisecond", 9.999, (0, 1, 0)),
    ("shifted by all but a millisecond", -9.999, (1, 0, 0)),
    ("ends touch", 10, (0, 2, 0)),
    ("ends touch", -10, (0, 1, 1)),
    ("apart", 45, (2, 9, 2)),
)


def _vggsound_and_audioset(world: World) -> None:
    for kind, offset, counts in _AUDIOSET_SEGMENTS:
        for split, n in zip(("balanced", "unbalanced", "eval"), counts, strict=True):
            for _ in range(n):
                source_id, start = world.youtube_id(), world.start() + 20
                test = world.vggsound("test", source_id, start)
                world.share(kind, test, world.audioset(split, source_id, start + offset))
    for kind, offset, n in (("same start", 0, 4), ("shifted", 6, 3), ("apart", -20, 5)):
        for _ in range(n):  # VGGSound's train split in AudioSet's eval
            source_id, start = world.youtube_id(), world.start() + 20
            train = world.vggsound("train", source_id, start)
            world.share(kind, train, world.audioset("eval", source_id, start + offset))


def _inside_vggsound(world: World) -> None:
    """The official split is almost, not wholly, disjoint by recording."""
    for kind, offset in (("apart", 30), ("apart", -25), ("apart", 100), ("ends touch", 10)):
        source_id, start = world.youtube_id(), world.start() + 30
        test = world.vggsound("test", source_id, start)
        world.share(kind, test, world.vggsound("train", source_id, start + offset))


def _avsync15_out_of_vggsound(world: World) -> None:
    """Its clips are cut from those of VGGSound's train split; a few from the test split."""
    # Only those whose recording is in no other set, so that each plant is a pair.
    names = Counter(row.source_id for row in world.rows)
    lonely = [row for row in world.of("vggsound", "train") if names[row.source_id] == 1]
    for index, row in enumerate(lonely[:110]):
        split = "test" if index % 4 == 0 else "train"
        world.share("same start", world.avsync15(split, row.source_id or "", int(row.start_s or 0)), row)
    lonely = [row for row in world.of("vggsound", "test") if names[row.source_id] == 1]
    for index, row in enumerate(lonely[:7]):
        split, offset = ("test" if index < 2 else "train"), (50 if index == 6 else 0)
        cut = world.avsync15(split, row.source_id or "", int(row.start_s or 0) + offset)
        world.share("apart" if offset else "same start", row, cut)
    world.avsync15("test", world.youtube_id(), 30)


def _wavcaps_by_id(world: World) -> None:
    """The AudioSet part tells no times, so it meets every interval of its recordings."""
    audiocaps = [row for row in world.of("audiocaps", "test")][10:30]
    vggsound = [row for row in world.of("vggsound", "test")][-12:]
    apart = [row for row in vggsound if not any(
        other.source_id == row.source_id for other in world.of("audioset", "eval")
    )]  # fmt: skip
    for row in [*audiocaps, *apart[:6]]:
        part = world.wavcaps("audioset_sl", row.source_id or "")
        for other in world.rows[:]:
            if other.source_id == row.source_id and other is not part:
                world.share("no times", other, part)
    for row in world.of("audioset", "unbalanced")[:150]:
        world.wavcaps("audioset_sl", row.source_id or "")
    for row in world.of("audioset", "eval")[:3]:  # of the evaluation part, which no list excludes
        world.share("no times", row, world.wavcaps("audioset_sl", row.source_id or ""))


def _paper_reuploads(world: World) -> None:
    """Source: MMAudio (arXiv:2412.15322), supplement H; where they lie as in the real files."""
    test = world.vggsound("test", world.claim("FhaYvI1yrUM"), 21)
    world.share("same start", test, world.audioset("eval", "FhaYvI1yrUM", 21))
    world.claim("4PjEi5fFD6A")
    clips = [world.vggsound("train", "4PjEi5fFD6A", 21), world.audioset("unbalanced", "4PjEi5fFD6A", 21)]
    for train in clips:
        alike = ", labelled alike" if train.dataset == test.dataset else ""
        world.share(f"known re-upload{alike}", test, train)
        world.share("known re-upload", _last(world, "audioset", "FhaYvI1yrUM"), train)
