"""report.html: one self-contained page without external requests, every figure out of the report. Measures nothing."""

import html
from importlib import resources

from medmind_benchmarks import advice, markdown, pictures, summary, tables, tables_detail
from medmind_benchmarks.results import Report
from medmind_benchmarks.tables import Table


def render(report: Report) -> str:
    """The whole page."""
    title = f"What each quantization of {report.run} costs" if report.run else "What each quantization costs"
    body = [f"<h1>{html.escape(title)}</h1>", *_notices(report)]
    if not report.random_weights:
        body.append(f'<p class="verdict">{html.escape(tables.verdict(report))}</p>')
    body += [_machines(report), _summary(report), *_charts(report), *_details(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{_file('style.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<script>\n{_file('sort.js')}</script>\n<script>\n{_file('fade.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _notices(report: Report) -> list[str]:
    return [f'<p class="notice">{html.escape(text)}</p>' for text in markdown.notices(report)]


def _machines(report: Report) -> str:
    found = advice.lines(report)
    if not found:
        return ""
    rows = "".join(f"<div><dt>{machines}</dt><dd>{html.escape(text)}</dd></div>" for machines, text in found)
    return f'<h2>Which file for which machine</h2>\n<dl class="machines">{rows}</dl>'


def _summary(report: Report) -> str:
    columns = summary.columns(report)
    head = "".join(
        f'<th scope="col" data-key="{one.key}" aria-sort="none">'
        f'<button type="button">{html.escape(one.title)}</button></th>'
        for one in columns
    )
    rows = []
    for level in report.levels:
        cells = []
        for column in columns[1:]:
            value = column.value(level) if column.value else None
            data = "" if value is None else f' data-value="{value!r}"'
            cells.append(f"<td{data}>{html.escape(column.text(level))}</td>")
        kind = " class=pick" if level.label == report.pick.label and not report.random_weights else ""
        rows.append(f'<tr{kind}><th scope="row">{html.escape(level.label)}</th>{"".join(cells)}</tr>')
    return (
        "<h2>All levels</h2>\n"
        '<div class="scroll" tabindex="0"><table id="levels"><thead><tr>'
        f"{head}</tr></thead><tbody>\n{chr(10).join(rows)}\n</tbody></table></div>\n"
        '<p class="small">Click a heading to sort. ± is the standard error for quality, the standard deviation of '
        "repetitions for speed. Changes are paired: both files read the same rows.</p>"
    )


def _charts(report: Report) -> list[str]:
    found = pictures.available(report)
    if not found:
        return []
    figures = "".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>{pictures.inline(report, stem)}</figure>\n"
        for stem, (title, _) in found.items()
    )
    return ["<h2>Charts</h2>", f'<div class="charts">{figures}</div>']


def _details(report: Report) -> list[str]:
    parts = ["<h2>In detail</h2>"]
    for title, content, about in markdown.sections(report):
        text = f"<p>{html.escape(about).replace('`', '')}</p>" if about else ""
        parts.append(f"<details><summary>{html.escape(title)}</summary>{table(content)}{text}</details>")
    gaps = tables_detail.gaps(report)
    if gaps.rows:
        parts.append(f"<details open><summary>Not measured</summary>{table(gaps, words=True)}</details>")
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in markdown.conditions(report))
    parts.append(f"<details><summary>Conditions</summary><ul>{lines}</ul></details>")
    return parts


def table(content: Table, *, words: bool = False) -> str:
    """A plain table, the first column naming the row; `words` stand to the left, figures to the right."""
    head = "".join(f'<th scope="col">{html.escape(name.strip())}</th>' for name in content.columns)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>{"".join(f"<td>{html.escape(text)}</td>" for text in rest)}</tr>'
        for first, *rest in content.rows
    )
    kind = ' class="words"' if words else ""
    inside = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="scroll" tabindex="0"><table{kind}>{inside}</table></div>'
