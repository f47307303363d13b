"""Which stretches of a long sound become parts of their own.

    samples   ├─ segment ─┤  gap  ├─ segment ─┤  gap  ├─ segment ─┤   rest
              0           │       stride      │       2 stride

Segments never overlap, and the last one ends at the end of the sound or shortly before. Places are
samples at the sound's own rate, half open.

Source: MMAudio's partition of audio-only data, as in arXiv:2412.15322: 8.1 s, at most five.
"""

PART_S = 8.1
MAX_PARTS = 5


def partition(
    num_samples: int, sample_rate_hz: int, *, part_s: float = PART_S, max_parts: int = MAX_PARTS
) -> list[tuple[int, int]]:
    """`(start_sample, end_sample)` of each part; none where the sound is shorter than one.

    Args:
        num_samples: of the whole sound.
    """
    if num_samples < part_s * sample_rate_hz:
        return []
    segment = int(part_s * sample_rate_hz)
    parts = min(max_parts, num_samples // segment)
    stride = (num_samples - segment) // (parts - 1) if parts > 1 else 0
    return [(i * stride, i * stride + segment) for i in range(parts)]
