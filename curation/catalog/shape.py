"""What a list of clips looks like: which column names recordings, which tell times, splits and words.

People's lists have any separator, any header or none, and ids in any written form. The column of ids
is the one whose cells `identity.parse` reads; every other column is told by its name, or where there
are no names, by what it holds. Nothing is guessed that the cells contradict.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise, takewhile
from pathlib import Path

from curation.catalog.identity import FREESOUND_ID, parse
from curation.catalog.textlines import lines_of, open_text, split_cells
from curation.errors import UsageProblem

_SAMPLE_ROWS = 2_000
# what a column may be said to hold, and what it is called here
_GIVEN = {
    "start": "start_s", "end": "end_s", "duration": "duration_s", "split": "split", "label": "label",
    "licence": "licence", "uploader": "uploader",
}  # fmt: skip
# names of columns that the SQL of every list needs for itself
_TAKEN = ("file", "row", "text_", "parts_", "clip_", "named_")
_ENOUGH = 0.5  # of the cells of a column: what it takes to be the column of ids
_NEARLY_ALL = 0.9
_DELIMITERS = (",", "\t", ";", "|", " ")
# What columns are called, words joined by _; each pattern must fit the whole name.
_SECONDS = r"(_s|_sec|_secs|_second|_seconds)?"
_NAMES = {
    "start_ms": r"(start|begin|onset)(_time)?_(ms|millis|milliseconds)",
    "end_ms": r"(end|stop|offset)(_time)?_(ms|millis|milliseconds)",
    "start_s": rf"(t_|time_|clip_|segment_)?(start|begin|onset|starttime)(_time)?{_SECONDS}",
    "end_s": rf"(t_|time_|clip_|segment_)?(end|stop|endtime)(_time)?{_SECONDS}",
    "duration_s": rf"(clip_|segment_)?(duration|length|dur){_SECONDS}",
    "split": r"(split|subset|partition|set|train_test|train_test_split|fold_split)",
    "caption": r"(raw_)?(caption|description|sentence|text|prompt)s?(_?\d+)?",
    "label": r"(label|class|category|tag|positive_label|class_name|display_name|event|sound_class)e?s?",
    "licence": r"licen[cs]e(_url|_name)?",
    "uploader": r"(uploader|author|user|user_?name|artist|manufacturer|channel)(_name|_id)?",
}  # fmt: skip
_ID_NAME = re.compile(
    r"#?(yt_?id|(youtube|yt|video|vid|audio|clip|file|freesound|fs|sound|sample|segment|track|media)?"
    r"_?(ids?|names?|keys?|paths?|urls?|links?|files?)|vid|fname|ytid|filename)"
)
# A bare number is a Freesound id only where the column says so: rows are numbered everywhere.
_SOUND_NAME = re.compile(r"#?(freesound|fs|sound)_?(ids?|links?|urls?)|fname|fsid")
_BARE_NUMBER = re.compile(r"[0-9]+(\.0+)?")
ROLES = {
    "train": "train", "training": "train", "dev": "train", "development": "train", "bal": "train",
    "balanced": "train", "unbalanced": "train", "unbal": "train", "val": "validation",
    "valid": "validation", "validation": "validation", "test": "test", "testing": "test",
    "eval": "test", "evaluation": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How one file of clips is written."""

    format: str  # "csv" or "parquet"
    columns: tuple[str, ...]
    id_column: str
    sources: tuple[str, ...]  # of the ids: "youtube", "freesound" or both
    readable: float  # share of the sampled cells of the id column that name a recording
    delimiter: str = ","
    header: bool = True
    open_quotes: int = 0  # lines with a quote that ends in another line, or never
    roles: dict[str, str] = field(default_factory=dict)  # "start_s", "split", … to the column's name
    captions: tuple[str, ...] = ()
    splits: dict[str, str] = field(default_factory=dict)  # value of the split column to its role


