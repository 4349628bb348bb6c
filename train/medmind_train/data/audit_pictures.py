"""Pictures of an audit: how long examples are, and how large components. Knows matplotlib; measures nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmind import console
from medmind_train.data.audit import TokenLengths

_FEW = 150
"""Tokens up to which every length gets a bar of its own."""


def _figure() -> Any:
    console.require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_lengths(path: Path, tokens: TokenLengths, *, part: str) -> None:
    """Draw how many examples are how long (`part`: prompts, answers or both), on a log axis where they differ much."""
    import numpy as np

    lengths = {
        "prompts": tokens.prompts,
        "answers": tokens.answers,
        "both": [prompt + answer for prompt, answer in zip(tokens.prompts, tokens.answers, strict=True)],
    }[part]
    figure = _figure()
    axes = figure.add_subplot()
    highest = max(lengths)
    if highest <= _FEW:
        edges = np.arange(highest + 2) - 0.5
    else:  # whole numbers between the edges, or the short lengths would show gaps
        edges = np.unique(np.geomspace(max(min(lengths), 1), highest + 1, 60).round()) - 0.5
        axes.set_xscale("log")
    axes.hist(lengths, bins=edges.tolist(), color="tab:blue", alpha=0.8)
    _mark(axes, float(np.median(lengths)), "median", "tab:orange")
    _mark(axes, float(np.percentile(lengths, 95)), "p95", "tab:red")
    if part == "both":
        cut = sum(length > tokens.context for length in lengths)
        _mark(axes, tokens.context, f"context; {cut:,} of {len(lengths):,} are longer", "black")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel(f"tokens of {tokens.base}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylabel("examples")
    axes.set_title({"both": "prompt and answer"}.get(part, part), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")


def draw_sources(path: Path, lengths: dict[str, Sequence[int]], base: str) -> None:
    """Draw the spread of answer lengths by source: box from quartile to quartile, whiskers from p5 to p95."""
    figure = _figure()
    axes = figure.add_subplot()
    names = sorted(lengths, key=lambda name: (-len(lengths[name]), name))[:20]
    axes.boxplot(
        [list(lengths[name]) for name in names],
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        tick_labels=[f"{name[:30]} ({len(lengths[name]):,})" for name in names],
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.invert_yaxis()
    axes.set_xlabel(f"tokens of an answer, by {base}: median, quartiles, 5th and 95th percentile")
    axes.set_title("answers by source", fontsize=10)
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=120, format="png")


def _mark(axes: Any, at: float, label: str, color: str) -> None:
    axes.axvline(at, color=color, linewidth=1.5, label=f"{label} ({at:,.0f})" if "longer" not in label else label)
