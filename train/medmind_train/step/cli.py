"""`medmind-train step`: its flags, and what it prints. Knows no training."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmind import console
from medmind.console import human_bytes
from medmind_train import environment
from medmind_train.config import build, with_options
from medmind_train.step.config import LIBRARIES, StepConfig, check

if TYPE_CHECKING:
    from medmind_train.step.document import StepDocument


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("step")(_step)


@with_options(StepConfig)
def _step(
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Measure optimizer steps: memory and speed of ours, of the plain path, and of other ways to train.

    Peers (liger, unsloth) are measured where they are installed. Memory that does not suffice is a result.
    """
    config = build(StepConfig, settings)
    check(config)
    for library in LIBRARIES:
        console.require(library, "train")
    environment.settle()
    from medmind_train.step import measure

    document = measure.run(config)
    if as_json:
        console.emit_json(dataclasses.asdict(document))
    else:
        _show(document)


def _show(found: "StepDocument") -> None:
    memory, timing, card = found.memory, found.timing, found.conditions.card
    if found.matmul:
        console.out.print(f"{found.matmul.flops_per_s / 1e12:,.2f} TFLOP/s ({found.matmul.dtype} products) on {card}")
        return
    if found.status != "measured":
        console.out.print(f"{found.work.mode}: {found.status}, {found.reason}", style="bold", markup=False)
    if timing:
        console.out.print(f"{timing.tokens_per_s:,.0f} tokens/s on {card}, {timing.median:.4f} s a step", style="bold")
        if found.work.data:
            console.out.print(
                f"{timing.supervised_per_s:,.0f} supervised tokens/s; "
                f"{1 - timing.real / timing.tokens:.0%} of the positions are padding"
            )
        console.out.print(f"loss {timing.loss_first:.3f} at first, {timing.loss_last:.3f} at last")
    for name, value in (
        ("allocated peak", memory.allocated),
        ("of it while loading", memory.load_allocated),
        ("reserved peak", memory.reserved),
        ("in use on the card", memory.device_used),
        ("resident in RAM, peak", memory.host_peak),
        ("pinned in RAM", memory.host_pinned),
    ):
        if value is not None:
            console.out.print(f"{human_bytes(value):>12}  {name}")
    if found.trained is not None and found.trained_bytes is not None:
        console.out.print(f"{found.trained:,} trained parameters, {human_bytes(found.trained_bytes)}")
