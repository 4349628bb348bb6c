"""Prepared data kept by the content of its source, so that a second start neither cleans nor splits it again.

Knows how a dataclass goes through JSON and back; nothing of cleaning or splitting.
"""

import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from medmind import console
from medmind_train import cache, data
from medmind_train.data import Prepared
from medmind_train.data.sources import find

KIND = "data"
FORMAT = "medmind-prepared/1"


def prepare(source: str, **settings: Any) -> Prepared:
    """`data.prepare`, kept where the source is a file or a directory: by its bytes, the settings and our own code.

    Raises:
        MedmindError: as `data.prepare`.
    """
    found = find(source)
    path = Path(found.where)
    if not path.exists():  # a data set of the hub: the library that fetches it has a cache of its own
        return data.prepare(source, **settings)
    code = cache.code(Path(data.__file__).parent.glob("*.py"))
    given = {name: _stands_for(value) for name, value in settings.items()}
    key = cache.key(FORMAT, found.name, found.where, _content(path), given, code)
    made = False

    def make() -> Prepared:
        nonlocal made
        made = True
        return data.prepare(source, **settings)

    prepared = cache.kept(KIND, key, lambda path: read(path, key), make, lambda path, value: write(path, key, value))
    if not made and (skipped := prepared.counts.skipped_files):
        console.note(f"skipped {len(skipped):,} files of {found.name}, as {skipped[0].path}: {skipped[0].reason}")
    return prepared


def write(path: Path, key: str, prepared: Prepared) -> None:
    """Write prepared data: a line about it, then JSON.

    Raises:
        ValueError: it would not read back as it is.
    """
    try:
        body = json.dumps(dataclasses.asdict(prepared), ensure_ascii=False).encode()
        same = _made(Prepared, json.loads(body)) == prepared
    except TypeError:
        same = False
    if not same:
        raise ValueError("this data does not go through JSON unchanged")
    head = {"format": FORMAT, "key": key, "digest": hashlib.sha256(body).hexdigest()}
    path.write_bytes(json.dumps(head).encode() + b"\n" + body)


def read(path: Path, key: str) -> Prepared:
    """Read what `write` wrote.

    Raises:
        ValueError: another file, or one whose content is not what was written.
        OSError: no file.
    """
    first, _, body = path.read_bytes().partition(b"\n")
    if json.loads(first) != {"format": FORMAT, "key": key, "digest": hashlib.sha256(body).hexdigest()}:
        raise ValueError(f"{path} is damaged, or no cache of this data")
    return cast(Prepared, _made(Prepared, json.loads(body)))


def _stands_for(setting: Any) -> Any:
    """What JSON can hold of a setting: of a path what lies there, of rows their texts."""
    if isinstance(setting, Path):
        return [str(setting), _content(setting) if setting.exists() else None]
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        return dataclasses.asdict(setting)
    return [_stands_for(one) for one in setting] if isinstance(setting, list | tuple) else setting


def _content(path: Path) -> str:
    """A digest over a file, or over every file of a directory with its name."""
    hasher = hashlib.sha256()
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        hasher.update(f"{file.relative_to(path).as_posix()}\0{digest}\n".encode())
    return hasher.hexdigest()


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _made(kind: Any, value: Any) -> Any:
    """`value`, as JSON gives it, as the type `kind` of a field says."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**{name: _made(_hints(kind)[name], inner) for name, inner in value.items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        plain = [one for one in arguments if one is not type(None)]
        return None if value is None else _made(plain[0], value)
    if isinstance(value, list) and origin is not None:
        made = [_made(arguments[0], inner) for inner in value]
        return tuple(made) if origin is tuple else made
    if isinstance(value, Mapping) and len(arguments) == 2 and arguments[1] is not str:
        return {name: _made(arguments[1], inner) for name, inner in value.items()}
    return value
