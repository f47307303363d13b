"""The parent's side of a decoding child: it starts one, gives it clips, kills it when it must.

A clip that takes too long, too much memory, or the whole child with it costs itself alone: it gets a
reason, and the next clip a new child. A clip is tried once more in a fresh child before a crash counts
as its own, since what broke might have been left by the one before.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from curation.media.answer import Answer, BadAnswer, read_answer
from curation.media.serving import NO_MEMORY
from curation.tasks import Stopped
from curation.verdict import Reason

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
_START_S = 60.0  # that a child may take to begin, on a busy machine
_CLIPS_EACH = 2000  # after which a child is replaced: decoders leak
_SIGNALS_S = 0.2  # how long the end of a run may go unseen
_RETRIED = frozenset((Reason.DECODER_CRASHED, Reason.OUT_OF_MEMORY))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """How clips are decoded, and how much each may ask for."""

    mode: str = "fast"
    max_duration_s: float = 3600.0
    timeout_s: float = 600.0
    memory_bytes: int = 2 << 30


class Outcome(Protocol):
    """What became of a clip; it has a reason where something did."""

    @property
    def reason(self) -> str | None:
        """Why it failed, or is looked at twice."""


A = TypeVar("A", bound=Outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade(Generic[A]):
    """What a kind of child is, and how its answers are read."""

    module: str  # that it runs, with the words of `serving.py`
    memory_bytes: int
    timeout_s: float
    read: "Callable[[Pipe], A]"  # raises BadAnswer
    failed: Callable[[Reason, str], A]


class Child(Generic[A]):
    """One child process and the clips it was given; for one thread."""

    def __init__(self, trade: Trade[A], stop: threading.Event) -> None:
        self._trade, self._stop = trade, stop
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._answers = -1
        self._clips = 0

    @property
    def pid(self) -> int | None:
        """The process id of the child, where there is one."""
        process = self._process
        return None if process is None else process.pid

    def ask(self, request: dict[str, Any], files: Sequence[int] = ()) -> A:
        """What became of a clip, whatever its file does.

        Args:
            files: numbers of open files that the child gets with the request.
        """
        fresh = self._process is None
        answer = self._ask(request, files)
        if answer.reason in _RETRIED and not fresh:
            self.close()
            answer = self._ask(request, files)
        if answer.reason in _RETRIED or self._clips >= _CLIPS_EACH:
            self.close()
        return answer

    def close(self) -> None:
        """End the child."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert self._requests is not None, "it was started with a socket"
            self._requests.close()
            os.close(self._answers)

    def _ask(self, request: dict[str, Any], files: Sequence[int]) -> A:
        if self._process is None:
            self._start()
        process, requests, trade = self._process, self._requests, self._trade
        assert process is not None, "it was just started"
        assert requests is not None, "it was started with a socket"
        stream = Pipe(self._answers, trade.timeout_s + (0 if self._clips else _START_S), self._stop)
        self._clips += 1
        try:
            line = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(requests, [line], files)
            requests.sendall(line[sent:])
            answer = trade.read(stream)
            stream.check_done()
            return answer
        except TimeoutError:
            self.close()
            return trade.failed(Reason.TIMEOUT, f"not done after {trade.timeout_s:g} s")
        except (EOFError, ConnectionError):
            return trade.failed(*self._crash(process))
        except BadAnswer as error:
            self.close()
            return trade.failed(Reason.DECODER_CRASHED, f"said nonsense: {error}")

    def _crash(self, process: "subprocess.Popen[bytes]") -> tuple[Reason, str]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        code = process.returncode
        self.close()
        if code == -signal.SIGXCPU:
            return Reason.TIMEOUT, f"not done after {self._trade.timeout_s:g} s"
        if code == NO_MEMORY:
            return Reason.OUT_OF_MEMORY, "while it was decoded"
        how = f"ended with {code}"
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-code).name
        return Reason.DECODER_CRASHED, how

    def _start(self) -> None:
        answers, theirs = os.pipe()
        requests, their_requests = socket.socketpair()
        # -P: what lies in the working folder is data, also where it is called as a module is
        words = [sys.executable, "-P", "-m", self._trade.module]
        words += [str(theirs), str(os.getpid()), str(self._trade.memory_bytes)]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=their_requests.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs,),
                env={**os.environ, **_ONE_THREAD},
            )
        except BaseException:
            os.close(answers)
            requests.close()
            raise
        finally:
            os.close(theirs)
            their_requests.close()
        self._requests, self._answers, self._clips = requests, answers, 0


class Decoder:
    """The child that scans, and the clips it was given; for one thread."""

    def __init__(self, config: DecoderConfig, stop: threading.Event) -> None:
        self._config = config
        trade = Trade(
            module="curation.media.child",
            memory_bytes=config.memory_bytes,
            timeout_s=config.timeout_s,
            read=read_answer,
            failed=_failed,
        )
        self._child = Child(trade, stop)

    @property
    def pid(self) -> int | None:
        """The process id of the child, where there is one."""
        return self._child.pid

    def scan(self, path: str, *, start_s: float | None = None, end_s: float | None = None) -> Answer:
        """What became of the clip in the file at `path`, whatever that file does."""
        config = self._config
        request = {
            "path": path,
            "start_s": start_s,
            "end_s": end_s,
            "mode": config.mode,
            "max_duration_s": config.max_duration_s,
            "timeout_s": config.timeout_s,
        }
        return self._child.ask(request)

    def close(self) -> None:
        """End the child."""
        self._child.close()


def _failed(reason: Reason, detail: str) -> Answer:
    return Answer(status="failed", reason=reason, detail=detail)


class Pipe:
    """Reads of a pipe that end in time."""

    def __init__(self, number: int, timeout_s: float, stop: threading.Event) -> None:
        self._number, self._stop = number, stop
        self._until_s = time.monotonic() + timeout_s
        self._poll = select.poll()
        self._poll.register(number, select.POLLIN)
        self._rest = bytearray()

    def line(self, most: int) -> bytes:
        """The bytes until the next line end."""
        while (end := self._rest.find(b"\n")) < 0:
            if len(self._rest) > most:
                raise BadAnswer(f"a line of more than {most} bytes")
            self._rest += self._some(1 << 16)
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def exactly(self, size: int) -> bytes:
        """That many bytes."""
        parts = [bytes(self._rest[:size])]
        del self._rest[:size]
        missing = size - len(parts[0])
        while missing > 0:
            parts.append(self._some(min(missing, 1 << 20)))
            missing -= len(parts[-1])
        return b"".join(parts)

    def check_done(self) -> None:
        """Raise BadAnswer where more came than was asked for."""
        if self._rest:
            raise BadAnswer("went on after its answer")

    def _some(self, most: int) -> bytes:
        ready = False
        while not ready:  # the clock is looked at before each read: bytes may come one by one
            if self._stop.is_set():
                raise Stopped
            if time.monotonic() > self._until_s:
                raise TimeoutError
            ready = bool(self._poll.poll(_SIGNALS_S * 1000))
        found = os.read(self._number, most)
        if not found:
            raise EOFError
        return found


@contextlib.contextmanager
def decoding(config: DecoderConfig, stop: threading.Event | None = None) -> Iterator[Decoder]:
    """A decoder whose child ends with the block.

    Args:
        stop: where it is set, a clip that is being decoded ends with `tasks.Stopped`.
    """
    decoder = Decoder(config, stop or threading.Event())
    try:
        yield decoder
    finally:
        decoder.close()
