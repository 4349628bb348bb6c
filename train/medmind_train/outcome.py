"""What a run began with and what it came to, as its manifest tells it. It trains nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmind.artifacts import ADAPTER
from medmind_train import answering, distributed, energy, evaluate, footprint, model, samples
from medmind_train.answering import Stopping
from medmind_train.checkpoint import Position
from medmind_train.evaluate import Ends, Perplexity
from medmind_train.inputs import Inputs
from medmind_train.samples import Answer


def start_record(
    inputs: Inputs, before: Perplexity, ends: Ends, said: Sequence[Answer], *, loading: float, evaluation: float
) -> dict[str, Any]:
    """What a resume compares with, and what the manifest takes over."""
    base, prepared = inputs.base, inputs.prepared
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {
            "name": base.name,
            "kind": base.kind,
            "path": str(base.path),
            "revision": base.revision,
            "digest": inputs.base_digest,
        },
        "data": {
            "source": prepared.source,
            "where": prepared.where,
            "digest": prepared.digest,
            "counts": prepared.counts.to_dict(),
        },
        "perplexity": asdict(before),
        "ends": asdict(ends),
        "samples": [asdict(one) for one in said],
        "reading_seconds": inputs.seconds,
        "loading_seconds": loading,
        "evaluation_seconds": evaluation,
    }


@dataclass(frozen=True)
class Outcome:
    """What training and the evaluation after it gave.

    Attributes:
        position: where training ended.
        chosen: as `early_stopping.chosen` has it.
        after, ends: on the held-out rows.
        trained: parameters.
        rows_a_pass: that went through the model together in the end.
        peak_memory: bytes, of the process that took the most.
        evaluation_seconds: what evaluating and answering took, apart from what came before the run.
    """

    position: Position
    chosen: Mapping[str, Any]
    after: Perplexity
    ends: Ends
    trained: int
    rows_a_pass: int
    peak_memory: int
    evaluation_seconds: float


def results(
    run: Path,
    inputs: Inputs,
    recorded: Mapping[str, Any],
    outcome: Outcome,
    *,
    stopping: Stopping | None,
    said: Sequence[Answer],
) -> dict[str, Any]:
    """`results` of the manifest of a run whose adapter is in place.

    Args:
        recorded: the run's start record.
        stopping: how answers end; None where none were asked for.
        said: what the tuned model answers to the questions that the base was asked.
    """
    position, device = outcome.position, inputs.hardware.device
    found: dict[str, Any] = {
        "perplexity": {"before": recorded["perplexity"], "after": asdict(outcome.after)},
        "chosen": outcome.chosen,
        "ends": {"before": recorded["ends"], "after": asdict(outcome.ends)},
        "stopping": asdict(stopping) if stopping else None,
        "steps": position.step,
        "tokens": position.tokens,
        "padding": round(1 - position.tokens / max(position.padded, 1), 4),
        "tokens_per_s": round(position.tokens / max(position.seconds, 1e-9), 1),
        "seconds": {
            "reading": round(recorded["reading_seconds"], 2),
            "loading": round(recorded["loading_seconds"], 2),
            "training": round(position.seconds, 2),
            "evaluation": round(recorded["evaluation_seconds"] + outcome.evaluation_seconds, 2),
        },
        "memory": {
            "peak": outcome.peak_memory,
            "of": "torch on the card" if device == "cuda" else "the process, resident",
        },
        "processes": distributed.world()[1],
        "micro_batch": outcome.rows_a_pass,
        "parameters": {"trained": outcome.trained},
        "adapter_bytes": (run / ADAPTER / model.ADAPTER_WEIGHTS).stat().st_size,
        "encoding": {"train": inputs.train.counts(), "heldout": inputs.heldout.counts()},
        "device": {"device": device, "name": inputs.hardware.name, "dtype": inputs.dtype},
    }
    found["samples"] = samples.side_by_side(inputs, [Answer(**one) for one in recorded["samples"]], said)
    taken = energy.total(run)
    found["footprint"] = footprint.compare(inputs.config, inputs.base.name, inputs.base.path, found, taken)
    return found


def stopping(tuned: Any, inputs: Inputs) -> Stopping | None:
    """Whether answers to some held-out questions stop by themselves; None where none are to be asked."""
    config = inputs.config
    if not config.answer_rows:
        return None
    firsts = {example.row: example for example in reversed(inputs.evaluated)}
    # A question that fills the context leaves no room to see how its answer ends.
    short = [example for example in firsts.values() if 2 * example.answer <= config.context] or list(firsts.values())
    return answering.measure(
        tuned,
        evaluate.choose_rows(short, [example.row for example in short], config.answer_rows),
        eos=inputs.tokenizer.eos_token_id,
        pad=inputs.pad,
        context=config.context,
        device=inputs.hardware.device,
        dtype=inputs.dtype,
    )
