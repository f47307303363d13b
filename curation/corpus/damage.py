"""What must not be matched, and what must not be built: near misses and damaged rows."""

from curation.corpus.planted import Doubt
from curation.corpus.world import World
from curation.verdict import Reason


def plant_near_misses(world: World) -> None:
    test = world.vggsound("test", world.youtube_id(), 30)
    test_id = test.source_id or ""
    other = world.claim(test_id[:-1] + ("A" if test_id[-1] != "A" else "E"))
    world.near_miss("last character differs", test, world.audioset("unbalanced", other, 30))
    stranger = world.audioset("balanced", world.youtube_id(), 30)
    world.near_miss("same start of another recording", test, stranger)
    # `Y` is a prefix that WavCaps and AudioCaps write before every id, and the first letter of some.
    test = world.vggsound("test", world.youtube_id("Y"), 30)
    world.share("no times", test, world.wavcaps("audioset_sl", test.source_id or ""))
    other = world.claim((test.source_id or "")[1:] + "M")
    world.near_miss("Y belongs to the id", test, world.wavcaps("audioset_sl", other))
    number = world.number(1_000, 3_000)
    heldout, train = world.fsd50k("eval", number), world.wavcaps("soundbible", number)
    world.near_miss("one number, two sources", heldout, train)
    longer = world.claim(f"{number}7")
    world.near_miss("beginning of a number", heldout, world.wavcaps("freesound", longer))
    clotho = {row.clip_id: row for row in world.of("clotho")}
    world.near_miss(
        "one file name, two splits",
        clotho["evaluation/Rain on a roof.wav"],
        clotho["development/Rain on a roof.wav"],
    )
    # What a spreadsheet or a case-blind file system does to an id.
    test = next(r for r in world.of("audiocaps", "test")[30:] if (r.source_id or "")[3:6].isalpha())
    twin = (
        (test.source_id or "")[:3] + (test.source_id or "")[3:6].swapcase() + (test.source_id or "")[6:]
    )
    train = world.vggsound("train", twin, int(test.start_s or 0))
    world.near_miss("case of three letters differs", test, train)
    world.doubts.append(
        Doubt(
            dataset="vggsound",
            clip_id=train.clip_id,
            source_id=twin,
            reason=Reason.CASE_TWIN,
            kept=True,
            likely_id=test.source_id,
        )
    )


def plant_damaged_rows(world: World) -> None:
    """One of each kind of damage; `build` reports it as a row and goes on."""

    def doubt(dataset: str, clip_id: str | None, source_id: str | None, reason: Reason,
              likely_id: str | None = None, *, kept: bool = False) -> Doubt:  # fmt: skip
        return Doubt(dataset=dataset, clip_id=clip_id, source_id=source_id, reason=reason,
                     likely_id=likely_id, kept=kept)  # fmt: skip

    audioset = "audioset/{}_segments.csv"
    fresh = [world.youtube_id("x") for _ in range(8)]
    cut = next(row.source_id or "" for row in world.of("audiocaps", "train")[100:])
    twice = world.of("audioset", "balanced")[7]
    world.damage(audioset.format("unbalanced_train"), '#NAME?, 30.000, 40.000, "/m/09x0r"',
                 doubt("audioset", "#NAME?_30000", "#NAME?", Reason.BAD_ID))  # fmt: skip
    world.damage(audioset.format("unbalanced_train"), f'{cut[:8]}, 30.000, 40.000, "/m/09x0r"',
                 doubt("audioset", f"{cut[:8]}_30000", cut[:8], Reason.BAD_ID, cut))  # fmt: skip
    world.damage(audioset.format("eval"), f'{fresh[0]}, 10.000, 10.000, "/m/09x0r"',
                 doubt("audioset", f"{fresh[0]}_10000", fresh[0], Reason.EMPTY_INTERVAL))  # fmt: skip
    world.damage(audioset.format("balanced_train"), f'{fresh[1]}, -1.000, 9.000, "/m/09x0r"',
                 doubt("audioset", f"{fresh[1]}_-1000", fresh[1], Reason.BAD_TIME))  # fmt: skip
    world.damage(
        audioset.format("balanced_train"),
        f'{twice.source_id}, {twice.start_s:.3f}, {twice.end_s:.3f}, "/m/09x0r"',
        doubt("audioset", twice.clip_id, twice.source_id, Reason.DUPLICATE_CLIP),
    )
    vggsound = "vggsound/vggsound.csv"
    world.damage(vggsound, f"{fresh[2]},n/a,dog barking,train",
                 doubt("vggsound", f"{fresh[2]}_n/a", fresh[2], Reason.BAD_TIME))  # fmt: skip
    world.damage(vggsound, f"{fresh[3]},30,dog barking,valid",
                 doubt("vggsound", f"{fresh[3]}_000030", fresh[3], Reason.UNKNOWN_SPLIT))  # fmt: skip
    unlikely = world.vggsound("train", world.claim(fresh[4][:-1] + "b"), 30)
    world.doubts.append(
        doubt("vggsound", unlikely.clip_id, unlikely.source_id, Reason.UNLIKELY_ID, kept=True)
    )
    world.damage("audiocaps/dataset/train.csv", "1,,30,A dog barks",
                 doubt("audiocaps", None, None, Reason.MISSING_ID))  # fmt: skip
    world.damage("avsync15/asva_metadata.csv", "unknown_clip_7,dog_barking,train",
                 doubt("avsync15", "unknown_clip_7", "unknown_clip_7", Reason.BAD_ID))  # fmt: skip
    world.damage("wavcaps/json_files/SoundBible/sb_final.json", {"id": None},
                 doubt("wavcaps", None, None, Reason.MISSING_ID))  # fmt: skip
    world.damage("freesound/freesound_meta.csv", "?.flac,a caption,,nan,nobody,,",
                 doubt("freesound", "nan", "nan", Reason.BAD_ID))  # fmt: skip
    world.damage("fsd50k/soundata_index.json", ("0", "dev"),
                 doubt("fsd50k", "0", "0", Reason.BAD_ID))  # fmt: skip
