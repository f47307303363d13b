"""The process that decodes: `python -m curation.media.child FD PID MEMORY_BYTES`, for many clips.

See `serving.py` for how it lives, and `answer.py` for what it says. It loads NumPy, PyAV and this
package, and little of the standard library: its start counts for every worker.
"""

import json
import sys
from typing import Any

import numpy as np

from curation.media.answer import Answer, values_of, write_answer
from curation.media.audio_hash import RATE_HZ, SoundHasher, bandwidth_hz
from curation.media.container import Limits
from curation.media.decode import decode
from curation.media.frames import FPS
from curation.media.serving import content_digest, failure_of, limit_cpu, serve_from_words
from curation.media.video_hash import FrameHasher
from curation.verdict import Reason


def answer_to(request: dict[str, Any]) -> Answer:
    """What becomes of one clip."""
    digest = None
    try:
        digest = content_digest(request["path"])
        answer = _scanned(request)
    except Exception as error:  # nobody reads what is printed here: it becomes the clip's reason
        reason, detail = failure_of(error)
        answer = Answer(status="failed", reason=reason, detail=detail)
    answer.content_digest = digest
    return answer


def _scanned(request: dict[str, Any]) -> Answer:
    mode = request["mode"]
    frames, samples = FrameHasher(mode), SoundHasher()
    facts, track = decode(
        request["path"],
        picture=frames.add,
        sound=samples.add,
        rate_hz=RATE_HZ,
        start_s=request["start_s"],
        end_s=request["end_s"],
        limits=Limits(max_duration_s=request["max_duration_s"]),
        pictures_fps=FPS if mode == "fast" else None,
    )
    answer = Answer(status="scanned", values=values_of(facts))
    if facts.damage:
        answer.reason, answer.detail = Reason.PARTLY_DAMAGED, facts.damage
    if facts.num_frames:
        _add_pictures(answer, frames.finish(facts.picture_end_s))
    if facts.audio_codec:
        sound = samples.finish()
        spectrum = track.spectrum
        answer.values |= {
            "audio_version": sound.audio_version,
            "silent_share": sound.silent_share,
            "bandwidth_hz": bandwidth_hz(spectrum.wave(), spectrum.rate_hz),
        }
        answer.arrays |= {
            "audio_ms": sound.item_ms,
            "audio_item": sound.item,
            "audio_bands": sound.bands,
        }
    return answer


def _add_pictures(answer: Answer, seen: Any) -> None:
    if seen is None:
        return
    answer.values |= {
        "hash_version": seen.hash_version,
        "still_share": seen.still_share,
        "thumb_fps": seen.thumb_fps,
    }
    answer.arrays |= {
        "hash_ms": seen.hash_ms,
        "hash_view": seen.hash_view,
        "hash": seen.hash,
        "flatness": seen.flatness,
        "box": np.array([*seen.boxes.picture, *seen.boxes.moving], np.float32),
        "thumbs": seen.thumbs,
    }


def serve(requests: Any, answers: Any) -> None:
    """Answer every request until there are no more."""
    for line in requests:
        request = json.loads(line)
        limit_cpu(request["timeout_s"] * 1.5 + 5)
        write_answer(answers, answer_to(request))


def _warm_up() -> None:
    # What ends the process where it is refused memory, and is made once: the buffer of matrix products.
    np.dot(np.ones((128, 128), np.float32), np.ones((128, 128), np.float32))


def main() -> None:
    """Run until standard input ends."""
    serve_from_words(_warm_up, lambda answers: serve(sys.stdin.buffer, answers))


if __name__ == "__main__":
    main()
