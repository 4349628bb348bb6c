"""What `medmind-bench grounding` found, as typed records, and their JSON. Knows no rendering and measures nothing."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmind.artifacts import read_json
from medmind_benchmarks.figures import Choice
from medmind_benchmarks.statistics import Estimate
from medmind_benchmarks.typed_json import decode_as
from medmind_runtime.config import KvType

SCHEMA = "medmind-benchmark-grounding/2"
_F16_ALONE = "medmind-benchmark-grounding/1"
"""The schema of reports without `kv_type`, which were all measured with an f16 KV cache."""


@dataclass(frozen=True)
class Effect:
    """What the passages do to the answers of some rows; both sides score the same tokens of the same rows.

    Attributes:
        rows, tokens: compared.
        cut: answers longer than chat keeps room for, scored so far.
        question_alone, with_passages: perplexity of the held-out answers behind either prompt.
        change: their ratio, paired by rows; below 1 the passages help.
        likelier: rows whose answer the passages make likelier.
        choice_alone, choice_with_passages: multiple choice behind either prompt, the latter with its flips; None where
            no question could be made.
    """

    rows: int
    tokens: int
    cut: int
    question_alone: Estimate
    with_passages: Estimate
    change: Estimate
    likelier: int
    choice_alone: Choice | None
    choice_with_passages: Choice | None


@dataclass(frozen=True)
class Recalled:
    """Recall of the retrieval: of `of` questions whose topic the library holds, it is found for `share`.

    Attributes:
        passages: among how many, the best first.
        low, high: 95 % interval (Wilson).
    """

    passages: int
    of: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Library:
    """A library, and what it finds for the questions; no model has a part in it.

    Attributes:
        label: unique in a report.
        topics: pairs of focus and question type in it.
        asked, found: questions, and those for which it has a passage; to the others chat says that it has nothing.
        with_topic, held: questions of rows that carry focus and type, and those of which the library holds an answer.
        recall: with 1 passage and with all; empty when the library holds no topic that is asked about.
    """

    label: str
    file: str
    digest: str
    topics: int
    asked: int
    found: int
    with_topic: int
    held: int
    recall: tuple[Recalled, ...]


@dataclass(frozen=True)
class Model:
    """A model file; `label` is unique in a report."""

    label: str
    file: str
    digest: str
    size: int


@dataclass(frozen=True)
class Pair:
    """One model with one library.

    Attributes:
        model, library: labels.
        status, reason: `measured`, or why not, in one line.
        passages: mean number in a prompt, over the rows compared.
        passage_tokens: what they and the instruction to use them add to the prompt, in tokens.
        left_out: reason → rows that are in neither side.
        all: every row with a passage; None where there is none.
        own_topic: rows of whose own topic, focus and type, a passage is in the prompt.
        other_topics: rows that carry a topic and have passages of other topics alone.
        token_digests: over every id scored, question alone and with passages.
        seconds: of both sides.
    """

    model: str
    library: str
    status: Literal["measured", "failed"]
    reason: str
    passages: Estimate | None
    passage_tokens: Estimate | None
    left_out: dict[str, int]
    all: Effect | None
    own_topic: Effect | None
    other_topics: Effect | None
    token_digests: tuple[str, ...]
    seconds: float | None


@dataclass(frozen=True)
class Conditions:
    """Under what conditions the figures hold.

    Attributes:
        created: ISO 8601, UTC.
        heldout, heldout_digest, rows_in_file, rows: the rows and how many of them were chosen.
        left_out: reason → chosen rows that make no item.
        context: tokens, as chat has it, or as asked for; by model.
        reserve: of those, kept for an answer: longer ones are scored so far; by model.
        kv_type: of the KV cache, as chat has it; by model.
        load_before: load average before the first cell; above zero, other programs were at work.
    """

    created: str
    seconds: float
    cpu: str
    cores: int
    load_before: float | None
    system: str
    threads: int
    versions: dict[str, str]
    heldout: str
    heldout_digest: str
    rows_in_file: int
    rows: int
    left_out: dict[str, int]
    context: dict[str, int]
    reserve: dict[str, int]
    kv_type: dict[str, KvType]


@dataclass(frozen=True)
class Report:
    """One run of `medmind-bench grounding`; a pair for every model and library."""

    schema: str
    models: tuple[Model, ...]
    libraries: tuple[Library, ...]
    pairs: tuple[Pair, ...]
    conditions: Conditions

    def pair(self, model: str, library: str) -> Pair:
        """The pair of these labels."""
        return next(pair for pair in self.pairs if (pair.model, pair.library) == (model, library))

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Report":
        """The report a document holds.

        Raises:
            MedmindError: another schema, or a field missing or of another kind.
        """
        conditions = document.get("conditions")
        if document.get("schema") == _F16_ALONE and isinstance(conditions, Mapping):
            measured = conditions.get("context")
            kv_type = dict.fromkeys(measured if isinstance(measured, Mapping) else (), "f16")
            document = {**document, "schema": SCHEMA, "conditions": {**conditions, "kv_type": kv_type}}
        how = "make one with: medmind-bench grounding --library FILE"
        return decode_as(Report, SCHEMA, document, what="grounding report", how=how)


def read_report(path: Path) -> Report:
    """The report in a grounding.json."""
    return Report.from_json(read_json(path))
