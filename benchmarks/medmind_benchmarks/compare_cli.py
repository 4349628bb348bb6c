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
    json_output: Annotated[bool, typer.Option("--json", help="The comparison as JSON on stdout.")] = False,
) -> None:
    """Say what changed between two reports beyond noise; exit with 1 when something became worse."""
    from medmind_benchmarks import compare, pairing, results

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
    found = compare.compare(
        old, new, limits, beside=(pairing.read(paths[0]), pairing.read(paths[1])), names=(str(before), str(now))
    )
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


def _show(found: "Comparison") -> None:
    from rich.table import Table
    from rich.text import Text

    for note in found.notes:
        console.out.print(Text(note, style="yellow"))
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
    if value is None or change.figure == "level":
        return "–" if value is None else "there"
    if change.figure.startswith(("file size", "peak memory", "smallest machine")):
        return human_bytes(value)
    return f"{value * 100:.1f} %" if change.figure.startswith("right") else f"{value:.4g}"


def _change(change: "Change") -> str:
    if change.change is None:
        return "–"
    error = f" ± {change.error * 100:.2g}" if change.error else ""
    return f"{change.change * 100:+.2f}{error} %"
