"""Clotho, FSD50K, Freesound, ESC-50, UrbanSound8K and WavCaps as their publishers write them.

What a file looks like was read off the real one (`../shared/metadata`, its PROVENANCE.md names
sources and commits), except where the card says `unverified`: there off what is published about it.
"""

import hashlib
import json
from typing import Any

from curation.corpus.lines import LF, csv_text, json_text, sentence, shuffled, with_damage
from curation.corpus.world import Row, World

# One in Latin-1, which is how Clotho's metadata are encoded.
_UPLOADERS = ("benboncan", "José Luis", "Müller, field", "klankbeeld")
_LICENCES = (
    "http://creativecommons.org/publicdomain/zero/1.0/",
    "http://creativecommons.org/licenses/by/3.0/",
    "http://creativecommons.org/licenses/by-nc/3.0/",
)
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
    for split in ("development", "validation", "evaluation", "test"):
        files[f"clotho/clotho_metadata_{split}.csv"] = _clotho_metadata(world, split)
    ids = dict.fromkeys(row.source_id or "" for row in world.lists["clotho@mmaudio-train"])
    files["clotho/lists/mmaudio_clotho.tsv"] = _mmaudio(world, list(ids))
    return files


def _clotho_metadata(world: World, split: str) -> str:
    """The sound of each clip and its cut in samples; the test part has `;` and no keywords."""
    test, rows = split == "test", []
    for row in shuffled(world, world.of("clotho", split)):
        uploader, licence = world.random.choice(_UPLOADERS), world.random.choice(_LICENCES)
        if row.source_id is None:
            about = ["Not found", "NA", ""]
        else:
            cut = [round((time_s or 0) * 44_100) for time_s in (row.start_s, row.end_s)]
            link = f"https://freesound.org/people/{uploader.split()[0]}/sounds/{row.source_id}"
            about = [row.source_id, link, str(cut)]
        keywords = [] if test else ["rain;roof;night"]
        rows.append([row.clip_id.partition("/")[2], *keywords, *about, uploader, licence])
    names = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer",
             "license"]  # fmt: skip
    delimiter = ";" if test else ","
    header = delimiter.join(name for name in names if not test or name != "keywords")
    return csv_text(rows, header=header, end=LF, delimiter=delimiter)


def _mmaudio(world: World, ids: list[str]) -> str:
    """A training list of MMAudio's: id and caption, some ids with the number of a part behind them."""
    rows = [(f"{id_}_{i % 3}" if i % 20 == 7 else id_, sentence(world)) for i, id_ in enumerate(ids)]
    return csv_text(rows, header="id\tcaption", end=LF, delimiter="\t")


def _soundata(paths: dict[str, str]) -> str:
    """soundata's index: for each clip its path and md5."""
    clips = {
        key: {"audio": [path, hashlib.md5(path.encode(), usedforsecurity=False).hexdigest()]}
        for key, path in paths.items()
    }
    return json.dumps({"version": "1.0", "clips": clips}, indent=2)


def _fsd50k(world: World) -> dict[str, str]:
    """The index, the ground truth and what Freesound says of each clip, an object with ids for keys."""
    path = "fsd50k/soundata_index.json"
    clips = [(row.clip_id, row.split) for row in shuffled(world, world.of("fsd50k"))]
    clips += world.damaged.get(path, [])
    files = {path: _soundata({key: f"FSD50K.{split}_audio/{key}.wav" for key, split in clips})}
    held_back = world.lists["fsd50k@dev-val"]
    for split in ("dev", "eval"):
        rows, about = [], {}
        for row in shuffled(world, world.of("fsd50k", split)):
            part = ["val" if row in held_back else "train"] if split == "dev" else []
            rows.append([row.clip_id, "Bark,Dog,Animal", "/m/05tny_,/m/0bt9lr,/m/0jbk", *part])
            about[row.clip_id] = {
                "title": f"{row.clip_id}.wav",
                "description": sentence(world),
                "tags": ["dog", "bark"],
                "license": world.random.choice(_LICENCES),
                "uploader": world.random.choice(_UPLOADERS),
            }
        header = "fname,labels,mids" + (",split" if split == "dev" else "")
        files[f"fsd50k/FSD50K.ground_truth/{split}.csv"] = csv_text(rows, header=header, end=LF)
        files[f"fsd50k/FSD50K.metadata/{split}_clips_info_FSD50K.json"] = json.dumps(about)
    return files


def _freesound(world: World) -> dict[str, str]:
    """One or two captions a sound, the first out of its title; quotes where a caption has a comma."""
    header = "audio_filename,caption1,caption2,freesound_id,username,freesound_url,license"
    lines = {
        row.clip_id: (
            f"{row.source_id}.flac",
            f"{sentence(world)}, take {i}",
            sentence(world) if i % 3 else "",
            row.source_id,
            world.random.choice(_UPLOADERS),
            f"https://freesound.org/people/somebody/sounds/{row.source_id}/",
            world.random.choice(_LICENCES),
        )
        for i, row in enumerate(world.of("freesound"))
    }
    path = "freesound/freesound_meta.csv"
    text = csv_text(lines.values(), header=header, end=LF)
    cleaned = (lines[row.clip_id] for row in world.lists["freesound@no-overlap"])
    return {
        path: with_damage(world, path, text, LF),
        "freesound/freesound_no_overlap_meta.csv": csv_text(cleaned, header=header, end=LF),
    }


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


_WAVCAPS_KEYS = {
    "soundbible": (
        "title", "description", "author", "href", "caption", "id", "duration", "audio", "download_link",
    ),
    "audioset_sl": ("id", "caption", "audio", "duration"),
    "bbc": ("description", "category", "caption", "id", "duration", "audio", "download_link"),
    "freesound": (
        "id", "file_name", "href", "tags", "description", "author", "duration", "download_link",
        "caption", "audio",
    ),
}  # fmt: skip


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
    for part, file in (
        ("audioset-sl", "audioset_sl"),
        ("bbc", "bbcsound"),
        ("freesound", "freesound"),
    ):
        ids = [row.source_id or "" for row in world.lists[f"wavcaps@mmaudio-{part}"]]
        files[f"wavcaps/lists/mmaudio_{file}.tsv"] = _mmaudio(world, ids)
    return files


def _wavcaps_item(world: World, row: Row) -> dict[str, Any]:
    """An item with the keys of its part, in their order."""
    caption, duration = sentence(world) + ".", world.random.randrange(1000, 300_000) / 1000
    item: dict[str, Any] = {
        "description": caption,
        "caption": caption,
        "id": row.source_id,
        "duration": duration,
        "audio": "wav_path",
        "author": "nobody",
        "download_link": f"https://example.org/{row.source_id}.wav",
    }
    if row.split == "audioset_sl":
        item |= {"id": f"Y{row.source_id}.wav", "duration": 10.0}
    elif row.split == "soundbible":
        item |= {"title": caption.removesuffix("."), "href": f"{row.source_id}.htm"}
    elif row.split == "bbc":
        item["category"] = "['Nature', \"Children's games\"]"
    else:
        item |= {"file_name": f"{row.source_id}.wav", "href": f"/people/nobody/sounds/{row.source_id}/",
                 "tags": ["field-recording", "rain"]}  # fmt: skip
    return {key: item[key] for key in _WAVCAPS_KEYS[row.split]}


SOUND_FORMATS = (_clotho, _fsd50k, _freesound, _esc50, _urbansound8k, _wavcaps)
