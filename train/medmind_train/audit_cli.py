"""The command `medmind-train data audit`: examine a source, print the report and write it with its pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medmind import base as bases
from medmind import console, hub
from medmind.artifacts import atomic_directory, write_json, write_text
from medmind.errors import MedmindError
from medmind_train.data import HELDOUT_SHARE, VALIDATION_SHARE, Row, prepare
from medmind_train.data.audit import TokenLengths, audit
from medmind_train.data.audit_report import markdown, sections
from medmind_train.data.sources import find

JSON, MARKDOWN = "audit.json", "audit.md"
PICTURES = {
    "Lengths of whole examples": "lengths.png",
    "Lengths of answers": "answers.png",
    "Lengths of prompts": "prompts.png",
    "Lengths of answers by source": "sources.png",
}
_ENDLESS = 1 << 30
_SHOWN = 12


def audit_command(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="sample, medquad, a file, a directory, or a data set id (owner/name)."),
    ],
    out: Annotated[Path | None, typer.Option(help="Directory for audit.md, audit.json and the pictures.")] = None,
    base: Annotated[str, typer.Option(help="The base whose tokenizer counts.")] = bases.EMBEDDED_NAME,
    context: Annotated[int, typer.Option(help="Tokens that an example may have.", min=8)] = 1024,
    share: Annotated[float, typer.Option(help="Share of the components to hold out.")] = HELDOUT_SHARE,
    validation: Annotated[float, typer.Option(help="Share of the components for validation.")] = VALIDATION_SHARE,
    force: Annotated[bool, typer.Option("--force", help="Replace an audit that lies at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Examine SOURCE: duplicates, boilerplate, odd characters, lengths in tokens, templates, and what a split leaks."""
    if out is not None:
        _refuse(out, force=force)
    resolved = bases.resolve(base, fetch=hub.fetch_model)
    prepared = prepare(source, heldout_share=share, validation_share=validation)
    raw = list(find(source).rows())
    by_source: dict[str, list[int]] = {}

    def measure(rows: Sequence[Row]) -> TokenLengths:
        from medmind_train import encoding

        tokenizer = encoding.load_tokenizer(resolved.path, resolved.name)
        encoded = encoding.encode(tokenizer, rows, context=_ENDLESS)
        if not encoded.examples:
            raise MedmindError(f"every row of {source} spells out a control token of {base}", "give another --base")
        prompts = [example.answer for example in encoded.examples]
        answers = [len(example.ids) - example.answer for example in encoded.examples]
        sources = {row.id: row.source for row in rows}
        for example, length in zip(encoded.examples, answers, strict=True):
            by_source.setdefault(sources[example.row], []).append(length)
        return TokenLengths(base, context, prompts, answers, len(encoded.control))

    with console.progress(f"auditing {prepared.source}", None, "steps") as step:
        document, tokens = audit(raw, prepared, measure=measure, step=step)
    if out is not None:
        _write(out, document, tokens, by_source)
    if as_json:
        console.emit_json(document)
        return
    for section in sections(document, most=_SHOWN):
        console.out.print(f"[bold]{section.title}[/bold]")
        if section.note:
            console.out.print(section.note, markup=False)
        console.out.print(section.table())
        console.out.print()
    if out is not None:
        console.out.print(f"written: {out}", markup=False)


def _refuse(out: Path, *, force: bool) -> None:
    """Raise unless `out` is free, empty, or an audit that --force may replace."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise MedmindError(f"{out} is a file", "give a directory to --out")
    if {path.name for path in out.iterdir()} - {JSON, MARKDOWN, *PICTURES.values()}:
        raise MedmindError(f"{out} holds other things than an audit", "give another directory to --out")
    if not force:
        raise MedmindError(f"{out} exists already", "give --force to replace it, or another --out")


def _write(out: Path, document: dict[str, object], tokens: TokenLengths, by_source: dict[str, list[int]]) -> None:
    from medmind_train.data.audit_pictures import draw_lengths, draw_sources

    with atomic_directory(out) as partial:
        whole, answers, prompts, sources = PICTURES.values()
        for name, part in ((whole, "both"), (answers, "answers"), (prompts, "prompts")):
            draw_lengths(partial / name, tokens, part=part)
        draw_sources(partial / sources, dict(by_source), tokens.base)
        write_json(partial / JSON, document)
        write_text(partial / MARKDOWN, markdown(document, PICTURES))