def shape_of(path: Path, *, columns: Mapping[str, str] | None = None) -> Shape:
    """How the file at `path` is written.

    Args:
        columns: the names of columns by what they hold, instead of guessing: id, caption, or of _GIVEN.

    Raises:
        UsageProblem: there is no such file, or no column of it names recordings.
        BadMetadata: it is empty, or no text.
    """
    columns = columns or {}
    if not path.is_file():
        raise UsageProblem(f"{path}: no such file, expected a list of clips — check the path")
    if path.suffix.lower() in (".gz", ".zip", ".xz", ".bz2"):
        raise UsageProblem(f"{path}: is packed, expected the list itself — unpack it")
    if path.suffix.lower() == ".parquet":
        names, rows = _parquet_sample(path)
        shape = _shape(path, names, rows, format="parquet", given=columns)
        used = [
            name for name in names if name in (shape.id_column, *shape.roles.values(), *shape.captions)
        ]
        if taken := [name for name in used if name.lower() in _TAKEN]:
            raise UsageProblem(f"{path}: a column named {taken[0]!r}, expected another name — rename it")
        shape = replace(shape, columns=tuple(used))
    else:
        shape = _text_shape(path, columns)
    return replace(shape, splits=_splits(path, shape)) if "split" in shape.roles else shape


def _splits(path: Path, shape: Shape) -> dict[str, str]:
    """Every value of the split column that is known or frequent, with its role: one read of the file."""
    column = shape.roles["split"]
    if shape.format == "parquet":
        import pyarrow.parquet as pq

        cells = pq.read_table(path, columns=[column])[column].to_pylist()
        values = Counter(str(cell).strip() for cell in cells if cell)
    else:
        index = shape.columns.index(column)
        with open_text(path) as text:
            rows = lines_of(text, shape.delimiter, header=shape.header)
            values = Counter(cells[index] for _, cells in rows if len(cells) > index and cells[index])
    found = sorted(v for v, n in values.items() if v.lower() in ROLES or n * 100 >= values.total())
    return {value: ROLES.get(value.lower(), "train") for value in found}


def _text_shape(path: Path, columns: Mapping[str, str]) -> Shape:
    with open_text(path) as text:
        sample = list(islice(text, _SAMPLE_ROWS))
    delimiter = _delimiter(sample)
    lines = [cells for _, cells in lines_of(sample, delimiter, header=False)]
    comment = _last_comment(sample, delimiter)
    if not lines:
        raise UsageProblem(f"{path}: has no rows, expected a list of clips — check the file")
    width = Counter(len(cells) for cells in lines).most_common(1)[0][0]
    header = _is_header(lines[0], lines[1:])
    names = lines[0] if header else comment if len(comment) == width else []
    width = max(width, len(names))
    rows = [[*cells[:width], *[""] * (width - len(cells))] for cells in lines[header:]]
    return _shape(
        path, _named(names, width), rows, format="csv", given=columns, delimiter=delimiter,
        header=header, open_quotes=sum(line.count('"') % 2 for line in sample), guessed=not names,
    )  # fmt: skip


def _parquet_sample(path: Path) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curation.errors import BadMetadata

    try:
        with pq.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            batch = next(file.iter_batches(_SAMPLE_ROWS), None)
    except (pa.ArrowException, OSError) as error:
        raise BadMetadata(f"{path}: not Parquet ({error}), expected a list of clips") from error
    columns = [] if batch is None else [column.to_pylist() for column in batch.columns]
    return names, [["" if c is None else str(c) for c in row] for row in zip(*columns, strict=True)]


def _delimiter(sample: Sequence[str]) -> str:
    """The separator by which most of the first lines have the same number of cells, above one."""
    lines = [line for line in sample[:200] if line.strip() and not line.startswith("#")]
    best, delimiter = (0.5, 0), ","
    for candidate in _DELIMITERS:
        widths = Counter(len(split_cells(line.rstrip("\n"), candidate)) for line in lines)
        width, n = widths.most_common(1)[0] if widths else (1, 0)
        score = (n / max(1, len(lines)), width)
        # words of a caption are separated by blanks, too
        if width > 1 and score > best and not (candidate == " " and best[1] > 0):
            best, delimiter = score, candidate
    return delimiter


def _last_comment(sample: Sequence[str], delimiter: str) -> list[str]:
    """The names in the comment right above the rows, as AudioSet writes them."""
    comments = list(takewhile(lambda line: line.startswith("#"), sample))
    return split_cells(comments[-1].strip().lstrip("# "), delimiter) if comments else []


