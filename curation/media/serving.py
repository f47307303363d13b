"""What children that handle files nobody vouches for have in common: limits, and words for failures.

A child reads requests, a JSON line each, from standard input and writes answers to the file number FD
(`python -m MODULE FD PID MEMORY_BYTES`). It dies with its parent, PID; the parent, see `decoder.py`,
kills it when a clip takes too long. Memory is bounded by the system, so that no file can take more.
"""

import errno
import hashlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from curation.media.container import Unscannable
from curation.verdict import Reason

NO_MEMORY = 12  # the exit code of a child that had too little even to answer
_HASHED_AT_ONCE = 1 << 20
_PR_SET_PDEATHSIG = 1
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = tuple(os.path.join(_ROOT, package, "") for package in ("curation", "features"))
_SAID = 500  # letters of an error that are passed on


def serve_from_words(warm_up: Callable[[], None], serve: Callable[[Any], None]) -> None:
    """Be the child that the words of the command line ask for, until standard input ends.

    Args:
        warm_up: what is loaded, and allocated once, before memory is limited.
        serve: answers all requests into the stream it is given.
    """
    answers_to, parent, memory_bytes = (int(word) for word in sys.argv[1:4])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for the parent
    import gc

    import av

    gc.set_threshold(50_000)  # there are no cycles worth looking for among millions of frames
    av.logging.set_level(None)
    warm_up()
    limit_itself(memory_bytes)
    with open(answers_to, "wb") as answers:
        try:
            serve(answers)
        except MemoryError:  # too little even to say so
            os._exit(NO_MEMORY)


def failure_of(error: Exception) -> tuple[Reason, str]:
    """The reason and the detail of a clip that ended in an error."""
    if isinstance(error, Unscannable):
        return error.reason, error.detail
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return Reason.OUT_OF_MEMORY, "while it was decoded"
    if isinstance(error, OSError):
        return Reason.DAMAGED, f"cannot be read: {error.strerror}"
    return Reason.DECODER_CRASHED, _told(error)  # a mistake of ours, or of a library


def _told(error: Exception) -> str:
    """Type, message and place; the last place in our packages where there is one."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        places.append((file.startswith(_OURS), f"{os.path.basename(file)}:{trace.tb_lineno}"))
        trace = trace.tb_next
    place = next((place for ours, place in reversed(places) if ours), places[-1][1])
    return f"{type(error).__name__}: {str(error)[:_SAID]} ({place})"


def content_digest(path: str) -> str:
    """The sha256 of a file's bytes."""
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


def limit_cpu(timeout_s: float) -> None:
    """Let the system end this process, should its parent not: well after the time that a clip has."""
    seconds = timeout_s * 1.5 + 5
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
