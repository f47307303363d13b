-- A clip is a cut of a VGGSound segment. The interval is the segment's; the cut, 6.5 to 9.5 s and the
-- like, counts from its start and stays in clip_id. A malformed vid stands as id, and fails as one.
select
    trim(vid) as clip_id,
    trim(split) as split,
    'youtube' as source,
    coalesce(youtube_clip(vid).source_id, trim(vid)) as source_id,
    youtube_clip(vid).start_s as start_s,
    youtube_clip(vid).end_s as end_s,
    [label] as labels,
    file,
    row
from metadata
