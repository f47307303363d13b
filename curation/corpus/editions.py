"""What only a later or longer edition of a dataset has: rows that its name does not mean."""

from collections import Counter

from curation.corpus.world import World


def plant_editions(world: World) -> None:
    """AudioCaps 2.0 and the longer VGGSound list on GitHub; some of their rows are test recordings."""
    names = Counter(row.source_id for row in world.rows)
    lonely = [row for row in world.of("vggsound", "test") if names[row.source_id] == 1][-4:]
    test, *others = lonely
    _audiocaps_2(world)
    for heldout in others:
        clip = world.audiocaps("train_v2", heldout.source_id or "", int(heldout.start_s or 0))
        world.share("same start", heldout, clip)
    for _ in range(6):
        world.vggsound("train_199467", world.youtube_id(), world.start())
    start = int(test.start_s or 0) + 50
    world.share("apart", test, world.vggsound("train_199467", test.source_id or "", start))
    for _ in range(3):
        world.vggsound("test_199467", world.youtube_id(), world.start())
    source_id, start = world.youtube_id(), world.start()
    clip = world.vggsound("test_199467", source_id, start)
    world.share("same start", world.audioset("eval", source_id, start), clip)


def _audiocaps_2(world: World) -> None:
    for _ in range(15):
        source_id, start = world.youtube_id(), world.start()
        world.audiocaps("train_v2", source_id, start)
        world.audioset("unbalanced", source_id, start)
    test = world.of("audiocaps", "test")[40]  # another stretch of a test recording
    clip = world.audiocaps("train_v2", test.source_id or "", int(test.start_s or 0) + 60)
    world.share("apart", test, clip)
