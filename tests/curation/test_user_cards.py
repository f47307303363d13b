"""Cards of users, and cards that are refused: not one SELECT, contradicting itself, too curious."""

import json
import os
import re
import shutil
import textwrap
from pathlib import Path

import pytest

from curation.catalog.build import Built, build
from curation.catalog.cards import CARD_FILES, RESERVED, load_card, load_cards
from curation.catalog.fetch import fetch_from
from curation.catalog.lists import heldout_selection, train_selection
from curation.catalog.record import read_record
from curation.errors import BadCard, UsageProblem

# -- cards of users --------------------------------------------------------------------------------

TOML = """
title = "Mine"
homepage = "-"
citation = "-"
metadata_licence = "-"
media_licence = "-"

[files.rows]
path = "rows.csv"
url = "-"
columns = ["name", "start"]

[splits.train]
role = "train"

[splits.test]
role = "test"
"""
SQL = """
select name || '_' || six_digits(start) as clip_id,
       case when row % 2 = 0 then 'test' else 'train' end as split,
       'youtube' as source, trim(name) as source_id, seconds(start) as start_s,
       seconds(start) + 10 as end_s, file, row
from rows
"""
CSV = "name,start\nFhaYvI1yrUM,21\n4PjEi5fFD6A,21\n"


def _write_card(folder: Path, *, toml: str = TOML, sql: str = SQL, name: str = "mine") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "card.toml").write_text(toml)
    (folder / name / "clips.sql").write_text(sql)
    return folder / name


def test_card_of_a_user_is_a_dataset_like_any_other(in_folder, tmp_path, curate):
    manifests = tmp_path / "manifests"
    shutil.copytree(in_folder.manifests, manifests, ignore=shutil.ignore_patterns("clean", "raw"))
    _write_card(tmp_path / "cards")
    (tmp_path / "metadata" / "mine").mkdir(parents=True)
    (tmp_path / "metadata" / "mine" / "rows.csv").write_text(CSV)
    common = ("--manifests", manifests, "--cards", tmp_path / "cards")
    assert curate("fetch", "mine", "--from", tmp_path / "metadata", *common)[0] == 0
    code, out, _ = curate("build", "mine", *common)
    assert code == 0
    assert "2 rows = 2 kept" in out
    code, out, _ = curate(
        "overlaps", "--test", "vggsound,mine", "--train", "mine,audioset", "--json", *common
    )
    assert code == 0
    tests = json.loads(out)["tests"]
    assert tests["vggsound"]["overlap"]["mine"]["pairs"] == {"id": 1, "interval": 1, "same_start": 1}
    assert tests["mine"]["overlap"]["audioset"]["test_items"]["id"] == 1  # 4PjEi5fFD6A
    code, out, _ = curate("datasets", *common)
    assert code == 0
    assert any(line.startswith("mine ") for line in out.splitlines())


def test_card_of_a_user_stays_with_what_was_built_from_it(in_folder, tmp_path, curate):
    manifests = tmp_path / "manifests"
    shutil.copytree(in_folder.manifests, manifests, ignore=shutil.ignore_patterns("clean", "raw"))
    card = _write_card(tmp_path / "cards")
    (tmp_path / "metadata" / "mine").mkdir(parents=True)
    (tmp_path / "metadata" / "mine" / "rows.csv").write_text(CSV)
    at, given = ("--manifests", manifests), ("--cards", card.parent)
    assert curate("fetch", "mine", "--from", tmp_path / "metadata", *at, *given)[0] == 0
    assert curate("build", "mine", *at, *given)[0] == 0
    code, out, err = curate("overlaps", "--test", "mine", *at)  # nobody has to name it again
    assert code == 0, err
    assert "mine@" in out
    assert curate("clean", "--name", "x", *at)[0] == curate("verify", *at)[0] == 0
    assert "1 built" in curate("build", "mine", *at)[1]
    (card / "card.toml").write_text(TOML.replace('title = "Mine"', 'title = "Mine, again"'))
    assert curate("build", "mine", *at, *given)[0] == 0
    assert "Mine, again" in (manifests / "mine" / "card.toml").read_text()
    assert not (manifests / "vggsound" / "card.toml").exists()  # ours come with the package
    assert curate("clean", "--name", "x", *at)[0] == 0
    for name in CARD_FILES:
        (manifests / "mine" / name).unlink()
    code, _, err = curate("overlaps", *at)
    assert code == 2
    assert "give its folder with --cards DIR" in err
    code, out, _ = curate("verify", "x", *at)
    assert code == 1
    assert re.search(r"clean/x +cannot be checked", out)


