"""`medmind-train search`: its flags, and what it prints. Searches nothing itself."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from medmind import console
from medmind_train import environment
from medmind_train.config import build, read_yaml, with_options
from medmind_train.qlora_config import LIBRARIES, vram
from medmind_train.recipes import locate
from medmind_train.search.config import SearchConfig, check


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("search")(_search)


@with_options(SearchConfig)
def _search(
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="SEARCH", help="go on with an unfinished search")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="YAML file of settings, or a recipe; flags win over it"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a search of the same name")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="download without asking")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Choose learning rate, rank, alpha and target modules by successive halving on the validation rows' loss.

    Takes qlora's settings as the first candidate, and keeps within a budget of 1.5 such runs (--budget). The held-out
    rows are not looked at. --compare targets answers whether qv or all-linear is better at equal trained weights.
    """
    layers = [read_yaml(locate(config), SearchConfig)] if config else []
    layers.append(settings)
    given = build(SearchConfig, *layers)
    vram(given)
    if resume is None:
        check(given)
    for library in LIBRARIES:
        console.require(library, "train")
    environment.settle()
    from medmind_train.search import report, run

    if resume is not None:
        folder, document = run.resume(resume, layers, assume_yes=yes)
    else:
        folder, document = run.start(layers, force=force, assume_yes=yes)
    if as_json:
        console.emit_json({"search": str(folder), **document})
        return
    console.out.print(report.table(document))
    console.out.print()
    for line in report.sentences(document):
        console.out.print(line, markup=False)
    console.out.print(
        f"{document['spent']:.2f} runs of {document['budget']:g} spent; picture, report and settings: {folder}\n\n"
        f"next:\n  medmind-train qlora --config {shlex.quote(document['chosen']['config'])}",
        markup=False,
    )
