-- A clip is named by its Freesound id. The ground truth comes first, with labels; what only soundata's
-- index has is read from there, where the path says the split.
with indexed as (
    select unnest(map_entries(clips)) as entry, generate_subscripts(map_keys(clips), 1) as row, file
    from soundata
),
listed as (
    select trim(fname) as name, 'dev' as split, string_split(labels, ',') as labels, file, row
    from dev
    union all
    select trim(fname), 'eval', string_split(labels, ','), file, row
    from eval
    union all
    select
        trim(entry.key),
        regexp_extract(entry.value.audio[1], '^FSD50K\.(dev|eval)_audio/', 1),
        [],
        file,
        row
    from indexed
    where trim(entry.key) not in (
        select trim(fname) from dev where fname is not null
        union all
        select trim(fname) from eval where fname is not null
    )
),
described as (
    select trim(entry.key) as name, any_value(entry.value) as info
    from (select unnest(map_entries(clips)) as entry from clips_info)
    group by 1
)
select
    listed.name as clip_id,
    split,
    'freesound' as source,
    coalesce(freesound_id(listed.name), listed.name) as source_id,
    labels,
    nullif(trim(info.license), '') as licence,
    nullif(trim(info.uploader), '') as uploader,
    file,
    row
from listed
left join described on described.name = listed.name
