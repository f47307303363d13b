"""The runner of one machine: a process for each device, which outlives the stages of an extraction."""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation import errors
from curation.closing import Closing
from curation.errors import FoleyproofError, WorkerLost
from curation.tasks import Stopped
from features.extraction.job import Effort, Facts, Job

_WORKER = "features.extraction.worker"
_ENDS_S = 5.0  # that one whose pipe is closed may need to end
_LOOKS_S = 0.2  # how long the end of the run may go unseen
Tell = Callable[[Effort], Any]


class LocalDevices(Closing):
    """Processes that own a device each, lent to the threads of a stage one at a time.

    The kernel kills a child when the thread that started it ends, so that one thread, which ends with
    this object, starts them all.
    """

    def __init__(self, jobs: list[Job], tell: Tell) -> None:
        self._starter = ThreadPoolExecutor(max_workers=1)
        self._free: queue.SimpleQueue[_Device] = queue.SimpleQueue()
        self._all = [_Device(job, tell, self._starter) for job in jobs]
        for device in self._all:
            self._free.put(device)

    def leave(self, error: BaseException | None) -> None:
        """End the processes."""
        for device in self._all:
            device.close()
        self._starter.shutdown()

    @property
    def pids(self) -> list[int]:
        """The process ids of those that were started."""
        return [device.pid for device in self._all if device.pid is not None]

    @contextmanager
    def lend(self, stop: threading.Event) -> Iterator[Callable[[dict[str, Any], Path], Facts]]:
        """A free device; there are as many as threads."""
        device = self._free.get()
        try:
            yield lambda request, folder: device.work(request, folder, stop)
        finally:
            self._free.put(device)


class _Device:
    """One process and the tasks it is given."""

    def __init__(self, job: Job, tell: Tell, starter: ThreadPoolExecutor) -> None:
        self._job, self._tell, self._starter = job, tell, starter
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._rest = b""

    @property
    def pid(self) -> int | None:
        """The process id, where there is one."""
        return None if self._process is None else self._process.pid

    def work(self, request: dict[str, Any], folder: Path, stop: threading.Event) -> Facts:
        """Have a task done.

        Raises:
            WorkerLost: the process died.
            Stopped: the run ends.
            FoleyproofError: whatever the process met.
        """
        try:
            if self._process is None:
                self._process = self._starter.submit(self._started).result()
                self._send(self._job.as_json())
            self._send({**request, "folder": str(folder.absolute())})
            while True:
                said = self._heard(stop)
                if "effort" in said:
                    self._tell(Effort(**said["effort"]))
                elif "facts" in said:
                    facts: Facts = said["facts"]
                    return facts
                elif "error" in said:
                    name, message = said["error"]
                    kind = getattr(errors, name, FoleyproofError)
                    raise kind(message)
                else:
                    raise RuntimeError(f"in the process of {self._job.device}:\n{said['broken']}")
        except (EOFError, BrokenPipeError) as error:
            how = self._ended()
            self.close()
            raise WorkerLost(
                f"the process of {self._job.device} died ({how}) while it filled {folder.name}, "
                "expected it to end the task — most often it had too little memory: give a smaller "
                "--batch or fewer --workers, and run the same command again; what is done is kept"
            ) from error
        except BaseException:
            self.close()
            raise

    def _started(self) -> "subprocess.Popen[bytes]":
        answers, theirs = os.pipe()
        threads = str(self._job.threads)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER, str(theirs), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs,),
                env={**os.environ, **dict.fromkeys(names, threads)},
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(theirs)
        self._answers, self._rest = answers, b""
        return process

    def _send(self, words: dict[str, Any]) -> None:
        assert self._process is not None, "it was started"
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()

    def _heard(self, stop: threading.Event) -> dict[str, Any]:
        """The next line that the process says."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        while b"\n" not in self._rest:
            if stop.is_set():
                raise Stopped
            if poll.poll(_LOOKS_S * 1000):
                some = os.read(self._answers, 1 << 16)
                if not some:
                    raise EOFError
                self._rest += some
        line, _, self._rest = self._rest.partition(b"\n")
        words: dict[str, Any] = json.loads(line)
        return words

    def _ended(self) -> str:
        """How the process ended by itself."""
        process = self._process
        if process is None:
            return "at its start"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDS_S)
        code = process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
        return f"exit code {code}"

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None, "it was started with a pipe"
            with contextlib.suppress(OSError):
                process.stdin.close()
            os.close(self._answers)
