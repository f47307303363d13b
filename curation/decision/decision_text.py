"""What clean and blame decided, as people read it."""

from typing import Any

from curation.catalog.licence import NAMES
from curation.decision.blame import Blame, read_as
from curation.decision.clean import Cleaned
from curation.decision.policy import LICENCE
from curation.tables import printable

_SAME_SPEED = 0.002  # nobody hears or sees less


def clean_text(cleaned: Cleaned) -> str:
    """What the certificate leaves open: incomplete manifests, the unknown of each test set, the rest."""
    document = cleaned.document
    lines = [
        f"{name.partition('/')[0]}: INCOMPLETE, built without {', '.join(entry['incomplete'])}"
        for name, entry in document["manifests"].items()
        if entry.get("incomplete")
    ]
    lines += [
        f"{test}: at most {entry['leaked_test_items_at_most']:,} items may be in what is kept, which "
        f"ids cannot tell ({entry['unidentified_test_items']:,} items and "
        f"{entry['unidentified_train_rows']:,} training rows have no source id, "
        f"{entry['respelled_test_items']:,} items are spelled with other capitals, "
        f"{entry['failed_test_rows']:,} rows failed in build)"
        for test, entry in document["unknown"].items()
    ]
    lines += _content_lines(document)
    lines += [
        f"{test}: published lists exclude {entry['train_rows_on_published_lists']:,} rows without "
        "naming the test clip; they stay, without --use-published"
        for test, entry in document["unknown"].items()
        if entry["train_rows_on_published_lists"] and not entry["published_lists_applied"]
    ]
    lines += [
        f"{test}: same_annotation suspects {entry['suspected_test_items']:,} items of lying in what is "
        "kept under another id; they stay, without --use-annotations"
        for test, entry in document["unknown"].items()
        if entry["suspected_test_items"]
    ]
    lines += [
        f"{test}: {entry['input']:,} items = {entry['kept']:,} kept + {entry['excluded']:,} excluded"
        for test, entry in document["heldout_counts"].items()
    ]
    counts: dict[str, int] = {}
    for names in document["licences"].values():
        for name, n in names.items():
            counts[name] = counts.get(name, 0) + n
    told = ", ".join(f"{name} {counts[name]:,}" for name in NAMES if name in counts)
    lines.append(f"licences of the clips kept: {told or 'none'}")
    lines += [f"not covered: {what}" for what in document["not_covered"]]
    return "\n".join(lines)


def _content_lines(document: dict[str, Any]) -> list[str]:
    """What the media leave open, where any were scanned."""
    lines = []
    for test, entry in document["unknown"].items():
        if content := entry.get("content"):
            size = content["scanned_test_items"] + content["unknown_test_items"]
            why = [
                f"{what}: {', '.join(f'{reason} {n:,}' for reason, n in reasons.items())}"
                for what, reasons in (
                    ("items", content["unknown_reasons"]["test_items"]),
                    ("rows", content["unknown_reasons"]["train_rows"]),
                )
                if reasons
            ]
            lines.append(
                f"{test}: at most {content['leaked_test_items_at_most']:,} of {size:,} items may be in "
                "what is kept under another id, which the media cannot tell "
                f"({content['unknown_test_items']:,} items and {content['unknown_train_rows']:,} kept "
                f"rows were not compared{''.join('; ' + text for text in why)}; "
                f"{content['near_test_items']:,} items are near a kept row)"
            )
    unread = document["content"] is None and document["config"]["match_content"] != "none"
    if lines and unread:
        lines.append("media were scanned and not compared — run: curate duplicates")
    compared = (document["content"] or {}).get("compared_tests", [])
    if document["content"] is not None and (left := sorted(set(document["tests"]) - set(compared))):
        lines.append(
            f"{', '.join(left)}: duplicates.parquet was made for other test sets, so no near-duplicate "
            "of their items need be in it — run: curate duplicates --test "
            + ",".join(document["config"]["tests"])
        )
    if found := document["dedup"]:
        lines.append(
            f"training clips that are one: {found['clips']:,} clips in {found['clusters']:,} clusters, "
            f"{found['weak_links']:,} weak links, {found['dropped_links']:,} links dropped for size"
        )
    return lines


