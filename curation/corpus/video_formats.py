"""AudioSet, VGGSound, AudioCaps and AVSync15 as their publishers write them, down to quotes and CRLF.

What a file looks like was read off the real one (`../shared/metadata`, its PROVENANCE.md names
sources and commits), except where the card says `unverified`: there off what is published about it.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from curation.corpus.lines import (
    CRLF,
    LF,
    by_id,
    csv_text,
    json_text,
    sentence,
    shuffled,
    whole_seconds,
    with_damage,
)
from curation.corpus.world import Row, World

# Source: class_labels_indices.csv of AudioSet, its first rows of each kind.
_ONTOLOGY = (
    ("/m/09x0r", "Speech"),
    ("/m/05zppz", "Male speech, man speaking"),
    ("/m/0ytgt", "Child speech, kid speaking"),
    ("/m/0bt9lr", "Dog"),
    ("/m/03k3r", "Horse"),
    ("/m/0jbk", "Animal"),
    ("/m/04rlf", "Music"),
    ("/m/06mb1", "Rain"),
    ("/m/03m9d0z", "Wind"),
    ("/m/0k4j", "Car"),
    ("/m/012f08", "Motor vehicle (road)"),
    ("/m/07yv9", "Vehicle"),
)
# five, as the paper's pair has, and four of its own
_PAPER_LABELS = ("Animal", "Horse", "Music", "Speech", "Wind")
_VGGSOUND_LABELS = (
    "dog barking", "horse neighing", "waterfall burbling", "playing violin, fiddle", "car passing by",
    "child speech, kid speaking", "people marching", "thunder", "striking bowling", "typing on keyboard",
)  # fmt: skip
_AVSYNC15_LABELS = (
    "baby_babbling_crying",
    "dog_barking",
    "hammering",
    "lions_roaring",
    "striking_bowling",
)


def _audioset(world: World) -> dict[str, str]:
    """`id, start, end, "mid,mid"` under three comment lines; separated by comma and blank."""
    files = {
        "audioset/class_labels_indices.csv": "index,mid,display_name\n"
        + "".join(f'{i},{mid},"{name}"\n' for i, (mid, name) in enumerate(_ONTOLOGY))
    }
    for split, name in (
        ("balanced", "balanced_train"),
        ("unbalanced", "unbalanced_train"),
        ("eval", "eval"),
    ):
        path = f"audioset/{name}_segments.csv"
        lines, positive = [], 0
        for row in by_id(world.of("audioset", split)):
            mids = world.random.sample([mid for mid, _ in _ONTOLOGY], k=world.random.randint(1, 4))
            if row.source_id in ("FhaYvI1yrUM", "4PjEi5fFD6A"):  # labelled alike, as the real ones are
                mids = [mid for mid, name in _ONTOLOGY if name in _PAPER_LABELS]
            positive += len(mids)
            lines.append(
                f'{row.source_id}, {row.start_s:.3f}, {row.end_s:.3f}, "{",".join(sorted(mids))}"'
            )
        n = len(lines) + len(world.damaged.get(path, []))
        head = (
            "# Segments csv created Sun Mar  5 10:54:31 2017\n"
            f"# num_ytids={n}, num_segs={n}, num_unique_labels={len(_ONTOLOGY)}, "
            f"num_positive_labels={positive}\n"
            "# YTID, start_seconds, end_seconds, positive_labels\n"
        )
        files[path] = head + with_damage(world, path, LF.join(lines) + LF, LF)
    for part in ("train", "eval"):
        rows = [
            (row.clip_id, *event)
            for row in by_id(world.lists[f"audioset@strong-{part}"])
            for event in _events(world)
        ]
        header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
        files[f"audioset/audioset_{part}_strong.tsv"] = csv_text(
            rows, header=header, end=LF, delimiter="\t"
        )
    return files


def _events(world: World) -> list[tuple[str, str, str]]:
    """Start and end in the segment, and the class, of one to four sound events."""
    events = []
    for _ in range(world.random.randint(1, 4)):
        start, end = sorted(world.random.sample(range(10_000), k=2))
        events.append((f"{start / 1000:.3f}", f"{end / 1000:.3f}", world.random.choice(_ONTOLOGY)[0]))
    return events


def _vggsound(world: World) -> dict[str, str]:
    """No header and CRLF; the lists that others cut from it, each in its own manner."""
    path = "vggsound/vggsound.csv"
    labels = {row.clip_id: world.random.choice(_VGGSOUND_LABELS) for row in world.of("vggsound")}
    lines = {
        row.clip_id: (row.source_id, whole_seconds(row.start_s), labels[row.clip_id], row.split)
        for row in by_id(world.of("vggsound"))
    }
    text = csv_text(line for line in lines.values() if "_" not in line[-1])
    files = {path: with_damage(world, path, text, CRLF)}
    files["vggsound/github/vggsound.csv"] = csv_text(
        (*lines[row.clip_id][:-1], part)
        for part in ("train", "test")
        for row in by_id(world.lists[f"vggsound@199467-{part}"])
    )
    files["vggsound/github/test.csv"] = csv_text(
        (f"{row.clip_id}.mp4", labels[row.clip_id])
        for row in shuffled(world, world.lists["vggsound@github-test"])
    )
    for name, file in (("mmaudio", "test"), ("mmaudio-val", "val"), ("mmaudio-train", "train")):
        full = f"vggsound@{name}"
        names = [row.clip_id for row in by_id(world.lists[full])] + world.strangers.get(full, [])
        files[f"vggsound/lists/mmaudio_vgg-{file}.tsv"] = csv_text(
            ((clip_id, labels.get(clip_id, "thunder")) for clip_id in names),
            header="id\tlabel", end=LF, delimiter="\t",
        )  # fmt: skip
    flags, modalities = ("False", "True"), ("AV", "A", "V")
    files["vggsound/lists/vggsounder.csv"] = csv_text(
        (
            (row.clip_id, label, world.random.choice(modalities), *world.random.choices(flags, k=3))
            for row in by_id(world.lists["vggsound@vggsounder"])
            for label in sorted({labels[row.clip_id], world.random.choice(_VGGSOUND_LABELS)})
        ),
        header="video_id,label,modality,background_music,static_image,voice_over", end=LF,
    )  # fmt: skip
    files["vggsound/lists/vggss.json"] = json.dumps(
        [
            {
                "file": row.clip_id,
                "class": labels[row.clip_id],
                "bbox": [[0.403125, 0.253125, 0.6, 0.75]],
            }
            for row in shuffled(world, world.lists["vggsound@vggss"])
        ]
    )
    files["vggsound/lists/vggsound_sparse_clean.csv"] = csv_text(
        (
            ("vggsound_sparse", row.source_id, whole_seconds(row.start_s), 0, 1, 1)
            for row in by_id(world.lists["vggsound@sparse-clean"])
        ),
        header="dataset_name,video_id,start_sec,vid_is_missing,is_sync,is_sync_by_cls_obj",
    )
    files["vggsound/lists/synchformer_filtered_in_0_dists_group.txt"] = "".join(
        f"{row.source_id}_{whole_seconds(row.start_s)}000_{whole_seconds(row.end_s)}000\n"
        for row in by_id(world.lists["synchformer_zero_distance"])
    )
    return files


def _audiocaps(world: World) -> dict[str, str]:
    """One row a caption: train has one each, val and test have five; version 2 writes them anew."""
    header = "audiocap_id,youtube_id,start_time,caption"
    files = {}
    numbers = iter(world.random.sample(range(1, 110_000), k=5_000))
    for split, n in (("train", 1), ("val", 5), ("test", 5)):
        path = f"audiocaps/dataset/{split}.csv"
        rows = _caption_rows(world, world.of("audiocaps", split), n, numbers)
        files[path] = with_damage(world, path, csv_text(rows, header=header), CRLF)
        if split == "train":
            files["audiocaps/lists/mmaudio_audiocaps.tsv"] = _mmaudio_captions(world, rows)
    rows = _caption_rows(world, world.lists["audiocaps@v2-train"], 1, numbers)
    files["audiocaps/dataset2.0/train.csv"] = _with_broken_lines(csv_text(rows, header=header, end=LF))
    for split, name in (("test", "v2"), ("val", "v2-val")):
        rows = _caption_rows(world, world.lists[f"audiocaps@{name}"], 5, numbers)
        lower = [(*row[:3], str(row[3]).lower()) for row in rows]
        files[f"audiocaps/dataset2.0/{split}.csv"] = csv_text(lower, header=header, end=LF)
    files["audiocaps/aac-datasets/train_v2.csv"] = csv_text(
        _caption_rows(world, world.lists["audiocaps@aac-train-v2"], 1, numbers), header=header
    )
    files["audiocaps/lists/wavcaps_test_957.csv"] = csv_text(
        ((f"Y{row.source_id}.wav", *(sentence(world) for _ in range(5)))
         for row in shuffled(world, world.lists["audiocaps@wavcaps"])),
        header="file_name,caption_1,caption_2,caption_3,caption_4,caption_5", end=LF,
    )  # fmt: skip
    folder = "/mnt/fast/datasets/audio/audioset/2million_audioset_wav/unbalanced_train_segments_part"
    files["audiocaps/lists/audioldm_eval_test_964.json"] = json_text(
        {
            "data": [
                {
                    "wav": f"{folder}{world.random.randrange(41)}/Y{row.source_id}.wav",
                    "seg_label": f"/mnt/fast/averaged/Y{row.source_id}.npy",
                    "labels": "/m/09x0r,/m/0k4j",
                    "caption": sentence(world),
                }
                for row in shuffled(world, world.lists["audiocaps@audioldm"])
            ]
        }
    )
    return files


def _mmaudio_captions(world: World, rows: list[tuple[Any, ...]]) -> str:
    """By audiocap_id, which only the published captions bring to a clip."""
    clips = {(row.source_id, row.start_s) for row in world.lists["audiocaps@mmaudio-train"]}
    chosen = ((number, text) for number, id_, start, text in rows if (id_, start) in clips)
    return csv_text(chosen, header="id\tcaption", end=LF, delimiter="\t")


def _with_broken_lines(text: str) -> str:
    """Three captions go on in a line of their own, as in copies from before October 2025."""
    lines = text.split(LF)
    for number in (3, 40, 200):
        lines[number] = LF.join(lines[number].rsplit(" ", 1))
    return LF.join(lines)


def _caption_rows(
    world: World, rows: Iterable[Row], per_clip: int, numbers: Iterator[int]
) -> list[tuple[Any, ...]]:
    """Captions with a number each; those of a clip stand apart from one another."""
    return [
        (next(numbers), row.source_id, whole_seconds(row.start_s), sentence(world))
        for row in shuffled(world, [row for row in rows for _ in range(per_clip)])
    ]


def _avsync15(world: World) -> dict[str, str]:
    path = "avsync15/asva_metadata.csv"
    label = world.random.choice
    rows = [(row.clip_id, label(_AVSYNC15_LABELS), row.split) for row in world.of("avsync15")]
    text = csv_text(sorted(rows, key=lambda row: (row[1], row[2])), header="vid,label,split")
    return {path: with_damage(world, path, text, CRLF)}


VIDEO_FORMATS = (_audioset, _vggsound, _audiocaps, _avsync15)
