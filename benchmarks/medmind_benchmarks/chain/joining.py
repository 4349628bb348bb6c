"""Joins what the steps of a chain gave into its report: estimates with errors, paired by rows. Measures nothing."""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmind import processor
from medmind.artifacts import sha256
from medmind_benchmarks import machine, score, statistics
from medmind_benchmarks.chain.plan import File, Plan
from medmind_benchmarks.chain.results import AGREEMENT, SCHEMA, Agreement, Conditions, Divergence, Kind, Report, Step
from medmind_benchmarks.chain.run import Found
from medmind_benchmarks.model_file import ModelFile
from medmind_benchmarks.opening import BATCH, FLASH
from medmind_train.score.document import ScoreDocument

BASE, TRAINED, MERGED, MERGED_NF4 = "base", "trained", "merged", "merged-nf4"


@dataclass(frozen=True)
class _Sums:
    """What one step makes of each row."""

    nll: Sequence[float]
    kl: Sequence[float]


def report(plan: Plan, found: Found) -> Report:
    """The report of a chain."""
    counts = found.text.tokens
    sums = _sums(found)
    steps = [
        _stage(BASE, "base", found, sums, counts, before=""),
        _stage(TRAINED, "trained", found, sums, counts, before=BASE),
        _stage(MERGED, "merged", found, sums, counts, before=TRAINED),
        _stage(MERGED_NF4, "merged-nf4", found, sums, counts, before=TRAINED),
        *(_of_file(file, found, sums, counts) for file in plan.files),
    ]
    return Report(
        schema=SCHEMA,
        run=found.trained.run,
        base=found.trained.base,
        adapter=found.trained.adapter,
        steps=tuple(steps),
        agreement=_agreement(plan, steps),
        conditions=_conditions(plan, found),
    )


def rows(found: Found) -> list[Mapping[str, Any]]:
    """One record a row: its id, its tokens, and by step the summed nats and the summed KL divergence."""
    sums = _sums(found)
    return [
        {
            "id": row,
            "tokens": found.text.tokens[place],
            "nll": {label: one.nll[place] for label, one in sums.items()},
            "kl": {label: one.kl[place] for label, one in sums.items() if one.kl},
        }
        for place, row in enumerate(found.rows)
    ]


def _sums(found: Found) -> dict[str, _Sums]:
    sums = {TRAINED: _Sums([row.nll for row in found.trained.rows], ())}
    for stage, document in found.stages.items():
        sums[stage] = _Sums([row.nll for row in document.rows], [row.kl or 0.0 for row in document.rows])
    return sums | {label: _Sums(result.nll, result.kl) for label, result in found.files.items()}


def _compared(
    label: str, before: str, sums: Mapping[str, _Sums], counts: Sequence[int]
) -> dict[str, statistics.Estimate | None]:
    """The perplexity of a step, and its ratios to the trained model's and to the one before."""
    if label not in sums:
        return {"perplexity": None, "against_trained": None, "change": None}
    own = sums[label].nll

    def ratio(other: str) -> statistics.Estimate | None:
        return statistics.perplexity_ratio(own, sums[other].nll, counts) if other in sums and other != label else None

    return {
        "perplexity": statistics.perplexity(own, counts),
        "against_trained": ratio(TRAINED),
        "change": ratio(before),
    }


def _stage(label: str, kind: Kind, found: Found, sums: Mapping[str, _Sums], counts: Sequence[int], before: str) -> Step:
    document = found.trained if kind == "trained" else found.stages.get(kind) if kind != "file" else None
    return Step(
        label=label,
        kind=kind,
        engine="transformers",
        weights=document.weights if document else "",
        dtype=document.dtype if document else "",
        file="",
        digest="",
        size=None,
        status="measured" if document else "failed",
        reason=found.reasons.get(label, ""),
        before=before,
        divergence=_stage_divergence(document, counts) if document else None,
        seconds=document.seconds if document else None,
        **_compared(label, before, sums, counts),
    )


def _stage_divergence(document: ScoreDocument, counts: Sequence[int]) -> Divergence | None:
    if document.divergence is None:
        return None
    found = document.divergence
    kl, same = ([getattr(row, name) or 0 for row in document.rows] for name in ("kl", "same_top"))
    return Divergence(
        statistics.ratio_of_sums(kl, counts),
        found.median,
        found.p99,
        found.most,
        statistics.ratio_of_sums(same, counts),
    )


def _of_file(file: File, found: Found, sums: Mapping[str, _Sums], counts: Sequence[int]) -> Step:
    result = found.files.get(file.label)
    before = _merge(file.model)
    return Step(
        label=file.label,
        kind="file",
        engine="llama.cpp",
        weights=file.model.quant,
        dtype="",
        file=file.model.path.name,
        digest=found.digests[file.label],
        size=file.model.size,
        status="measured" if result else "refused" if file.refusal else "failed",
        reason=found.reasons.get(file.label, ""),
        before=before,
        divergence=_file_divergence(result),
        seconds=result.seconds if result else None,
        **_compared(file.label, before, sums, counts),
    )


def _file_divergence(result: score.Result | None) -> Divergence | None:
    if result is None or result.fidelity is None:
        return None
    found = result.fidelity
    return Divergence(found.kl_mean, found.kl_median.value, found.kl_p99.value, found.kl_max, found.same_top)


def _agreement(plan: Plan, steps: Sequence[Step]) -> tuple[Agreement, ...]:
    """transformers' merged weights against each file that should hold the same ones."""
    known = {step.label: step.perplexity for step in steps}
    same = {file.label: known[_merge(file.model)] for file in plan.files if file.model.unquantized}
    found = []
    for step in steps:
        merged = same.get(step.label)
        if merged and step.perplexity:
            difference = step.perplexity.value / merged.value - 1
            agrees = math.isfinite(difference) and abs(difference) <= AGREEMENT
            found.append(Agreement(step.label, merged.value, step.perplexity.value, difference, agrees))
    return tuple(found)


def _merge(model: ModelFile) -> str:
    """Which of the two merges a file was made of, by what it says."""
    return MERGED_NF4 if model.metadata.get("medmind.adapter.merged_onto") == "nf4" else MERGED


def _conditions(plan: Plan, found: Found) -> Conditions:
    trained = found.trained
    return Conditions(
        created=found.created,
        cpu=processor.name(),
        cores=machine.cores(),
        memory=machine.available_memory()[1],
        system=platform.platform(),
        device=trained.device,
        threads=plan.threads,
        batch=BATCH,
        flash=FLASH,
        heldout=plan.heldout.name,
        heldout_digest=sha256(plan.heldout),
        rows=len(trained.rows),
        left_out=trained.left_out,
        tokens=trained.tokens,
        token_digest=trained.token_digest,
        vocabulary=trained.vocabulary,
        versions=machine.versions(),
        training_versions=trained.versions,
    )
