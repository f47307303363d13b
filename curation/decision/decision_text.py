"""What clean and blame decided, as people read it."""

from typing import Any

from curation.catalog.licence import NAMES
from curation.decision.blame import Blame, read_as
from curation.decision.clean import Cleaned
from curation.decision.policy import LICENCE
from curation.tables import printable


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
    shared = "" if entry["measure"] is None else f", {entry['measure']:g} s shared"
    text = {
        "same_id": f"{train} is of the recording of test clip {heldout}{shared}",
        "same_interval": f"{train} meets test clip {heldout} in time{shared}",
        "same_start": f"{train} starts where test clip {heldout} starts{shared}",
        "known_reupload": f"its re-upload: {train} is the video of test clip {heldout}",
        "published_list": f"{train} is on a published exclusion list for {entry['heldout_dataset']}",
        "same_annotation": f"{train} has the start and the labels of test clip {heldout}",
    }[entry["rule"]]
    acted = "" if entry["acted_on"] else "; not acted on"
    return f"{entry['rule']}: {text} ({entry['test_list']}; said by {entry['said_by']}{acted})"
