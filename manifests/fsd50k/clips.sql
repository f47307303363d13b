-- The index is one JSON object; a clip's key is its Freesound id and its path says the split.
with entries as (
    select unnest(map_entries(clips)) as entry, generate_subscripts(map_keys(clips), 1) as row, file
    from soundata
)
select
    trim(entry.key) as clip_id,
    regexp_extract(entry.value.audio[1], '^FSD50K\.(dev|eval)_audio/', 1) as split,
    'freesound' as source,
    coalesce(freesound_id(entry.key), trim(entry.key)) as source_id,
    file,
    row
from entries
