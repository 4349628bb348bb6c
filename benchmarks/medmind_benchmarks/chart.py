"""The picture of perplexity against file size, PNG and SVG, out of a typed report. Measures nothing."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmind.console import require
from medmind_benchmarks.results import Level, Report
from medmind_benchmarks.statistics import two_sided_95

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REFERENCE, _POINT, _PICK, _BAR = "#555555", "#1f6feb", "#1a7f37", "#8c959f"
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_DPI = 150
_NEAR = 12
_OFFSETS = tuple(
    (round(distance * x), round(distance * y))
    for distance in (7, 10, 16, 24, 34, 46, 60)
    for x, y in (
        (1, 0),
        (-1, 0),
        (0.8, 0.8),
        (0.8, -0.8),
        (-0.8, 0.8),
        (-0.8, -0.8),
        (0, 1),
        (0, -1),
        (1, 0.4),
        (1, -0.4),
    )
)
"""Where a label may stand from its point, in points, nearest first."""


_WIDE = 2.0
"""Perplexities further apart than this factor are drawn on a logarithmic axis: one bad level must not hide the rest."""


def draw(report: Report, folder: Path, stem: str) -> None:
    """Write `stem`.png and `stem`.svg into `folder`; nothing when no perplexity was measured."""
    if not any(level.quality for level in report.levels):
        return
    mpl = require("matplotlib", "bench")
    with mpl.rc_context({"svg.hashsalt": "medmind", "svg.fonttype": "none"}):
        figure = compose(report)
        figure.savefig(folder / f"{stem}.png", dpi=_DPI)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def compose(report: Report, size: tuple[float, float] = (8, 7.2)) -> "Figure":
    """Perplexity above, change against the reference below; levels without a perplexity are not in the picture."""
    mpl = require("matplotlib", "bench")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    levels = [level for level in report.levels if level.quality]
    largest = max(level.size for level in report.levels)
    divisor, unit = next((one for one in _UNITS if largest >= one[0]), (1, "B"))
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained", dpi=_DPI)
        FigureCanvasAgg(figure)
        upper, lower = figure.subplots(2, 1, sharex=True)
        _absolute(upper, report, levels, divisor)
        _relative(lower, report, levels, divisor)
        lower.set_xlabel(f"file size ({unit})")
        lower.set_xlim(0, 1.12 * largest / divisor)
        figure.suptitle(_title(report), fontsize=11)
        for axes in (upper, lower):
            axes.grid(axis="y", color="#d8dee4", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.margins(y=0.18)
        _place_labels(figure, (upper, lower))
    return figure


def _title(report: Report) -> str:
    held_out = report.held_out
    sample = f"\n{held_out.rows} held-out rows, {held_out.tokens:,} answer tokens" if held_out else ""
    return f"Perplexity against file size{f', {report.run}' if report.run else ''}{sample}"


def _absolute(axes: "Axes", report: Report, levels: list[Level], divisor: int) -> None:
    axes.set_ylabel("perplexity ± SE; dashed: Pareto front")
    for level in levels:
        assert level.quality
        found = level.quality.perplexity
        _point(axes, report, level, x=level.size / divisor, y=found.value, error=found.error or 0)
    _front(axes, levels, divisor)
    values = [level.quality.perplexity.value for level in levels if level.quality]
    if max(values) > _WIDE * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")


def front(levels: list[Level]) -> list[Level]:
    """The Pareto front: the levels that no other is both smaller and better than; smallest first."""
    found: list[Level] = []
    best = float("inf")
    for level in sorted(levels, key=lambda one: (one.size, one.quality.perplexity.value if one.quality else 0)):
        if level.quality and level.quality.perplexity.value < best:
            best = level.quality.perplexity.value
            found.append(level)
    return found


def _front(axes: "Axes", levels: list[Level], divisor: int) -> None:
    best = front([level for level in levels if not level.base])
    places = [(level.size / divisor, level.quality.perplexity.value) for level in best if level.quality]
    if len(places) > 1:
        from matplotlib.collections import LineCollection

        axes.add_collection(LineCollection([places], colors=_BAR, linewidths=0.8, linestyles="--", zorder=1))


def _relative(axes: "Axes", report: Report, levels: list[Level], divisor: int) -> None:
    axes.set_ylabel(f"change against {report.reference} (%)\npaired, 95 % interval")
    axes.axhline(0, color=_REFERENCE, linewidth=0.8)
    axes.axhline(report.pick.tolerance * 100, color=_PICK, linewidth=0.8, linestyle="--")
    axes.annotate(
        f"tolerance {report.pick.tolerance * 100:g} %",
        (0, report.pick.tolerance * 100),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
        color=_PICK,
    )
    rows = report.held_out.rows if report.held_out else None
    for level in levels:
        assert level.quality
        ratio = level.quality.ratio
        if ratio is not None:
            error = two_sided_95(rows) * (ratio.error or 0) * 100
            _point(axes, report, level, x=level.size / divisor, y=(ratio.value - 1) * 100, error=error)
        elif level.label == report.reference:
            _point(axes, report, level, x=level.size / divisor, y=0, error=0)
    changes = [abs(level.quality.ratio.value - 1) for level in levels if level.quality and level.quality.ratio]
    if max(changes, default=0) > 10 * report.pick.tolerance:
        axes.set_yscale("symlog", linthresh=200 * report.pick.tolerance, linscale=2)
        axes.yaxis.set_major_formatter("{x:g}")


def _point(axes: "Axes", report: Report, level: Level, *, x: float, y: float, error: float) -> None:
    colour = _PICK if level.label == report.pick.label else _REFERENCE if level.label == report.reference else _POINT
    axes.errorbar(
        x, y, yerr=error, fmt="o", color=colour, ecolor=_BAR, capsize=3, markersize=6, elinewidth=1, label=level.label
    )


def _place_labels(figure: "Figure", both: tuple["Axes", "Axes"]) -> None:
    """Name each point where its name covers no point, no error bar, no line and no other name."""
    import numpy as np
    from matplotlib.transforms import Bbox

    figure.canvas.draw()
    figure.set_layout_engine("none")  # a label near the edge must not move the axes it was placed by
    for axes in both:
        frame = axes.get_window_extent()
        taken: list[Any] = [text.get_window_extent() for text in axes.texts]
        for line in axes.lines:
            if np.shape(line.get_xydata())[0] == 2:  # a horizontal rule
                height = line.get_window_extent().y0
                taken.append(Bbox.from_extents(frame.x0, height - 1, frame.x1, height + 1))
        points = []
        for container in axes.containers:
            line, caps, bars = container.lines  # type: ignore[attr-defined]
            x, y = axes.transData.transform(line.get_xydata())[0]
            points.append((container, line, (x, y)))
            taken.append(Bbox.from_extents(x - 10, y - 10, x + 10, y + 10))
            for part in (*caps, *bars):
                box = part.get_window_extent()
                taken.append(Bbox.from_extents(box.x0 - 3, box.y0 - 3, box.x1 + 3, box.y1 + 3))
        for front in axes.collections:
            for path in front.get_paths():
                taken += _along(axes.transData.transform(path.vertices))
        for container, line, centre in points:
            _place(axes, str(container.get_label()), line, centre, taken)


def _place(axes: "Axes", name: str, line: Any, centre: tuple[float, float], taken: list[Any]) -> None:
    """Put `name` at the first offset where it covers nothing in `taken`, else where it covers least; `taken` grows."""
    from matplotlib.text import Text

    figure: Any = axes.figure
    frame = axes.get_window_extent()
    found: list[tuple[float, tuple[int, int], list[Any]]] = []
    text: Any = None
    for offset in _OFFSETS:
        if text is not None:
            text.remove()
        text = _label(axes, name, line, offset)
        text.update_positions(figure.canvas.get_renderer())
        box = Text.get_window_extent(text).padded(2)  # an Annotation's own extent would include its leader line
        leader = [] if _is_near(offset) else _leader(centre, box)
        outside = box.width * box.height - _overlap(box, frame)
        covered = sum(_overlap(part, other) for part in (box, *leader) for other in taken) + outside
        found.append((covered, offset, [box, *leader]))
        if covered == 0:
            break
    covered, offset, boxes = min(found, key=lambda one: one[0])
    if offset != found[-1][1]:
        text.remove()
        _label(axes, name, line, offset)
    taken += boxes


def _label(axes: "Axes", name: str, line: Any, offset: tuple[int, int]) -> Any:
    x, y = offset
    text = axes.annotate(
        name,
        line.get_xydata()[0],
        xytext=offset,
        textcoords="offset points",
        ha="left" if x > 0 else "right" if x < 0 else "center",
        va="center" if abs(y) < abs(x) else "bottom" if y > 0 else "top",
        fontsize=9,
        color=line.get_color(),
        arrowprops=None if _is_near(offset) else {"arrowstyle": "-", "color": _BAR, "linewidth": 0.5, "shrinkB": 5},
    )
    text.set_in_layout(False)
    return text


def _is_near(offset: tuple[int, int]) -> bool:
    """Whether a label stands right beside its point, so that no line need say whose it is."""
    return abs(offset[1]) < abs(offset[0]) <= _NEAR


def _along(places: Any) -> list[Any]:
    """Small boxes along a line through `places`, shape (points, 2), in pixels."""
    import numpy as np
    from matplotlib.transforms import Bbox

    boxes = []
    for begin, end in pairwise(places):
        steps = np.linspace(0, 1, 2 + int(np.hypot(*(end - begin)) / 8))
        boxes += [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in begin + steps[:, None] * (end - begin)]
    return boxes


def _leader(centre: tuple[float, float], box: Any) -> list[Any]:
    """Small boxes along the line from a label to its point, clear of the point itself."""
    from matplotlib.transforms import Bbox

    near = min(max(centre[0], box.x0), box.x1), min(max(centre[1], box.y0), box.y1)
    steps = [0.15, 0.3, 0.45, 0.6]
    middles = [tuple(a + (b - a) * step for a, b in zip(near, centre, strict=True)) for step in steps]
    return [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in middles]


def _overlap(one: Any, other: Any) -> float:
    """The common area of two boxes in square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))
