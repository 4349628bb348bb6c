"""`medmind-bench chain`: its flags, and what it prints. Measures nothing itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import console
from medmind.artifacts import atomic_directory, write_json, write_jsonl, write_text
from medmind.errors import MedmindError
from medmind_benchmarks.place import refuse_foreign

if TYPE_CHECKING:
    from medmind_benchmarks.chain.results import Report

_REPORT = "chain.json"


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("chain")(_chain)


def _chain(
    run: Annotated[
        Path | None, typer.Argument(help="A finished run with GGUFs: its folder or name; none: of the newest GGUF.")
    ] = None,
    heldout: Annotated[
        Path | None, typer.Option(help="Held-out rows, JSON lines with 'messages'; default: the run's.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of the base, where it is not found under the run's name for it.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Held-out rows at most; 0: as many as --tokens allow.")] = 0,
    tokens: Annotated[
        int, typer.Option(min=1, help="Answer tokens at most; each takes 4 bytes × vocabulary of disk meanwhile.")
    ] = 8192,
    device: Annotated[str, typer.Option(help="Where transformers computes: auto, cuda or cpu.")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="What it computes in: auto (float32; the adapter on CUDA as trained), bfloat16, …")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help="Compute threads of llama.cpp; default: the physical cores.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one step may take.")] = 3600.0,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default: chain/ in the run.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what an earlier call measured.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Tell where quality was lost: base, adapter as trained, merged weights and each GGUF, on the same tokens.

    The steps before the GGUFs are computed by medmind-train, which must be installed. Goes on where it stopped: every
    result is kept beside the report, in chain.cells, and taken again while all that went into it is the same; --fresh
    forgets them. The trained model's log-probabilities, by far the most of it, go when no step failed.
    """
    from medmind_benchmarks import options, store
    from medmind_benchmarks.chain import chart, joining, markdown, plan, stages
    from medmind_benchmarks.chain import run as steps

    console.require("matplotlib", "bench")
    config = plan.ChainConfig(
        rows=rows,
        tokens=tokens,
        device=options.choice("--device", device, ("auto", "cuda", "cpu")),
        dtype=options.choice("--dtype", dtype, ("auto", "bfloat16", "float16", "float32")),
        threads=threads,
        timeout=timeout,
    )
    planned = plan.make(run, heldout, out, base, config)
    refuse_foreign(planned.out, force=force, report=_REPORT)
    labels = ", ".join(file.label for file in planned.files)
    if planned.left_out:
        console.note(f"of the untuned base, no step of this chain: {', '.join(planned.left_out)}")
    console.note(f"{planned.name}: base, trained, both merges, {labels}; rows of {planned.heldout}")
    with store.alone(planned.out):
        if fresh:
            stages.forget(planned)
        try:
            found = steps.run(planned, console.progress)
        except KeyboardInterrupt:
            console.note("interrupted; the steps that were done are kept: go on with the same command")
            raise
        report = joining.report(planned, found)
        with atomic_directory(planned.out, force=force) as folder:
            write_json(folder / _REPORT, report.to_json())
            write_jsonl(folder / "rows.jsonl", joining.rows(found))
            write_text(folder / "chain.md", markdown.render(report))
            chart.draw(report, folder, Path(markdown.CHART).stem)
        if all(step.status != "failed" for step in report.steps):
            stages.drop_rows(planned)
    if found.reused:
        console.note(f"{found.reused} of {len(report.steps)} steps were known from an earlier call; --fresh forgets it")
    if json_output:
        console.emit_json(report.to_json())
    else:
        _show(report, planned.out)
    _refuse_flaws(report, planned.out)


def _refuse_flaws(report: "Report", out: Path) -> None:
    """End with an error where a step is missing or the engines disagree: the report is there, and says so as well."""
    missing = [step for step in report.steps if step.status != "measured"]
    if missing:
        raise MedmindError(
            f"{len(missing)} of {len(report.steps)} steps were not measured: "
            f"{missing[0].label} {missing[0].status}: {missing[0].reason}",
            f"the rest is in {out / 'chain.md'}",
        )
    apart = [one for one in report.agreement if not one.agrees]
    if apart:
        raise MedmindError(
            f"transformers and llama.cpp disagree on the merged weights: {apart[0].label} {apart[0].difference:+.3%}",
            "convert the run again; if that does not help, one of the two computes this model wrongly",
        )


def _show(report: "Report", out: Path) -> None:
    from rich.text import Text

    from medmind_benchmarks import terminal
    from medmind_benchmarks.chain import tables

    terminal.show(tables.terminal(report))
    for line in tables.verdict(report):
        console.out.print(Text(line))
    console.out.print(Text(f"\n{out / 'chain.md'}"))
