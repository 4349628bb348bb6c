"""Dataclass records out of parsed JSON, each field checked against its declared type. Knows no particular record."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from medmind.errors import MedmindError

Record = TypeVar("Record")


def decode(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """A record of dataclass `kind` out of parsed JSON; MedmindError names the field that does not fit."""
    return typing.cast(Record, _decode(kind, document, kind.__name__))


def decode_as(kind: type[Record], schema: str, document: Mapping[str, Any], *, what: str, how: str) -> Record:
    """A record of dataclass `kind` out of a document that says which schema it has.

    Args:
        what: such a document, for people: `this is no …`.
        how: what makes one.

    Raises:
        MedmindError: another schema, or a field missing or of another kind.
    """
    if document.get("schema") != schema:
        raise MedmindError(f"this is no {what}: its schema is {document.get('schema')!r}, not {schema!r}", how)
    return decode(kind, document)


def added(document: Any, **fields: Any) -> Any:
    """A record of an earlier schema with what it did not say; what is no record is left to the decoder."""
    return {**document, **fields} if isinstance(document, Mapping) else document


def _decode(kind: Any, value: Any, where: str) -> Any:  # noqa: PLR0911 - one return a kind
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None and type(None) in arguments:
            return None
        return _decode(next(option for option in arguments if option is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: _decode(arguments[1], item, f"{where}[{key}]") for key, item in value.items()}
    if origin is Literal and value in arguments:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        names = {field.name for field in dataclasses.fields(kind)}
        if names != value.keys():
            raise MedmindError(f"{where} has the wrong fields: {', '.join(sorted(names ^ value.keys()))}")
        assert isinstance(kind, type)
        try:
            return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names})
        except ValueError as error:
            raise MedmindError(f"{where}: {error}", "measure it again") from error
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):  # every comparison with NaN is false: no limit would ever be passed
            raise MedmindError(f"{where} is {value}, which nothing measured can be", "measure it again")
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise MedmindError(f"{where} is {type(value).__name__}, not {getattr(kind, '__name__', kind)}")
