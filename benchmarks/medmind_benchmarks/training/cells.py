"""The finished cells of a benchmark on disk, each as it comes, so that one that was cut goes on where it was.

Knows files and which cell they belong to; measures nothing.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.artifacts import read_json, write_json
from medmind.errors import MedmindError
from medmind_benchmarks.typed_json import decode
from medmind_train.step.document import StepDocument

SCHEMA = "medmind-training-cell/1"
INSIDE = "cells"
"""In the folder of a report: the cells that it was made of."""


@dataclass(frozen=True)
class Finished:
    """One process that came to its end.

    Attributes:
        flags: of `medmind-train step`.
        seconds: that the whole process took.
    """

    schema: str
    flags: tuple[str, ...]
    seconds: float
    document: StepDocument


class Cells:
    """The cells in a folder, one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str, flags: Sequence[str]) -> Finished | None:
        """A cell that need not run again; None: it is not there, or failed and may do better now.

        Raises:
            MedmindError: it was measured with other settings, or the file holds something else.
        """
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        found = _read(path)
        was, now = _settings(found.flags), _settings(flags)
        if was != now:
            raise MedmindError(
                f"{path} was measured with other settings: {_unlike(was, now)}, now {_unlike(now, was)}",
                "give those settings, or begin anew with --force and without --resume",
            )
        return None if found.document.status == "failed" else found

    def keep(self, name: str, flags: Sequence[str], document: StepDocument, seconds: float) -> None:
        """Write a cell."""
        kept = Finished(SCHEMA, tuple(flags), seconds, document)
        write_json(self.folder / f"{name}.json", dataclasses.asdict(kept))

    def drop(self) -> None:
        """The report holds them now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def prepare(out: Path, *, resume: bool, force: bool) -> Cells:
    """The folder of the cells of a report at `out` while they come: beside it, so that an earlier report stays whole.

    Args:
        resume: go on with what a benchmark that was cut left there, or with the cells of a finished report.
        force: forget what is left there.

    Raises:
        MedmindError: cells that nobody asked to resume, or none to resume, or a folder that is something else.
    """
    folder = out.with_name(f"{out.name}.{INSIDE}")
    # hidden: what a killed process was writing
    files = list(folder.glob("[!.]*")) if folder.is_dir() else [folder] if folder.exists() else []
    for path in files:
        _read(path)
    left = bool(files)
    if resume:
        if not left and not (out / INSIDE).is_dir():
            raise MedmindError(f"there is nothing to resume: no {folder}", "leave --resume out")
        if not left:
            shutil.copytree(out / INSIDE, folder, dirs_exist_ok=True)
        return Cells(folder)
    if left and not force:
        raise MedmindError(
            f"{folder} holds the cells of a benchmark that was cut", "go on with --resume, or give --force to forget it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return Cells(folder)


def _read(path: Path) -> Finished:
    try:
        document = read_json(path)
        if document.get("schema") != SCHEMA:
            raise MedmindError(f"its schema is {document.get('schema')!r}, not {SCHEMA!r}")
        return decode(Finished, document)
    except (MedmindError, IsADirectoryError) as error:
        raise MedmindError(
            f"{path} is no cell of a benchmark: {error}", "move it elsewhere, or give another --out"
        ) from error


def _settings(flags: Sequence[str]) -> list[str]:
    """All flags but where random weights lie, which are the same anywhere."""
    kept = list(flags)
    if "--scratch" in kept:
        at = kept.index("--scratch")
        del kept[at : at + 2]
    return kept


def _unlike(flags: Sequence[str], other: Sequence[str]) -> str:
    """The flags that another list has otherwise."""
    pairs = [" ".join(part) for part in _pairs(flags)]
    known = {" ".join(part) for part in _pairs(other)}
    return ", ".join(part for part in pairs if part not in known) or "none of them"


def _pairs(flags: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for flag in flags:
        if flag.startswith("--") or not found:
            found.append([flag])
        else:
            found[-1].append(flag)
    return found
