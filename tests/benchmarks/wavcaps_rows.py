"""The Freesound part of WavCaps at any size: one JSON object, as its publisher writes it.

    python wavcaps_rows.py FOLDER --megabytes 200

writes `FOLDER/wavcaps/json_files/FreeSound/fsd_final.json`, for `curate fetch wavcaps --from FOLDER`.
Keys are those of the published file, and an item has some 600 bytes, as there (147 MB, 262,300 items).
"""

import argparse
import json
import random
from pathlib import Path

PATH = "wavcaps/json_files/FreeSound/fsd_final.json"
_WORDS = (
    "rain", "wind", "door", "field", "recording", "ambience", "metal", "hit", "loop", "synth", "drum",
    "water", "street", "crowd", "bird", "engine", "noise", "footsteps", "kitchen", "forest", "night",
    "close", "distant", "stereo", "mono", "zoom", "h4n", "microphone", "room", "take",
)  # fmt: skip


def _item(number: int, drawn: random.Random) -> dict[str, object]:
    def words(n: int) -> str:
        return " ".join(drawn.choices(_WORDS, k=n))

    source_id, author = str(number + 10), f"user_{number % 9_000}"
    return {
        "id": source_id,
        "file_name": f"{words(3)}.wav",
        "href": f"/people/{author}/sounds/{source_id}/",
        "tags": drawn.sample(_WORDS, k=drawn.randint(3, 9)),
        "description": words(drawn.randint(5, 40)) + ' "as is" \u2013 1/2\n',
        "author": author,
        "duration": drawn.randrange(1_000, 300_000) / 1_000,
        "download_link": f"https://freesound.org/people/{author}/sounds/{source_id}/download/x.wav",
        "caption": words(drawn.randint(6, 14)) + ".",
        "audio": "wav_path",
    }


def write(folder: Path, megabytes: float) -> Path:
    """Write the file; where it lies."""
    target = folder / PATH
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn, size, number = random.Random(1), 0, 0
    with target.open("w", encoding="utf-8") as out:
        out.write('{"num_captions_per_audio": 1, "data": [')
        while size < megabytes * 1e6:
            text = ("" if number == 0 else ", ") + json.dumps(_item(number, drawn))
            size, number = size + out.write(text), number + 1
        out.write("]}")
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=200)
    given = parser.parse_args()
    write(given.folder, given.megabytes)
