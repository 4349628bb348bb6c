"""The figures of a report as words and tables, for Markdown and terminal alike. Knows formats, measures nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from medmind.console import human_bytes
from medmind_benchmarks.figures import Speed
from medmind_benchmarks.pick import FEWEST
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import Estimate

NONE = "–"


@dataclass(frozen=True)
class Table:
    """Text cells; the first column names the level, the others are figures."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def estimate(figure: Estimate | None) -> str:
    """`7.12 ± 0.21`: the error to two significant digits, the value to the same place."""
    if figure is None:
        return NONE
    if figure.error is None:
        return f"{figure.value:.3f}"
    shown = places(figure.error)
    return f"{figure.value:,.{shown}f} ± {figure.error:,.{shown}f}"


def change(ratio: Estimate | None) -> str:
    """A ratio as a change in percent, `+0.31 ± 0.12 %`."""
    if ratio is None:
        return NONE
    percent = (ratio.value - 1) * 100
    if ratio.error is None:
        return f"{percent:+.2f} %"
    shown = places(ratio.error * 100)
    return f"{percent:+,.{shown}f} ± {ratio.error * 100:,.{shown}f} %"


def small(figure: Estimate) -> str:
    """A figure that may be far below 1, `0.00123 ± 0.00004` or `1.2e-07 ± 3e-09`."""
    if 0 < abs(figure.value) < 1e-4:
        return f"{figure.value:.2g}" + ("" if figure.error is None else f" ± {figure.error:.1g}")
    return estimate(figure)


def places(error: float) -> int:
    """Decimal places that show an error to two significant digits."""
    if not 0 < error < math.inf:
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(error))))


def percent(value: float, error: float | None) -> str:
    """A share as `97.31 ± 0.12 %`."""
    if error is None:
        return f"{value * 100:.1f} %"
    shown = places(error * 100)
    return f"{value * 100:.{shown}f} ± {error * 100:.{shown}f} %"


def rate(speed: Speed | None) -> str:
    """Mean and standard deviation of a speed, `812 ± 11`."""
    if speed is None:
        return NONE
    figure = speed.tokens_per_second
    return _figure(figure.mean) + ("" if figure.deviation is None else f" ± {_figure(figure.deviation)}")


def times(speed: Speed | None) -> str:
    """The ratio to the reference, `1.84×`, with its range over the rounds where there are several."""
    if speed is None or speed.relative is None:
        return NONE
    figure = speed.relative
    if len(figure.samples) < 2:
        return f"{figure.mean:.2f}×"
    return f"{figure.mean:.2f}× ({min(figure.samples):.2f}–{max(figure.samples):.2f})"


def quality(report: Report) -> Table:
    """Size, and perplexity where it was asked for."""
    sizes: tuple[tuple[str, Callable[[Level], str]], ...] = (
        ("file size", lambda level: human_bytes(level.size)),
        ("bits per weight", lambda level: f"{level.bits_per_weight:.2f}"),
    )
    if report.held_out is None:
        return _table(report, *sizes)
    return _table(
        report,
        *sizes,
        ("perplexity ± SE", lambda level: estimate(level.quality.perplexity if level.quality else None)),
        (
            f"difference from {report.reference}",
            lambda level: _signed(level.quality.difference if level.quality else None),
        ),
        (f"change against {report.reference}", lambda level: change(level.quality.ratio if level.quality else None)),
    )


def speed(report: Report) -> Table:
    """Prompt and generation speed, the latter's share of what memory bandwidth allows, load time and first token."""

    def share(level: Level) -> str:
        found = level.generation.bandwidth_share if level.generation else None
        return f"{found.value * 100:.0f} %" if found else NONE

    def first(level: Level) -> str:
        found = level.figures.first_token_seconds
        return f"{found.mean:.2f}" if found else NONE

    def load(level: Level) -> str:
        return f"{level.load_seconds.mean:.2f}" if level.load_seconds else NONE

    return _table(
        report,
        ("prompt tokens/s", lambda level: rate(level.prompt)),
        (f"against {report.reference}", lambda level: times(level.prompt)),
        ("generated tokens/s", lambda level: rate(level.generation)),
        (f"against {report.reference} ", lambda level: times(level.generation)),
        ("of the bandwidth", share),
        ("seconds to load", load),
        ("to the first token", first),
    )


