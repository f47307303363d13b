"""The tables of a card's TOML as dataclasses: nothing unknown, nothing missing, all of its type.

Whatever does not fit raises TypeError with what came in and what was expected; `cards.load_card`
adds the file.
"""

from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

_Entry = TypeVar("_Entry")


def named_tables(table: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The tables `[key.name]` of a card by name."""
    found = table.get(key)
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise TypeError(f"{key} is {found!r}, expected a table [{key}.NAME] for each")
    return found


def tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables `[[key]]` of a card, none where it has none."""
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise TypeError(f"{key} is {found!r}, expected a table [[{key}]] for each")
    return found


def make(kind: type[_Entry], where: str, entry: dict[str, Any]) -> _Entry:
    """`entry` as a part of a card: every key known, none missing, each value of its declared type."""
    hints = _declared(kind)  # type: ignore[arg-type]  # a class is hashable
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    values = {key: _frozen(value) for key, value in entry.items()}
    for key, value in values.items():
        if key not in known:
            raise TypeError(f"{where} has {key!r}, expected {', '.join(known)}")
        if not _fits(value, hints[key]):
            raise TypeError(f"{where} has {key} = {entry[key]!r}, expected {_words(hints[key])}")
    missing = [
        f"{key!r}, expected {_words(hints[key])}"
        for key, attribute in known.items()
        if key not in values and attribute.default is attribute.default_factory is MISSING
    ]
    if missing:
        raise TypeError(f"{where} has no {'; no '.join(missing)}")
    return kind(**values)


@cache
def _declared(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from TOML is of this type, for the types that the classes above use."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _words(hint: Any) -> str:
    """A type as people write it in TOML."""
    names = {str: "text", int: "a whole number", bool: "true or false", type(None): "nothing"}
    if get_origin(hint) is UnionType:
        return " or ".join(_words(one) for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is tuple:
        return "a list"
    return "a table" if get_origin(hint) is dict else names[hint]
