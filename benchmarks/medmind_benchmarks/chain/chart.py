"""The picture of a chain, perplexity above and KL divergence below, out of a typed report. Measures nothing."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medmind.console import require
from medmind_benchmarks.chain.results import Kind, Report, Step
from medmind_benchmarks.statistics import Estimate, two_sided_95

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: dict[Kind, str] = {
    "base": "#555555",
    "trained": "#1a7f37",
    "merged": "#8250df",
    "merged-nf4": "#bf3989",
    "file": "#1f6feb",
}
_BAR = "#8c959f"
_DPI = 150
_WIDE = 4.0
"""Perplexities further apart than this factor are drawn on a logarithmic axis."""
_LEAST = 1e-7
"""What a mean KL divergence can be by rounding alone, and even below zero; a logarithmic axis has no place for that."""


def draw(report: Report, folder: Path, stem: str) -> None:
    """Write `stem`.png and `stem`.svg into `folder`."""
    mpl = require("matplotlib", "bench")
    with mpl.rc_context({"svg.hashsalt": "medmind", "svg.fonttype": "none"}):
        figure = compose(report)
        figure.savefig(folder / f"{stem}.png", dpi=_DPI)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def compose(report: Report) -> "Figure":
    """One place on the axis a step; a step that was not measured keeps its place and has no point."""
    mpl = require("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = report.steps
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(7.0, 1.5 + 0.7 * len(steps)), 6.4), layout="constrained", dpi=_DPI)
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True)
        reach = two_sided_95(report.conditions.rows)
        for place, step in enumerate(steps):
            if step.perplexity:
                _point(upper, place, step, step.perplexity, f"{step.perplexity.value:#.3g}", reach)
            if step.divergence:
                mean = step.divergence.mean
                text = f"{mean.value:#.2g}" if mean.value > _LEAST else "0"
                _point(lower, place, step, replace(mean, value=max(mean.value, _LEAST)), text, reach)
        _axes(report, upper, lower)
    return figure


def _point(axes: "Axes", place: int, step: Step, figure: Estimate, text: str, reach: float) -> None:
    error = reach * (figure.error or 0)
    axes.errorbar(
        place,
        figure.value,
        yerr=[[min(error, 0.9 * figure.value)], [error]],  # a logarithmic axis cannot go down to nothing
        fmt="o",
        color=_COLOURS[step.kind],
        ecolor=_BAR,
        capsize=3,
        markersize=6,
        elinewidth=1,
    )
    axes.annotate(
        text, (place, figure.value), xytext=(6, 5), textcoords="offset points", fontsize=8, va="center", color="#24292f"
    )


def _axes(report: Report, upper: "Axes", lower: "Axes") -> None:
    found = report.conditions
    values = [step.perplexity.value for step in report.steps if step.perplexity]
    trained = report.of("trained").perplexity
    if trained:
        upper.axhline(trained.value, color=_COLOURS["trained"], linewidth=0.8, linestyle="--")
    if values and max(values) > _WIDE * min(values):
        upper.set_yscale("log")
        upper.yaxis.set_major_formatter("{x:g}")
        upper.yaxis.set_minor_formatter("{x:g}")
    if any(step.divergence for step in report.steps):
        lower.set_yscale("log")
        lower.yaxis.set_major_formatter("{x:g}")
    upper.set_ylabel("held-out perplexity, 95 % interval")
    lower.set_ylabel("KL(trained ‖ step), nats a token\n95 % interval")
    lower.set_xticks(
        range(len(report.steps)),
        [step.label if step.kind == "file" else f"{step.label}\n{step.weights}" for step in report.steps],
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    lower.set_xlim(-0.6, len(report.steps) - 0.1)
    for axes in (upper, lower):
        axes.grid(axis="y", color="#d8dee4", linewidth=0.6)
        axes.set_axisbelow(True)
    upper.set_title(
        f"From base to file: {report.run}\n{found.rows:,} held-out rows, {found.tokens:,} answer tokens; "
        "dashed: the trained model",
        fontsize=11,
    )
