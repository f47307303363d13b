"""Near-duplicates in one part of the training side: candidates, alignment, verdicts, rows.

`a` is the test item, else the smaller key; time in b = time in a + offset_s, at another speed at the
start of the stretch that both share. A pair may be found from both sides, when each of its clips is
looked up among all others; `best_rows` keeps the surer finding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from curation.manifest import FOUND_COLUMNS, arrow_schema
from curation.matching.align_audio import AudioMatch, align_audio
from curation.matching.align_video import Hit, VideoMatch, align_video
from curation.matching.audio_candidates import Items, audio_candidates
from curation.matching.candidates import Pair, frame_candidates
from curation.matching.judge import Verdict, judge
from curation.matching.near import RULES
from curation.matching.prints import Prints
from curation.media.video_hash import THUMB_PX, VIEWS, Boxes

Key = tuple[str, str]  # dataset and clip_id
_MIRRORED = next(v for v, view in enumerate(VIEWS) if view.mirrored and view.part == VIEWS[0].part)


class Contents(Protocol):
    """What was kept of one dataset's clips, by clip_id: thumbnails and bands."""

    def __getitem__(self, clip_id: str) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A pair to be aligned."""

    a: Key
    b: Key
    boxes: tuple[Boxes, Boxes]
    hits: Sequence[Hit]  # frames that look alike
    offset_s: float  # at which they may sound alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What very many clips have, and says nothing."""

    hashes: np.ndarray  # uint64, ascending
    items: np.ndarray  # uint32, keys of sounds


NOTHING_STOPPED = Stopped(hashes=np.zeros(0, np.uint64), items=np.zeros(0, np.uint32))


def jobs(
    heldout: Prints,
    train: Prints,
    *,
    stopped: Stopped,
    test_items: frozenset[Key],
    train_clips: int | None = None,
) -> list[Job]:
    """The pairs worth aligning, ordered by their keys.

    Args:
        test_items: pairs touch one of these; empty: any pair.
        train_clips: in all, where `train` has some of them: how closely sounds are looked up.
    """
    found = frame_candidates(heldout, train, stopped=stopped.hashes)
    sounds = _sound_pairs(heldout, train, stopped.items, train_clips)
    pairs = {**dict.fromkeys(found), **sounds}
    made = [
        _job(heldout, train, pair, found.get(pair, []), offset_s, test_items)
        for pair, offset_s in pairs.items()
    ]
    return sorted(made, key=lambda job: (job.a, job.b))


def _sound_pairs(
    heldout: Prints, train: Prints, stopped: np.ndarray, train_clips: int | None
) -> dict[Pair, float]:
    """Pairs that may share sound, and the offset at which they may."""
    pairs = audio_candidates(
        Items(clip=heldout.item_clip, ms=heldout.item_ms, item=heldout.item),
        Items(clip=train.item_clip + np.int32(len(heldout.keys)), ms=train.item_ms, item=train.item),
        effort_for=train_clips,
        stopped=stopped,
    )
    columns = (pairs.heldout_clip, pairs.train_clip - len(heldout.keys), pairs.offset_s)
    return {
        (ours, theirs): offset_s
        for ours, theirs, offset_s in zip(*(column.tolist() for column in columns), strict=True)
        if heldout.keys[ours] != train.keys[theirs]
    }


def _job(
    heldout: Prints,
    train: Prints,
    pair: Pair,
    hits: list[Hit],
    offset_s: float | None,
    test_items: frozenset[Key],
) -> Job:
    ours, theirs = heldout.keys[pair[0]], train.keys[pair[1]]
    boxes = (heldout.boxes_of(pair[0]), train.boxes_of(pair[1]))
    if offset_s is None:  # they look alike: where they do, they may sound alike
        offset_s = float(np.median([hit.train_ms - hit.heldout_ms for hit in hits])) / 1000
    as_it_is = (ours in test_items, theirs) > (theirs in test_items, ours)
    if as_it_is:
        return Job(a=ours, b=theirs, boxes=boxes, hits=hits, offset_s=offset_s)
    turned = [hit.turned() for hit in hits]
    return Job(a=theirs, b=ours, boxes=boxes[::-1], hits=turned, offset_s=-offset_s)


