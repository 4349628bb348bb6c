"""Tables of figures in a terminal. Knows rich; makes no figure and chooses no column."""

from collections.abc import Collection

from medmind import console
from medmind_benchmarks.tables import Table


def show(
    content: Table,
    *,
    title: str | None = None,
    words: Collection[str] = (),
    wraps: str | None = None,
    gap: int = 2,
    bold: str | None = None,
) -> None:
    """Print a table and an empty line.

    Args:
        content: what to print; the first column is to the left.
        title: above it.
        words: columns to the left in place of the first alone.
        wraps: the one column that may take several lines.
        gap: spaces between columns.
        bold: what the first cell of the row to bring out says.
    """
    from rich import table as rich_table
    from rich.text import Text

    drawn = rich_table.Table(title=title, title_justify="left", box=None, padding=(0, gap, 0, 0))
    for column in content.columns:
        left = column in (words or content.columns[:1])
        drawn.add_column(column, justify="left" if left else "right", no_wrap=column != wraps)
    for row in content.rows:
        drawn.add_row(*(Text(text, style="bold green" if row[0] == bold else "") for text in row))
    console.out.print(drawn)
    console.out.print()
