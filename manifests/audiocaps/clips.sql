-- The files hold one row per caption. The official v1 files make clips; version 2.0 makes those of its
-- train clips that v1 does not have, in a split of their own. Its val and test and the corrected
-- train name clips of v1 with other captions, so they are lists and nothing else.
with lines as (
    select *, youtube_id is null and start_time is null and caption is null as goes_on
    from train_v2
),
rejoined as (
    select youtube_id, start_time, file, row,
        concat_ws(
            ' ', caption,
            if(lead(goes_on) over (order by row), lead(audiocap_id) over (order by row), null)
        ) as caption
    from lines
    qualify not goes_on
),
captions as (
    select youtube_id, start_time, caption, file, row,
        string_split(replace(file, '.csv', ''), '/')[-1] as split
    from captioned
    union all
    select youtube_id, start_time, caption, file, row, 'train_v2'
    from rejoined
    where not exists (
        select 1
        from captioned
        where trim(captioned.youtube_id) = trim(rejoined.youtube_id)
            and six_digits(captioned.start_time) = six_digits(rejoined.start_time)
    )
)
select
    trim(youtube_id) || '_' || six_digits(start_time) as clip_id,
    split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start_time) as start_s,
    seconds(start_time) + 10 as end_s,
    list(caption order by row) as captions,
    file,
    min(row) as row
from captions
group by file, split, trim(youtube_id), six_digits(start_time), seconds(start_time)
