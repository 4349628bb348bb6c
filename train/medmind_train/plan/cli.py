"""`medmind-train plan`: its flags, and which base and data it stands for. Plans nothing itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medmind import console
from medmind.errors import MedmindError
from medmind_train.config import build, read_yaml, with_options
from medmind_train.qlora_config import REFERENCE_BASE, QloraConfig, recipe
from medmind_train.recipes import locate


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("plan")(_plan)


@with_options(QloraConfig)
def _plan(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="YAML file of qlora's settings, or a recipe; flags win over it"),
    ] = None,
    card: Annotated[
        str | None,
        typer.Option("--card", help="a card's memory (8GiB) or name (rtx4060); default: the smallest that fits"),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="tokens to train on in all, for the time (default: by --data)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Say what a run of qlora with these settings would take: memory by component, host memory, disk, time.

    Takes qlora's own settings. Nothing is downloaded but the config.json of a base on the hub, and nothing is written.
    Exit code 1 when the card cannot hold it.

    Memory is that of one card. Of several (torchrun, see qlora) each takes as much, and they share the steps' time.
    """
    from medmind_train.plan import base_config, cards, estimate, tables

    layers = [read_yaml(locate(config), QloraConfig)] if config else []
    layers.append(settings)
    given = build(QloraConfig, *layers)
    asked = cards.find(card) if card is not None else None
    base = given.base or REFERENCE_BASE
    resolved = build(QloraConfig, {"base": base}, recipe(base), *layers)
    if resolved.shard:
        raise MedmindError(
            "there is no plan for a base in pieces (--shard)",
            "leave it out to see what a single card would have to hold",
        )
    plan = estimate.make(resolved, base_config.read(base, given.revision), asked, tokens)
    if as_json:
        console.emit_json(tables.document(plan))
    else:
        console.out.print(tables.render(plan))
