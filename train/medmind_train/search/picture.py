"""The picture of a search: losses over the rungs, and over the learning rate. Knows matplotlib and the document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmind import console

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan")


def draw(path: Path, document: Mapping[str, Any]) -> None:
    """Draw all trials; colour is the target, size the rank, a ring the choice."""
    console.require("matplotlib", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter

    candidates = {one["number"]: one for one in document["candidates"]}
    targets = list(dict.fromkeys(one["targets"] for one in document["candidates"]))
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(targets)}
    ranks = sorted({one["rank"] for one in document["candidates"]})
    chosen = document["chosen"]["candidate"]
    trials = [one for one in document["trials"] if one["loss"] is not None]
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    over_steps, over_rate = figure.subplots(1, 2, sharey=True)
    for number, candidate in candidates.items():
        own = sorted((one for one in trials if one["candidate"] == number), key=lambda one: one["steps"])
        best = number == chosen
        over_steps.errorbar(
            [one["steps"] for one in own],
            [one["loss"] for one in own],
            yerr=[one["above_best"]["error"] if one["above_best"] else 0 for one in own],
            color=colours[candidate["targets"]],
            marker="o",
            markersize=_size(candidate["rank"], ranks),
            linewidth=2.5 if best else 1,
            alpha=1 if best else 0.6,
            capsize=3,
        )
        for one in own:
            over_rate.plot(
                candidate["lr"],
                one["loss"],
                color=colours[candidate["targets"]],
                marker="o",
                markersize=_size(candidate["rank"], ranks),
                markeredgecolor="black" if best else "none",
                markeredgewidth=1.5,
                alpha=(0.35, 0.6, 1.0)[max(0, 2 - len(document["rungs"]) + one["rung"])],
                linestyle="none",
            )
            if one["rung"] == 1:
                over_rate.annotate(
                    str(number), (candidate["lr"], one["loss"]), (5, 5), textcoords="offset points", fontsize=7
                )
    over_steps.set_xlabel("optimizer steps of a trial")
    over_steps.set_ylabel("validation loss, nats per answer token")
    over_steps.set_title("bars: standard error of the difference to the best of the rung", fontsize=8)
    over_rate.set_xlabel("peak learning rate (fainter: shorter trials)")
    steps = sorted({one["steps"] for one in document["rungs"]})
    over_steps.set_xscale("log")
    over_steps.set_xticks(steps, [f"{value:,}" for value in steps])
    over_steps.xaxis.set_minor_formatter(NullFormatter())
    over_rate.set_xscale("log")
    over_rate.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    over_rate.xaxis.set_major_formatter("{x:g}")
    over_rate.xaxis.set_minor_formatter(NullFormatter())
    handles = [Line2D([], [], color=colours[name], marker="o", linestyle="none", label=name) for name in targets]
    handles += [
        Line2D([], [], color="gray", marker="o", linestyle="none", markersize=_size(rank, ranks), label=f"rank {rank}")
        for rank in ranks
    ]
    handles.append(
        Line2D([], [], color="white", marker="o", markeredgecolor="black", linestyle="none", label=f"chosen: {chosen}")
    )
    over_rate.legend(handles=handles, fontsize=7, loc="best")
    for axes in (over_steps, over_rate):
        axes.grid(alpha=0.3)
    figure.suptitle(
        f"{document['name']}: {document['spent']:.2f} runs spent of {document['budget']:g}, "
        f"{document['data']['validation_rows']:,} validation rows",
        fontsize=10,
    )
    figure.savefig(path, dpi=120, format="png")


def _size(rank: int, ranks: list[int]) -> float:
    return 4.0 + 6.0 * ranks.index(rank) / max(len(ranks) - 1, 1)