def test_example_of_the_readme_is_a_card(tmp_path, curate):
    readme = Path(__file__).resolve().parents[2] / "manifests" / "README.md"
    blocks = re.findall(r"```(toml|sql)\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.S)
    texts = {kind: textwrap.dedent(text) for kind, text in blocks}
    folder = _write_card(tmp_path / "cards", toml=texts["toml"], sql=texts["sql"])
    (tmp_path / "metadata" / "mine").mkdir(parents=True)
    (tmp_path / "metadata" / "mine" / "mine.csv").write_text(
        'id,start,end,caption\nFhaYvI1yrUM,21,31,"a skateboard, rolling"\n'
    )
    common = ("--manifests", tmp_path / "manifests", "--cards", folder.parent)
    assert curate("fetch", "mine", "--from", tmp_path / "metadata", *common)[0] == 0
    code, out, _ = curate("build", "mine", *common)
    assert code == 0
    assert "1 row = 1 kept" in out


def test_everything_a_card_lacks_is_told_at_once(tmp_path):
    lacking = TOML.replace('homepage = "-"', "").replace('citation = "-"', "")
    with pytest.raises(BadCard, match="no 'homepage', expected text; no 'citation', expected text"):
        load_card(_write_card(tmp_path, toml=lacking))


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ('modality = "vidoe"', "modality 'vidoe', expected one of audio-video, audio"),
        ('[[errata]]\nsplit = "train"\nrows = 5', "an erratum has no 'why', expected text"),
        ('[[evidence]]\nname = "x"\nrule = "published_list"\nheldout = []\ncitation = "-"\n'
         'sql = "select 1"\npartner = "Unknown"', "partner 'Unknown' of 'x', expected one of same_id"),
        (2 * '[[evidence]]\nname = "x"\nrule = "known_reupload"\nheldout = []\ncitation = "-"\n'
         'groups = [["FhaYvI1yrUM", "4PjEi5fFD6A"]]\n', "two evidence entries with one name"),
        ('[[evidence]]\nname = "x"\nrule = "known_reupload"\nheldout = []\ncitation = "-"\n'
         'groups = [["FhaYvI1yrUM", "4PjEi5fFD6"]]\n', "id '4PjEi5fFD6' of evidence 'x'"),
    ],
)  # fmt: skip
def test_card_that_would_be_half_inert_is_refused(added, says, tmp_path):
    toml = added + "\n" + TOML if added.startswith("modality") else TOML + added + "\n"
    with pytest.raises(BadCard, match=re.escape(says)):
        load_card(_write_card(tmp_path, toml=toml))


def _build_mine(curate, tmp_path, *, sql=SQL, csv=CSV):
    card = _write_card(tmp_path / "cards", sql=sql)
    (tmp_path / "metadata" / "mine").mkdir(parents=True)
    (tmp_path / "metadata" / "mine" / "rows.csv").write_text(csv)
    common = ("--manifests", tmp_path / "manifests", "--cards", card.parent)
    assert curate("fetch", "mine", "--from", tmp_path / "metadata", *common)[0] == 0
    return curate("build", "mine", *common), common


@pytest.mark.parametrize("source", ["null", "'YouTube'", "'you tube'", "''"])
def test_row_of_a_source_that_cannot_be_compared_fails(source, curate, tmp_path):
    sql = SQL.replace("'youtube' as source", f"if(row = 2, {source}, 'youtube') as source")
    (code, out, _), _ = _build_mine(curate, tmp_path, sql=sql)
    assert code == 0
    assert "2 rows = 1 kept + 1 failed (bad_id 1)" in out


JSON_CARD = TOML.replace(
    'path = "rows.csv"\nurl = "-"\ncolumns = ["name", "start"]',
    'path = "rows.csv"\nurl = "-"\nformat = "json"\ncolumns = { name = "varchar", start = "varchar" }',
)


