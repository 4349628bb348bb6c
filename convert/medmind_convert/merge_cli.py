"""`medmind-convert merge` as it is typed: its options and what is printed. Merges nothing."""

from pathlib import Path
from typing import Annotated

import typer

from medmind import console, llama
from medmind.console import human_bytes
from medmind_convert import options


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("merge")(_merge)


def _merge(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run or a PEFT adapter directory. Without one, the newest run."),
    ] = None,
    merge_onto: options.Merging = options.MergeOnto.auto,
    base: options.Base = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to make; by default merged/ in the run.")
    ] = None,
    max_shard_size: Annotated[
        str,
        typer.Option(metavar="SIZE", help="Split the weights into files of this much; no tensor is cut."),
    ] = "50G",
    force: Annotated[bool, typer.Option("--force", help="Replace a directory that exists.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, max=512, help="By default all cores.")] = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Write base and adapter as one model that transformers loads, in the base's type; goes on when stopped."""
    from medmind_convert import source as sources
    from medmind_convert.sizes import parse_bytes

    shard_max = parse_bytes(max_shard_size)
    llama.package("convert")
    from medmind_convert import merged_model
    from medmind_convert.conversion import Conversion

    source = sources.find(run, base_name=base, adapter=adapter, revision=revision, assume_yes=yes)
    conversion = Conversion(source, options.onto(merge_onto, source))
    made = merged_model.write(
        conversion, out or source.out / "merged", shard_max=shard_max, threads=threads, force=force
    )
    if as_json:
        console.emit_json(
            {
                "directory": str(made.path),
                "files": [{"file": str(file), "bytes": file.stat().st_size} for file in made.files],
                "bytes": made.bytes,
                "tensors": made.tensors,
                "resumed": made.resumed,
                "types": list(made.dtypes),
                "merged_onto": conversion.onto,
                "name": source.name,
                "run": source.run,
                "base": {"name": source.base.name, "revision": source.base.revision, "digest": source.base_digest},
            }
        )
        return
    size, below = human_bytes(made.bytes), {"base": "the base", "nf4": "the base as NF4 left it"}[conversion.onto]
    types = ", ".join(made.dtypes).lower()
    console.out.print(f"{made.path}  {size} in {len(made.files)} file(s), {types}, onto {below}", markup=False)
