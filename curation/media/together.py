"""Two passes over one decode: whoever wants some of a clip, and a scan, which wants all of it.

Each keeps its own clock, ends and faults, so that both are given what they get alone:

    packets    ─────────────────────────────────────────▶ decoded once
    one        ├── until it has enough ──┤
    scan       ├── to the end; from there on, spare pictures need not be decoded ──┤

Where that cannot be promised, because something of the file was refused or flawed or came in an order
that would count, neither is used: see `Apart`.
"""

from curation.media.one_pass import Pass


class Apart(Exception):
    """Both must decode alone."""


def together(one: Pass, scan: Pass) -> None:
    """Give both what they want of all packets.

    Args:
        scan: wants the streams of `one` and maybe another; may leave out spare pictures.

    Raises:
        Apart: they would not be given what they get alone, or one of them raised something.
    """
    try:
        _decode_for(one, scan)
    except Apart:
        raise
    except Exception as error:  # alone, whoever met it meets it again
        raise Apart(str(error)) from error


def _decode_for(one: Pass, scan: Pass) -> None:
    scan.leave_none_out(one.wants_pictures)
    for packet in scan.packets():
        takers = [run for run in (one, scan) if run.wants(packet)]
        if not takers:
            continue
        frames = scan.decoded(packet)
        for run in takers:
            run.take(packet, frames)
        if one.is_flawed or scan.is_flawed:
            # What is spare is not decoded by a scan alone, and its faults are not seen.
            raise Apart("something was refused or flawed")
        scan.leave_none_out(one.wants_pictures)
        if one.is_done and scan.is_done:
            break
    for run in (one, scan):
        run.end()
    if one.sees and one.track.gave_up_waiting:
        raise Apart("the sound did not wait for the first picture, which may come earlier alone")
