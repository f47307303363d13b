"""The process that owns a device: `python -m features.extraction.worker FD PID`, which does many tasks.

Its first line on standard input is the job, each further one a task; what it says goes to the file
number FD, a JSON line each: `{"effort": …}` while it works, then `{"facts": …}` or `{"error": [class,
message]}`. It dies with its parent, PID, and its decoders die with it. The number of its threads is
fixed, since sums are rounded in the order of threads.
"""

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from curation.errors import FoleyproofError
from curation.files import disk_space
from curation.media.serving import die_with


def serve(requests: TextIO, answers: TextIO) -> None:
    """Do all tasks that come."""
    from features.extraction.encoding import TaskEncoder
    from features.extraction.job import Job

    def say(**words: Any) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    encoder = TaskEncoder(
        Job.from_json(json.loads(requests.readline())), lambda effort: say(effort=asdict(effort))
    )
    for line in requests:
        asked = json.loads(line)
        folder = Path(asked.pop("folder"))
        try:
            with disk_space(folder):
                facts = encoder.work(asked, folder)
        except FoleyproofError as error:
            say(error=[type(error).__name__, str(error)])
        except Exception:  # a mistake of ours: the parent shows where
            say(broken=traceback.format_exc())
        else:
            say(facts=facts)


def main() -> None:
    """Run until standard input ends."""
    answers_to, parent = (int(word) for word in sys.argv[1:3])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is for the parent
    with os.fdopen(answers_to, "w", encoding="utf-8") as answers:
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
