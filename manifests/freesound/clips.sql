-- A sound is whole and its id is Freesound's; captions were made from its title and description.
select
    coalesce(freesound_id(freesound_id), trim(freesound_id)) as clip_id,
    'train' as split,
    'freesound' as source,
    coalesce(freesound_id(freesound_id), trim(freesound_id)) as source_id,
    list_filter([trim(caption1), trim(caption2)], lambda caption: caption <> '') as captions,
    nullif(trim(license), '') as licence,
    nullif(trim(username), '') as uploader,
    file,
    row
from freesound
