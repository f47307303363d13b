"""Extracted features filtered by a clean manifest: rows by id, tensors by row, unknown never kept.

The layout of the memmap folder is that of spec section 11.4, and in one test TensorDict's own.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.decision import extracted as module
from curation.decision.extracted import Extracted, filter_extracted
from curation.errors import BadMetadata, NoSpace, UsageProblem

SHAPES = {"mean": (250, 20), "std": (250, 20), "text_features": (7, 4), "clip_features": (3, 5)}


@pytest.fixture(scope="module")
def manifests(corpus: Any) -> Path:
    """The manifests, with clean/extracted."""
    from curation.decision.clean import clean
    from curation.decision.policy import CleanConfig

    config = CleanConfig(tests=("vggsound", "audiocaps", "clotho"))
    clean(config, name="extracted", manifests=corpus.manifests, cards=corpus.cards)
    return Path(corpus.manifests)


def rows_of(manifests: Path, part: str, dataset: str) -> list[dict[str, Any]]:
    path = manifests / "clean" / "extracted" / f"{part}.parquet"
    return [r for r in pq.read_table(path, partitioning=None).to_pylist() if r["dataset"] == dataset]


@dataclass(frozen=True)
class Planted:
    """A tsv and its tensors, and the verdict that each row must get."""

    tsv: Path
    verdicts: list[tuple[str, str]]  # id and verdict


@pytest.fixture
def planted(manifests: Path, corpus: Any, tmp_path: Path) -> Planted:
    """VGGSound features: kept, dropped, held out, unknown rows, mixed; ids as MMAudio writes them."""

    def name(row: dict[str, Any]) -> str:
        return f"{row['source_id']}_{int(row['start_s']):06d}"

    every = pq.read_table(corpus.manifests / "vggsound" / "clips.parquet", partitioning=None).to_pylist()
    known = [(name(r), "kept") for r in rows_of(manifests, "kept", "vggsound")[:90]]
    known += [(name(r), "dropped") for r in rows_of(manifests, "excluded", "vggsound")]
    known += [(name(r), "unknown") for r in every if r["split"] == "test"][:8]
    known += [("AAAAAAAAAAA_000001", "unknown"), ("", "unknown"), ("../../x", "unknown")]
    assert sum(verdict == "dropped" for _, verdict in known) > 5
    order = np.random.default_rng(0).permutation(len(known))
    verdicts = [known[i] for i in order]
    tsv = tmp_path / "features" / "vgg-train.tsv"
    write(tsv, [id_ for id_, _ in verdicts])
    return Planted(tsv, verdicts)


def write(tsv: Path, ids: list[str], *, rows: int | None = None, newline: str = "\n") -> None:
    """A tsv, and tensors whose every number tells its row."""
    tsv.parent.mkdir(parents=True, exist_ok=True)
    lines = ["id\tlabel", *(f"{id_}\tlabel {n} é" for n, id_ in enumerate(ids))]
    tsv.write_bytes((newline.join(lines) + newline).encode())
    folder = tsv.with_suffix("")
    folder.mkdir(exist_ok=True)
    n, meta = len(ids) if rows is None else rows, {}
    for index, (name, shape) in enumerate(SHAPES.items()):
        values = np.arange(n, dtype="<f4").reshape(n, *[1] * len(shape)) + 0.001 * index
        np.broadcast_to(values, (n, *shape)).astype("<f4").tofile(folder / f"{name}.memmap")
        meta[name] = {
            "device": "cpu", "shape": [n, *shape], "dtype": "torch.float32", "is_nested": False,
        }  # fmt: skip
    about = {
        "shape": [], "device": "cpu", "_type": "<class 'tensordict._td.TensorDict'>",
        "_format_version": 1, "_class": "tensordict:TensorDict", "of_the_future": [n],
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps({**meta, **about}))


def run(
    tsv: Path, out: Path, manifests: Path, corpus: Any, dataset: str = "vggsound"
) -> module.Filtered:
    (done,) = filter_extracted(
        [Extracted(dataset=dataset, tsv=tsv)], out, name="extracted", manifests=manifests,
        cards=corpus.cards,
    )  # fmt: skip
    return done


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# ---- what is kept -----------------------------------------------------------------------------------


def test_rows_mask_tsv_and_tensors_are_those_of_the_kept_clips(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(planted.tsv, out, manifests, corpus)
    wanted = [verdict == "kept" for _, verdict in planted.verdicts]
    rows = pq.read_table(out / "vgg-train.rows.parquet").to_pylist()
    assert [(row["id"], row["verdict"]) for row in rows] == planted.verdicts
    assert [row["row"] for row in rows] == list(range(len(rows)))
    mask = np.load(out / "vgg-train.mask.npy")
    assert mask.dtype == bool
    assert mask.tolist() == wanted
    counts = [
        sum(v == verdict for _, v in planted.verdicts) for verdict in ("kept", "dropped", "unknown")
    ]
    assert [done.kept, done.dropped, done.unknown] == counts
    assert sum(counts) == done.rows == len(rows)
    lines = planted.tsv.read_bytes().splitlines(keepends=True)
    expected = [lines[0], *(line for line, kept in zip(lines[1:], wanted, strict=True) if kept)]
    assert (out / "vgg-train.tsv").read_bytes() == b"".join(expected)
    positions = np.flatnonzero(wanted)
    for index, (name, shape) in enumerate(SHAPES.items()):
        found = np.fromfile(out / "vgg-train" / f"{name}.memmap", "<f4").reshape(-1, *shape)
        values = (positions.astype("<f4") + np.float32(0.001 * index)).reshape(-1, *[1] * len(shape))
        np.testing.assert_array_equal(found, np.broadcast_to(values, found.shape))


def test_dropped_rows_have_the_evidence_of_the_clean_manifest(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    run(planted.tsv, tmp_path / "out", manifests, corpus)
    found = {r["id"]: r for r in pq.read_table(tmp_path / "out/vgg-train.rows.parquet").to_pylist()}
    for row in rows_of(manifests, "excluded", "vggsound"):
        entry = found[f"{row['source_id']}_{int(row['start_s']):06d}"]
        for column in ("reason", "rule", "heldout_dataset", "heldout_clip_id"):
            assert entry[column] == row[column]
    assert {r["reason"] for r in found.values() if r["verdict"] == "unknown"} == {
        "no_such_clip", "held_out",
    }  # fmt: skip


def test_meta_has_the_new_number_of_rows_and_all_that_it_had(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    done = run(planted.tsv, tmp_path / "out", manifests, corpus)
    before = json.loads((planted.tsv.with_suffix("") / "meta.json").read_text())
    after = json.loads((tmp_path / "out" / "vgg-train" / "meta.json").read_text())
    assert list(after) == list(before)
    for name, shape in SHAPES.items():
        assert after[name] == {**before[name], "shape": [done.kept, *shape]}
        assert after["of_the_future"] == before["of_the_future"]


def test_batch_size_follows_where_there_is_one(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    path = planted.tsv.with_suffix("") / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shape": [len(planted.verdicts)]}))
    done = run(planted.tsv, tmp_path / "out", manifests, corpus)
    assert json.loads((tmp_path / "out/vgg-train/meta.json").read_text())["shape"] == [done.kept]


def test_tsv_without_tensors_is_filtered_alone(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    alone = tmp_path / "alone" / "vgg-train.tsv"
    alone.parent.mkdir()
    alone.write_bytes(planted.tsv.read_bytes())
    done = run(alone, tmp_path / "out", manifests, corpus)
    assert done.tensors == ()
    assert sorted(files_of(tmp_path / "out")) == [
        "vgg-train.json", "vgg-train.mask.npy", "vgg-train.rows.parquet", "vgg-train.tsv",
    ]  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_stay_as_they_are(newline: str, manifests: Path, corpus: Any, tmp_path: Path) -> None:
    ids = [row["clip_id"] for row in rows_of(manifests, "kept", "vggsound")[:4]]
    write(tmp_path / "f" / "x.tsv", ids, newline=newline)
    run(tmp_path / "f" / "x.tsv", tmp_path / "out", manifests, corpus)
    assert (tmp_path / "out/x.tsv").read_bytes() == (tmp_path / "f/x.tsv").read_bytes()


def test_audio_sets_are_matched_by_stem_and_by_part(
    manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    """Source: spec section 11.1, `{stem}_{i}` for part i of a sound, and the names in the card."""
    kept, dropped = (rows_of(manifests, part, "wavcaps") for part in ("kept", "excluded"))
    youtube = next(row for row in kept if row["source"] == "youtube")
    sound = next(row for row in kept if row["source"] == "freesound")
    out_row = next(row for row in dropped if row["source"] == "youtube")
    forms = [
        (sound["source_id"], "kept"), (f"{sound['source_id']}_0", "kept"),
        (f"{sound['source_id']}_4", "kept"), (f"{sound['source_id']}_5", "unknown"),
        (f"{sound['source_id']}_00", "unknown"), (sound["clip_id"], "kept"),
        (f"Y{youtube['source_id']}_1", "kept"), (f"Y{out_row['source_id']}_1", "dropped"),
        (out_row["source_id"], "dropped"), (out_row["clip_id"], "dropped"), ("_0", "unknown"),
    ]  # fmt: skip
    write(tmp_path / "f" / "x.tsv", [id_ for id_, _ in forms])
    run(tmp_path / "f" / "x.tsv", tmp_path / "out", manifests, corpus, dataset="wavcaps")
    rows = pq.read_table(tmp_path / "out/x.rows.parquet").to_pylist()
    assert [(row["id"], row["verdict"]) for row in rows] == forms


def test_name_that_a_held_out_clip_has_too_is_not_kept(
    manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    """Clotho's file names repeat: `Rain on a roof.wav` is in development and in the evaluation set."""
    write(tmp_path / "f" / "x.tsv", ["Rain on a roof", "development/Rain on a roof.wav"])
    run(tmp_path / "f" / "x.tsv", tmp_path / "out", manifests, corpus, dataset="clotho")
    rows = pq.read_table(tmp_path / "out/x.rows.parquet").to_pylist()
    assert [(row["verdict"], row["reason"]) for row in rows] == [
        ("unknown", "ambiguous_id"), ("kept", None),
    ]  # fmt: skip


