"""The lists that others cut from the datasets, and those of what should not be trained on."""

from curation.corpus.planted import Doubt
from curation.corpus.world import Row, World
from curation.verdict import Reason


def write_named_lists(world: World) -> None:
    _test_lists(world)
    _edition_lists(world)
    _training_lists(world)


def _test_lists(world: World) -> None:
    train, test = world.of("vggsound", "train"), world.of("vggsound", "test")
    pair = [row for row in test + train if row.source_id in ("FhaYvI1yrUM", "4PjEi5fFD6A")]
    world.lists |= {
        "vggsound@github-test": test,
        "vggsound@mmaudio": [row for index, row in enumerate(test) if index % 20],
        "vggsound@mmaudio-val": train[5::40],
        "vggsound@vggsounder": test[::3] + test[1::3],
        "vggsound@vggss": test[::3],
        "vggsound@sparse-clean": test[::10],
        # 408 clips at zero distance of another, the paper's pair among them
        "synchformer_zero_distance": [*test[3:6], *train[50:60], *pair],
        "audiocaps@v2": world.of("audiocaps", "test"),
        "audiocaps@v2-val": world.of("audiocaps", "val"),
        "audiocaps@audioldm": world.of("audiocaps", "test")[:-2],
        "audiocaps@wavcaps": world.of("audiocaps", "test")[:-4],
        "audiocaps@aac-train-v2": world.of("audiocaps", "train")[6:],
    }  # fmt: skip
    absent = world.youtube_id()
    world.strangers["vggsound@mmaudio"] = [f"{absent}_000030"]
    world.doubts.append(
        Doubt(dataset="vggsound", clip_id=None, source_id=absent, reason=Reason.UNRESOLVED_ENTRY)
    )


def _edition_lists(world: World) -> None:
    """Parts and other editions of datasets."""
    segments = world.of("audioset", "balanced", "unbalanced")
    strong = [row for i, row in enumerate(segments) if i % 8 == 0 or (row.start_s or 0) % 1]
    dev, sounds = world.of("fsd50k", "dev"), world.of("freesound")
    elsewhere = {row.source_id for row in world.of("esc50") + world.of("urbansound8k")}
    elsewhere |= {row.source_id for row in world.of("fsd50k") + world.of("clotho")}
    met = [row for row in sounds if row.source_id in elsewhere]
    world.lists |= {
        "audioset@strong-train": strong,
        "audioset@strong-eval": world.of("audioset", "eval")[::2],
        "audiocaps@v2-train": world.of("audiocaps", "train")[10:] + world.of("audiocaps", "train_v2"),
        "vggsound@199467-train": world.of("vggsound", "train", "train_199467"),
        "vggsound@199467-test": world.of("vggsound", "test", "test_199467"),
        "fsd50k@dev-train": [row for i, row in enumerate(dev) if i % 10],
        "fsd50k@dev-val": dev[::10],
        # cleaned, and yet the first and the fourth are there
        "freesound@no-overlap": [row for row in sounds if row not in met] + [met[0], met[3]],
    }


def _training_lists(world: World) -> None:
    """MMAudio's: without the ids of the test sets, but for one clip each that slipped through."""
    tests = {row.source_id for row in world.of("vggsound", "test") + world.of("audiocaps", "test")}
    held_back = world.lists["vggsound@mmaudio-val"]
    videos = [row for row in world.of("vggsound", "train") if row not in held_back]
    captioned, parts = world.of("audiocaps", "train"), world.of("wavcaps", "audioset_sl")
    of_clotho = {row.source_id for row in world.of("clotho", "development")} - {None}
    world.lists |= {
        "vggsound@mmaudio-train": _but_for_one(videos, tests),
        "audiocaps@mmaudio-train": _but_for_one(captioned, tests),
        "wavcaps@mmaudio-audioset-sl": _but_for_one(parts, tests),
        "wavcaps@mmaudio-bbc": world.of("wavcaps", "bbc")[5:],
        "wavcaps@mmaudio-freesound": world.of("wavcaps", "freesound")[::2],
        # by the id of the sound: two are in the evaluation split, too
        "clotho@mmaudio-train": [row for row in world.of("clotho") if row.source_id in of_clotho],
    }


def _but_for_one(rows: list[Row], ids: set[str | None]) -> list[Row]:
    """The rows with none of these ids, and the first that has one."""
    kept = next(row for row in rows if row.source_id in ids)
    return [row for row in rows if row is kept or row.source_id not in ids]


def write_exclusion_lists(world: World) -> None:
    """Exclusion lists cover most of what they are about, and never all of it."""

    def recordings(*rows: Row) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.source, row.source_id or "") for row in rows))

    # Clotho's Freesound ids, and some that its own metadata do not tell.
    clotho = recordings(*(row for row in world.of("clotho") if row.source_id))
    clotho += recordings(*world.of("wavcaps", "freesound")[20:32], *world.of("fsd50k", "dev")[5:8])
    captions = world.of("audiocaps", "test")
    sounds = [*world.of("esc50")[4:], *world.of("urbansound8k")[4:]]
    world.excluded = {
        "exclude_test_ac": recordings(*world.of("audiocaps", "val"), *captions[3:]) + clotho[:-4],
        "exclude_all_ac": recordings(*world.of("audiocaps")[9:]) + clotho[:-2],
        "exclude_zero_shot": recordings(*world.of("vggsound", "test")[4::2], *sounds),
        "aac_audiocaps": recordings(*world.of("audiocaps")),
        "aac_clotho": clotho[:-1],
        "aac_clotho_v2": clotho,
    }
    world.heldout_of = {
        "exclude_test_ac": ("audiocaps", "clotho"),
        "exclude_all_ac": ("audiocaps", "clotho"),
        "exclude_zero_shot": ("urbansound8k", "esc50", "vggsound"),
        "aac_audiocaps": ("audiocaps",),
        "aac_clotho": ("clotho",),
        "aac_clotho_v2": ("clotho",),
    }
