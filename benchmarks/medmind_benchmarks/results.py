"""What a benchmark found, as typed records, and their JSON: the only source that tables and charts are made from.

Knows no rendering and measures nothing.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from medmind.artifacts import read_json
from medmind.errors import MedmindError
from medmind_benchmarks.statistics import Estimate, Spread

SCHEMA = "medmind-benchmark-quants/1"

Status = Literal["measured", "failed", "refused"]


@dataclass(frozen=True)
class Memory:
    """Bytes in use while a model answers.

    Attributes:
        weights, kv_cache, compute: what llama.cpp says it allocates.
        repacked: second copies of weights in a layout for this processor, also by llama.cpp's word; within none of the
            others.
        library: resident memory of the process with Python and llama.cpp loaded and no model (measured).
        peak: the most that was resident (measured).
        anonymous, file_backed: resident memory at the end, allocated pages and pages of the mapped file apart
            (measured; None where the system does not tell them apart).
    """

    weights: int
    repacked: int
    kv_cache: int
    compute: int
    library: int
    peak: int
    anonymous: int | None
    file_backed: int | None

    @property
    def added(self) -> int:
        """What the model added to the process: peak without the library's baseline."""
        return self.peak - self.library


@dataclass(frozen=True)
class Speed:
    """Tokens per second, and the ratio to the reference measured in the same rounds (None for the reference)."""

    tokens_per_second: Spread
    relative: Spread | None


@dataclass(frozen=True)
class Quality:
    """Perplexity on the answers, and how it compares with the reference over the same rows (None for the reference)."""

    perplexity: Estimate
    ratio: Estimate | None
    difference: Estimate | None
    seconds: float


@dataclass(frozen=True)
class Level:
    """One model file and what was measured of it.

    Attributes:
        label: the name in tables, unique in a report.
        file: file name.
        digest: `sha256:…` of the file.
        size: bytes of the file.
        parameters, bits_per_weight: of its tensors.
        unquantized: whether the weights are in a 16- or 32-bit type.
        status, reason: `measured`, or why something is missing.
        load_seconds: from the path to a model that can answer, file in the page cache.
    """

    label: str
    file: str
    digest: str
    size: int
    parameters: int
    bits_per_weight: float
    unquantized: bool
    status: Status
    reason: str
    quality: Quality | None
    memory: Memory | None
    prompt: Speed | None
    generation: Speed | None
    load_seconds: Spread | None


@dataclass(frozen=True)
class HeldOut:
    """The rows perplexity was measured on.

    Attributes:
        file, digest: where they came from.
        rows_in_file, rows: how many there are, how many were used (the smallest SHA-256 of their ids first).
        answers, tokens: assistant turns and answer tokens scored.
        cut: answers cut at the context, scored without their end.
        dropped: turns whose prompt left no room for an answer, or whose row spells out a control token.
        token_digest: over every token id scored; equal for all levels.
    """

    file: str
    digest: str
    rows_in_file: int
    rows: int
    answers: int
    tokens: int
    cut: int
    dropped: int
    token_digest: str


@dataclass(frozen=True)
class Conditions:
    """Under what conditions the figures hold.

    Attributes:
        created: ISO 8601, UTC.
        seconds: how long the whole benchmark took.
        memory: bytes of the machine, within the control group's limit.
        load_before: load average before the first cell; above zero, other programs were at work.
        context, batch, threads: as given to llama.cpp.
        prompt_tokens, generated_tokens, rounds: of the speed cells.
        kv_type: type of the KV cache.
        features: llama.cpp's own line on the instructions it uses.
    """

    created: str
    seconds: float
    cpu: str
    cores: int
    memory: int
    load_before: float | None
    system: str
    versions: dict[str, str]
    features: str
    context: int
    batch: int
    threads: int
    prompt_tokens: int
    generated_tokens: int
    rounds: int
    kv_type: str


@dataclass(frozen=True)
class Pick:
    """The file to take: the smallest that is, with 95 % confidence, at most `tolerance` above the reference.

    Attributes:
        label: the level picked; None when none could be judged, or none but the reference passes.
        tolerance: relative, 0.02 = 2 %.
        bounds: label → upper end of the one-sided 95 % interval of its perplexity ratio.
    """

    label: str | None
    tolerance: float
    bounds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """One run of `medmind-bench quants`. `reference` is the label of the level the others are compared with."""

    schema: str
    run: str | None
    reference: str
    held_out: HeldOut | None
    conditions: Conditions
    levels: tuple[Level, ...]
    pick: Pick

    def level(self, label: str) -> Level:
        """The level called `label`."""
        return next(level for level in self.levels if level.label == label)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Report":
        """The report a document holds.

        Raises:
            MedmindError: another schema, or a field missing or of another kind.
        """
        if document.get("schema") != SCHEMA:
            raise MedmindError(
                f"this is no benchmark report: its schema is {document.get('schema')!r}, not {SCHEMA!r}",
                "make one with: medmind-bench quants",
            )
        return decode(Report, document)


def read_report(path: Path) -> Report:
    """The report in a report.json."""
    return Report.from_json(read_json(path))


Record = TypeVar("Record")


def decode(kind: type[Record], document: Mapping[str, Any]) -> Record:
    """A record of dataclass `kind` out of parsed JSON; MedmindError names the field that does not fit."""
    return typing.cast(Record, _decode(kind, document, kind.__name__))


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
        return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names})
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise MedmindError(f"{where} is {type(value).__name__}, not {getattr(kind, '__name__', kind)}")
