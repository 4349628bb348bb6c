"""The figures of a chain as words and tables, for Markdown and terminal alike. Knows formats, measures nothing."""

import math

from medmind.console import human_bytes
from medmind_benchmarks.chain.results import AGREEMENT, Report, Step
from medmind_benchmarks.statistics import Estimate, two_sided_95
from medmind_benchmarks.tables import NONE, Table, change, estimate, small


def steps(report: Report) -> Table:
    """Every step: perplexity, what it changed, and how far it is from the trained model."""
    return Table(
        (
            "step",
            "weights",
            "perplexity ± SE",
            "change at this step",
            "against trained",
            "KL to trained (nats ± SE)",
            "KL median",
            "KL p99",
            "same top",
        ),
        tuple(_row(step) for step in report.steps),
    )


def terminal(report: Report) -> Table:
    """The same, narrow enough for 80 columns."""

    def row(step: Step) -> tuple[str, ...]:
        size = human_bytes(step.size) if step.size is not None else step.weights
        if step.status != "measured":
            return (step.label, size, step.status, *[NONE] * 3)
        found = step.divergence
        return (
            step.label,
            size,
            estimate(step.perplexity),
            change(step.change),
            f"{found.mean.value:.3g}" if found else NONE,
            f"{found.same_top.value:.1%}" if found else NONE,
        )

    return Table(
        ("step", "weights", "perplexity", "change at step", "KL to trained", "same top"),
        tuple(row(step) for step in report.steps),
    )


def agreement(report: Report) -> Table:
    """Perplexity of the same weights in two engines."""
    return Table(
        ("file", "transformers", "llama.cpp", "difference", f"within {AGREEMENT:.1%}"),
        tuple(
            (
                one.label,
                f"{one.transformers:.4f}",
                f"{one.llama_cpp:.4f}",
                f"{one.difference:+.3%}",
                "yes" if one.agrees else "no",
            )
            for one in report.agreement
        ),
    )


def verdict(report: Report) -> list[str]:
    """Where quality went, in sentences."""
    lines = []
    rows = report.conditions.rows
    base, trained, merged = (report.of(kind) for kind in ("base", "trained", "merged"))
    if base.perplexity and trained.perplexity:
        lines.append(
            f"Training took the held-out perplexity from {estimate(base.perplexity)} to {estimate(trained.perplexity)} "
            f"({change(trained.change)}, paired)."
        )
    if merged.change and merged.divergence:
        lines.append(
            f"Merging the adapter onto the {merged.weights} base, instead of the {trained.weights} one that it was "
            f"trained on, changed it by {change(merged.change)}{_noise(merged.change, rows)}; KL divergence from the "
            f"trained model: {small(merged.divergence.mean)} nats a token."
        )
    if report.has("merged-nf4"):
        lines += _said_of_merges(merged, report.of("merged-nf4"), rows)
    files = [step for step in report.steps if step.kind == "file" and step.change and step.perplexity]
    if quantized := [step for step in files if step.label not in {one.label for one in report.agreement}]:
        said = ", ".join(f"{step.label} {change(step.change)}" for step in quantized)
        lines.append(f"What quantization adds to its merge, file by file: {said}.")
    lines += [_said_of_agreement(report)] if report.agreement else []
    return lines


def _said_of_merges(merged: Step, other: Step, rows: int) -> list[str]:
    """What the merge onto NF4 does, and which of the two is nearer to the trained model."""
    if not other.change or not other.divergence:
        return []
    said = (
        f"Merging it onto what NF4 leaves of the base, in {other.weights}, changed it by {change(other.change)}"
        f"{_noise(other.change, rows)}; KL divergence: {small(other.divergence.mean)} nats a token."
    )
    if not merged.divergence:
        return [said]
    one, two = merged.divergence.mean, other.divergence.mean
    if one.error is None or two.error is None:
        return [f"{said} Which is nearer to the trained model, a single row does not tell."]
    apart = abs(one.value - two.value) > two_sided_95(rows) * math.hypot(one.error, two.error)
    nearer = "the merge onto NF4" if two.value < one.value else "the merge onto the base"
    verdict = f"Nearer to the trained model is {nearer}." if apart else "Neither is nearer beyond the noise."
    return [f"{said} {verdict}"]


def _row(step: Step) -> tuple[str, ...]:
    weights = step.weights if step.size is None else f"{step.weights}, {human_bytes(step.size)}"
    if step.status != "measured":
        return (step.label, weights, step.status, *[NONE] * 6)
    found = step.divergence
    return (
        step.label,
        weights,
        estimate(step.perplexity),
        change(step.change),
        change(step.against_trained),
        small(found.mean) if found else "0 (reference)" if step.kind == "trained" else NONE,
        f"{found.median:.3g}" if found else NONE,
        f"{found.p99:.3g}" if found else NONE,
        _share(found.same_top) if found else NONE,
    )


def _share(figure: Estimate) -> str:
    if figure.error is None:
        return f"{figure.value:.1%}"
    return f"{figure.value * 100:.1f} ± {figure.error * 100:.1f} %"


def _noise(ratio: Estimate, rows: int) -> str:
    """Said of a change that could be none."""
    if ratio.error is None:
        return ", whose noise a single row does not tell"
    if abs(ratio.value - 1) > two_sided_95(rows) * ratio.error:
        return ""
    return ", which is within the noise"


def _said_of_agreement(report: Report) -> str:
    apart = [one for one in report.agreement if not one.agrees]
    labels = ", ".join(one.label for one in report.agreement)
    worst = max(abs(one.difference) for one in report.agreement)
    if not apart:
        return (
            f"transformers and llama.cpp find the same perplexity for the merged weights ({labels}) "
            f"within {AGREEMENT:.1%}: at most {worst:.3%} apart."
        )
    named = ", ".join(f"{one.label} {one.difference:+.3%}" for one in apart)
    return (
        f"transformers and llama.cpp do NOT find the same perplexity for the merged weights: {named}, more than "
        f"{AGREEMENT:.1%}; what the files lose cannot be told from what the engines do otherwise."
    )
