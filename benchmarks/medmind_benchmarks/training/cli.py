"""`medmind-bench train`: its flags, and what it prints. Measures nothing itself."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import console
from medmind.artifacts import atomic_directory, write_json, write_text
from medmind.errors import MedmindError
from medmind_benchmarks.place import refuse_foreign
from medmind_benchmarks.training.plan import TrainingConfig

if TYPE_CHECKING:
    from medmind_benchmarks.training.results import Report

_DEFAULTS = TrainingConfig()
_OUT = Path("benchmark-training")


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("train")(_train)


def _train(
    modes: Annotated[
        str, typer.Option(help="Who computes: fused, reference, usual, liger, unsloth, lora, full.")
    ] = _DEFAULTS.modes,
    shapes: Annotated[str, typer.Option(help="Batch × length, apart by commas.")] = _DEFAULTS.shapes,
    base: Annotated[
        str | None, typer.Option(help="Base model: local directory, hub id or 'medmind-base', the default.")
    ] = None,
    synthetic: Annotated[
        str | None, typer.Option(help="Instead of --base: random weights, mistral-7b or a config.json.")
    ] = None,
    scratch: Annotated[str | None, typer.Option(help="Folder for the random weights; kept, and used again.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder whose tokenizer goes along with random weights.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = _DEFAULTS.rank,
    targets: Annotated[str, typer.Option(help="Layers that get an adapter.")] = _DEFAULTS.targets,
    cap: Annotated[str | None, typer.Option(help="Bytes torch may reserve on the card, as 5.0GiB; more fails.")] = None,
    vram: Annotated[str, typer.Option(help="Memory budget of the fused step: auto, or bytes.")] = _DEFAULTS.vram,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = _DEFAULTS.device,
    steps: Annotated[int, typer.Option(min=1, help="Steps that count, of each cell.")] = _DEFAULTS.steps,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before them.")] = _DEFAULTS.warmup,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each cell, the modes in turn.")] = _DEFAULTS.repeats,
    data: Annotated[
        str | None,
        typer.Option(help="Measure on rows of this data too, ours packed against the others padded: sample, a file…"),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a cell may take.")] = _DEFAULTS.timeout,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour on this machine, to tell costs.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = _OUT,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the cells of a benchmark that was cut, or of --out's report.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Compare ways to compute a training step: memory, tokens per second, share of the arithmetic floor."""
    from medmind_benchmarks.training import cells, chart, markdown, plan, run

    console.require("matplotlib", "bench")
    refuse_foreign(out, force=force or resume)
    planned = plan.make(
        TrainingConfig(
            modes=modes,
            shapes=shapes,
            base=base,
            synthetic=synthetic,
            scratch=scratch,
            tokenizer=tokenizer,
            rank=rank,
            targets=targets,
            cap=cap,
            vram=vram,
            device=device,
            steps=steps,
            warmup=warmup,
            repeats=repeats,
            data=data,
            timeout=timeout,
            price=price,
        )
    )
    found = cells.prepare(out, resume=resume, force=force)
    try:
        report = run.run(planned, console.progress, found)
    except KeyboardInterrupt:
        console.note(f"interrupted; the finished cells are in {found.folder}: go on with the same command and --resume")
        raise
    with atomic_directory(out, force=force or resume) as folder:
        write_json(folder / "report.json", report.to_json())
        write_text(folder / "report.md", markdown.render(report))
        chart.draw(report, folder / markdown.CHART)
        shutil.copytree(found.folder, folder / cells.INSIDE)
    found.drop()
    if json_output:
        console.emit_json(report.to_json())
    else:
        _show(report, out)
    failed = [row for row in report.rows if row.status == "failed"]
    if failed:
        raise MedmindError(
            f"{len(failed)} of {len(report.rows)} cells failed: {failed[0].label}: {failed[0].reason}",
            f"the rest is in {out / 'report.md'}",
        )


def _show(report: "Report", out: Path) -> None:
    from rich.text import Text

    from medmind_benchmarks import terminal
    from medmind_benchmarks.training import markdown, tables

    console.out.print(Text(f"{report.conditions.base} on {report.conditions.card}\n", style="bold"))
    for content in tables.terminal(report):
        terminal.show(content)
    for row in report.rows:
        if row.status != "measured":
            console.out.print(Text(f"{row.label}: {row.status}: {row.reason}"))
    console.out.print(Text(tables.verdict(report)))
    console.out.print(Text(f"\n{out / 'report.md'}\n{out / markdown.CHART}"))
