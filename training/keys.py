"""Settings as text, as JSON and as values: read by the type of the field that they are of.

int            1_000              tuple of numbers    240000,270000     nothing: the empty one
float          1e-4               tuple of names      joint,fused
bool           true, false        tuple of pairs      vggsound=5,audiocaps=1
one of names   bf16               where none may be   none
"""

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from typing import Any, Literal, get_args

from curation.errors import UsageProblem

Hint = Any  # a type, as annotations have it
_BOOLS = {"true": True, "false": False}
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}
_MANY = {int: "whole numbers", float: "numbers", str: "names"}
# of numbers, and of each number of a tuple
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "least": ("at least", lambda number, bound: number >= bound),
    "most": ("at most", lambda number, bound: number <= bound),
    "above": ("more than", lambda number, bound: number > bound),
    "below": ("less than", lambda number, bound: number < bound),
}


def setting(
    default: Any,
    says: str,
    *,
    names: Sequence[str] = (),
    may_change: bool = False,
    **bounds: float,
) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: `MISSING` where there is none.
        says: what it means, in a few words.
        names: what names in it are of, where they are not free.
        may_change: whether a run may go on with another value.
        bounds: `least`, `most`, `above`, `below`.
    """
    metadata = {"says": says, "names": tuple(names), "may_change": may_change, "bounds": bounds}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def hints_of(cls: type) -> dict[str, Hint]:
    """The types of the fields of a dataclass, by name, in their order."""
    hints = typing.get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


def parsed(text: str, hint: Hint) -> Any:
    """The value that a text is of.

    Raises:
        ValueError: it is of none.
    """
    if isinstance(hint, types.UnionType):
        return None if text == "none" else parsed(text, _some(hint))
    if _origin(hint) is tuple:
        return _parsed_tuple(text, get_args(hint))
    if hint is bool:
        if text.lower() not in _BOOLS:
            raise ValueError(text)
        return _BOOLS[text.lower()]
    return text if _origin(hint) is Literal or hint is str else hint(text)


def _parsed_tuple(text: str, hints: tuple[Hint, ...]) -> tuple[Any, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if _origin(hints[0]) is tuple:  # pairs
        split = [part.rpartition("=") for part in parts]
        if not all(name for name, _, _ in split):
            raise ValueError(text)
        (first, second) = get_args(hints[0])
        return tuple((parsed(name, first), parsed(value, second)) for name, _, value in split)
    return tuple(parsed(part, hints[0]) for part in parts)


def taken(key: str, value: Any, hint: Hint, about: Mapping[str, Any]) -> Any:
    """A value, also one that JSON gave, as the field takes it: tuples for lists, floats for integers.

    Args:
        about: the metadata of the field.

    Raises:
        UsageProblem: it is of another type or beyond its bounds.
    """
    try:
        found = _typed(value, hint)
    except (TypeError, ValueError):
        raise _wrong(key, value, hint, about) from None
    inside = all(
        math.isfinite(number)
        and all(_BOUNDS[kind][1](number, bound) for kind, bound in about["bounds"].items())
        for number in _flat(found, int | float)
    )
    if not inside or (about["names"] and not set(_flat(found, str)) <= set(about["names"])):
        raise _wrong(key, value, hint, about)
    return found


def _typed(value: Any, hint: Hint) -> Any:
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(value, _some(hint))
    if _origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(value)
        return value
    if _origin(hint) is tuple:
        hints = get_args(hint)
        hints = (hints[0],) * len(value) if hints[-1] is Ellipsis else hints
        if not isinstance(value, tuple | list):
            raise TypeError(value)
        return tuple(_typed(item, of) for item, of in zip(value, hints, strict=True))
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise TypeError(value)
    return value


def _origin(hint: Hint) -> Any:
    """`tuple` of `tuple[int, ...]`, `Literal` of its kind, None of what has no parts."""
    return typing.get_origin(hint)


def _some(hint: Hint) -> Hint:
    """What `X | None` is besides None."""
    (one,) = (part for part in get_args(hint) if part is not type(None))
    return one


def _flat(value: Any, kind: Any) -> list[Any]:
    """What of that kind a value is or holds; truth is no number."""
    if isinstance(value, tuple):
        return [item for part in value for item in _flat(part, kind)]
    return [value] if isinstance(value, kind) and not isinstance(value, bool) else []


def _wrong(key: str, value: Any, hint: Hint, about: Mapping[str, Any]) -> UsageProblem:
    return UsageProblem(
        f"{key}={text_of(value)}, expected {expected(hint, about)} ({about['says']}) — give another "
        "value"
    )


def expected(hint: Hint, about: Mapping[str, Any]) -> str:
    """What a setting takes, in words."""
    if isinstance(hint, types.UnionType):
        return f"{expected(_some(hint), about)}, or none"
    if _origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    many = _origin(hint) is tuple
    text = _expected_tuple(get_args(hint)) if many else _NAMES[hint]
    if about["names"]:
        text = f"{'one' if hint is str else 'some'} of {', '.join(about['names'])}"
    bounds = [f"{_BOUNDS[kind][0]} {text_of(bound)}" for kind, bound in about["bounds"].items()]
    each = ", each " if many else ", "
    return text + (each + " and ".join(bounds) if bounds else "")


def _expected_tuple(hints: tuple[Hint, ...]) -> str:
    if _origin(hints[0]) is tuple:
        return "pairs as name=2, separated by commas"
    count = "" if hints[-1] is Ellipsis else f"{len(hints)} "
    return f"{count}{_MANY[hints[0]]} separated by commas"


def text_of(value: Any) -> str:
    """A value as `parsed` reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        pairs = (isinstance(item, tuple | list) for item in value)
        return ",".join(
            "=".join(map(text_of, item)) if pair else text_of(item)
            for item, pair in zip(value, pairs, strict=True)
        )
    return str(value)


def close_names(name: str, known: Sequence[str]) -> str:
    """Those of the known names that are most like one that is not: "batch or micro_batch"; else all."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return " or ".join(close) if close else f"one of {', '.join(known)}"