def test_nothing_kept_is_an_empty_copy(manifests: Path, corpus: Any, tmp_path: Path) -> None:
    write(tmp_path / "f" / "x.tsv", ["nobody", "nobody"])
    done = run(tmp_path / "f" / "x.tsv", tmp_path / "out", manifests, corpus)
    assert (done.kept, done.unknown) == (0, 2)
    assert (tmp_path / "out/x/mean.memmap").read_bytes() == b""
    assert (tmp_path / "out/x.tsv").read_text() == "id\tlabel\n"


def test_command_cleans_and_filters_in_one_go(
    planted: Planted, in_folder: Any, curate: Any, tmp_path: Path
) -> None:
    words = ("clean", "--test", "vggsound,audiocaps,clotho", "--name", "extracted",
             "--extracted", f"vggsound={planted.tsv}", "--extracted-out", tmp_path / "out")  # fmt: skip
    code, out, err = curate(*words)
    assert code == 0, err
    assert "; vgg-train.tsv: " in out.splitlines()[-1]
    before = files_of(tmp_path / "out")
    code, out, err = curate(*words, "--json")
    document = json.loads(out)
    (entry,) = document["extracted"]
    assert entry["rows"] == entry["kept"] + entry["dropped"] + entry["unknown"]
    assert entry["tensors"] == list(SHAPES)
    assert files_of(tmp_path / "out") == before