def content_sentence(document: dict[str, Any]) -> str:
    """What the media leave open of all test sets, empty where none were scanned."""
    entries = [e["content"] for e in document["unknown"].values() if "content" in e]
    if not entries:
        return ""
    size = sum(entry["scanned_test_items"] + entry["unknown_test_items"] for entry in entries)
    scanned, rows = (sum(e["scanned_test_items"] for e in entries), entries[0]["scanned_train_rows"])
    return (
        f"content: {scanned:,} test items and {rows:,} kept rows compared, at most "
        f"{sum(entry['leaked_test_items_at_most'] for entry in entries):,} of {size:,} test items may "
        "still be in what is kept under another id"
    )


def blame_text(answer: Blame) -> str:
    """The answer as people read it."""
    where = f"clean/{answer.manifest}" if answer.manifest else "as clean would decide"
    lines = [f"{answer.asked}: {read_as(answer.identity)}; {where} against "
             f"{', '.join(answer.tests)}"]  # fmt: skip
    for finding in answer.findings:
        times = "time unknown"
        if finding.start_s is not None:
            end = "?" if finding.end_s is None else f"{finding.end_s:g}"
            times = f"{finding.start_s:g} to {end} s"
        lines.append(
            f"{finding.dataset}/{finding.clip_id} ({finding.split}, {times}): {finding.verdict}"
            + (f" by {finding.rule}" if finding.rule else "")
        )
        lines += [f"    {_sentence(entry)}" for entry in finding.evidence]
        if finding.rule == LICENCE:
            lines.append(f"    licence: {finding.licence}, which --licence does not allow")
        if not finding.evidence and finding.verdict == "kept":
            lines.append("    no evidence of an overlap")
        if finding.verdict == "held out" and not answer.as_test_item:
            lines.append(f"    a test item; what overlaps it: curate blame --test-item {answer.asked}")
    return "\n".join(map(printable, lines))


def _sentence(entry: dict[str, Any]) -> str:
    heldout = f"{entry['heldout_dataset']}/{entry['heldout_clip_id']}"
    train = f"{entry['train_dataset']}/{entry['train_clip_id']}"
    if entry["test_list"] is None:
        return f"{entry['rule']}: {train} is a duplicate of {heldout}, which stays{_where(entry)}"
    shared = "" if entry["measure"] is None else f", {entry['measure']:g} s shared"
    text = {
        "same_id": f"{train} is of the recording of test clip {heldout}{shared}",
        "same_interval": f"{train} meets test clip {heldout} in time{shared}",
        "same_start": f"{train} starts where test clip {heldout} starts{shared}",
        "known_reupload": f"its re-upload: {train} is the video of test clip {heldout}",
        "published_list": f"{train} is on a published exclusion list for {entry['heldout_dataset']}",
        "same_annotation": f"{train} has the start and the labels of test clip {heldout}",
        "near_av": f"{train} has the picture and the sound of test clip {heldout}{_where(entry)}",
        "near_video": f"{train} has the picture of test clip {heldout}{_where(entry)}",
        "near_audio": f"{train} has the sound of test clip {heldout}{_where(entry)}",
    }[entry["rule"]]
    tier = f"; {entry['tier']}" if "media" in entry else ""
    acted = "" if entry["acted_on"] else "; not acted on"
    return f"{entry['rule']}: {text} ({entry['test_list']}; said by {entry['said_by']}{tier}{acted})"


def _where(entry: dict[str, Any]) -> str:
    """How the training clip shows or sounds what the other clip does."""
    media = entry.get("media", {})
    parts = []
    if entry["measure"] is None:
        parts.append("by way of others, which are copies of both")
    else:
        parts.append(f"{entry['measure']:g} s shared")
        if media.get("by_others"):
            parts.append("confirmed by others, which are copies of both")
    if (offset_s := entry["offset_s"]) is not None:
        later = f"{abs(offset_s):g} s {'later' if offset_s > 0 else 'earlier'}"
        parts.append(later if offset_s else "at the same time")
    if media.get("mirrored"):
        parts.append("mirrored")
    if (speed := media.get("speed")) and abs(speed - 1) >= _SAME_SPEED:
        parts.append(f"at {speed:.4g} times the speed")
    for name, score in (("picture", media.get("video_score")), ("sound", media.get("audio_score"))):
        if score is not None:
            parts.append(f"{name} agrees by {score:.2f}")
    return ", " + ", ".join(parts)
