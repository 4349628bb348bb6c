"""Results of cells on disk, found again by the digest of everything that went into them.

Knows requests and results as JSON; runs nothing. A cell that failed leaves no result and is run again.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from medmind import locks
from medmind.artifacts import read_json, write_json
from medmind.errors import MedmindError
from medmind_benchmarks import machine
from medmind_benchmarks.typed_json import decode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = "medmind-benchmark-cell/2"
"""Raised when cells begin to measure otherwise: results of an older format are not taken."""
_OF_THIS_MACHINE = ("speed", "memory", "bandwidth")
"""Kinds whose results hold for one machine alone."""

Result = TypeVar("Result")
Instance = TypeVar("Instance", bound="DataclassInstance")


@dataclass(frozen=True)
class Kept(Generic[Result]):
    """A result and what it was measured under.

    Attributes:
        seconds: that it took.
        created: when it was there, ISO 8601, UTC.
        load_before: load average before the first cell of the call that measured it.
    """

    result: Result
    seconds: float
    created: str
    load_before: float | None


def cells_folder(out: Path) -> Path:
    """Where the results of single cells are kept, beside the report's folder."""
    return out.with_name(f"{out.name}.cells")


def alone(out: Path) -> AbstractContextManager[None]:
    """Hold the report's folder while it is measured for: two calls at once would take one another's texts.

    Raises:
        MedmindError: another process measures for it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    return locks.exclusive(out.with_name(f"{out.name}.lock"), out)


class Store:
    """A folder of results. Made before the first cell runs: the load average is taken then.

    Args:
        folder: made with the first result.
        digests: path in a request → digest of what lies there, which is what counts.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str]) -> None:
        self.folder = folder
        self._digests = digests
        self._load_before = machine.load_average()
        self._versions = {**machine.versions(), "llama.cpp": machine.llama_build()}
        self._machine = machine.identity()

    def key(self, request: "DataclassInstance") -> dict[str, Any]:
        """Everything a result depends on."""
        fields = {
            name: self._digests.get(value, value) if isinstance(value, str) else value
            for name, value in dataclasses.asdict(request).items()
        }
        key: dict[str, Any] = {"request": fields, "versions": self._versions}
        return {**key, "machine": self._machine} if fields["kind"] in _OF_THIS_MACHINE else key

    def digest(self, request: "DataclassInstance") -> str:
        """Of everything a result depends on, short enough for a file's name."""
        return hashlib.sha256(json.dumps(self.key(request), sort_keys=True).encode()).hexdigest()[:24]

    def _place(self, request: "DataclassInstance") -> Path:
        return self.folder / f"{request.kind}-{self.digest(request)}.json"  # type: ignore[attr-defined]

    def get(self, request: "DataclassInstance", kind: type[Result]) -> Kept[Result] | None:
        """An earlier result; None when there is none, or one that cannot be read."""
        place = self._place(request)
        if not place.exists():
            return None
        try:
            document = read_json(place)
            if document["format"] != FORMAT or document["key"] != json.loads(json.dumps(self.key(request))):
                return None
            load = document["load_before"]
            return Kept(
                decode(kind, document["result"]),
                float(document["seconds"]),
                str(document["created"]),
                None if load is None else float(load),
            )
        except (MedmindError, KeyError, TypeError, ValueError):
            return None

    def put(self, request: "DataclassInstance", result: "Instance", seconds: float) -> "Kept[Instance]":
        """Keep a result; it is there whole or not at all."""
        kept = Kept(result, seconds, datetime.now(UTC).isoformat(timespec="seconds"), self._load_before)
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {
            "format": FORMAT,
            "key": self.key(request),
            **dataclasses.asdict(kept),
        }
        write_json(self._place(request), document)
        return kept
