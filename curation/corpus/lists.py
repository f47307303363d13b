"""The lists that others cut from the datasets, and those of what should not be trained on."""

from curation.corpus.planted import Doubt
from curation.corpus.world import Row, World
from curation.verdict import Reason


def write_named_lists(world: World) -> None:
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


def write_exclusion_lists(world: World) -> None:
    """Exclusion lists cover most of what they are about, and never all of it."""

    def recordings(*rows: Row) -> list[tuple[str, str]]:
        return list(dict.fromkeys((row.source, row.source_id or "") for row in rows))

    # Clotho's own Freesound ids: the captions files do not tell them, the lists do.
    clotho = [("freesound", world.number(30_000, 600_000)) for _ in range(30)]
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
