-- Labels become the names people read. Looking them up in a map, not by a join, keeps the rows in
-- the order of the files without a sort of two million.
with ontology as (
    select map(list(mid), list(name)) as names
    from (select mid, any_value(display_name) as name from classes where mid <> '' group by mid)
)
select
    trim(youtube_id) || '_' || coalesce(try_cast(seconds(start) * 1000 as bigint)::varchar, trim(start))
        as clip_id,
    split_part(file, '_', 1) as split,
    'youtube' as source,
    trim(youtube_id) as source_id,
    seconds(start) as start_s,
    seconds("end") as end_s,
    list_transform(
        string_split(labels, ','), lambda mid: coalesce(names[mid], mid)
    ) as labels,
    file,
    row
from segments, ontology