@pytest.mark.parametrize("form", ["\n".join, lambda rows: "[" + ", ".join(rows) + "]", " ".join])
def test_json_objects_are_read_one_a_line_in_an_array_and_one_after_another(form, tmp_path):
    rows = [json.dumps({"name": name, "start": "21"}) for name in ("FhaYvI1yrUM", "4PjEi5fFD6A")]
    card = load_card(_write_card(tmp_path / "cards", toml=JSON_CARD))
    raw = tmp_path / "manifests" / "mine" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.csv").write_text(form(rows))
    (result,) = build([card], tmp_path / "manifests")
    assert (result.error, result.tally.kept) == (None, 2)


def test_json_object_with_ids_for_keys_is_one_map(tmp_path):
    toml = TOML.replace(
        'columns = ["name", "start"]',
        'format = "json"\nwhole = true\ncolumns = { rows = "map(varchar, struct(start bigint))" }',
    )
    unnested = "(select unnest(map_entries(rows)) as entry, file from rows)"
    sql = (
        "select entry.key as clip_id, 'train' as split, 'youtube' as source, entry.key as source_id, "
        f"entry.value.start as start_s, file, row_number() over () as row from {unnested}"
    )
    card = load_card(_write_card(tmp_path / "cards", toml=toml, sql=sql))
    raw = tmp_path / "manifests" / "mine" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.csv").write_text('{"FhaYvI1yrUM": {"start": 21}, "4PjEi5fFD6A": {"start": 30}}')
    (result,) = build([card], tmp_path / "manifests")
    assert (result.error, result.tally.kept) == (None, 2)


@pytest.mark.parametrize("short", [False, True])
def test_line_may_end_early_only_where_the_card_says_so(short, tmp_path):
    toml = TOML.replace('url = "-"', 'url = "-"\nshort_lines = true') if short else TOML
    card = load_card(_write_card(tmp_path / "cards", toml=toml))
    raw = tmp_path / "manifests" / "mine" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.csv").write_text(CSV + "the rest of something\n")
    (result,) = build([card], tmp_path / "manifests")
    if short:
        assert (result.error, result.tally.kept) == (None, 2)
        assert result.tally.failed == {"missing_id": 1}  # it has no start, so no clip_id
    else:
        assert "line 4: 1 columns; expected 2 columns" in str(result.error)


def test_split_that_stands_apart_is_not_meant_by_the_name(tmp_path):
    toml = TOML + '[splits.later]\nrole = "train"\napart = true\n'
    cards = {"mine": load_card(_write_card(tmp_path, toml=toml))}
    assert train_selection("mine", cards).splits == ("train",)
    assert train_selection("mine/later", cards).splits == ("later",)


def test_overflow_in_a_later_row_is_the_fault_of_the_card(curate, tmp_path):
    sql = SQL.replace("six_digits(start)", "(2147483647::integer + (row - 1)::integer)::varchar")
    (code, out, _), _ = _build_mine(curate, tmp_path, sql=sql)
    assert code == 1
    assert re.search(r"failed: .*clips\.sql: Out of Range Error", out)


def test_clip_ids_that_repeat_are_the_fault_of_the_card(curate, tmp_path):
    sql = SQL.replace("name || '_' || six_digits(start)", "'one for all'")
    (code, out, _), _ = _build_mine(curate, tmp_path, sql=sql, csv=CSV + "1MQkMdlBezY,5\n")
    assert code == 1
    assert "clips.sql: 2 of 3 rows repeat another clip_id, expected one of its own for each row" in out


def test_nothing_to_train_on_says_so(in_folder, tmp_path, curate):
    manifests = tmp_path / "manifests"
    shutil.copytree(in_folder.manifests / "esc50", manifests / "esc50")
    code, _, err = curate("overlaps", "--test", "esc50/fold1", "--manifests", manifests)
    assert code == 2
    assert "nothing that is built has a train split" in err
    assert "name splits with --train" in err


def test_card_does_not_read_what_was_made_of_it(curate, tmp_path):
    (code, _, err), common = _build_mine(curate, tmp_path)
    assert code == 0, err
    built = tmp_path / "manifests" / "mine" / "clips.parquet"
    (tmp_path / "cards" / "mine" / "clips.sql").write_text(
        f"select clip_id, split, source, source_id, 'rows.csv' as file, 1 as row from '{built}'"
    )
    code, out, _ = curate("build", "mine", *common)
    assert code == 1
    assert "reads outside its raw folder" in out


