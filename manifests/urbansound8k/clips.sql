-- The names come from classID: the column that holds them is called `class` in the original and
-- `class_name` in copies.
select
    trim(slice_file_name) as clip_id,
    'fold' || trim(fold) as split,
    'freesound' as source,
    coalesce(freesound_id(fsID), trim(fsID)) as source_id,
    seconds(start) as start_s,
    seconds("end") as end_s,
    [coalesce(
        ['air_conditioner', 'car_horn', 'children_playing', 'dog_bark', 'drilling',
         'engine_idling', 'gun_shot', 'jackhammer', 'siren', 'street_music'][try_cast(classID as int) + 1],
        classID
    )] as labels,
    file,
    row
from urbansound8k
