"""What a look at sealed shards found, and what brings them in order."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from curation.errors import FoleyproofError
from curation.tables import number
from features.store import index

_NAMED = 10  # folders in a piece of advice


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it was sealed."""

    file: str  # below the folder
    row: int | None = None  # in that file
    clip: str | None = None
    what: str

    def __str__(self) -> str:
        place = self.file + ("" if self.row is None else f" row {self.row}")
        return f"{place}{f' ({self.clip})' if self.clip else ''}: {self.what}"


def problem_of(out: Path, file: str, error: FoleyproofError | OSError) -> Problem:
    """What an error says of a file; the advice comes once, for all problems."""
    if isinstance(error, OSError):
        return Problem(file=file, what=f"cannot be read ({error.strerror or error})")
    said = str(error).removeprefix(f"{out / file}: ").removeprefix(f"{out}: ")
    return Problem(file=file, what=said.partition(" — ")[0])


@dataclass(slots=True)
class Verified:
    """What was looked at, and all that is wrong."""

    full: bool
    files: int = 0  # shards, tables, completion records and the tables that these name, extract.json
    rows: int = 0
    texts: int = 0
    read_bytes: int = 0  # of shards
    problems: list[Problem] = field(default_factory=list)

    @property
    def wrong_files(self) -> int:
        """Files with at least one problem."""
        return len({problem.file for problem in self.problems})


def remedy(out: Path, found: Verified) -> tuple[str, ...]:
    """What brings a folder with problems in order: sealing, or doing the tasks of bad files again.

    Tables first: they are made again from the tasks, and what they say of shards may be wrong with them;
    before them extract.json, without which nothing is sealed.
    """
    folders = list(dict.fromkeys(p.file.rpartition("/")[0] for p in found.problems))
    place, again = shlex.quote(str(out)), f"run the same features {_maker(out)} again"
    if any(problem.file == index.EXTRACT_FILE for problem in found.problems):
        begun = shlex.quote(str(out / index.EXTRACT_FILE))
        return (f"rm -f {begun}", f"{again}, which does no task twice", f"features verify {place}")
    if "" in folders:
        return (f"features seal {place}", f"features verify {place}")
    first = shlex.join(str(out / folder) for folder in folders[:_NAMED])
    rest = len(folders) - _NAMED
    more = (f"and {number(rest, 'more folder')} of tasks, which --json names",) if rest > 0 else ()
    return (f"rm -r {first}", *more, f"{again}, which makes them anew")


def _maker(out: Path) -> str:
    """The command that wrote the folder."""
    try:
        return "import" if "imported" in index.read_extract(out) else "extract"
    except FoleyproofError:
        return "extract or import"
