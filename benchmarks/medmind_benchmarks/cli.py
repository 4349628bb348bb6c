"""The command line `medmind-bench`: options in, a report out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import console
from medmind.artifacts import atomic_directory, write_json, write_jsonl
from medmind.errors import MedmindError
from medmind_benchmarks import compare_cli, report_cli
from medmind_benchmarks.place import refuse_foreign
from medmind_benchmarks.plan import QuantsConfig
from medmind_benchmarks.training import cli as training_cli

if TYPE_CHECKING:
    from medmind_benchmarks.plan import Plan
    from medmind_benchmarks.results import Report

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, add_completion=False)
_DEFAULTS = QuantsConfig()


@app.callback()
def bench() -> None:
    """Measure what quantization costs and what a training step needs, with uncertainties."""


@app.command()
def quants(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Runs or GGUF files; none: the newest run that has GGUFs.")
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(help="Held-out rows, JSON lines with 'messages'; default: heldout.jsonl beside the files."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: benchmark/ beside the files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    rows: Annotated[int, typer.Option(min=0, help="Use at most this many held-out rows; 0: all.")] = _DEFAULTS.rows,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds of speed and memory.")] = _DEFAULTS.rounds,
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help="Compute threads; default: the physical cores.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=32, help="Tokens of context; default: as trained.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Prompt to time; default: 512, if it fits.")] = None,
    gen_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens to generate; default: 128, if they fit.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Rise of perplexity, in percent, that the pick may accept.")
    ] = _DEFAULTS.tolerance * 100,
    json_output: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Compare quantization levels of one model: perplexity on held-out answers, size, memory and speed."""
    from medmind_benchmarks import plan, report_files, sources
    from medmind_benchmarks.quants import run

    console.require("matplotlib", "bench")
    found = sources.find(models or [], heldout, out)
    refuse_foreign(found.out, force=force)
    config = QuantsConfig(
        rows=rows,
        rounds=repeats,
        threads=threads,
        context=context,
        prompt_tokens=prompt_tokens,
        generated_tokens=gen_tokens,
        tolerance=tolerance / 100,
    )
    planned = plan.make(found, config)
    _announce(planned)
    outcome = run(planned, _progress)
    with atomic_directory(found.out, force=force) as folder:
        write_json(folder / "report.json", outcome.report.to_json())
        write_jsonl(folder / "rows.jsonl", outcome.rows)
        report_files.write(outcome.report, folder)
    if json_output:
        console.emit_json(outcome.report.to_json())
    else:
        _show(outcome.report, found.out)
    if outcome.missing:
        first = outcome.missing[0]
        raise MedmindError(
            f"{len(outcome.missing)} of {len(outcome.report.levels)} levels were not measured whole: "
            f"{first.label} {first.status}: {first.reason}",
            f"the rest is in {found.out / 'report.md'}",
        )


def _announce(plan: "Plan") -> None:
    labels = ", ".join(level.label for level in plan.levels)
    console.note(
        f"{len(plan.levels)} levels ({labels}) against {plan.reference}; {len(plan.chosen)} of {len(plan.rows)} rows "
        f"of {plan.sources.heldout}; context {plan.context}, threads {plan.threads}"
    )
    for level in plan.levels:
        if level.refusal:
            console.note(f"{level.label} is left out: it {level.refusal}")


def _progress(description: str, total: float, unit: str) -> AbstractContextManager[Callable[..., None]]:
    return console.progress(description, total, unit)


def _show(report: "Report", out: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    from medmind_benchmarks import tables

    for content in tables.terminal(report):
        table = Table(box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(content.columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
        for row in content.rows:
            table.add_row(*(Text(text, style="bold green" if row[0] == report.pick.label else "") for text in row))
        console.out.print(table)
        console.out.print()
    console.out.print(Text(tables.verdict(report)), soft_wrap=False)
    console.out.print(Text(f"\n{out / 'report.md'}\n{out / 'report.html'}"))


training_cli.register(app)
report_cli.register(app)
compare_cli.register(app)


def main() -> None:
    """Entry point of `medmind-bench`."""
    console.run(app)
