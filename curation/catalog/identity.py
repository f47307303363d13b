"""Every way an id is written in the wild, brought to one: source, source_id, interval.

The regular expressions below are the only truth: Python uses them through `parse`, DuckDB through
the macros of `sql_macros` (both engines read them alike), and a test holds the two together.

| written | where | read as |
|---|---|---|
| `--PJHxphWEs, 30.000, 40.000` · `id,30` | AudioSet, VGGSound | seconds |
| `id_000030` (six digits) | VGGSound files, MMAudio, VGGSounder | start in seconds |
| `id_30000_40000` · `id_30000` | Synchformer, AudioSet strong labels | milliseconds |
| `id_30_40` · `id_30.0_40.0` | clip folders | seconds |
| `Yid.wav` | AudioCaps, WavCaps | no time |
| `id_000014_000024_6.5_9.5` | AVSync15 | the VGGSound segment, 14 to 24 s; the cut stays in clip_id |
| `12345` · `12345.0` · `0012345` · `12345__user__name.wav` | Freesound | Freesound id 12345 |
| `Not found` | Clotho | no id |
| `https://youtu.be/id?t=30` and the like | people | start in seconds |
"""

import re
from dataclasses import dataclass

# Source: the 2,084,320 ids of AudioSet and the 161,615 of VGGSound: eleven characters of base64url.
_YOUTUBE_ID = r"[A-Za-z0-9_-]{11}"
# 64 bits in eleven characters leave two bits of the last one unused; all those ids end in one of
# these sixteen, so another last character means that the id was changed on its way to us.
_LIKELY_YOUTUBE_ID = r"[A-Za-z0-9_-]{10}[AEIMQUYcgkosw048]"
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]+)?"  # Python refuses whole numbers of 4,301 digits
_BLANK = r"[ \t]*"  # the engines disagree on \s
_SUFFIX = r"(?:\.[A-Za-z][A-Za-z0-9]{1,4})?"

# syntax of a canonical id, by source; a source that is not here takes any text
ID_SYNTAX = {
    "youtube": _YOUTUBE_ID,
    "freesound": r"[1-9][0-9]{0,8}",
    "soundbible": r"[1-9][0-9]{0,5}",
    "bbc": r"[A-Za-z0-9_]{4,16}",
}
ID_MEANING = {
    "youtube": "11 characters of A-Z a-z 0-9 _ -",
    "freesound": "a positive number of up to 9 digits",
    "soundbible": "a positive number of up to 6 digits",
    "bbc": "4 to 16 letters and digits",
}
# what an id that nobody changed looks like: others are kept, matched and reported
LIKELY_ID = {"youtube": _LIKELY_YOUTUBE_ID}

