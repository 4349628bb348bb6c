"""Tables of what only some reports hold: raw text, fidelity, choices, needs, KV caches, gaps. Measures nothing."""

from collections.abc import Callable, Sequence
from functools import partial

from medmind.console import human_bytes
from medmind_benchmarks import advice
from medmind_benchmarks.figures import Fidelity, Figures
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.tables import NONE, Table, change, estimate, percent, rate, small

_TERMINAL = 80


def raw(report: Report) -> Table:
    """Perplexity of raw text."""
    found = [(level, level.figures.raw) for level in report.levels]
    return Table(
        ("level", "perplexity ± SE", f"against {report.raw_reference()}", "tokens"),
        tuple(
            (level.label, estimate(one.perplexity), change(one.ratio), f"{one.tokens:,}") for level, one in found if one
        ),
    )


def fidelity(report: Report, found: Sequence[tuple[Level, Fidelity]]) -> Table:
    """Distance of the next-token distributions from the reference's."""
    return Table(
        (
            "level",
            "mean KL ± SE",
            "median KL",
            "99 % below",
            "largest",
            "same top token",
            "RMS Δp",
            "tokens",
        ),
        tuple(
            (
                level.label,
                small(one.kl_mean),
                small(one.kl_median),
                small(one.kl_p99),
                f"{one.kl_max:.3g}",
                percent(one.same_top.value, one.same_top.error),
                percent(one.rms_delta_p.value, one.rms_delta_p.error),
                f"{one.tokens:,}",
            )
            for level, one in found
        ),
    )


def choices(report: Report, task: str) -> Table:
    """Accuracies on one set of questions."""
    rows = []
    for level in report.levels:
        for one in level.figures.choices:
            if one.task != task:
                continue
            flips = one.flips
            rows.append(
                (
                    level.label,
                    percent(one.quoted.value, one.quoted.error),
                    percent(one.accuracy.value, None),
                    percent(one.accuracy_normalized.value, None),
                    percent(one.accuracy_gain.value, None),
                    percent(one.answer_only.value, None) if one.answer_only else NONE,
                    f"{flips.lost} lost, {flips.won} won" if flips else NONE,
                    f"{flips.difference * 100:+.1f} ({flips.low * 100:+.1f} … {flips.high * 100:+.1f}) %"
                    if flips
                    else NONE,
                    f"{flips.p_value:.2g}" if flips else NONE,
                )
            )
    return Table(
        (
            "level",
            "right ± SE",
            "by sum",
            "by mean per byte",
            "by gain",
            "without the question",
            "flips",
            "difference (95 %)",
            "McNemar p",
        ),
        tuple(rows),
    )


def needs(report: Report) -> Table:
    """Memory that a machine must have, by context."""
    contexts = sorted({need.context for level in report.levels for need in level.figures.needs})
    rows = []
    for level in report.levels:
        by_context = {need.context: need for need in advice.needs(level)}
        if by_context:
            cells = [by_context.get(context) for context in contexts]
            largest = advice.needs(level)[-1]
            machine = f"{largest.machine // advice.GIB} GiB" if largest.machine else "more than any usual machine"
            rows.append((level.label, *(human_bytes(one.bytes) if one else NONE for one in cells), machine))
    return Table(("level", *(f"{context:,} tokens" for context in contexts), "smallest machine"), tuple(rows))


def memory(report: Report) -> Table:
    """Peak resident memory by load mode and context."""
    rows = tuple(
        (
            f"{level.label}, {one.load_mode}, {one.context:,}",
            human_bytes(one.peak),
            human_bytes(one.anonymous) if one.anonymous is not None else NONE,
            human_bytes(one.file_backed) if one.file_backed is not None else NONE,
            human_bytes(one.weights),
            human_bytes(one.repacked),
            human_bytes(one.kv_cache),
            human_bytes(one.compute),
        )
        for level in report.levels
        for one in level.figures.memory
    )
    return Table(
        (
            "level, load mode, context",
            "peak resident",
            "allocated",
            "mapped file",
            "weights",
            "repacked",
            "KV cache",
            "compute",
        ),
        rows,
    )


def kv(report: Report) -> Table:
    """Quantized KV caches against the 16-bit one; columns that have nothing in them are left out."""
    columns: dict[str, Callable[[Figures], str]] = {
        "perplexity ± SE": lambda one: estimate(text.perplexity if (text := one.answers or one.raw) else None),
        "against its 16-bit cache": lambda one: change(text.cache_ratio if (text := one.answers or one.raw) else None),
        f"against {report.reference}, 16-bit": lambda one: change(
            text.ratio if (text := one.answers or one.raw) else None
        ),
        "mean KL ± SE": lambda one: small(kl.kl_mean) if (kl := one.answers_fidelity or one.raw_fidelity) else NONE,
        "KV cache": lambda one: human_bytes(max(memory.kv_cache for memory in one.memory)) if one.memory else NONE,
        "answer tokens/s": lambda one: rate(one.generation),
    }
    tasks = dict.fromkeys(one.task for level in report.levels for one in level.figures.choices)
    columns |= {f"right, {task} ± SE": partial(_right, task) for task in tasks}
    named = [(f"{level.label}, KV {one.kv_type}", one) for level in report.levels for one in (level.figures, *level.kv)]
    cells = {column: [text(one) for _, one in named] for column, text in columns.items()}
    known = {column: texts for column, texts in cells.items() if any(text != NONE for text in texts)}
    rows = zip([name for name, _ in named], *known.values(), strict=True)
    return Table(("level, KV cache", *known), tuple(rows))


def kv_in_terminal(report: Report) -> list[Table]:
    """The same in tables of as many columns as fit a terminal of 80; none where no quantized cache was measured."""
    if not any(level.kv for level in report.levels):
        return []
    whole = kv(report)
    name, *columns = ((title, *cells) for title, *cells in zip(whole.columns, *whole.rows, strict=True))
    groups: list[list[tuple[str, ...]]] = []
    for column in columns:
        if not groups or sum(map(_width, [name, *groups[-1], column])) > _TERMINAL:
            groups.append([])
        groups[-1].append(column)
    tables = (list(zip(name, *group, strict=True)) for group in groups)
    return [Table(titles, tuple(rows)) for titles, *rows in tables]


def _width(column: tuple[str, ...]) -> int:
    return max(map(len, column)) + 2


def _right(task: str, figures: Figures) -> str:
    """The share answered rightly, and what flipped."""
    found = next((one for one in figures.choices if one.task == task), None)
    if found is None:
        return NONE
    flips = f", {found.flips.lost} lost, {found.flips.won} won" if found.flips else ""
    return percent(found.quoted.value, found.quoted.error) + flips


def gaps(report: Report) -> Table:
    """What has no result, and why."""
    rows = tuple((level.label, one.cell, one.status, one.reason) for level in report.levels for one in level.gaps)
    return Table(("level", "what", "status", "why"), rows)
