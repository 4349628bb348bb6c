"""`medmind-bench grounding`: its flags, and what it prints. Measures nothing itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import console
from medmind.artifacts import atomic_directory, write_json, write_jsonl, write_text
from medmind.errors import MedmindError
from medmind_benchmarks.config import QuantsConfig
from medmind_benchmarks.place import refuse_foreign

if TYPE_CHECKING:
    from medmind_benchmarks.grounding.results import Report

FOLDER = "grounding"
_REPORT = "grounding.json"


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("grounding")(_grounding)


def _grounding(
    library: Annotated[
        list[Path],
        typer.Option(help="A library, made with: medmind-chat index SOURCE -o FILE; may be given again."),
    ],
    models: Annotated[
        list[Path] | None, typer.Argument(help="Runs or GGUF files; none: the newest run that has GGUFs.")
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(help="Held-out rows, JSON lines with 'messages'; default: heldout.jsonl beside the files."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=0, help=f"Held-out rows at most; 0: all. Default: {QuantsConfig.rows}, fewer of a large model."
        ),
    ] = None,
    context: Annotated[int | None, typer.Option(min=32, help="Tokens of context; default: as in medmind-chat.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help="Compute threads; default: the physical cores.")
    ] = None,
    cell_time: Annotated[
        float, typer.Option(min=1, help="Seconds that a model may take with one library.")
    ] = QuantsConfig.cell_seconds,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder for the report; default: {FOLDER}/ beside the files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Tell what a library does to held-out answers: perplexity and multiple choice with and without its passages.

    The prompts are those that medmind-chat builds. Goes on where it stopped.
    """
    from medmind_benchmarks import sources, store
    from medmind_benchmarks.grounding import markdown, run

    found = sources.find(models or [], heldout, out)
    place = out or found.out.with_name(FOLDER)
    refuse_foreign(place, force=force, report=_REPORT)
    config = run.GroundingConfig(rows=rows, context=context, threads=threads, cell_seconds=cell_time)
    plan = run.make(found, library, place, config)
    console.note(
        f"{', '.join(plan.models)} alone and with {', '.join(plan.libraries)}; "
        f"{len(plan.items)} of {plan.rows_in_file} rows of {plan.heldout}; threads {plan.threads}"
    )
    if plan.reduction:
        console.note(plan.reduction)
    with store.alone(place):
        outcome = run.run(plan, console.progress)
        report = outcome.report
        with atomic_directory(place, force=force) as folder:
            write_json(folder / _REPORT, report.to_json())
            write_jsonl(folder / "rows.jsonl", outcome.rows)
            write_text(folder / "grounding.md", markdown.render(report))
    if json_output:
        console.emit_json(report.to_json())
    else:
        _show(report, place)
    failed = [pair for pair in report.pairs if pair.status == "failed"]
    if failed:
        raise MedmindError(
            f"{len(failed)} of {len(report.pairs)} pairs of model and library were not measured: "
            f"{failed[0].model} with {failed[0].library}: {failed[0].reason}",
            f"the rest is in {place / 'grounding.md'}",
        )


def _show(report: "Report", place: Path) -> None:
    from rich.text import Text

    from medmind_benchmarks import terminal
    from medmind_benchmarks.grounding import tables

    for title, content in (
        ("perplexity of held-out answers", tables.perplexities(report)),
        ("multiple choice", tables.choices(report)),
        ("retrieval", tables.retrieval(report)),
    ):
        if content.rows:
            terminal.show(content, title=title, words=("model", "library", "topic"), wraps="library", gap=1)
    for line in tables.verdict(report):
        console.out.print(Text(line))
    console.out.print(Text(f"\n{place / 'grounding.md'}"))
