"""The process that prepares clips, many of them: `python -m features.inputs.child FD PID MEMORY_BYTES`.

See `curation.media.serving` for how it lives, and `answer.py` for what it says. With each request
comes an open file, the room (`room.py`) into which it puts the arrays. Where a scan was asked for too,
its answer follows, made on the same decode, or on one of its own where that would change anything.
"""

import json
import mmap
import os
import socket
from typing import Any

import numpy as np
import torch

from curation.media.answer import Answer, write_answer
from curation.media.decode import Beside
from curation.media.prints import Prints, failed, scanned
from curation.media.serving import content_digest, failure_of, limit_cpu, serve_from_words
from curation.media.together import Apart
from curation.verdict import Reason
from features.inputs.answer import write_prepared
from features.inputs.frames import clip_frame, sync_frame
from features.inputs.one_clip import prepare
from features.inputs.prepared import InputConfig, Prepared, Request
from features.inputs.room import Layout
from features.inputs.waves import resampled

_LINE_BYTES = 1 << 16
_WITHOUT_MEMORY = ("can't allocate memory", "could not create a primitive")  # as PyTorch puts it


def prepared(request: Request, config: InputConfig, room: int, beside: Beside | None = None) -> Prepared:
    """What becomes of one clip.

    Args:
        room: the number of the open file for its arrays.
        beside: takes what it wants of the same decode, where that changes nothing.
    """
    digest = None
    try:
        digest = content_digest(request.path)
        layout = Layout(config)
        # All of it at once where it will be used: page by page takes several times as long.
        flags = mmap.MAP_SHARED | (0 if request.sound_only else mmap.MAP_POPULATE)
        content = np.frombuffer(mmap.mmap(room, layout.num_bytes, flags=flags), np.uint8)
        views = layout.views(content)
        try:
            parts = prepare(request, config, views, beside)
        except Apart:
            assert beside is not None, "nobody else takes part"
            parts = prepare(request, config, views)
        return Prepared(content_digest=digest, parts=parts)
    except Exception as error:  # nobody reads what is printed here: it becomes the clip's reason
        reason, detail = failure_of(error)
        if isinstance(error, RuntimeError) and any(said in str(error) for said in _WITHOUT_MEMORY):
            reason, detail = Reason.OUT_OF_MEMORY, "while it was prepared"
        return Prepared(reason=reason, detail=detail, content_digest=digest)


def prepared_and_scanned(request: Request, config: InputConfig, room: int) -> Prepared:
    """The same, with what a scan says of the clip."""
    prints = Prints()
    beside = prints.beside()
    answer = prepared(request, config, room, beside)
    answer.scan = _scanned(request, config, prints, beside)
    answer.scan.content_digest = answer.content_digest
    return answer


def _scanned(request: Request, config: InputConfig, prints: Prints, beside: Beside) -> Answer:
    try:
        if beside.found is not None:
            return prints.answer(*beside.found)
        return scanned(
            request.path,
            start_s=request.start_s,
            end_s=request.end_s,
            mode="fast",
            max_duration_s=config.max_duration_s,
        )
    except Exception as error:  # as above
        return failed(error)


def serve(requests: socket.socket, answers: Any) -> None:
    """Answer every request until there are no more."""
    line = b""
    rooms: list[int] = []
    while True:
        some, files, _, _ = socket.recv_fds(requests, _LINE_BYTES, 1)
        line, rooms = line + some, [*rooms, *files]
        if not some:
            return
        if not line.endswith(b"\n"):
            continue
        told = json.loads(line)
        request, config = Request(**told["request"]), InputConfig(**told["config"])
        limit_cpu(config.timeout_s)
        try:
            answer = (prepared_and_scanned if request.scan else prepared)(request, config, rooms[0])
        finally:
            for room in rooms:
                os.close(room)
        write_prepared(answers, answer)
        if answer.scan is not None:
            write_answer(answers, answer.scan)
        del answer  # and with it the room
        line, rooms = b"", []


def _warm_up() -> None:
    """Load and make once what would count as memory of the first clip."""
    torch.set_num_threads(1)
    frame_hwc = np.zeros((64, 48, 3), np.uint8)
    clip_frame(frame_hwc), sync_frame(frame_hwc)
    resampled(np.zeros(48000, np.float32), 48000, 16000)


def main() -> None:
    """Run until standard input ends."""
    requests = socket.socket(fileno=0)
    with torch.inference_mode():
        serve_from_words(_warm_up, lambda answers: serve(requests, answers))


if __name__ == "__main__":
    main()
