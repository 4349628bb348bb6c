"""What `medmind-bench chain` found, as typed records, and their JSON. Knows no rendering and measures nothing."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medmind.artifacts import read_json
from medmind_benchmarks.statistics import Estimate
from medmind_benchmarks.typed_json import added, decode_as

SCHEMA = "medmind-benchmark-chain/2"
_UNTOLD = "medmind-benchmark-chain/1"
"""As this one, without `Conditions.batch` and `Conditions.flash`: 512, and on in all of them."""
AGREEMENT = 0.001
"""How far apart, relatively, two perplexities of the same weights may be."""

Kind = Literal["base", "trained", "merged", "merged-nf4", "file"]
Status = Literal["measured", "failed", "refused"]


@dataclass(frozen=True)
class Divergence:
    """KL(trained ‖ step) of the next-token distributions, in nats a token, over the whole vocabulary.

    Attributes:
        mean: with the standard error over rows.
        median, p99, most: of single tokens.
        same_top: share of tokens where both find the same token most likely.
    """

    mean: Estimate
    median: float
    p99: float
    most: float
    same_top: Estimate


@dataclass(frozen=True)
class Step:
    """One stage on the way from the base to a file.

    Attributes:
        label: unique in a report.
        kind: the untuned base, the model as it was trained, the 16-bit weights merged onto the base or onto what NF4
            leaves of it, or a GGUF.
        engine: who computed.
        weights: their type: `nf4`, `bfloat16`, or the GGUF's quantization.
        dtype: what transformers computed in; empty for llama.cpp.
        file, digest, size: of a GGUF; empty and None for the others.
        reason: why it was not measured, in one line.
        perplexity: of the held-out answers; None where it was not measured.
        against_trained: ratio of the perplexities, paired by rows; None for the trained model itself.
        before: label of the step that this one was made of; empty for the base.
        change: ratio of the perplexities of this step and `before`, paired by rows.
        divergence: None for the trained model itself.
        seconds: for scoring.
    """

    label: str
    kind: Kind
    engine: Literal["transformers", "llama.cpp"]
    weights: str
    dtype: str
    file: str
    digest: str
    size: int | None
    status: Status
    reason: str
    perplexity: Estimate | None
    against_trained: Estimate | None
    before: str
    change: Estimate | None
    divergence: Divergence | None
    seconds: float | None


@dataclass(frozen=True)
class Agreement:
    """The perplexities that transformers and llama.cpp find for the same merged weights.

    Attributes:
        label: of the GGUF in a 16- or 32-bit type.
        difference: relative, llama.cpp's less transformers'.
        agrees: whether it is at most `AGREEMENT` either way.
    """

    label: str
    transformers: float
    llama_cpp: float
    difference: float
    agrees: bool


@dataclass(frozen=True)
class Conditions:
    """Under what conditions the figures hold.

    Attributes:
        created: when the newest result was there, ISO 8601, UTC.
        device: where transformers computed; llama.cpp computes on the CPU with `threads`.
        batch, flash: as given to llama.cpp: tokens computed at once, and whether it might use its flash attention.
        rows, left_out: held-out rows scored, and those beyond the limits or with nothing to score.
        heldout, heldout_digest: their file.
        tokens: answer tokens scored, the EOS of whole answers included.
        token_digest: over every token id; each step scored these.
        training_versions: of the libraries that medmind-train used.
    """

    created: str
    cpu: str
    cores: int
    memory: int
    system: str
    device: str
    threads: int
    batch: int
    flash: bool
    heldout: str
    heldout_digest: str
    rows: int
    left_out: int
    tokens: int
    token_digest: str
    vocabulary: int
    versions: dict[str, str]
    training_versions: dict[str, str]


@dataclass(frozen=True)
class Report:
    """One chain. `steps` run from the base over the trained model and both merges to the files."""

    schema: str
    run: str
    base: str
    adapter: str
    steps: tuple[Step, ...]
    agreement: tuple[Agreement, ...]
    conditions: Conditions

    def step(self, label: str) -> Step:
        """The step called `label`."""
        return next(step for step in self.steps if step.label == label)

    def of(self, kind: Kind) -> Step:
        """The first step of a kind."""
        return next(step for step in self.steps if step.kind == kind)

    def has(self, kind: Kind) -> bool:
        """Whether there is one: reports from before the second merge have no `merged-nf4`."""
        return any(step.kind == kind for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> "Report":
        """The report a document holds.

        Raises:
            MedmindError: another schema, or a field missing or of another kind.
        """
        if document.get("schema") == _UNTOLD:
            told = added(document.get("conditions"), batch=512, flash=True)
            document = {**document, "schema": SCHEMA, "conditions": told}
        return decode_as(Report, SCHEMA, document, what="chain report", how="make one with: medmind-bench chain RUN")


def read_report(path: Path) -> Report:
    """The report in a chain.json."""
    return Report.from_json(read_json(path))
