-- Each part is one JSON object with the clips in `data`. Its AudioSet part gives no starts, and its
-- other parts are whole recordings, so there is no interval anywhere. Labels are Freesound's tags and
-- the BBC's categories, which are one text: "['Nature', 'Machines']".
with soundbible_items as (
    select unnest(data) as item, generate_subscripts(data, 1) as row, file
    from soundbible
),
audioset_items as (
    select unnest(data) as item, generate_subscripts(data, 1) as row, file
    from audioset_sl
),
bbc_items as (
    select unnest(data) as item, generate_subscripts(data, 1) as row, file
    from bbc
),
freesound_items as (
    select unnest(data) as item, generate_subscripts(data, 1) as row, file
    from freesound
),
identified as (
    select 'soundbible' as part, 'soundbible' as source, trim(item.id) as source_id, item.caption,
        item.author, []::varchar[] as labels, file, row
    from soundbible_items
    union all
    select 'audioset_sl', 'youtube', coalesce(youtube_clip(item.id).source_id, trim(item.id)),
        item.caption, null, [], file, row
    from audioset_items
    union all
    select 'bbc', 'bbc', trim(item.id), item.caption, null,
        list_transform(
            string_split(trim(item.category, '[] '), ', '), lambda name: trim(name, '''"')
        ),
        file, row
    from bbc_items
    union all
    select 'freesound', 'freesound', coalesce(freesound_id(item.id), trim(item.id)), item.caption,
        item.author, item.tags, file, row
    from freesound_items
)
select
    part || '/' || source_id as clip_id,
    part as split,
    source,
    source_id,
    [caption] as captions,
    coalesce(list_filter(labels, lambda label: label <> ''), []) as labels,
    nullif(trim(author), '') as uploader,
    file,
    row
from identified
