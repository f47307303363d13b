"""What `dry_run` found out, for people: a paragraph or table for each of its parts."""

from collections.abc import Iterator
from typing import Any

from curation.tables import number, render, size_text
from training.config import TrainConfig
from training.run.dry_run import settings_rows


def plan_text(document: dict[str, Any], config: TrainConfig) -> str:
    """All parts, with a blank line between."""
    parts = (
        render(("setting", "value", "meaning"), settings_rows(config)),
        _work(document),
        _memory(document),
        _time(document),
        _data(document),
        "\n".join(f"note: {note}" for note in document["notes"]),
    )
    return "\n\n".join(part for part in parts if part)


def plan_summary(document: dict[str, Any]) -> str:
    """One line: the work, the hours, the memory."""
    settings, memory = document["settings"], document["memory"]
    said = (
        f"{document['model']}: {number(settings['steps'], 'step')} of "
        f"{number(settings['batch'], 'sample')}, {document['flops']['run']:.3g} operations"
    )
    if document["time"]:
        row = document["time"][0]
        said += (
            f", {_hours(row['hours'])} h on {_machine(document)} at {_percent(row['mfu'])} = "
            f"{_hours(row['gpu_hours'])} {_unit(document)}"
        )
    room = "" if memory["fits"] else ", which does not fit"
    there = memory["there_bytes"]
    return said + f"; {size_text(memory['total_bytes'])} of {size_text(there)} on each{room}"


def _machine(document: dict[str, Any]) -> str:
    return f"{document['machine']['ranks']} x {document['machine']['name']}"


def _unit(document: dict[str, Any]) -> str:
    return "GPU-hours" if document["machine"]["is_gpu"] else "CPU-hours"


def _work(document: dict[str, Any]) -> str:
    flops, parameters = document["flops"], document["parameters"]
    shares = ", ".join(
        f"{group} {100 * one / flops['sample_forward']:.0f} %"
        for group, one in flops["sample_forward_by_group"].items()
    )
    return (
        f"parameters: {parameters['all']:,}, of which {parameters['trained']:,} are trained\n"
        f"work: {flops['sample'] / 1e9:,.1f} GFLOP for a sample of {flops['duration_s']:g} s, "
        f"{flops['sample_forward'] / 1e9:,.1f} of them forward ({shares}); {flops['run']:.3g} "
        "operations in all"
    )


def _memory(document: dict[str, Any]) -> str:
    memory = document["memory"]
    rows = [(name, f"{size / 1e9:.2f}") for name, size in memory["parts_bytes"].items()]
    rows.append(("together", f"{memory['total_bytes'] / 1e9:.2f}"))
    table = render(("memory on each, estimated", "GB"), rows)
    micro = number(memory["micro_batch"], "sample")
    passes = memory["passes_per_step"]
    often = "once a step" if passes == 1 else f"{passes} times a step"
    said = f"{micro} at a time, {often}, on {_machine(document)} of {size_text(memory['there_bytes'])}"
    if not memory["fits"]:
        said += f"\ndoes not fit: give {memory['hint']}"
    return f"{table}\n{said}"


def _time(document: dict[str, Any]) -> str:
    paper = document["paper"]
    rows = [
        (_machine(document), *_time_cells(row), row["why"] or "for comparison")
        for row in document["time"]
    ]
    if paper:
        rows.append((paper["machine"], *_time_cells(paper), "the paper's run, its Table A7"))
    head = ("on", "MFU", "samples/s", "hours", _unit(document), "")
    table = render(head, rows) if rows else ""
    machine = document["machine"]
    if machine["peak_flops"] is None:
        return f"{table}\nno hours: what {machine['name']} does in this precision at most is not known"
    return (
        f"{table}\nMFU is the share of {machine['peak_flops'] / 1e12:,.4g} TFLOP/s, the peak by "
        f"{machine['peak_from']}; validation and checkpoints come on top"
    )


def _time_cells(row: dict[str, Any]) -> tuple[str | int, ...]:
    """In the units of the table, rounded to what can be believed."""
    rate = row["samples_per_s"]
    return (
        f"{100 * row['mfu']:.1f}",
        round(rate) if rate >= 10 else f"{rate:.2f}",
        _hours(row["hours"]),
        _hours(row["gpu_hours"]),
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _data(document: dict[str, Any]) -> str:
    return "\n".join(_data_lines(document["data"]))


def _data_lines(data: dict[str, Any]) -> Iterator[str]:
    if not data["there"]:
        yield f"{data['shards']}: no sealed shards are there yet; reckoned with examples of 8 s"
        return
    yield (
        f"{data['shards']}: {number(data['rows'], 'row')}, of which {data['left_out_rows']:,} "
        f"are left out; {number(data['validation_rows'], 'row')} validate"
    )
    yield from data["mixture"]
    yield f"an epoch: {number(data['epoch_samples'], 'sample')}; the run: {data['epochs']:,.1f} epochs"
    yield from data["notes"]
