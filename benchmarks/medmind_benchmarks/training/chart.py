"""The picture of tokens a second against peak memory, out of a typed report. Measures nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmind.console import require
from medmind_benchmarks.training.results import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "fused": "#1a7f37",
    "reference": "#1f6feb",
    "usual": "#cf222e",
    "liger": "#9a6700",
    "unsloth": "#8250df",
    "lora": "#57606a",
    "full": "#24292f",
}
_MARKERS = "osD^vPX*<>"
_DPI = 150
_GIB = 2**30
_WIDE = 4.0
"""Peaks further apart than this factor are drawn on a logarithmic axis: one full fine-tune must not hide the rest."""


def draw(report: Report, path: Path) -> None:
    """Write a PNG."""
    compose(report).savefig(path, dpi=_DPI)


def compose(report: Report) -> "Figure":
    """One point a mode and shape: the colour tells the mode, the marker the shape."""
    mpl = require("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.fill == "random" and row.speed and row.memory]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 5), layout="constrained", dpi=_DPI)
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for row in rows:
            _point(axes, report, row)
        _axes(axes, report, rows)
        _legends(figure, axes, report)
    return figure


def _point(axes: "Axes", report: Report, row: Row) -> None:
    assert row.speed and row.memory
    speed = row.speed.tokens_per_s
    axes.errorbar(
        row.memory.peak / _GIB,
        speed.median,
        yerr=[[speed.median - speed.low], [speed.high - speed.median]],
        fmt=_marker(report, row),
        color=_COLOURS[row.mode],
        ecolor="#8c959f",
        capsize=3,
        markersize=8,
        markeredgecolor="white",
        markeredgewidth=0.6,
        elinewidth=1,
        label=row.label,
    )


def _axes(axes: "Axes", report: Report, rows: list[Row]) -> None:
    found = report.conditions
    peaks = [row.memory.peak / _GIB for row in rows if row.memory]
    shown = [*peaks, found.cap / _GIB] if found.cap else peaks
    on_card = found.device == "cuda"
    axes.set_xlabel(f"peak memory, {'allocated on the card' if on_card else 'resident'} (GiB)")
    axes.set_ylabel(f"tokens/s on {found.card}")
    axes.margins(x=0.12, y=0.12)
    axes.autoscale()
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if shown and max(shown) > _WIDE * min(shown):
        axes.set_xscale("log")
        axes.set_xlim(min(shown) / 1.2, max(shown) * 1.2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_xlim(0, 1.08 * max(shown, default=1))
    if found.cap:
        axes.axvline(found.cap / _GIB, color="#57606a", linewidth=0.9, linestyle="--", label="cap")
        axes.annotate(
            f"cap {found.cap / _GIB:.3g} GiB",
            (found.cap / _GIB, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4, -2),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="#57606a",
        )
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    weights = ", random weights" if found.synthetic else ""
    axes.set_title(
        f"A training step of {Path(found.base).name}{weights}\nLoRA rank {found.rank} on {found.targets}, {found.card}",
        fontsize=11,
    )


def _legends(figure: "Figure", axes: "Axes", report: Report) -> None:
    """Modes and shapes each have a legend beside the picture; a mode with no point is named with its reason."""
    from matplotlib.lines import Line2D

    drawn = {row.mode for row in report.rows if row.fill == "random" and row.speed and row.memory}
    status = {row.mode: row.status for row in report.rows}
    handles: list[Any] = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="o",
            markersize=8,
            color=_COLOURS[mode] if mode in drawn else "none",
            label=mode if mode in drawn else f"{mode} ({status[mode]})",
        )
        for mode in report.modes
    ]
    handles.append(Line2D([], [], linestyle="", label=""))
    handles += [
        Line2D([], [], linestyle="", marker=_MARKERS[at % len(_MARKERS)], markersize=8, color="#57606a", label=f"{one}")
        for at, one in enumerate(report.shapes)
    ]
    figure.legend(
        handles=handles, loc="outside right center", frameon=False, fontsize=9, title="mode, and batch × length"
    )


def _marker(report: Report, row: Row) -> str:
    return _MARKERS[report.shapes.index(row.shape) % len(_MARKERS)]
