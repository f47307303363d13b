"""Clotho, FSD50K, ESC-50, UrbanSound8K and WavCaps as their publishers write them.

What each file looks like was read off the real one (`../shared/metadata`, its PROVENANCE.md names
sources and commits); the three JSON parts of WavCaps that nobody here has seen follow SoundBible's.
"""

import hashlib
import json
from typing import Any

from curation.corpus.lines import LF, csv_text, json_text, sentence, shuffled
from curation.corpus.world import Row, World

_ESC50_LABELS = ("dog", "rain", "sea_waves", "crying_baby", "clock_tick")


def _clotho(world: World) -> dict[str, str]:
    """Five captions a sound under its file name; the test sounds are in the index alone."""
    files = {}
    for split in ("development", "validation", "evaluation"):
        files[f"clotho/clotho_captions_{split}.csv"] = csv_text(
            (
                (row.clip_id.partition("/")[2], *(sentence(world) + "." for _ in range(5)))
                for row in world.of("clotho", split)
            ),
            header="file_name,caption_1,caption_2,caption_3,caption_4,caption_5",
            end=LF,
        )
    paths = {row.clip_id.removesuffix(".wav"): row.clip_id for row in world.of("clotho")}
    files["clotho/soundata_index_v2.1.json"] = _soundata(paths)
    return files


def _soundata(paths: dict[str, str]) -> str:
    """soundata's index: for each clip its path and md5."""
    clips = {
        key: {"audio": [path, hashlib.md5(path.encode(), usedforsecurity=False).hexdigest()]}
        for key, path in paths.items()
    }
    return json.dumps({"version": "1.0", "clips": clips}, indent=2)


def _fsd50k(world: World) -> dict[str, str]:
    path = "fsd50k/soundata_index.json"
    clips = [(row.clip_id, row.split) for row in shuffled(world, world.of("fsd50k"))]
    clips += world.damaged.get(path, [])
    return {path: _soundata({key: f"FSD50K.{split}_audio/{key}.wav" for key, split in clips})}


def _esc50(world: World) -> dict[str, str]:
    rows = []
    for row in sorted(world.of("esc50"), key=lambda row: row.clip_id):
        fold, source_id, take, target = row.clip_id.removesuffix(".wav").split("-")
        label = _ESC50_LABELS[int(target) % len(_ESC50_LABELS)]
        rows.append((row.clip_id, fold, target, label, "FALSE", source_id, take))
    return {
        "esc50/esc50.csv": csv_text(rows, header="filename,fold,target,category,esc10,src_file,take")
    }


def _urbansound8k(world: World) -> dict[str, str]:
    """Starts have up to six decimals and as few as they need."""
    rows = []
    for row in sorted(world.of("urbansound8k"), key=lambda row: row.clip_id):
        start, end = (f"{time_s:.6f}".rstrip("0").rstrip(".") for time_s in (row.start_s, row.end_s))
        class_id = row.clip_id.split("-")[1]
        salience, fold = world.random.randint(1, 2), row.split.removeprefix("fold")
        rows.append((row.clip_id, row.source_id, start, end, salience, fold, class_id, "class"))
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class_name"
    return {"urbansound8k/UrbanSound8K.csv": csv_text(rows, header=header)}


def _wavcaps(world: World) -> dict[str, str]:
    """Four JSON objects with the clips in `data`, and the exclusion lists of two projects."""
    files = {}
    for part, folder, name in (
        ("soundbible", "SoundBible", "sb_final"),
        ("audioset_sl", "AudioSet_SL", "as_final"),
        ("bbc", "BBC_Sound_Effects", "bbc_final"),
        ("freesound", "FreeSound", "fsd_final"),
    ):
        path = f"wavcaps/json_files/{folder}/{name}.json"
        items = [_wavcaps_item(world, row) for row in world.of("wavcaps", part)]
        items += [{**items[0], **change} for change in world.damaged.get(path, [])]
        files[path] = json.dumps({"num_captions_per_audio": 1, "data": items})
    for list_name, file in (
        ("exclude_test_ac", "blacklist_exclude_test_ac"),
        ("exclude_all_ac", "blacklist_exclude_all_ac"),
        ("exclude_zero_shot", "blacklist_exclude_ub8k_esc50_vggsound"),
    ):
        entries = world.excluded[list_name]
        sounds = [source_id for source, source_id in entries if source == "freesound"]
        files[f"wavcaps/json_files/blacklist/{file}.json"] = json_text(
            {
                "AudioSet": [f"Y{i}.wav" for source, i in entries if source == "youtube"],
                "FreeSound": [*sounds[:2], "Not found", *sounds[2:]],
            }
        )
    for list_name, file in (
        ("aac_audiocaps", "blacklist_audiocaps.full"),
        ("aac_clotho", "blacklist_clotho.full"),
        ("aac_clotho_v2", "blacklist_clotho.full.v2"),
    ):
        ids = [f"Y{i}.wav" if source == "youtube" else i for source, i in world.excluded[list_name]]
        ids.insert(3, "Not found" if "clotho" in list_name else ids[0])
        files[f"wavcaps/aac-datasets/{file}.csv"] = csv_text(enumerate(ids), header="index,id")
    return files


def _wavcaps_item(world: World, row: Row) -> dict[str, Any]:
    caption, duration = sentence(world) + ".", world.random.randrange(1000, 300_000) / 1000
    if row.split == "audioset_sl":
        return {"id": f"Y{row.source_id}.wav", "caption": caption, "audio": "wav_path", "duration": 10.0}
    item = {
        "title": caption.removesuffix("."),
        "description": caption,
        "author": "nobody",
        "href": f"{row.source_id}.htm",
        "caption": caption,
        "id": row.source_id,
        "duration": duration,
        "audio": "wav_path",
        "download_link": f"https://example.org/{row.source_id}.wav",
    }
    if row.split == "bbc":
        del item["author"]
    return item


SOUND_FORMATS = (_clotho, _fsd50k, _esc50, _urbansound8k, _wavcaps)