def test_card_of_a_user_never_takes_the_place_of_a_shipped_one(curate, tmp_path, monkeypatch):
    shipped = tmp_path / "manifests"
    for name in ("esc50", "mine"):
        shutil.copytree(
            load_cards()["esc50"].folder, shipped / name, ignore=shutil.ignore_patterns("raw")
        )
    monkeypatch.setattr("curation.catalog.cards._shipped", lambda: shipped.resolve())
    (code, out, _), _ = _build_mine(curate, tmp_path)
    assert code == 1
    assert "would take the place of the card that ships" in out
    assert "ESC-50" in (shipped / "mine" / "card.toml").read_text()


def test_csv_with_the_index_column_of_a_table_is_read(curate, tmp_path):
    (code, out, err), _ = _build_mine(
        curate, tmp_path, csv=",name,start\n0,FhaYvI1yrUM,21\n1,4PjEi5fFD6A,21\n"
    )
    assert code == 0, err
    assert "2 rows = 2 kept" in out


def test_files_fetched_anew_and_not_built_are_said(curate, tmp_path):
    (code, _, err), common = _build_mine(curate, tmp_path)
    assert code == 0, err
    line = "mine: its files were fetched anew since it was built"
    assert line not in curate("overlaps", "--test", "mine", "--train", "mine", *common)[1]
    (tmp_path / "metadata" / "mine" / "rows.csv").write_text(CSV + "1MQkMdlBezY,5\n")
    assert curate("fetch", "mine", "--from", tmp_path / "metadata", *common)[0] == 0
    assert line in curate("overlaps", "--test", "mine", "--train", "mine", *common)[1]
    assert line in curate("clean", "--test", "mine", *common)[1]
    assert re.search(r"^mine +built, older than its files", curate("datasets", *common)[1], flags=re.M)
    assert curate("build", "mine", *common)[0] == 0
    assert line not in curate("overlaps", "--test", "mine", "--train", "mine", *common)[1]


def test_clip_that_failed_in_build_is_blamed_on_that(curate, tmp_path):
    (code, _, err), common = _build_mine(curate, tmp_path, csv=CSV + "4PjEi5fFD6,21\n")
    assert code == 0, err
    code, _, err = curate("blame", "4PjEi5fFD6_000021", "--test", "mine", *common)
    assert code == 2
    assert "it failed in the build of mine as bad_id: rows.csv, row 3" in err


def test_semicolon_at_the_end_of_a_list_is_no_second_statement(tmp_path):
    listed = (
        TOML
        + """[[lists]]
name = "some"
title = "some of them"
sql = "select 'youtube' as source, name as source_id from rows;"
"""
    )
    assert load_card(_write_card(tmp_path, toml=listed)).lists[0].sql[-1] != ";"


def test_folder_of_one_card_is_read_too_and_stands_before_ours(tmp_path):
    folder = _write_card(tmp_path, name="esc50")
    assert load_cards(folder)["esc50"].title == "Mine"
    assert load_cards(tmp_path)["esc50"].title == "Mine"
    assert load_cards()["esc50"].title == "ESC-50"


# -- cards that are refused ------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path) -> Path:
    """A file that no card may read."""
    path = tmp_path / "outside.csv"
    path.write_text("secret\ncanary\n")
    return path


def _build_with(tmp_path: Path, *, sql: str = SQL, toml: str = TOML) -> Built:
    card = load_card(_write_card(tmp_path / "cards", sql=sql, toml=toml))
    metadata = tmp_path / "metadata" / "mine"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "rows.csv").write_text(CSV)
    fetch_from(tmp_path / "metadata", [card], tmp_path / "manifests")
    (result,) = build([card], tmp_path / "manifests")
    return result


def _select_from(table: str) -> str:
    return (
        "select 'x' as clip_id, 'train' as split, 'local' as source, "
        f"any_value(t)::varchar as source_id, 'f' as file, 1 as row from {table} t"
    )


