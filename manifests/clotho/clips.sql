-- A file name is no identity: names repeat across splits, and different sounds share one. None of
-- these files gives a Freesound id, so the clips stay unidentified. The test recordings have no
-- captions and are named by the index alone.
with indexed as (
    select unnest(map_values(clips)).audio[1] as path, generate_subscripts(map_keys(clips), 1) as row, file
    from soundata
)
select
    regexp_extract(file, 'captions_(.*)\.csv', 1) || '/' || file_name as clip_id,
    regexp_extract(file, 'captions_(.*)\.csv', 1) as split,
    'freesound' as source,
    null as source_id,
    [caption_1, caption_2, caption_3, caption_4, caption_5] as captions,
    file,
    row
from captioned
union all
select
    path,
    'test',
    'freesound',
    null,
    [],
    file,
    row
from indexed
where starts_with(path, 'test/') or path is null
