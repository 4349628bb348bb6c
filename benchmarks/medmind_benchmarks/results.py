"""What a benchmark found, as typed records, and their JSON: the only source that tables and charts are made from.

Knows no rendering and measures nothing; the figures of one model file are in `figures`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmind.artifacts import read_json
from medmind_benchmarks import earlier
from medmind_benchmarks.cause import Cause
from medmind_benchmarks.figures import Bandwidth, Figures, Memory, Perplexity, Speed
from medmind_benchmarks.statistics import Repeated
from medmind_benchmarks.typed_json import decode_as

SCHEMA = "medmind-benchmark-quants/6"
Status = Literal["measured", "failed", "refused"]


@dataclass(frozen=True)
class Gap:
    """A cell without a result.

    Attributes:
        cell: its name, such as `raw text, KV cache q8_0`.
        status: `failed` while it ran, `refused` by the plan (memory), or `skipped` because it has no meaning here (a
            context longer than the model's); only the first two make a level incomplete.
        reason: in words.
        cause: of which kind it is.
    """

    cell: str
    status: Literal["failed", "refused", "skipped"]
    reason: str
    cause: Cause = "other"


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
        base: whether it is the untuned base; it shares vocabulary and text with the others, not the weights.
        status, reason: `measured`, or why something is missing, in one line.
        gaps: every cell without a result.
        figures: with the 16-bit KV cache.
        kv: the same with quantized KV caches, one record a type; empty unless asked for.
    """

    label: str
    file: str
    digest: str
    size: int
    parameters: int
    bits_per_weight: float
    unquantized: bool
    base: bool
    status: Status
    reason: str
    gaps: tuple[Gap, ...]
    figures: Figures
    kv: tuple[Figures, ...]

    @property
    def quality(self) -> Perplexity | None:
        """Perplexity of the answers with the 16-bit KV cache."""
        return self.figures.answers

    @property
    def memory(self) -> Memory | None:
        """In the first load mode measured, which is the one that medmind-chat uses, at the shortest context."""
        return self.figures.shortest

    @property
    def prompt(self) -> Speed | None:
        """Prompt speed with the 16-bit KV cache."""
        return self.figures.prompt

    @property
    def generation(self) -> Speed | None:
        """Generation speed with the 16-bit KV cache."""
        return self.figures.generation

    @property
    def load_seconds(self) -> Repeated | None:
        """Seconds to load with the 16-bit KV cache."""
        return self.figures.load_seconds


@dataclass(frozen=True)
class HeldOut:
    """The rows that answers were scored on.

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
class RawText:
    """The text that raw perplexity was measured on, as llama-perplexity measures.

    Attributes:
        source: file name; `held-out rows` when it was joined of them.
        digest: `sha256:…` of its bytes.
        tokens: of the whole text.
        chunk: tokens of a chunk (llama-perplexity's n_ctx), the second half of which is scored.
        chunks, chunks_in_text: scored, and all.
    """

    source: str
    digest: str
    tokens: int
    chunk: int
    chunks: int
    chunks_in_text: int


@dataclass(frozen=True)
class Conditions:
    """Under what conditions the figures hold.

    Attributes:
        created: when the newest result was there, ISO 8601, UTC.
        seconds: how long the cells took, those of earlier, interrupted calls included.
        memory: bytes of the machine, within the control group's limit.
        reserve: bytes that a machine is taken to need beside the model, for `Need.machine`.
        load_before: load average before the first cell, the highest of the calls whose results are in here; above zero,
            other programs were at work.
        context, batch, threads: as given to llama.cpp.
        flash: whether llama.cpp might use its flash attention.
        memory_as_chat: whether memory was measured with the batch and attention that chat chooses, and not with these.
        contexts, load_modes: of the memory cells.
        prompt_tokens, generated_tokens: of one repetition of a speed cell.
        rounds, repeats: fresh processes for each speed, and repetitions in each.
        kv_types: types of the KV cache measured.
        features: llama.cpp's own line on the instructions it uses.
        bandwidth: None when it was not measured.
        cells, reused: how many cells there are, and how many of them had a result from an earlier call.
    """

    created: str
    seconds: float
    cpu: str
    cores: int
    memory: int
    reserve: int
    load_before: float | None
    system: str
    versions: dict[str, str]
    features: str
    context: int
    batch: int
    flash: bool
    memory_as_chat: bool
    threads: int
    contexts: tuple[int, ...]
    load_modes: tuple[str, ...]
    prompt_tokens: int
    generated_tokens: int
    rounds: int
    repeats: int
    kv_types: tuple[str, ...]
    bandwidth: Bandwidth | None
    cells: int
    reused: int

    @property
    def kv_type(self) -> str:
        """The type of KV cache that `Level.figures` hold for."""
        return self.kv_types[0]


@dataclass(frozen=True)
class Pick:
    """The file to take: the smallest that is, with 95 % confidence, at most `tolerance` above the reference.

    Attributes:
        label: the level picked; None when none could be judged, none but the reference passes, or the rows are too few.
        tolerance: relative, 0.02 = 2 %.
        bounds: label → upper end of the one-sided 95 % interval of its perplexity ratio, by Student's t over the rows.
    """

    label: str | None
    tolerance: float
    bounds: dict[str, float]


@dataclass(frozen=True)
class Report:
    """One run of `medmind-bench quants`.

    Attributes:
        run: name of the run directory.
        reference: label of the level the others are compared with.
        random_weights: whether the model was never trained: only sizes, memory and speed mean anything.
        beside: name → `sha256:…` of the files of single rows, chunks and questions that were written with it.
    """

    schema: str
    run: str | None
    reference: str
    random_weights: bool
    held_out: HeldOut | None
    raw_text: RawText | None
    conditions: Conditions
    levels: tuple[Level, ...]
    pick: Pick
    beside: dict[str, str]

    def level(self, label: str) -> Level:
        """The level called `label`."""
        return next(level for level in self.levels if level.label == label)

    @property
    def kl_base(self) -> str | None:
        """The file of --kl-base that raw text was compared with: only then has the reference a divergence itself."""
        compared = self.level(self.reference).figures.raw_fidelity
        return self.raw_text.source if compared and self.raw_text else None

    def raw_reference(self) -> str:
        """What raw text was compared with, for people."""
        return f"the model that wrote {self.kl_base}" if self.kl_base else self.reference

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Report":
        """The report a document holds.

        Raises:
            MedmindError: another schema, an earlier version of it, or a field missing or of another kind.
        """
        document = earlier.completed(document, SCHEMA)
        return decode_as(Report, SCHEMA, document, what="benchmark report", how="make one with: medmind-bench quants")


def read_report(path: Path) -> Report:
    """The report in a report.json."""
    return Report.from_json(read_json(path))
