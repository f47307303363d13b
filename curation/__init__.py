"""Decides which clips may be trained on: catalogue, overlaps, clean manifests with reasons.

Times are seconds in the source, intervals half open `[start_s, end_s)`; the held-out side comes
first, the training side second. Two functions are offered here, everything else by module:
`overlaps` (the evidence rows) and `open_manifests` (read-only DuckDB over what was built).
"""

from typing import Any

__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*globals(), "overlaps", "open_manifests"]


def __getattr__(name: str) -> Any:  # heavy imports happen on first use, so that --help is instant
    if name == "overlaps":
        from curation.matching.overlap import overlaps

        return overlaps
    if name == "open_manifests":
        from curation.catalog.store import open_manifests

        return open_manifests
    raise AttributeError(f"module 'curation' has no attribute {name!r}")