NOT_ONE_SELECT = (
    "",
    "-- only a comment",
    SQL + ";" + SQL,
    SQL + "; drop table rows",
    "copy rows to 'stolen.csv'",
    "copy (select 1) to 'stolen.csv'",
    "attach 'other.duckdb' as other",
    "create table x as select 1",
    "create or replace temp view rows as select 1",
    "insert into rows values ('a', 'b', 'c', 1)",
    "update rows set name = 'x'",
    "delete from rows",
    "drop table rows",
    "set memory_limit = '1TB'",
    "pragma enable_progress_bar",
    "install httpfs",
    "load httpfs",
    "export database 'stolen'",
    "import database 'stolen'",
    "call pragma_version()",
    "explain select 1",
    "prepare x as select 1",
    "checkpoint",
    "vacuum",
    "begin transaction",
    "select (",
    "sel ect 1",
)


@pytest.mark.parametrize("sql", NOT_ONE_SELECT, ids=repr)
def test_card_that_is_not_exactly_one_select_is_refused(tmp_path, sql):
    result = _build_with(tmp_path, sql=sql)
    assert result.state == "failed"
    assert isinstance(result.error, BadCard)
    assert str(result.error).startswith(str(tmp_path / "cards" / "mine" / "clips.sql"))
    if sql != "call pragma_version()":  # DuckDB reads this as a SELECT from a table function
        assert "expected exactly one SELECT, nothing else" in str(result.error)
    left = {path.name for path in (tmp_path / "manifests" / "mine").iterdir()}
    assert left == {"raw"}


@pytest.mark.parametrize(
    "table",
    [
        "read_csv('{outside}')",
        "'{outside}'",
        "read_text('{outside}')",
        "read_blob('{outside}')",
        "read_csv('{raw}/../../../outside.csv')",
        "read_csv('{raw}/link.csv')",
        "read_text('{raw}/folder/outside.csv')",
        "glob('{folder}/*')",
        "read_csv('/etc/passwd')",
        "read_text('/proc/self/environ')",
        "read_csv('https://example.org/x.csv')",
        "sniff_csv('{outside}')",
        "read_parquet('{neighbour}')",
    ],
)
def test_card_that_reads_outside_its_folder_is_refused(tmp_path, outside, table):
    raw = tmp_path / "manifests" / "mine" / "raw"
    raw.mkdir(parents=True)
    os.symlink(outside, raw / "link.csv")
    os.symlink(tmp_path, raw / "folder")
    neighbour = tmp_path / "manifests" / "mine2" / "clips.parquet"  # shares the beginning of the path
    neighbour.parent.mkdir()
    import duckdb

    duckdb.sql("select 'canary' as secret").write_parquet(str(neighbour))
    names = {"outside": outside, "raw": raw, "folder": tmp_path, "neighbour": neighbour}
    result = _build_with(tmp_path, sql=_select_from(table.format(**names)))
    assert result.state == "failed", result
    assert isinstance(result.error, BadCard)
    assert "Permission Error: Cannot access file" in str(result.error)
    assert "canary" not in str(result.error)
    assert not (tmp_path / "manifests" / "mine" / "clips.parquet").exists()


def test_card_may_read_its_own_folder(tmp_path):
    """Otherwise the refusals above would prove nothing."""
    table = f"read_csv('{tmp_path}/manifests/mine/raw/rows.csv')"
    result = _build_with(tmp_path, sql=_select_from(table))
    assert (result.error, result.tally.kept) == (None, 1)


def test_raw_file_that_is_a_link_is_not_followed(tmp_path, outside):
    _build_with(tmp_path)
    raw = tmp_path / "manifests" / "mine" / "raw" / "rows.csv"
    raw.unlink()
    outside.write_text("name,start\ncanary0000A,1\n")
    os.symlink(outside, raw)
    (result,) = build([load_card(tmp_path / "cards" / "mine")], tmp_path / "manifests")
    assert result.state == "failed"
    assert "canary" not in str(result.error)


def test_card_cannot_change_settings_from_inside_a_select(tmp_path):
    result = _build_with(tmp_path, sql=_select_from("query('set memory_limit = ''1TB''')"))
    assert isinstance(result.error, BadCard)


