"""AudioSet, VGGSound, AudioCaps and AVSync15 as their publishers write them, down to quotes and CRLF.

What each file looks like was read off the real one (`../shared/metadata`, its PROVENANCE.md names
sources and commits).
"""

import json
from collections.abc import Iterable
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
    return files


def _vggsound(world: World) -> dict[str, str]:
    """No header and CRLF; the lists that others cut from it, each in its own manner."""
    path = "vggsound/vggsound.csv"
    labels = {row.clip_id: world.random.choice(_VGGSOUND_LABELS) for row in world.of("vggsound")}
    text = csv_text(
        (row.source_id, whole_seconds(row.start_s), labels[row.clip_id], row.split)
        for row in by_id(world.of("vggsound"))
    )
    files = {path: with_damage(world, path, text, CRLF)}
    files["vggsound/github/test.csv"] = csv_text(
        (f"{row.clip_id}.mp4", labels[row.clip_id])
        for row in shuffled(world, world.lists["vggsound@github-test"])
    )
    for name, file in (("mmaudio", "test"), ("mmaudio-val", "val")):
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
    for split, n in (("train", 1), ("val", 5), ("test", 5)):
        path = f"audiocaps/dataset/{split}.csv"
        rows = _caption_rows(world, world.of("audiocaps", split), n)
        files[path] = with_damage(world, path, csv_text(rows, header=header), CRLF)
    for split, name in (("test", "v2"), ("val", "v2-val")):
        rows = _caption_rows(world, world.lists[f"audiocaps@{name}"], 5)
        lower = [(*row[:3], str(row[3]).lower()) for row in rows]
        files[f"audiocaps/dataset2.0/{split}.csv"] = csv_text(lower, header=header, end=LF)
    files["audiocaps/aac-datasets/train_v2.csv"] = csv_text(
        _caption_rows(world, world.lists["audiocaps@aac-train-v2"], 1), header=header
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


def _caption_rows(world: World, rows: Iterable[Row], per_clip: int) -> list[tuple[Any, ...]]:
    """The captions of a clip stand apart from one another, as in the real files."""
    return [
        (world.random.randrange(1, 110_000), row.source_id, whole_seconds(row.start_s), sentence(world))
        for row in shuffled(world, [row for row in rows for _ in range(per_clip)])
    ]


def _avsync15(world: World) -> dict[str, str]:
    path = "avsync15/asva_metadata.csv"
    label = world.random.choice
    rows = [(row.clip_id, label(_AVSYNC15_LABELS), row.split) for row in world.of("avsync15")]
    text = csv_text(sorted(rows, key=lambda row: (row[1], row[2])), header="vid,label,split")
    return {path: with_damage(world, path, text, CRLF)}


VIDEO_FORMATS = (_audioset, _vggsound, _audiocaps, _avsync15)
