-- A file name is no identity: names repeat across splits, and different sounds share one. Which sound
-- of Freesound a clip is cut from, and where, the metadata files tell, and without them no other file
-- here does. The test recordings have no captions and are named by the index or by their metadata.
with indexed as (
    select unnest(map_values(clips)).audio[1] as path, generate_subscripts(map_keys(clips), 1) as row, file
    from soundata
),
described as (
    select
        *,
        regexp_extract(file, 'metadata_(.*)\.csv', 1) || '/' || trim(file_name) as path,
        -- samples at 44,100 Hz: "[1024, 845524]"
        try_cast(regexp_extract(start_end_samples, '([0-9]+)[^0-9]+([0-9]+)', 1) as double) / 44100
            as start_s,
        try_cast(regexp_extract(start_end_samples, '([0-9]+)[^0-9]+([0-9]+)', 2) as double) / 44100
            as end_s
    from metadata
),
sounds as (
    select
        path,
        arg_min(freesound_id(sound_id), row) as source_id,
        arg_min(start_s, row) filter (where start_s < end_s) as start_s,
        arg_min(end_s, row) filter (where start_s < end_s) as end_s,
        arg_min(nullif(trim(license), ''), row) as licence,
        arg_min(nullif(trim(manufacturer), ''), row) as uploader
    from described
    group by path
),
listed as (
    select
        regexp_extract(file, 'captions_(.*)\.csv', 1) || '/' || file_name as path,
        regexp_extract(file, 'captions_(.*)\.csv', 1) as split,
        [caption_1, caption_2, caption_3, caption_4, caption_5] as captions,
        file,
        row
    from captioned
    union all
    select path, 'test', [], file, row
    from indexed
    where starts_with(path, 'test/') or path is null
    union all
    select path, 'test', [], file, row
    from described
    where starts_with(path, 'test/') and path not in (select path from indexed where path is not null)
)
select
    listed.path as clip_id,
    split,
    'freesound' as source,
    source_id,
    start_s,
    end_s,
    captions,
    licence,
    uploader,
    file,
    row
from listed
left join sounds on sounds.path = split || '/' || trim(substr(listed.path, length(split) + 2))
