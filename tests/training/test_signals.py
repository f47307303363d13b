"""A signal ends the command."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_130(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import sys, time, types\n"
        "made = types.ModuleType('training.run.loop')\n"
        "def train(config, asked):\n"
        "    print('at work', file=sys.stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "made.train = train\n"
        "sys.modules['training.run.loop'] = made\n"
        "from curation.console import run\n"
        "from training.launch import launch\n"
        "sys.argv[1:] = ['--model', 'tiny-16k', '--shards', '.']\n"
        "sys.exit(run(launch, 'training.launch'))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    with child:
        assert child.stderr is not None
        said = child.stderr.readline()
        while "at work" not in said:
            said = child.stderr.readline()
        time.sleep(0.1)
        child.send_signal(number)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "interrupted; run the same command again to continue" in err
