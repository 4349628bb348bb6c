"""`medmind-train pretrain` and `yardsticks`: their flags, and what they print. Knows no training."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from medmind import console
from medmind.artifacts import RUNS
from medmind.errors import MedmindError
from medmind_train.config import build, read_yaml, with_options
from medmind_train.pretrain.config import PretrainConfig


def register(app: typer.Typer) -> None:
    """Put the commands on `app`."""
    app.command("pretrain")(_pretrain)
    app.command("yardsticks")(_yardsticks)


@with_options(PretrainConfig)
def _pretrain(
    text: Annotated[
        list[Path] | None,
        typer.Argument(metavar="TEXT...", help="text files, JSON lines with a 'text' key, or directories of them"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="directory of the model")] = RUNS / "base",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", metavar="FILE", help="SentencePiece model to use instead of a new one")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the unfinished training under --out")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace what lies under --out")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Train a small Mistral-architecture base model, tokenizer included, from plain text."""
    if not text:
        raise MedmindError("no text was given", "name text files, or directories of them: medmind-train pretrain DIR")
    resolved = build(PretrainConfig, *([read_yaml(config, PretrainConfig)] if config else []), settings)
    for library in ("torch", "transformers", "sentencepiece", "safetensors", "matplotlib"):
        console.require(library, "train")
    from medmind_train.pretrain.stages import pretrain
    from medmind_train.pretrain.trainer import Interrupted

    try:
        result = pretrain(text, out, resolved, tokenizer=tokenizer, resume=resume, force=force)
    except Interrupted as stopped:
        console.note(f"{stopped}; go on with the same command and --resume")
        sys.exit(130)
    if as_json:
        console.emit_json({"model": str(out), **result})
        return
    console.out.print(
        f"{result['parameters']:,} parameters saw {result['tokens_seen']:,} tokens: "
        f"{result['bits_per_byte']:.4f} bits per byte on held-out documents"
    )
    console.out.print(f"\nmodel: {out}\n\nnext:\n  medmind-train qlora --base {out}")


_NAMES = {
    "trigram": "Kneser-Ney trigrams of the tokenizer's ids, trained on the training part",
    "xz_after_training": "xz -9, the training part before it in its window",
    "xz": "xz -9, the held-out text alone",
    "gzip": "gzip -9, the held-out text alone",
}


def _yardsticks(
    text: Annotated[list[Path], typer.Argument(metavar="TEXT...", help="the text that `pretrain` was given")],
    tokenizer: Annotated[
        Path,
        typer.Option("--tokenizer", metavar="MODEL", help="model directory, or the tokenizer.model of one"),
    ],
    validation_share: Annotated[
        float, typer.Option(help="documents held out, as `pretrain` was told")
    ] = PretrainConfig.validation_share,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
) -> None:
    """Give a base model's bits per byte a scale: trigrams, gzip and xz on the documents that `pretrain` holds out."""
    share = build(PretrainConfig, {"validation_share": validation_share}).validation_share
    for library in ("numpy", "sentencepiece"):
        console.require(library, "train")
    from medmind_train.pretrain.yardsticks import measure

    result = measure(text, tokenizer, share)
    if as_json:
        console.emit_json(result)
        return
    from rich.table import Table

    held = result["heldout"]
    console.out.print(f"{held['documents']:,} held-out documents, {held['bytes']:,} bytes; bits per byte:\n")
    for name, words in _NAMES.items():
        console.out.print(f"  {result['bits_per_byte'][name]:.4f}  {words}", markup=False)
    if result["sources"]:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for index, column in enumerate(("source", "documents", "bytes", "trigram", "xz", "gzip")):
            table.add_column(column, justify="right" if index else "left", no_wrap=True)
        for row in result["sources"]:
            figures = (f"{row[name]:.4f}" for name in ("trigram", "xz", "gzip"))
            table.add_row(row["source"] or "(none)", f"{row['documents']:,}", f"{row['bytes']:,}", *figures)
        console.out.print()
        console.out.print(table)
