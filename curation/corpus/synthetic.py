"""The small offline corpus: every dataset in miniature, in its published format, overlaps planted.

Tests, README and demo live on it. Nothing in it is real except the paper's pair of re-uploads and
the shape of the files; the same bytes come out everywhere.
"""

import gzip
from pathlib import Path

from curation.corpus.damage import plant_damaged_rows, plant_near_misses
from curation.corpus.lists import write_exclusion_lists, write_named_lists
from curation.corpus.media import planted_media, write_films
from curation.corpus.planted import Planted
from curation.corpus.relations import plant_relations
from curation.corpus.sound_formats import SOUND_FORMATS
from curation.corpus.video_formats import VIDEO_FORMATS
from curation.corpus.world import World
from curation.files import replacing

# Files that people have packed, as those of ../shared/metadata are.
_PACKED = (
    "audioset/unbalanced_train_segments.csv",
    "audiocaps/dataset/train.csv",
    "vggsound/lists/vggss.json",
    "wavcaps/json_files/FreeSound/fsd_final.json",
    "fsd50k/soundata_index.json",
    "freesound/freesound_meta.csv",
)
_LATIN_1 = "clotho/clotho_metadata_"


def write_corpus(folder: Path) -> Planted:
    """Write `<folder>/<dataset>/<path in the card>` for all cards; the truth about it."""
    world = _world()
    files = _files(world)
    for path, content in files.items():
        packed = path in _PACKED
        data = gzip.compress(content, mtime=0) if packed else content
        with replacing(folder / (path + ".gz" if packed else path)) as temporary:
            temporary.write_bytes(data)
    return _planted(world, files)


def write_media(folder: Path) -> None:
    """Write `<folder>/<dataset>/<file>` for the clips that `Planted.media` names."""
    write_films(_world(), folder)


def _planted(world: World, files: dict[str, bytes]) -> Planted:
    num_clips: dict[str, dict[str, int]] = {}
    for row in world.rows:
        splits = num_clips.setdefault(row.dataset, {})
        splits[row.split] = splits.get(row.split, 0) + 1
    by_split = {
        "vggsound@official": num_clips["vggsound"]["test"],
        "audiocaps@v1": num_clips["audiocaps"]["test"],
        "audiocaps@v1-val": num_clips["audiocaps"]["val"],
        "clotho@v2.1-evaluation": num_clips["clotho"]["evaluation"],
        "clotho@v2.1-validation": num_clips["clotho"]["validation"],
        "clotho@v2.1-test": num_clips["clotho"]["test"],
        "esc50@all": len(world.of("esc50")),
        "urbansound8k@all": len(world.of("urbansound8k")),
    }
    by_file = {name: len(rows) for name, rows in world.lists.items() if "@" in name}
    return Planted(
        num_files=len(files),
        num_datasets=len(num_clips),
        num_clips=num_clips,
        list_sizes=by_split | by_file,
        overlaps=tuple(world.overlaps()),
        near_misses=tuple(world.near_misses),
        bad_rows=tuple(world.doubts),
        media=planted_media(world),
    )


def _world() -> World:
    world = World()
    plant_relations(world)
    plant_near_misses(world)
    write_named_lists(world)
    write_exclusion_lists(world)
    plant_damaged_rows(world)
    return world


def _files(world: World) -> dict[str, bytes]:
    """Every file of the corpus by its path `<dataset>/<path in the card>`."""
    texts: dict[str, str] = {}
    for write in (*VIDEO_FORMATS, *SOUND_FORMATS):
        texts |= write(world)
    return {
        path: text.encode("latin-1" if path.startswith(_LATIN_1) else "utf-8")
        for path, text in sorted(texts.items())
    }
