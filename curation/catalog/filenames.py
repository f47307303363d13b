"""File names under which people keep media, from the patterns of a card, as SQL over clips."""

import re
from pathlib import PurePosixPath

from curation.catalog.store import sql_text

MMAUDIO = "{id}_{start:06d}"  # how MMAudio, and VGGSound before it, name a clip of a video
_PLACEHOLDERS = {
    "{clip_id}": "regexp_replace(clip_id, '^.*/|\\.[A-Za-z0-9]{2,5}$', '', 'g')",
    "{id}": "source_id",
    "{start:06d}": "case when start_s % 1 = 0 then lpad(start_s::bigint::varchar, "
    "greatest(6, length(start_s::bigint::varchar))::integer, '0') end",
    "{start}": "case when start_s % 1 = 0 then start_s::bigint::varchar else start_s::varchar end",
    "{start_ms}": "round(start_s * 1000)::bigint::varchar",
    "{end_ms}": "round(end_s * 1000)::bigint::varchar",
}


def stem_sql(pattern: str) -> str:
    """The name without folder and suffix as SQL over a row of clips; null where the row lacks a part."""
    name = PurePosixPath(pattern).name
    stem = name if name.endswith("}") else name.rpartition(".")[0] or name
    parts = re.findall(r"\{[^}]*\}|[^{]+", stem)
    return "(" + " || ".join(_PLACEHOLDERS.get(part) or sql_text(part) for part in parts) + ")"


def stems_sql(patterns: tuple[str, ...]) -> list[str]:
    """Every such stem, each once, in the order of the patterns."""
    return list(dict.fromkeys(stem_sql(pattern) for pattern in patterns))
