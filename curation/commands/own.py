"""Lists of one's own among the names a command was given."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curation.catalog.ownlists import OwnList


def own_lists(names: Iterable[str], manifests: Path) -> "list[OwnList]":
    """Build those that are new or changed; what building needs is loaded only where there is one."""
    from curation.catalog.lists import is_own_list

    if not any(map(is_own_list, names := list(names))):
        return []
    from curation.catalog.ownlists import take_lists

    return take_lists(names, manifests)
