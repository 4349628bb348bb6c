"""`medmind-train doctor`: shows what medmind.doctor found, for people or as JSON. Finds nothing itself."""

from typing import Annotated

import typer
from rich.text import Text

from medmind import console
from medmind.doctor import Check, Report, Stage, examine

_STYLES = {"ok": "green", "warning": "yellow", "missing": "yellow", "broken": "bold red"}


def register(app: typer.Typer) -> None:
    """Add the `doctor` command to `app`."""

    @app.command()
    def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
        """Look at this machine: what each stage can do here, and how to mend what is missing."""
        with console.err.status("looking at this machine (some seconds)"):
            report = examine()
        if json:
            console.emit_json(report.document())
        else:
            _show(report)
        if not report.ok:
            raise typer.Exit(1)


def _show(report: Report) -> None:
    for check in report.checks:
        _line(check, 16)
    console.out.print("\nwhat the stages can do here", style="bold")
    for stage in report.stages:
        _line(stage, 16)


def _line(item: Check | Stage, width: int) -> None:
    console.out.print(
        Text.assemble((f"{item.status:<8}", _STYLES[item.status]), f"{item.name:<{width}} {item.finding}")
    )
    if item.mend:
        console.out.print(Text(f"{'':<8}{'':<{width}} → {item.mend}", style="dim"))
