-- Each part is one JSON object with the clips in `data`. Its AudioSet part gives no starts, and its
-- other parts are whole recordings, so there is no interval anywhere.
with items as (
    select 'soundbible' as part, unnest(data) as item, generate_subscripts(data, 1) as row, file
    from soundbible
    union all
    select 'audioset_sl', unnest(data), generate_subscripts(data, 1), file
    from audioset_sl
    union all
    select 'bbc', unnest(data), generate_subscripts(data, 1), file
    from bbc
    union all
    select 'freesound', unnest(data), generate_subscripts(data, 1), file
    from freesound
),
identified as (
    select *, case part
        when 'audioset_sl' then coalesce(youtube_clip(item.id).source_id, trim(item.id))
        when 'freesound' then coalesce(freesound_id(item.id), trim(item.id))
        else trim(item.id)
    end as source_id
    from items
)
select
    part || '/' || source_id as clip_id,
    part as split,
    case part when 'audioset_sl' then 'youtube' else part end as source,
    source_id,
    [item.caption] as captions,
    nullif(trim(item.author), '') as uploader,
    file,
    row
from identified
