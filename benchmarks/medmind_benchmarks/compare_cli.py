"""`medmind-bench compare`: its flags, and what it prints. Compares nothing itself."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import console
from medmind.console import human_bytes
from medmind.errors import MedmindError
from medmind_benchmarks.verdict import Limits

if TYPE_CHECKING:
    from medmind_benchmarks.compare import Comparison
    from medmind_benchmarks.verdict import Change

_DEFAULTS = Limits()


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("compare")(_compare)


def _compare(
    before: Annotated[Path, typer.Argument(help="report.json of earlier, or its folder.")],
    now: Annotated[Path, typer.Argument(help="report.json of now, or its folder.")],
    perplexity: Annotated[float, typer.Option(min=0, help="Rise allowed, percent.")] = _DEFAULTS.perplexity * 100,
    kl: Annotated[float, typer.Option(min=0, help="Rise of mean KL allowed, percent.")] = _DEFAULTS.kl * 100,
    accuracy: Annotated[float, typer.Option(min=0, help="Fall allowed, percentage points.")] = _DEFAULTS.accuracy * 100,
    size: Annotated[float, typer.Option(min=0, help="Growth of the file allowed, percent.")] = _DEFAULTS.size * 100,
    memory: Annotated[float, typer.Option(min=0, help="Growth of peak memory allowed, percent.")] = _DEFAULTS.memory
    * 100,
    speed: Annotated[
        float, typer.Option(min=0, help="Loss of speed, or longer waits, allowed, percent.")
    ] = _DEFAULTS.speed * 100,
    allow_incomparable: Annotated[
        bool, typer.Option("--allow-incomparable", help="Pass although answers were measured on something else.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The comparison as JSON on stdout.")] = False,
) -> None:
    """Say what changed between two reports beyond noise; exit with 1 when something became worse, or is gone.

    Judged: perplexity; mean, median and 99 % of KL, RMS Δp (--kl); right answers and the same top token (--accuracy);
    size, memory at every context and load mode, the smallest machine, speeds and waits. Told alone: the largest KL of
    one token, and the pick. Rows, chunks and questions are paired where they lie beside both reports.
    """
    from medmind_benchmarks import compare, pairing, recount, results

    paths = [path / "report.json" if path.is_dir() else path for path in (before, now)]
    old, new = (results.read_report(path) for path in paths)
    limits = Limits(
        perplexity=perplexity / 100,
        kl=kl / 100,
        accuracy=accuracy / 100,
        size=size / 100,
        memory=memory / 100,
        speed=speed / 100,
    )
    beside = (pairing.read(paths[0], old.beside), pairing.read(paths[1], new.beside))
    for path, report, records in zip(paths, (old, new), beside, strict=True):
        recount.demand(path, report, records)
    found = compare.compare(old, new, limits, beside=beside, names=(str(before), str(now)))
    if paths[0].samefile(paths[1]):
        console.note("both are the same report")
    if json_output:
        console.emit_json(dataclasses.asdict(found))
    else:
        _show(found)
    worse = found.regressions
    if worse:
        listed = ", ".join(f"{one.level} {one.figure}" for one in worse[:3])
        more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        hints = []
        if any(one.verdict == "missing" for one in worse):
            hints.append("measure again what is missing")
        if any(one.verdict == "worse" for one in worse):
            hints.append("allow more with --perplexity, --speed …")
        raise MedmindError(f"{len(worse)} regressions: {listed}{more}", ", ".join(hints))
    if found.undecided and not allow_incomparable:
        raise MedmindError(
            f"{len(found.undecided)} figures of answers cannot be compared",
            "measure both on the same text and against the same reference, or pass with --allow-incomparable",
        )


def _show(found: "Comparison") -> None:
    from rich.table import Table
    from rich.text import Text

    for note in found.notes:
        console.out.print(Text(note, style="yellow"))
    if found.unpaired:
        console.out.print(Text(f"not paired, for want of {', '.join(found.unpaired)} of both reports", style="yellow"))
    for one in found.unseen:
        share = f"{100 * (one.least or 0):.2g} {'points' if one.unit == 'share' else '%'}"
        console.out.print(Text(f"{one.figure}: under {share} may hide in noise ({one.level})", style="dim"))
    compared = found.compared
    lost = len(found.changes) - len(compared)
    aside = f"; {lost} figures cannot be compared and have no verdict" if lost else ""
    changed = [one for one in compared if one.verdict != "same"]
    if not changed:
        words = f"the {len(compared)} figures that can be compared are" if lost else "nothing changed beyond noise, of"
        rest = f" the same within noise{aside}" if lost else f" {len(compared)} figures"
        console.out.print(Text(words + rest))
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("level", "figure", "before", "now", "change", ""):
        table.add_column(
            name,
            justify="left" if name in ("level", "figure", "") else "right",
            no_wrap=name != "figure",
            overflow="fold",
        )
    style = {"worse": "bold red", "missing": "bold red", "better": "green"}
    for one in changed:
        cells = (one.level, one.figure, _value(one, one.before), _value(one, one.now), _change(one), one.verdict)
        table.add_row(*(Text(text, style=style.get(one.verdict, "")) for text in cells))
    console.out.print(table)
    console.out.print(Text(f"{len(compared) - len(changed)} other figures are the same within noise{aside}"))


def _value(change: "Change", value: float | None) -> str:
    if value is None:
        return "–"
    if change.unit == "presence":
        return "there"
    if change.unit == "bytes":
        return human_bytes(value)
    return f"{value * 100:.1f} %" if change.unit == "share" else f"{value:.4g}"


def _change(change: "Change") -> str:
    if change.change is None:
        return "–"
    error = f" ± {change.error * 100:.2g}" if change.error else ""
    return f"{change.change * 100:+.2f}{error} %"
