"""`medmind-convert verify` as it is typed: its options and what is printed. Verifies nothing."""

from pathlib import Path
from typing import Annotated

import typer

from medmind import console, llama
from medmind.console import human_bytes
from medmind_convert import options


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("verify", no_args_is_help=True)(_verify)


def _verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="GGUF files; one shard stands for all.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|BASE",
            help="What they were made from. By default the run in which a file lies, or what it names, if that is on "
            "this disk; without one only bytes are checked.",
        ),
    ] = None,
    lines: Annotated[
        int, typer.Option(min=0, help="Lines whose token ids are compared with the source's tokenizer.")
    ] = 100_000,
    as_json: options.Json = False,
) -> None:
    """Prove that files are whole to the bit, and tokenize and render as the model they were made from.

    Exit code 1: a byte differs from its digest, a file carries no digests to prove its bytes by, or tokens or chat
    renderings differ.
    """
    llama.package("convert")
    from medmind_convert import verify

    documents, problems = [], []
    for parts in verify.models(files):
        found = verify.verify(parts, source, lines=lines)
        documents.append(found.document(parts[0]))
        if found.problem is not None:
            problems.append(found.problem)
            if not as_json and len(files) > 1:
                console.note(f"{parts[0]}: not verified")
        elif not as_json:
            tensors, size = sum(part.tensors for part in found.files), sum(part.bytes for part in found.files)
            console.out.print(f"{parts[0]}  whole: {tensors} tensors, {human_bytes(size)}", markup=False)
            if found.files[0].kind == "adapter":
                origin = f"made from {found.source}" if found.source else "no source at hand (give it with --source)"
                console.note(f"an adapter, which has no tokens to compare: {origin}")
            elif found.lines is None or found.rendered is None:
                console.note("tokens were not compared: no source at hand (give it with --source)")
            else:
                compared = found.lines.given + found.lines.generated
                console.out.print(
                    f"as {found.source}: {compared:,} lines, {found.lines.tokens:,} tokens and "
                    f"{found.rendered.renderings:,} chat renderings, 0 differences",
                    markup=False,
                )
    if as_json:
        console.emit_json({"verified": not problems, "models": documents})
    if problems:
        for problem in problems[:-1]:
            console.note(f"error: {problem}")
        raise problems[-1]