def terminal(report: Report) -> list[Table]:
    """Quality, then memory and speed, as far as they were measured: each fits a terminal of 80 columns."""

    def pace(found: Speed | None) -> str:
        return NONE if found is None else _figure(found.tokens_per_second.mean)

    def against(found: Speed | None) -> str:
        return f"{found.relative.mean:.2f}×" if found and found.relative else NONE

    costs = _table(
        report,
        ("size", lambda level: human_bytes(level.size)),
        ("bits/weight", lambda level: f"{level.bits_per_weight:.2f}"),
        ("perplexity ± SE", lambda level: estimate(level.quality.perplexity if level.quality else None)),
        ("change ± SE", lambda level: change(level.quality.ratio if level.quality else None)),
    )
    raw = _table(
        report,
        ("size", lambda level: human_bytes(level.size)),
        ("raw perplexity ± SE", lambda level: estimate(level.figures.raw.perplexity if level.figures.raw else None)),
        ("mean KL ± SE", lambda level: small(found.kl_mean) if (found := level.figures.raw_fidelity) else NONE),
    )
    needs = _table(
        report,
        ("peak memory", lambda level: human_bytes(level.memory.peak) if level.memory else NONE),
        ("by the model", lambda level: human_bytes(level.memory.added) if level.memory else NONE),
        ("prompt tok/s", lambda level: pace(level.prompt)),
        ("", lambda level: against(level.prompt)),
        ("answer tok/s", lambda level: pace(level.generation)),
        (" ", lambda level: against(level.generation)),
    )
    answers = [_right(report, task) for task in _tasks(report)]
    quality = any(level.quality for level in report.levels)
    text = not quality and any(level.figures.raw for level in report.levels)
    machine = any(level.memory or level.prompt or level.generation for level in report.levels)
    return [
        *([costs] if quality or not (machine or text or answers) else []),
        *([raw] if text else []),
        *answers,
        *([needs] if machine else []),
    ]


def _tasks(report: Report) -> list[str]:
    """Names of the question sets, in the order in which they were asked."""
    return list(dict.fromkeys(one.task for level in report.levels for one in level.figures.choices))


def _right(report: Report, task: str) -> Table:
    """Right answers to one set of questions."""

    def share(level: Level) -> str:
        found = next((one.quoted for one in level.figures.choices if one.task == task), None)
        return NONE if found is None else percent(found.value, found.error)

    return _table(report, (f"right ± SE, {task}", share))


def _figure(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _table(report: Report, *columns: tuple[str, Callable[[Level], str]]) -> Table:
    rows = tuple((level.label, *(text(level) for _, text in columns)) for level in report.levels)
    return Table(("level", *(name for name, _ in columns)), rows)


def _signed(figure: Estimate | None) -> str:
    text = estimate(figure)
    return f"+{text}" if figure and figure.value >= 0 else text


def verdict(report: Report) -> str:
    """The pick in plain words, every figure from the report."""
    reference = report.level(report.reference)
    limit = f"{report.pick.tolerance * 100:g} %"
    if report.pick.label is None:
        return _no_pick(report, reference, limit)
    level = report.level(report.pick.label)
    gains = [f"{reference.size / level.size:.1f} times smaller"]
    if level.memory and reference.memory:
        gains.append(
            f"needs {human_bytes(level.memory.peak)} of memory at {level.memory.context:,} tokens of context "
            f"instead of {human_bytes(reference.memory.peak)}"
        )
    if level.generation and level.generation.relative:
        gains.append(f"generates {level.generation.relative.mean:.2f} times as fast")
    all_gains = " and ".join([", ".join(gains[:-1]), gains[-1]] if gains[1:] else gains)
    ratio = level.quality.ratio if level.quality else None
    odd = (
        f" That it does so much better than {report.reference} is no gain of quantization: either they are not the "
        "same model, or it is not trained well enough for perplexity to tell."
        if ratio and ratio.value < 1 - report.pick.tolerance
        else ""
    )
    return (
        f"Take {level.label} ({human_bytes(level.size)}): the smallest file whose perplexity is, with 95 % confidence, "
        f"at most {limit} above that of {report.reference} (measured: {change(ratio)}). It is {all_gains}.{odd}"
    )


def too_few(report: Report) -> bool:
    """Whether the held-out rows are too few to choose a file by; an earlier version of medmind may have chosen."""
    return report.pick.label is None and report.held_out is not None and report.held_out.rows < FEWEST


def _no_pick(report: Report, reference: Level, limit: str) -> str:
    if len(report.levels) == 1:
        return f"Nothing to choose: {reference.label} is the only file."
    if report.held_out is None:
        return "Nothing to choose by: perplexity of held-out answers was not asked for."
    smaller = [level for level in report.levels if level.label in report.pick.bounds and level.size < reference.size]
    if not smaller:
        return f"Nothing to choose: no file smaller than {reference.label} could be compared with it."
    if too_few(report):
        return (
            f"No choice can be made: {report.held_out.rows} held-out rows are too few to choose by, at least {FEWEST} "
            "are wanted, and a hundred are better (--rows 0 takes all of the file)."
        )
    closest = min(smaller, key=lambda level: report.pick.bounds[level.label])
    measured = change(closest.quality.ratio if closest.quality else None)
    text = (
        f"Keep {reference.label} ({human_bytes(reference.size)}): of no smaller file it can be said with 95 % "
        f"confidence that its perplexity is at most {limit} above. The closest is {closest.label} "
        f"({human_bytes(closest.size)}, {measured})"
    )
    ratio = closest.quality.ratio if closest.quality else None
    if ratio and ratio.value <= 1 + report.pick.tolerance:
        return text + "; more held-out rows (--rows 0 takes all) would narrow that down."
    return text + "; accept it with --tolerance if that is little enough for you."