@pytest.mark.parametrize("what", ["lists", "evidence"])
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("copy rows to 'stolen.csv'", "expected exactly one SELECT"),
        ("select 1; select 2", "expected exactly one SELECT"),
        ("select name from rows", "expected source, source_id and, where published, start_s"),
        ("select 'x' as source, secret as source_id from read_csv('{outside}')", "mine"),
        ("select nothing from nowhere", "mine"),
    ],
)
def test_smaller_selects_of_a_card_are_refused_alike(tmp_path, outside, what, sql, message):
    sql = sql.format(outside=outside)
    entry = f'[[lists]]\nname = "x"\ntitle = "x"\nsql = """{sql}"""'
    if what == "evidence":
        entry = (
            '[[evidence]]\nname = "x"\nrule = "published_list"\nheldout = ["mine"]\ncitation = "x"\n'
            f'sql = """{sql}"""'
        )
    result = _build_with(tmp_path, toml=TOML + entry)
    assert isinstance(result.error, BadCard), result
    assert message in str(result.error)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select name as clip_id from rows", "expected clip_id, split, source, source_id, file, row"),
        (SQL.replace("file, row", "file, row, 1 as colour"), "columns clip_id, .*, colour; expected"),
        (SQL.replace("from rows", "from nowhere"), "nowhere"),
        (SQL.replace("trim(name)", "trim(nothing)"), "nothing"),
        (SQL.replace("seconds(start) as", "'now' as"), "now"),
        (SQL.replace(", file, row", ", file, 'first' as row"), "first"),
    ],
)
def test_card_with_wrong_columns_is_refused_with_those_expected(tmp_path, sql, message):
    result = _build_with(tmp_path, sql=sql)
    assert isinstance(result.error, BadCard), result
    assert re.search(message, str(result.error))


LIST = '[[lists]]\nname = "x"\ntitle = "x"\n'
RUMOUR = '[[evidence]]\nname = "x"\nrule = "rumour"\nheldout = ["mine"]\ncitation = "x"\n'


@pytest.mark.parametrize(
    ("found", "put", "message"),  # nothing found: put at the end
    [
        ('title = "Mine"\n', "", "title"),
        ('title = "Mine"\n', 'title = "Mine"\ncolour = "red"\n', "colour"),
        ("[files.rows]", "[rows]", "files"),
        ("", "[files.again", "not TOML"),
        ('path = "rows.csv"', 'path = "../rows.csv"', "expected a path below raw/"),
        ('path = "rows.csv"', 'path = "/etc/passwd"', "expected a path below raw/"),
        ("[files.rows]", "[files.\"x'y\"]", "expected lower case letters, digits and _"),
        ('["name", "start"]', '{ name = "varchar" }', "expected names with types for json"),
        ('url = "-"', 'url = "-"\nformat = "xlsx"', "expected one of csv, json, parquet"),
        ('url = "-"', 'url = "-"\nwhole = true', "expected one column of a json file"),
        ('url = "-"', 'url = "-"\nunverified = "no"', "expected true or false"),
        ('title = "Mine"', 'title = "Mine"\npinned_by = "row"', "expected one of recording, clip_id"),
        ("", '[files.again]\npath = "rows.csv"\nurl = "-"\ncolumns = ["a"]\n', "expected a path each"),
        ('role = "test"', 'role = "tset"', "expected one of train, validation, test"),
        ("", '[[lists]]\nname = "x"\n', "title"),
        ("", LIST, "expected either split or sql"),
        ("", LIST + 'split = "nope"\n', "expected one of train, test"),
        ("", LIST.replace("x", "a b", 1) + 'split = "test"\n', "expected letters, digits"),
        ("", 2 * (LIST + 'split = "test"\n'), "expected a name each"),
        (
            "",
            LIST + 'split = "test"\ndefault = true\n'
            + LIST.replace("x", "y", 1) + 'split = "test"\ndefault = true\n',
            "expected one at most",
        ),
        ("", RUMOUR, "expected one of known_reupload, published_list"),
        ("", LIST.replace("x", "train", 1) + 'split = "test"\n', "expected that split, or a name"),
        ("", LIST.replace("x", "test", 1) + 'sql = "select 1"\n', "expected that split, or a name"),
    ],
)  # fmt: skip
def test_card_that_contradicts_itself_is_refused(tmp_path, found, put, message):
    folder = _write_card(tmp_path, toml=TOML.replace(found, put) if found else TOML + put)
    with pytest.raises(BadCard) as refused:
        load_card(folder)
    assert message in str(refused.value)
    assert str(folder / "card.toml") in str(refused.value)


def test_card_without_its_select_is_refused(tmp_path):
    folder = _write_card(tmp_path)
    (folder / "clips.sql").unlink()
    with pytest.raises(BadCard, match=r"clips.sql: missing, expected beside card.toml"):
        load_card(folder)


