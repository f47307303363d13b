"""What the bytes of a text file are written in, and the same text in UTF-8."""

import codecs
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curation.errors import BadMetadata
from curation.files import remove

_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 24
# A comment begins with #, but not the errors a spreadsheet writes for ids that begin with - or =.
COMMENT = re.compile(r'"?#(?!NAME\?|REF!|VALUE!|N/A|NUM!|DIV/0!|NULL!)')


@contextmanager
def utf8_of(path: Path) -> Iterator[Path]:
    """`path`, or a copy of it in UTF-8 with one kind of line end, for as long as the block lasts."""
    encoding = encoding_of(path)
    if encoding == "utf-8" and not _mixes_line_ends(path):
        yield path
        return
    copy = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        try:
            with (
                path.open(encoding=encoding) as text,
                copy.open("w", encoding="utf-8", newline="\n") as out,
            ):
                while chunk := text.read(_CHUNK_BYTES):
                    out.write(chunk)
        except UnicodeDecodeError as error:
            raise BadMetadata(f"{path}: not {encoding} text ({error}) — get it again") from error
        yield copy
    finally:
        remove(copy)


def encoding_of(path: Path) -> str:
    """What the bytes of `path` are written in; cp1252, else Latin-1, where they are not Unicode."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        if not head:
            raise BadMetadata(f"{path}: is empty, expected metadata — get the file again")
        if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            return "utf-32"
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if head[1:200:2].count(0) > len(head[1:200:2]) // 2:
            return "utf-16-le"
        if head[0:200:2].count(0) > len(head[0:200:2]) // 2:
            return "utf-16-be"
        decoder = codecs.getincrementaldecoder("utf-8")()
        undefined = False
        chunk = head
        while chunk:
            # isascii is some twenty times faster than decoding, and nearly all metadata is ASCII
            if not chunk.isascii() or decoder.getstate()[0]:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    undefined = True
                    break
            chunk = stream.read(_CHUNK_BYTES)
    if not undefined and not decoder.getstate()[0]:
        return "utf-8"
    try:
        with path.open(encoding="cp1252", newline="") as text:
            while text.read(_CHUNK_BYTES):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _mixes_line_ends(path: Path) -> bool:
    """Whether the lines end in more than one of LF, CRLF and CR, also where a cell has two lines."""
    ends = {b"\n": 0, b"\r": 0, b"\r\n": 0}
    last = b""
    with path.open("rb") as stream:
        while (chunk := stream.read(_CHUNK_BYTES)) and b"\r" not in chunk:
            pass  # the files that matter for speed have none
        stream.seek(0)
        while chunk and (chunk := stream.read(_CHUNK_BYTES)):
            for end in ends:
                ends[end] += chunk.count(end)
            ends[b"\r\n"] += last + chunk[:1] == b"\r\n"
            last = chunk[-1:]
    if ends[b"\r\n"] == 0:
        return ends[b"\n"] > 0 and ends[b"\r"] > 0
    return not ends[b"\n"] == ends[b"\r"] == ends[b"\r\n"]