def _is_header(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns: known names, or no id where all others have one."""
    names = [_word(cell) for cell in first]
    known = [_ID_NAME.fullmatch(name) or any(re.fullmatch(p, name) for p in _NAMES.values())
             for name in names if name]  # fmt: skip
    if any(known):
        # a lone column of ids may be named, and a word among cells may look like a name
        return sum(map(bool, known)) * 2 >= len(known) or not any(map(_reads, first))
    return bool(others) and not any(map(_reads, first)) and any(map(_reads, others[0]))


def _reads(cell: str) -> bool:
    return not _BARE_NUMBER.fullmatch(cell) and parse(cell) is not None


def _word(name: str) -> str:
    """A column's name as the patterns above have it."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.strip())
    return re.sub(r"[^a-z0-9#]+", "_", name.lower()).strip("_")


def _named(names: Sequence[str], width: int) -> list[str]:
    """A name for each column, each once."""
    given: list[str] = []
    for i in range(width):
        name = names[i].strip("\ufeff #") if i < len(names) else ""
        name = name or f"column{i + 1}"
        while name.lower() in (*_TAKEN, *(other.lower() for other in given)):
            name += "_"
        given.append(name)
    return given


def _shape(
    path: Path,
    names: list[str],
    rows: list[list[str]],
    *,
    format: str,
    given: Mapping[str, str],
    delimiter: str = ",",
    header: bool = True,
    open_quotes: int = 0,
    guessed: bool = False,
) -> Shape:
    """The shape of a file whose columns and first rows these are.

    Args:
        guessed: the columns have no names, so that those told by what they hold get one here.
    """
    cells = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    given = {role: _column(path, cells, wanted) for role, wanted in given.items()}
    index, readable = _id_column(path, cells, given.get("id"))
    roles: dict[str, str] = {}
    captions: list[str] = []
    for name in names:
        role = next((r for r, p in _NAMES.items() if re.fullmatch(p, _word(name))), None)
        if role == "caption" and name != index:
            captions.append(name)
        elif role and name != index and role not in roles and _may_be(role, cells[name]):
            roles[role] = name
    if guessed:
        renamed = _by_content(names, cells, index)
        names = [renamed.get(name, name) for name in names]
        index = renamed.get(index, index)
        roles = {role: role for role in renamed.values() if role in _NAMES}
        cells = {renamed.get(name, name): values for name, values in cells.items()}
    if "split" not in roles:
        free = [name for name in names if name != index and name not in roles.values()]
        found = [name for name in free if _may_be("split", cells[name])]
        roles |= {"split": found[0]} if len(found) == 1 else {}
    roles |= {_GIVEN[role]: name for role, name in given.items() if role in _GIVEN}
    captions = [given["caption"]] if "caption" in given else captions
    return Shape(
        format=format,
        columns=tuple(names),
        id_column=index,
        sources=_sources(cells[index], _word(index)),
        readable=readable,
        delimiter=delimiter,
        header=header,
        open_quotes=open_quotes,
        roles=roles,
        captions=tuple(captions),
    )


def _id_column(path: Path, cells: dict[str, list[str]], wanted: str | None) -> tuple[str, float]:
    """The name of the column of ids, and the share of its cells that can be read."""
    if wanted is not None:
        if (share := _readable(cells[wanted], sounds=True)) < _ENOUGH:
            shown = next(filter(None, cells[wanted]), "")[:40]
            raise UsageProblem(
                f"{path}: {share:.0%} of the column {wanted!r} ({shown!r}) name a YouTube or Freesound "
                "recording, expected most — name another"
            )
        return wanted, share
    shares = {
        name: _readable(values, sounds=bool(_SOUND_NAME.fullmatch(_word(name))) or len(cells) == 1)
        for name, values in cells.items()
    }
    # where two columns name recordings alike, as an id beside its link, a name that says so decides
    named = {name: bool(_ID_NAME.fullmatch(_word(name))) for name in cells}
    best = max(shares, key=lambda name: (round(shares[name], 1), named[name], shares[name]))
    if shares[best] < _ENOUGH:
        sounds = {name: _readable(values, sounds=True) for name, values in cells.items()}
        numbered = next((n for n in cells if sounds[n] >= _NEARLY_ALL and len(set(cells[n])) > 9
                         and not _counts_up(cells[n])), "")  # fmt: skip
        told = "; ".join(f"{n!r}: {next(filter(None, c), '')[:40]!r} {shares[n]:.0%}"
                         for n, c in list(cells.items())[:8])  # fmt: skip
        raise UsageProblem(
            f"{path}: no column of ids: cells that name a YouTube or Freesound recording are ({told}), "
            "expected most of one column — name it with: curate card new FILE --id "
            f"{numbered or 'COLUMN'}"
        )
    return best, shares[best]


def _column(path: Path, cells: Mapping[str, list[str]], wanted: str) -> str:
    name = next((name for name in cells if name.lower() == wanted.lower()), None)
    if name is None:
        raise UsageProblem(f"{path}: no column {wanted!r}, expected one of: {', '.join(cells)}")
    return name


def _counts_up(values: Sequence[str]) -> bool:
    """Whether these are the numbers of the rows."""
    numbers = [float(value) for value in values if _BARE_NUMBER.fullmatch(value)]
    return all(b - a == 1 for a, b in pairwise(numbers))


def _readable(values: Iterable[str], *, sounds: bool) -> float:
    filled = [value for value in values if value]
    read = sum(1 for v in filled if (sounds or not _BARE_NUMBER.fullmatch(v)) and parse(v) is not None)
    return read / len(filled) if filled else 0.0


def _sources(values: Iterable[str], name: str) -> tuple[str, ...]:
    """What the ids are of; a bare number is a sound only in a column of sounds."""
    found = Counter(clip.source for value in values if (clip := parse(value)) is not None and (
        clip.source == "youtube" or not re.fullmatch(FREESOUND_ID, value) or "__" in value
        or _SOUND_NAME.fullmatch(name)))  # fmt: skip
    if not found:  # a lone column of numbers
        return ("freesound",)
    return tuple(sorted(source for source, n in found.items() if n * 100 >= found.total()))


def _may_be(role: str, values: Sequence[str]) -> bool:
    """Whether the cells of a column fit what its name says."""
    filled = [value for value in values if value]
    if role.endswith(("_s", "_ms")):
        return sum(_number(value) is not None for value in filled) >= _NEARLY_ALL * max(1, len(filled))
    if role == "split":
        known = sum(value.lower() in ROLES for value in filled)
        return bool(filled) and known >= _NEARLY_ALL * len(filled)
    return True


def _number(value: str) -> float | None:
    """Seconds, also written as 1:30 or 2,5, as the macro `clock` reads them."""
    number = 0.0
    with suppress(ValueError):
        for part in value.replace(",", ".").split(":"):
            number = number * 60 + float(part)
        return number if 0 <= number < 1e9 and value.count(":") <= 2 else None
    return None


def _by_content(names: Sequence[str], cells: dict[str, list[str]], index: str) -> dict[str, str]:
    """Names for the columns of a file without any: the id, numbers behind it as start and end, words."""
    renamed = {index: "id"}
    behind = [name for name in names[names.index(index) + 1 :]]
    numeric = [name for name in behind if _may_be("start_s", cells[name])][:2]
    if numeric and numeric[0] == behind[0]:
        renamed[numeric[0]] = "start_s"
        if len(numeric) == 2 and behind[1] == numeric[1] and _ends_after(cells, *numeric):
            renamed[numeric[1]] = "end_s"
    rest = [name for name in names if name not in renamed]
    for name in [name for name in rest if _may_be("split", cells[name])][:1]:
        renamed[name] = "split"
    words = [n for n in rest if n not in renamed and not _may_be("start_s", cells[n])]
    if len(words) == 1:
        renamed[words[0]] = "label"
    return renamed


def _ends_after(cells: dict[str, list[str]], start: str, end: str) -> bool:
    pairs = [(_number(a), _number(b)) for a, b in zip(cells[start], cells[end], strict=True)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    return sum(b > a for a, b in known) >= _NEARLY_ALL * max(1, len(known))
