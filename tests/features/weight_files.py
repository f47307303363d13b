"""Small files in the place of published ones, and files that are none."""

# ruff: noqa: E501 - the cases are a table: a line each reads better than three

import hashlib
import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from features.weights.table import WeightFile, file_named

State = dict[str, torch.Tensor]


def state(seed: int = 0) -> State:
    """A few tensors of different sizes and kinds."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "encoder.weight": torch.randn(40, 30, generator=generator),
        "encoder.bias": torch.randn(40, generator=generator).half(),
        "gain": torch.randn((), generator=generator),
        "steps": torch.arange(3),
    }


def saved(what: object, **options: Any) -> bytes:
    """What `torch.save` writes."""
    stream = io.BytesIO()
    torch.save(what, stream, **options)
    return stream.getvalue()


def published(
    content: bytes, *, name: str = "v1-44.pth", known: bool = True, **other: Any
) -> WeightFile:
    """The entry of the table, as if `content` were the published file of this name."""
    md5 = hashlib.md5(content).hexdigest() if known else None
    return replace(
        file_named(name), md5=md5, num_values=len(content) // 4, stated="", **other,
        unverified=() if known else ("size",),
    )  # fmt: skip


class Bomb:
    """A pickle of it makes a file where it is read."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._target),)


def bombs(target: Path) -> dict[str, bytes]:
    """Checkpoints that run code when they are read without care, in every format that can."""
    bomb = Bomb(target)
    rewritten = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(state()))) as zip_in, zipfile.ZipFile(rewritten, "w") as out:
        for entry in zip_in.infolist():
            content = zip_in.read(entry)
            out.writestr(
                entry.filename, pickle.dumps(bomb) if entry.filename.endswith("data.pkl") else content
            )
    return {
        "pickle": pickle.dumps(bomb),
        "pickle, protocol 2": pickle.dumps({"weight": bomb}, protocol=2),
        "zip": saved({"weight": bomb, **state()}),
        "zip, bare": saved(bomb),
        "zip with another pickle": rewritten.getvalue(),
        "old format": saved({"weight": bomb}, _use_new_zipfile_serialization=False),
    }


def no_checkpoints() -> dict[str, tuple[bytes, str]]:
    """Files that are none, each with what its message must say; {} stands for the path."""
    whole, tensors = saved(state()), save(state())
    return {
        "empty": (b"", r"{}: is empty \(0 bytes\), expected a checkpoint — get the file again"),
        "page": (b"<!DOCTYPE html><html><body>404</body></html>", "{}: is a web page of 44 bytes, most likely of an error"),
        "page with blanks": (b"\n\n  <html lang=en>", "is a web page of 18 bytes"),
        "page of xml": (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "is a web page of 32 bytes"),
        "git-lfs": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1221919752\n",
            "{}: is a pointer of git-lfs to a file of 1,221,919,752 bytes, not the file itself",
        ),
        "text": (b"not found", "{}: is 9 bytes that begin with 6e 6f 74 20 66 6f 75 6e"),
        "pickle as text": (b"cos\nsystem\n(S'true'\ntR.", "is 23 bytes that begin with 63 6f 73"),
        "huge header": (
            (1 << 40).to_bytes(8, "little") + b'{"a":', "with a header of 1,099,511,627,776 bytes, expected a header within"
        ),
        "large header": (
            (100_000_001).to_bytes(8, "little") + b"{" + bytes(100_000_011),
            "100,000,020 bytes that cannot be read .*header too large.*, expected a whole checkpoint",
        ),
        "header of nothing": ((2).to_bytes(8, "little") + b"{x", "10 bytes that cannot be read"),
        "truncated": (whole[:-100], rf"{{}}: {len(whole) - 100:,} bytes that cannot be read \(the end of a zip is missing"),
        "only the beginning": (whole[:30], "30 bytes that cannot be read"),
        "truncated safetensors": (tensors[:-1], rf"{len(tensors) - 1:,} bytes that cannot be read"),
        "another zip": (_zip(), "cannot be read"),
        "old format, truncated": (saved(state(), _use_new_zipfile_serialization=False)[:-40], "cannot be read"),
    }  # fmt: skip


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as out:
        out.writestr("readme.txt", "nothing here")
    return stream.getvalue()
