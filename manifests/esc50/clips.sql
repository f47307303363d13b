-- A clip is a cut of a Freesound sound, and where it was cut is not published.
select
    trim(filename) as clip_id,
    'fold' || trim(fold) as split,
    'freesound' as source,
    coalesce(freesound_id(src_file), trim(src_file)) as source_id,
    [category] as labels,
    file,
    row
from esc50
