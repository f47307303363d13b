-- A clip is ten seconds from its start: the list gives no end.
select
    trim(youtube_id) || '_' || six_digits(start) as clip_id,
    trim(split) as split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start) as start_s,
    seconds(start) + 10 as end_s,
    [label] as labels,
    file,
    row
from vggsound