# groups: id, separator, first number, second number. `Y??` prefers no prefix where both readings fit.
YOUTUBE_CLIP = (
    rf"^(?:.*/)?Y??({_YOUTUBE_ID})(?:{_BLANK}([_,;\t ]){_BLANK}({_NUMBER})"
    rf"(?:{_BLANK}[_,;\t ]{_BLANK}({_NUMBER})(?:_{_NUMBER}_{_NUMBER})?)?)?{_SUFFIX}$"
)
FREESOUND_ID = rf"^(?:.*/)?0*([1-9][0-9]{{0,8}})(?:\.0+)?(?:__.*)?{_SUFFIX}$"
_YOUTUBE_URL = (
    rf"^(?:https?://)?(?:[a-z-]+\.)*(?:youtube(?:-nocookie)?\.com|youtu\.be)/"
    rf"(?:watch\?(?:.*&)?v=|embed/|shorts/|live/|v/)?({_YOUTUBE_ID})(?:[?&#](.*))?$"
)
_URL_START = r"(?:^|&)(?:t|start)=([0-9]{1,12})s?(?:&|$)"
_FREESOUND_URL = (
    r"^(?:https?://)?(?:www\.)?freesound\.org/(?:people/[^/]+/sounds|s)/0*([1-9][0-9]{0,8})/?$"
)
_SOURCE_ID = re.compile(r"^(youtube|freesound):(?!//)(.+)$", flags=re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which recording a text names, and which stretch of it."""

    source: str
    source_id: str  # canonical
    start_s: float | None = None
    end_s: float | None = None  # exclusive


def parse(text: str) -> Identity | None:
    """What `text` names, in whichever of the forms above it is written; None if in none of them."""
    text = text.strip()
    if named := _SOURCE_ID.match(text):
        found = parse(named[2])
        return found if found and found.source == named[1] else None
    if url := re.match(_YOUTUBE_URL, text):
        start = re.search(_URL_START, url[2] or "")
        return Identity(source="youtube", source_id=url[1], start_s=float(start[1]) if start else None)
    if url := re.match(_FREESOUND_URL, text):
        return Identity(source="freesound", source_id=url[1])
    if clip := re.match(YOUTUBE_CLIP, text):
        start_s, end_s = _interval(*clip.groups()[1:])
        return Identity(source="youtube", source_id=clip[1], start_s=start_s, end_s=end_s)
    if sound := re.match(FREESOUND_ID, text):
        return Identity(source="freesound", source_id=sound[1])
    return None


def _interval(
    separator: str | None, first: str | None, second: str | None
) -> tuple[float | None, float | None]:
    """Start and end in seconds; see `_MILLISECONDS` for how the unit is told."""
    if first is None:
        return None, None
    scale = 1.0
    if separator == "_" and "." not in first + (second or ""):
        if second is not None:
            in_ms = int(second) - int(first) >= 1000
        else:
            padded = len(first) == 6 and first.startswith("0")
            in_ms = not padded and int(first) >= 1000 and int(first) % 1000 == 0
        scale = 1000.0 if in_ms else 1.0
    return float(first) / scale, None if second is None else float(second) / scale


# Whole numbers behind `_` are milliseconds where the clip would else last 1,000 s or more, or where
# a lone start is a multiple of 1,000 and not padded to six digits. Everything else is seconds.
_MILLISECONDS = """
    separator = '_' and not contains(first || second, '.') and case
        when second <> '' then try_cast(second as double) - try_cast(first as double) >= 1000
        else not (length(first) = 6 and first[1] = '0')
             and try_cast(first as double) >= 1000 and try_cast(first as double) % 1000 = 0
    end"""


def sql_macros() -> list[str]:
    """The statements that give a DuckDB connection the same understanding of ids and times.

    youtube_clip(text)  struct(source, source_id, start_s, end_s), null where the text is none
    freesound_id(text)  canonical Freesound id, null where the text is none
    recording(text)     struct(source, source_id, start_s, end_s) of any written form, as by `parse`
    seconds(text)       double, null where empty, NaN where it is no number (a row with NaN fails)
    clock(text)         double, also of 1:30, 00:01:30 and 2,5; null where it is none of these
    six_digits(text)    seconds as VGGSound's file names write them: 30.0 is 000030, 30.5 stays
    id_fault(source, source_id)  true where the id breaks the syntax of its source
    """
    faults = " ".join(
        f"when '{source}' then not regexp_full_match(source_id, '{syntax}')"
        for source, syntax in ID_SYNTAX.items()
    )
    return [
        f"""create temp macro youtube_parts(text) as
            regexp_extract(trim(text), '{YOUTUBE_CLIP}', ['id', 'separator', 'first', 'second'])""",
        f"""create temp macro seconds_of(number, separator, first, second) as
            try_cast(nullif(number, '') as double) / case when {_MILLISECONDS} then 1000 else 1 end""",
        """create temp macro clip_of(parts) as case when parts.id <> '' then {
            'source': 'youtube', 'source_id': parts.id,
            'start_s': seconds_of(parts.first, parts.separator, parts.first, parts.second),
            'end_s': seconds_of(parts.second, parts.separator, parts.first, parts.second)} end""",
        "create temp macro youtube_clip(text) as clip_of(youtube_parts(text))",
        f"""create temp macro freesound_id(text) as
            nullif(regexp_extract(trim(text), '{FREESOUND_ID}', 1), '')""",
        # the written form without a link around it, or its source in front
        f"""create temp macro unlinked(text) as case
            when not contains(text, '/') then text
            when regexp_matches(text, '{_YOUTUBE_URL}')
                then regexp_extract(text, '{_YOUTUBE_URL}', 1) || coalesce(',' || nullif(regexp_extract(
                    regexp_extract(text, '{_YOUTUBE_URL}', 2), '{_URL_START}', 1), ''), '')
            when regexp_matches(text, '{_FREESOUND_URL}')
                then regexp_extract(text, '{_FREESOUND_URL}', 1)
            else text end""",
        """create temp macro names_source(text, name) as
            starts_with(text, name || ':') and not starts_with(text, name || '://')""",
        """create temp macro bare(text) as unlinked(case
            when names_source(text, 'youtube') then trim(substr(text, 9))
            when names_source(text, 'freesound') then trim(substr(text, 11)) else text end)""",
        """create temp macro sound_of(id) as case when id <> '' then {'source': 'freesound',
            'source_id': id, 'start_s': null::double, 'end_s': null::double} end""",
        """create temp macro bare_unless(text, other) as
            case when not names_source(text, other) then bare(text) end""",
        # A lambda names a value once; without it every part of it is planned, and read, many times. Its
        # name must not be that of a column.
        """create temp macro recording(text) as list_transform([trim(text)], lambda text_: coalesce(
            list_transform([youtube_parts(bare_unless(text_, 'freesound'))],
                           lambda parts_: clip_of(parts_))[1],
            sound_of(freesound_id(bare_unless(text_, 'youtube')))))[1]""",
        """create temp macro seconds(text) as
            case when trim(text) <> '' then coalesce(try_cast(trim(text) as double), 'nan') end""",
        """create temp macro clock_parts(parts) as case
            when len(parts) = 2 then try_cast(parts[1] as double) * 60 + try_cast(parts[2] as double)
            when len(parts) = 3 then try_cast(parts[1] as double) * 3600
                + try_cast(parts[2] as double) * 60 + try_cast(parts[3] as double)
            else try_cast(parts[1] as double) end""",
        """create temp macro clock(text) as
            clock_parts(string_split(replace(trim(text), ',', '.'), ':'))""",
        """create temp macro six_digits(text) as
            case when try_cast(trim(text) as double) between 0 and 999999
                      and try_cast(trim(text) as double) % 1 = 0
                 then lpad(try_cast(trim(text) as double)::integer::varchar, 6, '0')
                 else trim(text) end""",
        f"""create temp macro id_fault(source, source_id) as
            case source {faults} else source_id = '' end""",
    ]
