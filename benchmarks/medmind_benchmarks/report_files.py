"""The files made from a report.json: report.md, report.html, PNG and SVG charts. Measures nothing."""

from pathlib import Path

from medmind.artifacts import write_text
from medmind_benchmarks import markdown, page, pictures
from medmind_benchmarks.results import Report


def write(report: Report, folder: Path) -> None:
    """Write all of them into an existing folder."""
    write_text(folder / "report.md", markdown.render(report))
    write_text(folder / "report.html", page.render(report))
    pictures.draw(report, folder)
