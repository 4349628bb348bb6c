"""The loss curve of a pretraining run as a picture. Knows matplotlib."""

from pathlib import Path

from medmind.artifacts import atomic_file


def draw_curve(losses: list[tuple[int, float]], evaluations: list[tuple[int, float]], out: Path) -> None:
    """Draw training loss (nats per token, left axis) and validation bits per byte (right axis) over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.add_subplot()
    left.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=0.9)
    left.set_xlabel("step")
    left.set_ylabel("training loss, nats per token", color="tab:blue")
    left.grid(alpha=0.3)
    if evaluations:
        right = left.twinx()
        right.plot(*zip(*evaluations, strict=True), color="tab:red", marker="o", markersize=3)
        right.set_ylabel("validation, bits per byte", color="tab:red")
        last_step, last = evaluations[-1]
        right.annotate(
            f"{last:.3f}",
            (last_step, last),
            textcoords="offset points",
            xytext=(0, 12),
            ha="right",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    with atomic_file(out) as partial:
        figure.savefig(partial, format="png", dpi=120)