# ---- killed, full, large ----------------------------------------------------------------------------


def test_disk_that_fills_up_at_any_write_leaves_a_copy_that_the_next_run_completes(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(planted.tsv, tmp_path / "unbroken", manifests, corpus)
    expected = files_of(tmp_path / "unbroken")
    fsync = os.fsync
    for n in range(1, 50):
        left = n

        def full(handle: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(28, os.strerror(28))
            fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                run(planted.tsv, tmp_path / "out", manifests, corpus)
            except NoSpace:
                if (tmp_path / "out" / "vgg-train.json").exists():  # all that it tells of is there
                    assert files_of(tmp_path / "out") == expected
                assert not [p for p in (tmp_path / "out").rglob("*") if ".tmp-" in p.name]
            else:
                assert left > 0
                break
        run(planted.tsv, tmp_path / "out", manifests, corpus)
        assert files_of(tmp_path / "out") == expected
    assert n > 5


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(
    planted: Planted, in_folder: Any, curate: Any, tmp_path: Path
) -> None:
    import time

    words = ["clean", "--test", "vggsound,audiocaps,clotho", "--name", "extracted",
             "--extracted", f"vggsound={planted.tsv}", "--extracted-out"]  # fmt: skip
    assert curate(*words, tmp_path / "unbroken")[0] == 0
    expected = files_of(tmp_path / "unbroken")
    program = [sys.executable, "-c", "from curation.cli import main; main()"]
    for wait_s in (0.5, 0.9, 1.1):
        process = subprocess.Popen([*program, *words, str(tmp_path / "out")],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        time.sleep(wait_s)
        process.kill()
        process.wait()
    code, _, err = curate(*words, tmp_path / "out")
    assert code == 0, err
    assert files_of(tmp_path / "out") == expected


@pytest.mark.slow
def test_tensors_larger_than_memory_are_streamed(manifests: Path, corpus: Any, tmp_path: Path) -> None:
    """A sparse gibibyte: what is held does not grow with it."""
    ids = [row["clip_id"] for row in rows_of(manifests, "kept", "vggsound")[:512]] + ["nobody"] * 512
    tsv = tmp_path / "f" / "x.tsv"
    write(tsv, ids)
    row_bytes = 1 << 20
    with (tsv.with_suffix("") / "mean.memmap").open("wb") as stream:
        stream.truncate(len(ids) * row_bytes)
    path = tsv.with_suffix("") / "meta.json"
    meta = json.loads(path.read_text())
    meta["mean"]["shape"] = [len(ids), row_bytes // 4]
    path.write_text(json.dumps(meta))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(tsv, tmp_path / "out", manifests, corpus)
    assert (tmp_path / "out/x/mean.memmap").stat().st_size == 512 * row_bytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


_TENSORDICT = """
import json, sys
import torch
from tensordict import TensorDict
n, folder, wanted, copy = 12, sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
if copy == "-":
    generator = torch.Generator().manual_seed(0)
    tensors = {"mean": torch.randn(n, 250, 20, generator=generator),
               "text_features": torch.randn(n, 77, 4, generator=generator)}
    TensorDict(tensors).memmap_(folder)
    print(json.dumps(True))
else:
    before, after = TensorDict.load_memmap(folder), TensorDict.load_memmap(copy)
    rows = torch.tensor(wanted)
    print(json.dumps({k: bool(torch.equal(before[k][rows], after[k])) for k in before.keys()}))
"""


@pytest.mark.slow
def test_tensordict_writes_what_is_read_and_reads_what_is_written(
    manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    ids = [row["clip_id"] for row in rows_of(manifests, "kept", "vggsound")[:12]]
    ids[3] = ids[7] = "nobody"
    write(tmp_path / "f" / "x.tsv", ids)
    folder = tmp_path / "f" / "x"
    for path in folder.iterdir():
        path.unlink()
    wanted = json.dumps([i for i in range(12) if i not in (3, 7)])

    def tensordict(copy: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", _TENSORDICT, str(folder), wanted, copy],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    assert tensordict("-") is True
    run(tmp_path / "f" / "x.tsv", tmp_path / "out", manifests, corpus)
    assert tensordict(str(tmp_path / "out" / "x")) == {"mean": True, "text_features": True}


# ---- what is refused --------------------------------------------------------------------------------


def changed_meta(change: Any) -> Any:
    def damage(tsv: Path) -> None:
        path = tsv.with_suffix("") / "meta.json"
        meta = json.loads(path.read_text())
        change(meta)
        path.write_text(json.dumps(meta))

    return damage


DAMAGES = {
    "fewer rows in the tsv": (
        lambda tsv: tsv.write_text("id\tlabel\na\tb\n"), r"has shape \[4, 250, 20\], expected 1 rows",
    ),
    "a tensor cut off": (
        lambda tsv: os.truncate(tsv.with_suffix("") / "std.memmap", 99), "std.memmap has 99 bytes",
    ),
    "a tensor that is gone": (
        lambda tsv: (tsv.with_suffix("") / "std.memmap").unlink(), "std.memmap is missing",
    ),
    "no meta.json": (
        lambda tsv: (tsv.with_suffix("") / "meta.json").unlink(), "meta.json cannot be read",
    ),
    "a meta.json that is no JSON": (
        lambda tsv: (tsv.with_suffix("") / "meta.json").write_text("{"), "meta.json cannot be read",
    ),
    "a meta.json that is a list": (
        lambda tsv: (tsv.with_suffix("") / "meta.json").write_text("[]"), "meta.json is no object",
    ),
    "no tensor": (
        lambda tsv: (tsv.with_suffix("") / "meta.json").write_text("{}"), "meta.json names no tensor",
    ),
    "a tensor named as a path": (
        changed_meta(lambda meta: meta.update({"../x": meta["std"]})), r"'\.\./x' has dtype",
    ),
    "an unknown dtype": (
        changed_meta(lambda meta: meta["std"].update(dtype="torch.nothing")),
        "has dtype 'torch.nothing'",
    ),
    "a nested folder": (
        lambda tsv: (tsv.with_suffix("") / "inner").mkdir(), "also holds inner, expected meta.json",
    ),
    "a negative shape": (
        changed_meta(lambda meta: meta["std"].update(shape=[-4, 2])), r"and shape \[-4, 2\]",
    ),
    "a tsv without id": (
        lambda tsv: tsv.write_text("name\tlabel\n"), "expected a header with one column id",
    ),
    "an empty tsv": (lambda tsv: tsv.write_text(""), "is empty, expected a header"),
    "a row with a cell more": (lambda tsv: tsv.write_text("id\tlabel\na\tb\tc\n"), "row 1 has 3 cells"),
    "a tsv that is no UTF-8": (
        lambda tsv: tsv.write_bytes(b"id\n\xff\n"), "expected tab-separated UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_features_are_named_and_nothing_is_written(
    kind: str, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    damage, says = DAMAGES[kind]
    tsv = tmp_path / "f" / "x.tsv"
    write(tsv, [row["clip_id"] for row in rows_of(manifests, "kept", "vggsound")[:4]])
    damage(tsv)
    with pytest.raises(BadMetadata, match=says) as caught:
        run(tsv, tmp_path / "out", manifests, corpus)
    assert "expected" in str(caught.value)
    assert files_of(tmp_path / "out") == {}


def test_wrong_names_are_usage_problems(
    planted: Planted, manifests: Path, corpus: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageProblem, match="unknown dataset 'nope'"):
        run(planted.tsv, out, manifests, corpus, dataset="nope")
    with pytest.raises(UsageProblem, match="no such file"):
        run(tmp_path / "nope.tsv", out, manifests, corpus)
    with pytest.raises(UsageProblem, match="has no row of urbansound8k"):
        run(planted.tsv, out, manifests, corpus, dataset="urbansound8k")
    with pytest.raises(UsageProblem, match=r"holds vgg-train\.tsv itself"):
        run(planted.tsv, planted.tsv.parent, manifests, corpus)
    plain = tmp_path / "plain"
    plain.write_text("id\n")
    with pytest.raises(UsageProblem, match="has no suffix"):
        run(plain, out, manifests, corpus)
    twice = [Extracted(dataset="vggsound", tsv=planted.tsv)] * 2
    with pytest.raises(UsageProblem, match="2 files are named vgg-train"):
        filter_extracted(twice, out, name="extracted", manifests=manifests, cards=corpus.cards)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--extracted", "vggsound=x.tsv"), "--extracted and --extracted-out go together"),
        (("--extracted-out", "x"), "--extracted and --extracted-out go together"),
        (("--extracted", "x.tsv", "--extracted-out", "x"), "'x.tsv', expected DATASET=FILE"),
        (("--extracted", "vggsound=x.tsv", "--extracted-out", "x"), "no such file"),
    ],
)
def test_options_that_cannot_work_make_nothing(
    words: tuple[str, ...], says: str, in_folder: Any, curate: Any
) -> None:
    code, _, err = curate("clean", "--name", "never", *words)
    assert code == 2
    assert says in err
    assert not (in_folder.manifests / "clean" / "never").exists()
