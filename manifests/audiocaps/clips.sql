-- The files hold one row per caption. Only the official v1 files make clips: 2.0 val and test and
-- the corrected train name the same clips with other captions, so they are lists and nothing else.
select
    trim(youtube_id) || '_' || six_digits(start_time) as clip_id,
    string_split(replace(file, '.csv', ''), '/')[-1] as split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start_time) as start_s,
    seconds(start_time) + 10 as end_s,
    list(caption order by row) as captions,
    file,
    min(row) as row
from captioned
group by file, trim(youtube_id), six_digits(start_time), seconds(start_time)