def test_dataset_name_is_an_identifier(tmp_path):
    folder = _write_card(tmp_path, name="My'Set")
    with pytest.raises(BadCard, match="expected lower case letters, digits and _"):
        load_card(folder)


@pytest.mark.parametrize("name", RESERVED)
def test_dataset_may_not_have_a_name_of_ours(tmp_path, name):
    with pytest.raises(BadCard, match="expected a name that is none of ours"):
        load_card(_write_card(tmp_path, name=name))


def test_slash_means_a_split_and_at_a_list_first(tmp_path):
    lists = LIST.replace("x", "test", 1) + 'split = "test"\n' + LIST + 'split = "test"\n'
    cards = {"mine": load_card(_write_card(tmp_path, toml=TOML + lists))}
    for select in (heldout_selection, train_selection):
        assert select("mine/test", cards).splits == ("test",)
        assert select("mine@test", cards).lists == ("mine@test",)
        assert select("mine@x", cards).lists == ("mine@x",)
        assert select("mine@train", cards).splits == ("train",)
        with pytest.raises(UsageProblem, match=r"unknown split 'mine/x', .* mine/train, mine/test"):
            select("mine/x", cards)


def test_card_that_names_its_files_itself_is_told_so_where_most_rows_fail(tmp_path):
    sql = SQL.replace("trim(name)", "'?'").replace(", file, row", ", 'my file' as file, row")
    result = _build_with(tmp_path, sql=sql)
    assert isinstance(result.error, BadCard), result
    assert "clips.sql: file is 'my file', expected the column `file` of its table" in str(result.error)
    assert "one of rows.csv — and 2 of 2 rows fail, the first with bad_id: id '?'" in str(result.error)


def test_split_without_rows_is_a_difference_unless_a_file_is_missing(tmp_path):
    counted = TOML.replace('"train"\n', '"train"\npublished = 2\n') + (
        '[splits.extra]\nrole = "test"\npublished = 5\ncounted_by = "them"\n'
    )
    alone = _build_with(tmp_path / "alone", toml=counted)
    assert any("extra 0 of 5 rows by them" in note for note in alone.notes), alone.notes
    absent = '[files.more]\npath = "more.csv"\nurl = "-"\ncolumns = ["name"]\noptional = true\n'
    missing = _build_with(tmp_path / "missing", toml=counted + absent)
    assert missing.missing == ["more.csv"]
    assert not any("extra" in note for note in missing.notes), missing.notes
    assert any("train 1 of 2 rows" in note for note in missing.notes), missing.notes


def test_entries_of_published_lists_without_readable_id_are_counted(tmp_path):
    ids = "select unnest([null, 'FhaYvI1yrUM', null, 'FhaYvI1yrUM', null]) as source_id"
    listed = (
        '[[evidence]]\nname = "theirs"\nrule = "published_list"\nheldout = ["mine"]\ncitation = "x"\n'
        f"sql = \"select 'youtube' as source, source_id from ({ids})\"\n"
    )
    one = listed.replace("theirs", "ours").replace("[null, 'F", "['F").replace(", null]", "]")
    result = _build_with(tmp_path, toml=TOML + listed + one)
    assert result.error is None
    notes = [
        "mine: 1 entry of ours has no readable id",
        "mine: 3 entries of theirs have no readable id",
    ]
    assert result.notes[-2:] == notes
    record = read_record(tmp_path / "manifests", "mine")
    assert record["evidence_unread"] == {"theirs": 3, "ours": 1}
    (again,) = build([load_card(tmp_path / "cards" / "mine")], tmp_path / "manifests")
    assert (again.state, again.notes) == ("up to date", result.notes)


def test_refused_card_costs_no_other_dataset(corpus, tmp_path, curate):
    _write_card(tmp_path / "cards", sql="drop table rows")
    shutil.copytree(corpus.manifests / "esc50" / "raw", tmp_path / "manifests" / "esc50" / "raw")
    raw = tmp_path / "manifests" / "mine" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.csv").write_text(CSV)
    common = ("--manifests", tmp_path / "manifests", "--cards", tmp_path / "cards")
    code, out, _ = curate("build", "mine", "esc50", *common)
    assert code == 1
    assert "2 datasets = 1 built + 0 without files + 1 failed" in out
    assert "expected exactly one SELECT" in out
