"""`medmind-bench report`: renders a report.json again. Measures nothing."""

from pathlib import Path
from typing import Annotated

import typer

from medmind import console


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("report")(_report)


def _report(
    report: Annotated[Path, typer.Argument(help="A report.json of medmind-bench quants, or its folder.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: beside the report.")] = None,
) -> None:
    """Make report.md, report.html and the charts again from a report.json."""
    from medmind_benchmarks import report_files, results

    console.require("matplotlib", "bench")
    path = report / "report.json" if report.is_dir() else report
    found = results.read_report(path)
    folder = out or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    report_files.write(found, folder)
    console.out.print(f"{folder / 'report.md'}\n{folder / 'report.html'}", markup=False)
