"""`medmind-convert plan` as it is typed: its options and what is printed. Computes nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmind import artifacts, console, llama
from medmind.console import human_bytes
from medmind_convert import options

if TYPE_CHECKING:
    from medmind_convert.plan import Planned


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("plan")(_plan)


def _plan(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUANT...] [RUN]",
            help="Quantizations, by default all, and what would be converted: a run, a base directory, an adapter. "
            "Without one, the newest run.",
        ),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Importance matrix that will be given; by default as in gguf.")
    ] = None,
    no_imatrix: Annotated[bool, typer.Option("--no-imatrix", help="There will be none.")] = False,
    merge_onto: options.Merging = options.MergeOnto.auto,
    base: options.Base = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    out: options.Out = None,
    name: options.Name = None,
    threads: options.Threads = None,
    provenance: Annotated[bool, typer.Option(help="As for gguf: with lineage, system prompt and digests.")] = True,
    split_max_size: options.SplitMaxSize = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Say what files would take, before any is made: bytes, exact; memory, time and disk. Reads no weight."""
    from medmind_convert import source as sources
    from medmind_convert.sizes import parse_bytes

    llama.package("convert")
    from medmind_convert import one_pass, plan, quants, run_imatrix

    chosen, given = sources.split_arguments(arguments or (), fitted=True)
    split_max = None if split_max_size is None else parse_bytes(split_max_size)
    source = sources.find(
        given, base_name=base, adapter=adapter, revision=revision, out=out, name=name, assume_yes=yes, weigh=False
    )
    conversion = plan.Outlined(source, options.onto(merge_onto, source))
    wanted = chosen or list(quants.QUANTS.values())
    expected = run_imatrix.expected(source, wanted, given=imatrix, wanted=not no_imatrix, together=bool(chosen))
    threads = threads or one_pass.cores()
    found = plan.plan(conversion, wanted, expected, threads=threads, provenance=provenance, split_max=split_max)
    free = artifacts.free_bytes(source.out)
    if as_json:
        console.emit_json(
            {
                "name": source.name,
                "out": str(source.out),
                "merged_onto": conversion.onto if source.adapter else None,
                "threads": threads,
                "disk_free": free,
                "types": [
                    {
                        "quant": each.quant.name,
                        "refused": each.refused,
                        "bytes": each.bytes,
                        "bits_per_weight": round(each.bits, 4),
                        "files": each.shards,
                        "imatrix": each.weighted,
                        "needs_imatrix": each.refused is not None,
                        "bytes_with_imatrix": each.with_matrix,
                        "memory": each.memory,
                        "seconds": round(each.seconds, 1),
                        "fits": each.bytes <= free,
                    }
                    for each in found
                ],
            }
        )
        return
    _show(found, free)
    for each in found:
        if each.large is not None:
            console.note(f"{each.quant.name}: {each.large}")
    console.note(
        f"{source.out}: {human_bytes(free)} free; * weighted by an importance matrix, whose collection is not counted; "
        f"memory without mapped files; time on {threads} threads, from a table of the types and q4_k timed here"
    )


def _show(found: "list[Planned]", free: int) -> None:
    console.out.print(f"{'type':<10} {'bytes':>15}  {'size':>10}  bits/weight  {'memory':>10}  {'time':>8}")
    for each in found:
        name = each.quant.name + ("*" if each.weighted else "")
        line = (
            f"{name:<10} {each.bytes:>15,}  {human_bytes(each.bytes):>10}  {each.bits:>11.2f}  "
            f"{human_bytes(each.memory):>10}  {_clock(each.seconds):>8}"
        )
        line += f"  {each.shards} files" if each.shards > 1 else ""
        line += "  needs an importance matrix, counted with one" if each.refused is not None else ""
        line += f"  with a matrix {each.with_matrix:,}" if each.with_matrix is not None else ""
        line += "  too large for the disk" if each.bytes > free else ""
        console.out.print(line, markup=False)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
