"""How a frozen dataclass becomes flags, YAML and checked values. Knows types and ranges; no setting of any command.

A command's dataclass declares each setting once with `setting(default, help, …)`; `options` turns it into Typer
parameters, `read_yaml` reads the same names from a file, and `build` merges the layers and checks every value.
"""

import dataclasses
import difflib
import inspect
import math
import operator
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from medmind import console
from medmind.errors import MedmindError

T = TypeVar("T")
_LIMITS: tuple[tuple[str, Callable[[Any, Any], Any], str], ...] = (
    ("minimum", operator.ge, "at least"),
    ("above", operator.gt, "above"),
    ("maximum", operator.le, "at most"),
    ("below", operator.lt, "below"),
)
_WRITTEN: Mapping[Any, str] = {Mapping: "NAME=NUMBER,…", Sequence: "VALUE,…"}
"""How a flag spells what is no single value, by the kind of its field."""


def setting(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field with its default, its help text and the values it may take."""
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "below": below, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def _kind(annotation: Any) -> tuple[type, bool]:
    """The plain type of a field, and whether it may be left unset (`X | None`)."""
    if get_origin(annotation) in (Union, types.UnionType):
        (plain,) = [part for part in get_args(annotation) if part is not type(None)]
        return plain, True
    return annotation, False


def _fields(cls: type) -> dict[str, tuple[dataclasses.Field[Any], type, bool]]:
    hints = get_type_hints(cls)
    return {field.name: (field, *_kind(hints[field.name])) for field in dataclasses.fields(cls)}


def options(cls: type) -> list[inspect.Parameter]:
    """One keyword parameter per setting, default None (not given), so that a file can tell what a flag overrides."""
    parameters = []
    for name, (field, kind, _) in _fields(cls).items():
        flag = f"--{name.replace('_', '-')}"
        text = str(field.metadata["help"])
        if field.metadata["choices"]:
            text += f": {' | '.join(field.metadata['choices'])}"
        if field.default is not None:
            shown = _shown(field.default)
            text += f" (default: {shown})" if shown else ""  # not in brackets, which rich takes for markup
        declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        written = _WRITTEN.get(get_origin(kind))
        option = typer.Option(None, declaration, help=text, show_default=False, metavar=written)
        annotation = str if written else kind
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation | None)
        )
    return parameters


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def with_options(cls: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: one option per setting of `cls` takes the place of `**settings` in a command's signature."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + options(cls)
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def read_yaml(path: Path, cls: type) -> dict[str, Any]:
    """The settings of a YAML file by field name; hyphens and underscores are the same, null means not given.

    Raises:
        MedmindError: no such file, no YAML mapping, or a key that `cls` does not know (the nearest one is named).
    """
    yaml = console.require("yaml", "train")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedmindError(f"{path} does not exist") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedmindError(f"{path} is not valid YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise MedmindError(f"{path} holds no settings", "write one 'name: value' a line")
    known = _fields(cls)
    settings = {}
    for key, value in document.items():
        name = str(key).replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise MedmindError(f"{path} has the unknown setting '{key}'", f"did you mean '{near[0]}'?")
        if value is not None:
            settings[name] = value
    return settings


def build(cls: type[T], *layers: Mapping[str, Any]) -> T:
    """Merge layers of settings (a later one wins; None is 'not given') over the defaults, and check every value.

    Raises:
        MedmindError: a value of the wrong type or out of range, named by its flag.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {name: value for name, value in layer.items() if value is not None}
    return cls(**{name: _checked(name, value, *_fields(cls)[name]) for name, value in values.items()})


def _checked(name: str, value: Any, field: dataclasses.Field[Any], kind: type, optional: bool) -> Any:
    if value is None and optional:
        return None
    flag = f"--{name.replace('_', '-')}"
    value = _converted(flag, value, kind)
    limits = field.metadata
    if limits["choices"] and value not in limits["choices"]:
        near = difflib.get_close_matches(str(value), limits["choices"], n=1, cutoff=0)
        raise MedmindError(
            f"{flag} cannot be '{value}'", f"choose from {', '.join(limits['choices'])}; nearest: {near[0]}"
        )
    if kind in (int, float):
        _check_limits(flag, value, limits)
    if get_origin(kind) is Mapping:
        for key, number in value.items():
            _check_limits(f"{flag} {key}", number, limits)
    if get_origin(kind) is Sequence and get_args(kind)[0] in (int, float):
        for number in value:
            _check_limits(flag, number, limits)
    return value


def _check_limits(flag: str, value: float, limits: Mapping[str, Any]) -> None:
    if not math.isfinite(value):
        raise MedmindError(f"{flag} cannot be {value}", "give a finite number")
    for limit, holds, words in _LIMITS:
        if limits[limit] is not None and not holds(value, limits[limit]):
            raise MedmindError(f"{flag} cannot be {value}", f"it must be {words} {limits[limit]:g}")


def _converted(flag: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`. YAML 1.1 reads `2e-4` as text and `1` as an integer: both serve where a float is wanted."""
    if get_origin(kind) is Mapping:
        (_, inner) = get_args(kind)
        entries = value if isinstance(value, Mapping) else _entries(flag, value)
        return {str(key): _converted(f"{flag} {key}", number, inner) for key, number in entries.items()}
    if get_origin(kind) is Sequence:
        return _several(flag, value, *get_args(kind))
    wrong = MedmindError(f"{flag} cannot be {value!r}", f"it must be of type {kind.__name__}")
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
        raise wrong
    if kind is str and isinstance(value, (str, int, float)):
        return str(value)
    if kind is float and isinstance(value, (str, int, float)):
        try:
            return float(value)
        except ValueError:
            raise wrong from None
    if kind is int and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        return int(value)
    raise wrong


def _several(flag: str, value: Any, inner: type) -> tuple[Any, ...]:
    """`8,16,32` or a list as a tuple of `inner`; a single value is one of them."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    words = [part.strip() if isinstance(part, str) else part for part in parts]
    if not words or "" in words:
        raise MedmindError(f"{flag} cannot be {value!r}", "write VALUE,VALUE, or a list in --config")
    return tuple(_converted(flag, _number(word) if inner is not str else word, inner) for word in words)


def _number(word: Any) -> Any:
    try:
        return float(word) if isinstance(word, str) else word
    except ValueError:
        return word


def _entries(flag: str, value: Any) -> dict[str, Any]:
    """`q_proj=8,down_proj=32` as a mapping, numbers as such; a name may hold `=`, but no comma, which YAML can take."""
    entries: dict[str, Any] = {}
    for part in str(value).split(","):
        name, sign, number = (word.strip() for word in part.rpartition("="))
        if not isinstance(value, str) or not sign or not name:
            raise MedmindError(f"{flag} cannot be {value!r}", "write NAME=NUMBER,NAME=NUMBER, or a mapping in --config")
        if name in entries:
            raise MedmindError(f"{flag} gives '{name}' twice", "give it once")
        try:
            entries[name] = float(number) if set(number) & set(".eE") else int(number)
        except ValueError:
            entries[name] = number
    return entries


def to_yaml(config: Any, opening: str) -> str:
    """A settings file that reads back as `config`, beginning with the comment line `opening`."""
    yaml = console.require("yaml", "train")
    body: str = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    return f"# {opening}\n{body}"
