"""The loss curve picture of a run. Knows matplotlib and metrics lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmind import console
from medmind_train.evaluate import Perplexity


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Exponential moving average with the start-up bias taken out (Kingma & Ba 2015, section 3)."""
    mean, norm, result = 0.0, 0.0, []
    for value in values:
        mean = weight * mean + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        result.append(mean / norm)
    return result


def draw(
    path: Path,
    metrics: Sequence[Mapping[str, Any]],
    before: Perplexity,
    after: Perplexity,
    title: str,
    *,
    kept: int,
) -> None:
    """Draw training loss, its moving average, validation and held-out loss (± standard error) over the steps.

    Args:
        kept: the step of the adapter that `after` was measured with.
    """
    console.require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [line["step"] for line in metrics]
    losses = [line["loss"] for line in metrics]
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=1, label="training loss")
    axes.plot(steps, smoothed(losses), color="tab:blue", linewidth=2, label="training loss, smoothed")
    if between := [line for line in metrics if "validation_loss" in line]:
        axes.errorbar(
            [line["step"] for line in between],
            [line["validation_loss"] for line in between],
            yerr=[line["validation_error"] for line in between],
            color="tab:green",
            marker="s",
            markersize=4,
            capsize=2,
            linewidth=1,
            label="validation loss ± SE",
        )
    axes.errorbar(
        [0, kept],
        [before.nll, after.nll],
        yerr=[before.nll_error, after.nll_error],
        color="tab:orange",
        marker="o",
        linestyle="none",
        capsize=3,
        label="held-out loss ± SE",
    )
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("nats per answer token")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, format="png")
