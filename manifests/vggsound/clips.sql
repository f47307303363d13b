-- A clip is ten seconds from its start: the list gives no end. Of the longer list on GitHub only the
-- clips that are not in the other one are rows, in splits of their own.
with listed as (
    select *, trim(split) as meant
    from vggsound
    union all
    select *, trim(split) || '_199467'
    from github
    where not exists (
        select 1
        from vggsound
        where trim(vggsound.youtube_id) = trim(github.youtube_id)
            and six_digits(vggsound.start) = six_digits(github.start)
    )
)
select
    trim(youtube_id) || '_' || six_digits(start) as clip_id,
    meant as split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start) as start_s,
    seconds(start) + 10 as end_s,
    [label] as labels,
    file,
    row
from listed