def align(job: Job, contents: Mapping[str, Contents]) -> tuple[Verdict, VideoMatch | None] | None:
    """The verdict on one pair, from what was kept of its pictures and its sound."""
    thumbs_a, bands_a = contents[job.a[0]][job.a[1]]
    thumbs_b, bands_b = contents[job.b[0]][job.b[1]]
    audio = None
    if len(bands_a) and len(bands_b):
        audio = align_audio(bands_a, bands_b, offset_s=job.offset_s)
    video = None
    if len(thumbs_a) and len(thumbs_b):
        video = align_video(thumbs_a, thumbs_b, job.hits, boxes=job.boxes) if job.hits else None
        if audio is not None and audio.tier and (video is None or not video.convincing):
            there = align_video(thumbs_a, thumbs_b, _where_it_sounds_alike(audio), boxes=job.boxes)
            video = max(video, there, key=lambda match: -2.0 if match is None else match.rank)
    verdict = judge(video, audio)
    return None if verdict is None else (verdict, video)


def _where_it_sounds_alike(audio: AudioMatch) -> list[Hit]:
    """Frames that belong together if the pictures go with the sound, plain and mirrored."""
    times_s = audio.start_s + audio.shared_s * np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    there_s = audio.speed * times_s + audio.offset_s
    return [
        Hit(
            heldout_ms=round(1000 * ours),
            train_ms=round(1000 * theirs),
            heldout_view=view,
            train_view=0,
            distance=10,
        )
        for view in (0, _MIRRORED)
        for ours, theirs in zip(times_s.tolist(), there_s.tolist(), strict=True)
        if theirs >= 0
    ]


def found_table(found: Iterable[tuple[Job, Verdict, VideoMatch | None]]) -> pa.Table:
    """Rows with FOUND_COLUMNS."""
    rows = [
        {
            "a_dataset": job.a[0],
            "a_clip_id": job.a[1],
            "b_dataset": job.b[0],
            "b_clip_id": job.b[1],
            "rule": verdict.rule,
            "tier": verdict.tier,
            "offset_s": round(verdict.offset_s, 3),
            "speed": round(verdict.speed, 3),
            "shared_s": round(verdict.shared_s, 3),
            "video_score": None if verdict.video_score is None else round(verdict.video_score, 3),
            "audio_score": None if verdict.audio_score is None else round(verdict.audio_score, 3),
            "mirrored": video.mirrored if video and verdict.rule != "near_audio" else None,
            "box": _box(video, job.boxes[1]) if video and verdict.rule != "near_audio" else None,
        }
        for job, verdict, video in found
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(FOUND_COLUMNS))


def _box(video: VideoMatch, boxes: Boxes) -> list[float]:
    """Where a's picture lies in b's: left, top, right, bottom as shares of the whole of b."""
    corners = np.array([[-0.5, THUMB_PX - 0.5], [-0.5, THUMB_PX - 0.5], [1, 1]])
    inside = (video.map @ corners + 0.5) / THUMB_PX
    left, top, right, bottom = boxes.picture
    x = left + inside[0] * (right - left)
    y = top + inside[1] * (bottom - top)
    return [round(min(max(float(edge), 0.0), 1.0), 3) for edge in (x[0], y[0], x[1], y[1])]


def best_rows(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows in the order of their keys; of a pair that was found twice, the surer finding."""
    rows = [row for table in tables for row in table.to_pylist()]
    best: dict[tuple[str, ...], dict[str, object]] = {}
    for row in rows:
        pair = (row["a_dataset"], row["a_clip_id"], row["b_dataset"], row["b_clip_id"])
        if pair not in best or _sureness(row) > _sureness(best[pair]):
            best[pair] = row
    return pa.Table.from_pylist(
        [best[pair] for pair in sorted(best)], schema=arrow_schema(FOUND_COLUMNS)
    )


def _sureness(row: Mapping[str, object]) -> tuple[object, ...]:
    scores = [row[name] for name in ("video_score", "audio_score")]
    return (
        row["tier"] == "auto",
        -RULES.index(str(row["rule"])),
        *(-2.0 if score is None else score for score in scores),
        row["shared_s"],
        row["offset_s"],
    )
