"""A card from a file: `card.toml` and `clips.sql` as somebody would write them who looked at it."""

import json
from pathlib import Path

from curation.catalog.cards import CARD_FILES, NAME, RESERVED, card_folders, load_card
from curation.catalog.fetch import copy_raw
from curation.catalog.shape import Shape, shape_of
from curation.catalog.store import sql_name, sql_text
from curation.errors import UsageProblem
from curation.files import replacing

_TO_FILL_IN = "unknown: fill in"


def new_dataset(
    path: Path, name: str, manifests: Path, *, columns: dict[str, str], role: str, replace: bool
) -> Shape:
    """Make a dataset of a file: its card and a copy of the file, ready for `curate build`.

    Args:
        columns: the names of columns by what they hold, as shape_of takes them.
        role: of all rows, where the file tells no splits.

    Raises:
        UsageProblem: the name is none, or there is such a dataset already.
        BadMetadata: the file cannot be read.
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise UsageProblem(
            f"--dataset {name!r}, expected lower case letters, digits and _, and none of our own names"
        )
    shipped = card_folders().keys()
    folder = manifests / name
    if name in shipped or (not replace and (folder / CARD_FILES[0]).exists()):
        raise UsageProblem(
            f"{name}: there is a card of that name, expected a new name — give another --dataset"
            + ("" if name in shipped else ", or --replace to write it anew")
        )
    shape = shape_of(path, columns=columns)
    copy_raw(path, folder / "raw" / path.name)
    write_card(folder, shape, path=path.name, title=name, split=role, role=role)
    load_card(folder)
    return shape


def write_card(
    folder: Path, shape: Shape, *, path: str, title: str, split: str = "train", role: str = "train"
) -> None:
    """Write the card of a dataset whose only file is written like `shape`.

    Args:
        path: of the file, below raw/.
        split, role: of all rows, where the file tells no splits.
    """
    splits = shape.splits or {split: role}
    for name, text in (
        ("card.toml", card_toml(shape, path=path, title=title, splits=splits)),
        ("clips.sql", clips_sql(shape, split=split)),
    ):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def card_toml(shape: Shape, *, path: str, title: str, splits: dict[str, str]) -> str:
    """The text of `card.toml`; what a file cannot tell is left to be filled in."""
    text = json.dumps  # a TOML string is written like a JSON one
    lines = [f"title = {text(title)}"]
    lines += [f"{key} = {text(_TO_FILL_IN)}" for key in ("homepage", "citation")]
    lines += [f"{key} = {text(_TO_FILL_IN)}" for key in ("metadata_licence", "media_licence")]
    modality = "audio-video" if "youtube" in shape.sources else "audio"
    lines += [f"modality = {text(modality)}", 'media = ["{id}.wav", "{id}.mp4", "{clip_id}.mp4"]', ""]
    lines += ["[files.rows]", f"path = {text(path)}", f"url = {text(_TO_FILL_IN)}", "by_hand = true"]
    lines += [f"format = {text(shape.format)}", f"columns = {text(list(shape.columns))}"]
    if shape.format == "csv":
        lines += [f"delimiter = {text(shape.delimiter)}", f"header = {text(shape.header)}"]
        lines += ["ragged = true"]
    for name, role in splits.items():
        lines += ["", f"[splits.{text(name)}]", f"role = {text(role)}"]
    return "\n".join(lines) + "\n"


def clips_sql(shape: Shape, *, split: str = "train") -> str:
    """The text of `clips.sql`: rows that name one stretch of one recording make one clip."""
    allowed = ", ".join(sql_text(source) for source in shape.sources)
    id_ = sql_name(shape.id_column)
    role = {name: sql_name(column) for name, column in shape.roles.items()}
    start = f"clock({role['start_s']})" if "start_s" in role else None
    start = f"clock({role['start_ms']}) / 1000" if "start_ms" in role else start
    end = f"clock({role['end_s']})" if "end_s" in role else None
    end = f"clock({role['end_ms']}) / 1000" if "end_ms" in role else end
    if start and not end and "duration_s" in role:
        end = f"{start} + clock({role['duration_s']})"
    told = {
        "split": f"trim({role['split']})" if "split" in role else sql_text(split),
        "source": f"coalesce(named_.source, {sql_text(shape.sources[-1])})",
        "source_id": f"coalesce(named_.source_id, nullif(trim({id_}), ''))",
        "start_s": _first(start, "named_.start_s"),
        "end_s": _first(end, "named_.end_s"),
        "captions": f"[{', '.join(map(sql_name, shape.captions))}]::varchar[]",
        "label": role.get("label", "null"),
        "licence": role.get("licence", "null"),
        "uploader": role.get("uploader", "null"),
    }
    # of a recording that is in two splits, two clips
    in_split = " || '_' || split" if "split" in role else ""
    columns = ",\n        ".join(f"{value} as {name}" for name, value in told.items())
    return f"""-- Ids are read in whatever form they are written; what cannot be read fails as bad_id.
