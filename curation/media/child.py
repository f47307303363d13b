"""The process that decodes: `python -m curation.media.child FD PID MEMORY_BYTES`, for many clips.

See `serving.py` for how it lives, and `answer.py` for what it says. It loads NumPy, PyAV and this
package, and little of the standard library: its start counts for every worker.
"""

import json
import sys
from typing import Any

import numpy as np

from curation.media.answer import Answer, write_answer
from curation.media.prints import failed, scanned
from curation.media.serving import content_digest, limit_cpu, serve_from_words


def answer_to(request: dict[str, Any]) -> Answer:
    """What becomes of one clip."""
    digest = None
    try:
        digest = content_digest(request["path"])
        answer = scanned(
            request["path"],
            start_s=request["start_s"],
            end_s=request["end_s"],
            mode=request["mode"],
            max_duration_s=request["max_duration_s"],
        )
    except Exception as error:  # nobody reads what is printed here: it becomes the clip's reason
        answer = failed(error)
    answer.content_digest = digest
    return answer


def serve(requests: Any, answers: Any) -> None:
    """Answer every request until there are no more."""
    for line in requests:
        request = json.loads(line)
        limit_cpu(request["timeout_s"])
        write_answer(answers, answer_to(request))


def _warm_up() -> None:
    # What ends the process where it is refused memory, and is made once: the buffer of matrix products.
    np.dot(np.ones((128, 128), np.float32), np.ones((128, 128), np.float32))


def main() -> None:
    """Run until standard input ends."""
    serve_from_words(_warm_up, lambda answers: serve(sys.stdin.buffer, answers))


if __name__ == "__main__":
    main()
