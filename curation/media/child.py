"""The process that decodes: `python -m curation.media.child FD PID`, which serves many clips.

It reads requests, a JSON line each, from standard input and writes answers (see `answer.py`) to the file
number FD. It dies with its parent, PID; the parent kills it when a clip takes too long. Memory is
bounded by the system, so that no file can take more. It loads NumPy, PyAV and this package, and little
of the standard library: its start counts for every worker.
"""

import hashlib
import json
import os
import resource
import signal
import sys
from typing import Any

import numpy as np

from curation.media.answer import NO_MEMORY, Answer, values_of, write_answer
from curation.media.audio_hash import RATE_HZ, SoundHasher, bandwidth_hz
from curation.media.container import Limits, Unscannable
from curation.media.decode import decode
from curation.media.frames import FPS
from curation.media.video_hash import FrameHasher
from curation.verdict import Reason

_HASHED_AT_ONCE = 1 << 20
_PR_SET_PDEATHSIG = 1
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SAID = 500  # letters of an error that are passed on


def answer_to(request: dict[str, Any]) -> Answer:
    """What becomes of one clip."""
    digest = None
    try:
        digest = _digest(request["path"])
        answer = _scanned(request)
    except Unscannable as error:
        answer = Answer(status="failed", reason=error.reason, detail=error.detail)
    except MemoryError:
        answer = Answer(status="failed", reason=Reason.OUT_OF_MEMORY, detail="while it was decoded")
    except OSError as error:
        answer = Answer(
            status="failed", reason=Reason.DAMAGED, detail=f"cannot be read: {error.strerror}"
        )
    except Exception as error:  # a mistake of ours, or of a library: nobody reads what is printed here
        answer = Answer(status="failed", reason=Reason.DECODER_CRASHED, detail=_told(error))
    answer.content_digest = digest
    return answer


def _told(error: Exception) -> str:
    """Type, message and place; the last place in this package where there is one."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        ours = file.startswith(_PACKAGE)
        places.append((ours, f"{os.path.basename(file)}:{trace.tb_lineno}"))
        trace = trace.tb_next
    place = next((place for ours, place in reversed(places) if ours), places[-1][1])
    return f"{type(error).__name__}: {str(error)[:_SAID]} ({place})"


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


def _digest(path: str) -> str:
    sha256 = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_HASHED_AT_ONCE):
            sha256.update(chunk)
    return f"sha256:{sha256.hexdigest()}"


def limit_itself(memory_bytes: int) -> None:
    """Let the system refuse memory beyond what is held now and `memory_bytes`."""
    with open("/proc/self/statm") as stream:
        held = int(stream.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """Let the system end this process after so many more seconds of work, should its parent not."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def die_with(parent: int) -> None:
    """Be killed when the parent ends, however it ends."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def serve(requests: Any, answers: Any) -> None:
    """Answer every request until there are no more."""
    for line in requests:
        request = json.loads(line)
        limit_cpu(request["timeout_s"] * 1.5 + 5)
        write_answer(answers, answer_to(request))


def main() -> None:
    """Run until standard input ends."""
    answers_to, parent, memory_bytes = (int(word) for word in sys.argv[1:4])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for the parent
    import gc

    import av

    gc.set_threshold(50_000)  # there are no cycles worth looking for among millions of frames
    av.logging.set_level(None)
    # What ends the process where it is refused memory, and is made once: the buffer of matrix products.
    np.dot(np.ones((128, 128), np.float32), np.ones((128, 128), np.float32))
    limit_itself(memory_bytes)
    with open(answers_to, "wb") as answers:
        try:
            serve(sys.stdin.buffer, answers)
        except MemoryError:  # too little even to say so
            os._exit(NO_MEMORY)


if __name__ == "__main__":
    main()