with read as materialized (
    select *, list_filter([recording({id_})], lambda clip_: clip_.source in ({allowed}))[1] as named_
    from rows
),
told as (
    select
        {columns},
        case when named_ is null then row end as unread,
        file, row
    from read
),
timed as (  -- a time that cannot be is unknown, and may be any: the id counts all the same
    select * replace (
        case when isfinite(start_s) and start_s >= 0 and start_s < 1e9 then start_s end as start_s,
        case when isfinite(end_s) and end_s >= coalesce(start_s, 0) + 0.001 and end_s < 1e9
             then end_s end as end_s)
    from told
)
select
    source_id || coalesce('_' || try_cast(start_s * 1000 as bigint), '')
        || coalesce('_' || try_cast(end_s * 1000 as bigint), ''){in_split} as clip_id,
    split, source, source_id, start_s, end_s,
    list_sort(list_filter(list_distinct(flatten(list(captions))), lambda text: text <> '')) as captions,
    list_sort(list_filter(list_distinct(list(trim(label))), lambda text: text <> '')) as labels,
    case when count(distinct coalesce(licence, '')) = 1 then min(licence) end as licence,
    min(uploader) as uploader,
    file,
    min(row) as row
from timed
group by split, source, source_id, start_s, end_s, file, unread
"""


def _first(*values: str | None) -> str:
    known = [value for value in values if value]
    return f"coalesce({', '.join(known)})" if len(known) > 1 else known[0]


def described(shape: Shape) -> list[str]:
    """What was understood of a file, a line each, for people to check."""
    words = {"start_ms": "start in ms", "end_ms": "end in ms"}
    told = ", ".join(
        f"{words.get(role, role.removesuffix('_s'))} = {column!r}"
        for role, column in shape.roles.items()
    )
    separator = {"\t": "tabs", " ": "blanks"}.get(shape.delimiter, repr(shape.delimiter))
    read = {shape.id_column, *shape.roles.values(), *shape.captions}
    unread = [name for name in shape.columns if name not in read]
    lines = [
        f"ids: column {shape.id_column!r}, {shape.readable:.1%} of the cells looked at name a recording "
        f"of {' or '.join(shape.sources)}",
        f"also read: {told or 'nothing'}"
        + (f", captions = {', '.join(map(repr, shape.captions))}" if shape.captions else ""),
    ]
    if unread:
        lines.append(f"not read: {', '.join(map(repr, unread))}")
    if shape.format == "csv":
        header = "a header" if shape.header else "no header"
        lines.append(f"{len(shape.columns)} columns, separated by {separator}, {header}")
    if shape.open_quotes:
        lines.append(
            f"{shape.open_quotes:,} of the lines looked at have a quote that ends in another line, or "
            "never: where cells go on there, take `ragged = true` out of card.toml"
        )
    if shape.splits:
        lines.append("splits: " + ", ".join(f"{name} ({role})" for name, role in shape.splits.items()))
    return lines
