"""What a file of weights is, from its first bytes and whatever its name; nothing heavy is imported.

A zip of `torch.save`, the pickle that older versions of it wrote, or safetensors; most often, when it is
none of these, what a server or git put in its place.
"""

import re
from pathlib import Path

from curation.errors import WrongWeights
from curation.files import disk_space

_HEAD_BYTES = 512
_PICKLE = re.compile(rb"\x80[\x02-\x05][^\0]")  # its version, and an instruction, of which none is 0
_LFS = b"version https://git-lfs"
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|body)", re.IGNORECASE)


def kind_of(path: Path) -> str:
    """ "zip", "pickle" or "safetensors".

    Raises:
        WrongWeights: it is empty, a web page, a pointer of git-lfs, or anything else.
    """
    with disk_space(path), path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        size = path.stat().st_size
    # First, since the length of a header may begin with the bytes of a pickle: 640 is 80 02.
    length = int.from_bytes(head[:8], "little") if head[8:9] == b"{" else None
    if length is not None and length + 8 <= size:
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if _PICKLE.match(head):
        return "pickle"
    if length is not None:
        raise WrongWeights(
            f"{path}: {size:,} bytes that begin as safetensors with a header of {length:,} bytes, "
            "expected a header within the file: it is truncated or damaged — get it again"
        )
    raise WrongWeights(f"{path}: {_instead(head, size)}, expected a checkpoint — get the file again")


def _instead(head: bytes, size: int) -> str:
    """What a file is that holds no tensors."""
    if not head:
        return "is empty (0 bytes)"
    if head.startswith(_LFS):
        found = re.search(rb"size ([0-9]+)", head)
        of = f" to a file of {int(found[1]):,} bytes" if found else ""
        return f"is a pointer of git-lfs{of}, not the file itself (`git lfs pull` brings it)"
    if _PAGE.match(head):
        return f"is a web page of {size:,} bytes, most likely of an error"
    return f"is {size:,} bytes that begin with {head[:8].hex(' ')}"
