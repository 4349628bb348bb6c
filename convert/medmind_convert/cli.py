"""`medmind-convert`: the command line of the convert stage. Knows options and what is printed; converts nothing."""

import sys
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Annotated, cast

import typer

from medmind import console, llama
from medmind.console import human_bytes
from medmind_convert import merge_cli, options, plan_cli, verify_cli


class AdapterType(StrEnum):
    """What an adapter's numbers are stored as."""

    f32 = "f32"
    f16 = "f16"


app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, add_completion=False)


@app.callback()
def medmind_convert() -> None:
    """Merge an adapter into its base and write GGUF files that llama.cpp runs."""


merge_cli.register(app)
plan_cli.register(app)
verify_cli.register(app)


@app.command(no_args_is_help=True)
def gguf(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUANT... [RUN]",
            help="Quantizations (q4_k_m, q8_0, f16, ...) and what to convert: a run, a base directory, an adapter, "
            "a hub id. Without one, the newest run.",
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Choose each tensor's type so that the file is at most this large: 4GiB."),
    ] = None,
    bits_per_weight: Annotated[
        float | None, typer.Option(min=1, max=16, help="The same, for at most so many bits per weight: 4.5.")
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Importance matrix to quantize with. For types below q4_k and for --fit, NAME.imatrix.gguf beside the "
            "results is taken by itself, or collected over the run's validation rows.",
        ),
    ] = None,
    no_imatrix: Annotated[bool, typer.Option("--no-imatrix", help="Neither take nor collect one.")] = False,
    merge_onto: options.Merging = options.MergeOnto.auto,
    cards: Annotated[bool, typer.Option(help="Write NAME.md (model card) and NAME.Modelfile (Ollama) too.")] = True,
    base: options.Base = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    out: options.Out = None,
    name: options.Name = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    threads: options.Threads = None,
    provenance: Annotated[
        bool,
        typer.Option(help="Write lineage, system prompt and digests; without, the bytes of llama.cpp's own tools."),
    ] = True,
    split_max_size: options.SplitMaxSize = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Convert a run (or a base) to one or several GGUF files."""
    from medmind_convert import source as sources
    from medmind_convert.sizes import parse_bytes

    llama.package("convert")
    from medmind_convert import companions, gguf_options
    from medmind_convert.conversion import Conversion
    from medmind_convert.convert import Options, convert

    wanted = gguf_options.target(fit, bits_per_weight)
    quants, given = sources.split_arguments(arguments or (), fitted=wanted is not None)
    split_max = None if split_max_size is None else parse_bytes(split_max_size)
    source = sources.find(given, base_name=base, adapter=adapter, revision=revision, out=out, name=name, assume_yes=yes)
    conversion = Conversion(source, options.onto(merge_onto, source))
    names = [quant.name for quant in quants] + ([wanted.name] if wanted is not None else [])
    gguf_options.refuse_existing(source, names, force=force)
    chosen = Options(force=force, threads=threads, provenance=provenance, split_max=split_max)
    chosen, weighted_by = gguf_options.with_importance(
        conversion, quants, chosen, sized=wanted is not None, given=imatrix, wanted=not no_imatrix
    )
    fitted = None
    if wanted is not None:
        chosen, fitted = gguf_options.with_fit(conversion, wanted, chosen)
        quants.append(fitted.quant)
    results, agreement = convert(conversion, quants, chosen)
    beside = companions.write(conversion, results) if cards else []
    if as_json:
        console.emit_json(
            {
                "name": source.name,
                "run": source.run,
                "merged_onto": conversion.onto if source.adapter else None,
                "imatrix": None if weighted_by is None else str(weighted_by),
                "fit": None if fitted is None else {"budget": fitted.budget, "left": fitted.left},
                "beside": list(map(str, beside)),
                "base": {"name": source.base.name, "revision": source.base.revision, "digest": source.base_digest},
                "files": [
                    {
                        "file": str(result.file),
                        "quant": result.quant.name,
                        "bytes": result.bytes,
                        "bits_per_weight": round(result.bits, 4),
                        "seconds": round(result.seconds, 3),
                    }
                    for result in results
                ],
                "check": {
                    "texts": agreement.texts,
                    "tokens": agreement.tokens,
                    "renderings": agreement.renderings,
                    "differences": 0,
                },
            }
        )
        return
    width = max(len(str(result.file)) for result in results)
    console.out.print(f"{'file':<{width}}  {'size':>10}  bits/weight  seconds")
    for result in results:  # not a rich table: that would cut a long path to the terminal's width
        size = human_bytes(result.bytes)
        line = f"{result.file!s:<{width}}  {size:>10}  {result.bits:>11.2f}  {result.seconds:>7.1f}"
        console.out.print(line, markup=False)
    if fitted is not None:
        console.note(f"fitted: {fitted.left:,} bytes of {fitted.budget:,} are left ({fitted.left / fitted.budget:.2%})")
    if beside:
        console.note("also written: " + ", ".join(map(str, beside)))
    console.note(
        f"checked: {agreement.texts} texts, {agreement.tokens:,} tokens and {agreement.renderings} chat renderings "
        "are the same in transformers and llama.cpp"
    )


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A GGUF file.")],
    as_json: options.Json = False,
) -> None:
    """Show a GGUF's metadata and tensors."""
    from medmind_convert import info as infos

    document = infos.read(file)
    if as_json:
        console.emit_json(document)
    else:
        infos.show(document)


