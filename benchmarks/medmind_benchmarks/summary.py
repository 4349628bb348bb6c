"""The table that joins all that was measured of each level, as text and as numbers to sort by. Renders no markup."""

from collections.abc import Callable
from dataclasses import dataclass

from medmind.console import human_bytes
from medmind_benchmarks import tables
from medmind_benchmarks.figures import Fidelity
from medmind_benchmarks.results import Level, Report


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: a short word, for links and scripts.
        title: for people, units in it.
        text: level → what stands in the cell.
        value: level → the number to sort by, None where there is none; None for the whole column sorts by text.
    """

    key: str
    title: str
    text: Callable[[Level], str]
    value: Callable[[Level], float | None] | None = None


def columns(report: Report) -> tuple[Column, ...]:
    """The columns that have something in them, the level's name first."""
    task = next((one.task for level in report.levels for one in level.figures.choices), "")
    known = (
        Column("size", "file size", lambda level: human_bytes(level.size), lambda level: level.size),
        Column("bits", "bits/weight", lambda level: f"{level.bits_per_weight:.2f}", lambda one: one.bits_per_weight),
        Column(
            "ppl", "perplexity ± SE", _perplexity, lambda one: one.quality.perplexity.value if one.quality else None
        ),
        Column(
            "change",
            f"against {report.reference}",
            lambda level: tables.change(level.quality.ratio if level.quality else None),
            lambda level: level.quality.ratio.value if level.quality and level.quality.ratio else None,
        ),
        Column("kl", "mean KL, nats", _kl, lambda level: found.kl_mean.value if (found := fidelity(level)) else None),
        Column(
            "top",
            "same top token",
            lambda level: (
                tables.percent(found.same_top.value, found.same_top.error)
                if (found := fidelity(level))
                else tables.NONE
            ),
            lambda level: found.same_top.value if (found := fidelity(level)) else None,
        ),
        Column("accuracy", f"right, {task}", _accuracy, _accuracy_value),
        Column(
            "memory",
            f"peak memory, {report.conditions.context:,} tokens"
            if not any(level.memory for level in report.levels)
            else f"peak memory, {_context(report):,} tokens",
            lambda level: human_bytes(level.memory.peak) if level.memory else tables.NONE,
            lambda level: level.memory.peak if level.memory else None,
        ),
        Column(
            "prompt",
            "prompt tokens/s",
            lambda level: tables.rate(level.prompt),
            lambda level: level.prompt.tokens_per_second.mean if level.prompt else None,
        ),
        Column(
            "generation",
            "answer tokens/s",
            lambda level: tables.rate(level.generation),
            lambda level: level.generation.tokens_per_second.mean if level.generation else None,
        ),
    )
    return (
        Column("level", "level", lambda level: level.label),
        *(one for one in known if any(one.value and one.value(level) is not None for level in report.levels)),
    )


def fidelity(level: Level) -> Fidelity | None:
    """Against the reference, on the answers; on raw text where only that was measured."""
    return level.figures.answers_fidelity or level.figures.raw_fidelity


def _context(report: Report) -> int:
    return next(level.memory.context for level in report.levels if level.memory)


def _perplexity(level: Level) -> str:
    return tables.estimate(level.quality.perplexity if level.quality else None)


def _kl(level: Level) -> str:
    found = fidelity(level)
    return tables.small(found.kl_mean) if found else tables.NONE


def _accuracy(level: Level) -> str:
    choices = level.figures.choices
    return tables.percent(choices[0].quoted.value, choices[0].quoted.error) if choices else tables.NONE


def _accuracy_value(level: Level) -> float | None:
    return level.figures.choices[0].quoted.value if level.figures.choices else None
