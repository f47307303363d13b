"""The checkpoints of a run: the newest that loads, which stay, the run's lock.

    RUN/
      .lock                         held by the first rank as long as the run goes on
      checkpoints/step-00010000/    whole, since it has this name; see `reading`
      checkpoints/step-00020000.tmp-<number>/    being written, or left by a run that died
      ema/                          averages that are kept; see `profiles`

A checkpoint is removed under a temporary name too, so that none is ever found in part.
"""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from curation.errors import FoleyproofError, ManifestChanged, UsageProblem
from curation.files import disk_space, locked, remove, sweep
from curation.tables import number, size_text
from training.state.reading import Stored, opened

logger = logging.getLogger(__name__)
FOLDER, PROFILES = "checkpoints", "ema"
_NAME = re.compile(r"step-([0-9]{8,})")
_OF_RUNS = {"config.json", "preflight", FOLDER}  # one of them is in the folder of each run
_SHOWN, _NAMED = 8, 3  # steps and files in a message


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after so many steps lies, or would."""
    return run / FOLDER / f"step-{step:08d}"


def steps_of(run: Path) -> list[int]:
    """The steps that a run has checkpoints of, whole or damaged, in order."""
    with disk_space(run):
        try:
            names = os.listdir(run / FOLDER)
        except FileNotFoundError:
            return []
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def latest(run: Path) -> Stored | None:
    """The newest checkpoint of a run that loads, all its bytes read; None: it has none.

    Damaged ones are named in a warning and passed over. One rank asks, and tells the others the folder.

    Raises:
        ManifestChanged: it has some, and all are damaged: beginning anew would be no help.
    """
    damaged = []
    for step in reversed(steps_of(run)):
        try:
            return _verified(step_folder(run, step))
        except ManifestChanged as error:
            logger.warning("passed over a damaged checkpoint: %s", error)
            damaged.append(step)
    if damaged:
        raise ManifestChanged(
            f"{run}: none of its checkpoints loads (steps {_listed(damaged[::-1])}; what is wrong with "
            "each is said above), expected one that does — copy one of them anew, or give another --run "
            "to begin anew"
        )
    return None


def at_step(run: Path, step: int) -> Stored:
    """The checkpoint of a step, all its bytes read.

    Raises:
        UsageProblem: the run has none of this step.
        ManifestChanged: it is damaged.
    """
    steps = steps_of(run)
    if not steps:
        raise UsageProblem(_none(run))
    if step not in steps:
        raise UsageProblem(
            f"{run}: has no checkpoint of step {step:,}, expected one of {_listed(steps)} — name a step "
            "that it has, or none for the newest"
        )
    return _verified(step_folder(run, step))


def found(run: Path, step: int | None) -> Stored:
    """The checkpoint of a step, or the newest that loads.

    Raises:
        UsageProblem: there is none.
        ManifestChanged: it is damaged, or all are.
    """
    stored = latest(run) if step is None else at_step(run, step)
    if stored is None:
        raise UsageProblem(_none(run))
    return stored


def _none(run: Path) -> str:
    return (
        f"{run}: holds no checkpoints, expected {FOLDER}/{step_folder(run, 10_000).name} or the like — "
        "give the folder of a run that has saved one (python -m training.launch --run)"
    )


def _listed(steps: list[int]) -> str:
    more = "… " if len(steps) > _SHOWN else ""
    return more + ", ".join(f"{step:,}" for step in steps[-_SHOWN:])


def _verified(folder: Path) -> Stored:
    begun_s = time.monotonic()
    stored = opened(folder)
    stored.verify()
    if folder.name != step_folder(Path(), stored.step).name:
        raise ManifestChanged(
            f"{folder}: is the checkpoint of step {stored.step:,} under another name, expected "
            f"{step_folder(Path(), stored.step).name} — rename it"
        )
    size = size_text(sum((folder / name).stat().st_size for name in stored.files))
    logger.info("%s: %s, read and found whole in %.1f s", folder, size, time.monotonic() - begun_s)
    return stored


def refuse_no_run(folder: Path) -> None:
    """Raise UsageProblem where a folder holds something, and is not that of a run."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:  # it is not there, or `held` says what is wrong with it
        return
    if names - {".lock"} and not names & _OF_RUNS:
        raise UsageProblem(
            f"--run {folder}: holds {', '.join(sorted(names)[:_NAMED])}, which is of no run; expected "
            "an empty folder or that of a run — give another"
        )


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold the lock of a run; what dead runs left half written there is removed. For the first rank.

    Raises:
        Locked: another process trains there.
    """
    with locked(run, of="this run", option="--run", deep=False):
        for name in (FOLDER, PROFILES):  # what lies elsewhere below is not this run's
            sweep(run / name, deep=False)
        yield


def retire(run: Path, newest: int, *, keep: int, keep_every: int, mark: str) -> None:
    """Remove what need not stay, when the checkpoint of the step `newest` is complete.

    Later ones stay too: they were passed over as damaged, and are replaced when the run gets there.

    Args:
        keep: so many stay, `newest` among them, not counting those that lack files.
        keep_every: those of its multiples stay for ever; 0: none do.
        mark: what their names get before they are removed.
    """
    assert keep >= 1, f"keep {keep}, expected 1 or more: the last one stays"
    older = [step for step in steps_of(run) if step < newest]
    whole = [step for step in older if _has_its_files(step_folder(run, step))]
    stay = set(whole[max(len(whole) - keep + 1, 0) :])
    for step in older:
        if step not in stay and not (keep_every and step % keep_every == 0):
            folder = step_folder(run, step)
            doomed = folder.with_name(folder.name + mark)
            with contextlib.suppress(OSError):  # one that cannot be removed is in nobody's way
                folder.rename(doomed)
                remove(doomed)
    logger.debug("%s kept", number(len(stay) + 1, "checkpoint"))


def _has_its_files(folder: Path) -> bool:
    try:
        opened(folder)
    except FoleyproofError:
        return False
    return True
