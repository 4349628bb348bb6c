"""The charts beside perplexity against size: memory by context, speed, KL divergence. Out of a typed report only."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medmind.console import require
from medmind_benchmarks import advice, chart
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.summary import fidelity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEXT, _GRID = "#24292f", "#d8dee4"
"""Replaced on the page by the page's own colours, which follow light and dark."""
_SERIES = ("#1f6feb", "#bf5700")
_WIDTH = 5.4
_NARROW = (_WIDTH, 6.6)
"""Of a chart on the page, inches: its letters stay readable on a phone."""
_DPI = 150


def available(report: Report) -> dict[str, tuple[str, Callable[[Report], "Figure"]]]:
    """File stem → title and drawing, of the charts that this report has figures for."""
    found: dict[str, tuple[str, Callable[[Report], Figure]]] = {}
    if any(level.quality for level in report.levels) and not report.random_weights:
        found["perplexity-by-size"] = ("Perplexity against file size", chart.compose)
    if any(level.figures.needs for level in report.levels):
        found["memory-by-context"] = ("Memory by context", _memory)
    if any(level.generation for level in report.levels):
        found["speed"] = ("Speed", _speed)
    if any(fidelity(level) for level in report.levels) and not report.random_weights:
        found["kl-divergence"] = (f"KL divergence from {_compared_with(report)}", _divergence)
    return found


def _compared_with(report: Report) -> str:
    """Of the divergences that `summary.fidelity` takes: those on the answers come first."""
    on_answers = any(level.figures.answers_fidelity for level in report.levels)
    return report.reference if on_answers else report.raw_reference()


def draw(report: Report, folder: Path) -> None:
    """Write every chart as PNG and SVG."""
    mpl = require("matplotlib", "bench")
    with mpl.rc_context({"svg.hashsalt": "medmind", "svg.fonttype": "none"}):
        for stem, (_, compose) in available(report).items():
            figure = compose(report)
            figure.savefig(folder / f"{stem}.png", dpi=_DPI)
            figure.set_layout_engine("none")  # it is solved, and takes as long as drawing does
            figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def inline(report: Report, stem: str) -> str:
    """A chart as an `<svg>` element without ids of others, in the page's own colours for text, grid and background."""
    mpl = require("matplotlib", "bench")
    with mpl.rc_context({"svg.hashsalt": stem, "svg.fonttype": "none"}):
        compose = available(report)[stem][1]
        figure = chart.compose(report, _NARROW) if compose is chart.compose else compose(report)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{stem}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{stem}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{stem}-\1"', text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    for colour, name in ((_TEXT, "text"), ("#555555", "text"), ("#000000", "text"), (_GRID, "grid")):
        text = text.replace(colour, f"var(--{name})")
    title = available(report)[stem][0]
    return re.sub(r"<svg", f'<svg role="img" aria-label="{title}"', text, count=1)


def _canvas(height: float) -> tuple["Figure", "Axes"]:
    mpl = require("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "axes.edgecolor": _TEXT,
        "xtick.color": _TEXT,
        "ytick.color": _TEXT,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained", dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _names(axes: "Axes", levels: list[Level], report: Report) -> None:
    axes.set_yticks(range(len(levels)), [level.label for level in levels])
    axes.invert_yaxis()
    for tick, level in zip(axes.get_yticklabels(), levels, strict=True):
        if level.label == report.pick.label:
            tick.set_fontweight("bold")


def _memory(report: Report) -> "Figure":
    """A bar to the need at the longest context, with a mark at each shorter one."""
    levels = [level for level in report.levels if level.figures.needs]
    figure, axes = _canvas(1.2 + 0.38 * len(levels))
    largest = max(need.bytes for level in levels for need in level.figures.needs)
    divisor, unit = (2**30, "GiB") if largest >= 2**29 else (2**20, "MiB")
    contexts = sorted({need.context for level in levels for need in level.figures.needs})
    for row, level in enumerate(levels):
        previous = 0.0
        for need in advice.needs(level):
            width = need.bytes / divisor
            shade = 0.9 - 0.6 * contexts.index(need.context) / max(1, len(contexts) - 1)
            axes.barh(row, width - previous, left=previous, height=0.6, color=_SERIES[0], alpha=shade)
            previous = max(previous, width)
    _names(axes, levels, report)
    listed = ", ".join(f"{context:,}" for context in contexts)
    axes.set_xlabel(f"memory needed ({unit}) at {listed} tokens of context, darker to lighter", fontsize=9, wrap=True)
    for size in advice.MACHINES:
        if divisor == 2**30 and size * advice.GIB <= 1.1 * largest:
            axes.axvline(size, color=_TEXT, linewidth=0.7, linestyle=":")
    return figure


def _speed(report: Report) -> "Figure":
    """Prompt and generation speed relative to the reference's scale, each with its standard deviation."""
    from matplotlib.ticker import LogLocator, NullFormatter

    levels = [level for level in report.levels if level.generation or level.prompt]
    figure, axes = _canvas(1.4 + 0.5 * len(levels))
    for row, level in enumerate(levels):
        for offset, colour, found in ((-0.2, _SERIES[0], level.prompt), (0.2, _SERIES[1], level.generation)):
            if found:
                pace = found.tokens_per_second
                label = {-0.2: "reading a prompt", 0.2: "writing an answer"}[offset] if row == 0 else None
                axes.barh(
                    row + offset,
                    pace.mean,
                    xerr=pace.deviation or 0,
                    height=0.36,
                    color=colour,
                    ecolor=_TEXT,
                    capsize=2,
                    label=label,
                )
    _names(axes, levels, report)
    axes.set_xlabel("tokens/s, mean ± standard deviation; logarithmic", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}" if _slowest(levels) >= 1 else "{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9, labelcolor=_TEXT)
    return figure


def _slowest(levels: list[Level]) -> float:
    paces = [found for level in levels for found in (level.prompt, level.generation) if found]
    return min(found.tokens_per_second.mean for found in paces)


def _divergence(report: Report) -> "Figure":
    """Median to 99 % as a bar, the mean as a point, the largest as a cross: on a logarithmic axis."""
    found = [(level, one) for level in report.levels if (one := fidelity(level)) and one.kl_mean.value > 0]
    figure, axes = _canvas(1.4 + 0.38 * len(found))
    for row, (_, one) in enumerate(found):
        low = max(one.kl_median.value, one.kl_mean.value * 1e-4, 1e-9)
        axes.barh(row, max(one.kl_p99.value - low, 0), left=low, height=0.5, color=_SERIES[0], alpha=0.45)
        axes.errorbar(one.kl_mean.value, row, xerr=one.kl_mean.error or 0, fmt="o", color=_SERIES[1], capsize=2)
        axes.plot(one.kl_max, row, "x", color=_TEXT)
    _names(axes, [level for level, _ in found], report)
    axes.set_xscale("log")
    axes.set_xlabel("nats per token: bar median to 99 %, dot mean ± SE, cross largest", fontsize=9)
    return figure