@app.command()
def imatrix(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN | GGUF]",
            help="A run, which is converted to q8_0 for it, or a GGUF of q8_0 or more. Without one, the newest run.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run whose validation rows are the text; by default the one in which the GGUF lies."),
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option(help="Text or .jsonl rows to run over instead; may be given several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The result; by default NAME.imatrix.gguf beside the GGUF.")] = None,
    chunks: Annotated[int | None, typer.Option(min=1, help="Chunks of 512 tokens at most; by default all.")] = None,
    process_output: Annotated[bool, typer.Option(help="Collect for the output layer too.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, max=512, help="By default all cores.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: options.Json = False,
) -> None:
    """Collect which columns of each weight matter, by running a model over text of its domain; goes on when stopped."""
    from medmind_convert import calibration, run_imatrix
    from medmind_convert import source as sources

    if model is not None and model.endswith(".gguf"):
        made = calibration.make_imatrix(
            Path(model), run, text or (), out, chunks=chunks, output=process_output, threads=threads, force=force
        )
    else:
        source = sources.find(model if model is not None or run is None else str(run))
        made = run_imatrix.collect(
            source,
            text or (),
            onto=source.trained_on,
            out=out,
            chunks=chunks,
            output=process_output,
            threads=threads,
            force=force,
        )
    if as_json:
        console.emit_json(
            {
                "file": str(made.file),
                "chunks": made.collected.imatrix.chunks,
                "resumed": made.collected.resumed,
                "tensors": len(made.collected.imatrix.entries),
                "rows_left_out": made.dropped,
                "seconds": round(made.collected.seconds, 3),
            }
        )
        return
    found = made.collected.imatrix
    console.out.print(f"{made.file}  {found.chunks} chunks, {len(found.entries)} tensors", markup=False)


@app.command()
def adapter(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run or a PEFT adapter directory. Without one, the newest run."),
    ] = None,
    base: options.Base = None,
    revision: options.Revision = None,
    kind: Annotated[AdapterType, typer.Option("--type", help="What its numbers are stored as.")] = AdapterType.f32,
    out: Annotated[Path | None, typer.Option(help="Directory of the result; by default the run's.")] = None,
    name: Annotated[str | None, typer.Option(help="File name of the result, before .adapter.gguf.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Write the adapter alone as a GGUF that llama.cpp lays over any GGUF of its base while it runs."""
    from medmind_convert import adapter_file
    from medmind_convert import source as sources

    source = sources.find(run, base_name=base, revision=revision, out=out, name=name, assume_yes=yes)
    written = adapter_file.write(source, adapter_file.TYPES[kind.value], force=force)
    if as_json:
        console.emit_json({"file": str(written.file), "bytes": written.bytes, "modules": written.modules})
        return
    console.out.print(f"{written.file}  {human_bytes(written.bytes)}, {written.modules} weights", markup=False)


def main() -> None:
    """Entry point of `medmind-convert`."""
    # transformers imports torch wherever it finds it; its tokenizers need none, and it costs seconds and 200 MiB
    sys.modules.setdefault("torch", cast(ModuleType, None))
    # as the gguf package does with Mistral's own tokenizers, none of which is used: most of a second
    sys.modules.setdefault("mistral_common", cast(ModuleType, None))
    console.run(app)


if __name__ == "__main__":
    main()
