"""The digests of the files that the package carries: checked once a process before they are used, and written anew.

Knows which files a model is read from; nothing of what is in them.
"""

from functools import cache
from pathlib import Path

from medmind import embedded
from medmind.artifacts import read_json, sha256, write_json
from medmind.errors import MedmindError

FILE = "digests.json"
_FOR_PEOPLE = ("README.md", "ATTRIBUTION*", "pretrain.*", "*.jsonl", "*.png")
"""Beside a model, and not read with it."""
_REPAIR = "install it again: pip install --force-reinstall medmind, or in a clone: git checkout -- medmind/embedded"


@cache
def verified(name: str) -> Path:
    """The folder of an embedded model or run whose files are those that the package was made with.

    Args:
        name: one of `embedded.BASES` or `embedded.RUNS`.

    Raises:
        MedmindError: a file is missing or differs; it is named.
    """
    folder, table = embedded.FOLDER / name, embedded.FOLDER / FILE
    try:
        digests = read_json(table).get(name)
    except MedmindError as error:
        raise MedmindError(f"medmind is not whole: {error}", _REPAIR) from error
    if not isinstance(digests, dict) or not digests:
        raise MedmindError(f"{table} knows nothing of {name}", _REPAIR)
    for file, digest in digests.items():
        path = folder / file
        if not path.is_file():
            raise MedmindError(f"{path} is missing", _REPAIR)
        if sha256(path) != digest:
            raise MedmindError(f"{path} is damaged: its digest is not the one in {FILE}", _REPAIR)
    return folder


def of(folder: Path) -> dict[str, str]:
    """`sha256:<hex>` of every file under `folder` that a model is read from, by its path there, in name order."""
    files = [path for path in folder.rglob("*") if path.is_file() and not any(map(path.match, _FOR_PEOPLE))]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(files)}


def write() -> Path:
    """Write the digests of what lies in the package now; returns their file."""
    table = embedded.FOLDER / FILE
    write_json(table, {name: of(embedded.FOLDER / name) for name in (*embedded.BASES, *embedded.RUNS)})
    return table
