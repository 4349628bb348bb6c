"""Options that several commands of `medmind-convert` have, each worded once. Knows no command."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medmind_convert.conversion import Onto
    from medmind_convert.source import Source


class MergeOnto(StrEnum):
    """What an adapter is merged onto."""

    auto = "auto"
    base = "base"
    nf4 = "nf4"


def onto(wanted: MergeOnto, source: "Source") -> "Onto":
    """What an adapter is merged onto, once its run is known."""
    return source.trained_on if wanted is MergeOnto.auto else "nf4" if wanted is MergeOnto.nf4 else "base"


Merging = Annotated[
    MergeOnto,
    typer.Option(
        help="The base as it is, or as the NF4 of the training left it; auto takes what the adapter was trained on."
    ),
]
Base = Annotated[str | None, typer.Option(help="Base model: directory, hub id or embedded name.")]
Adapter = Annotated[Path | None, typer.Option(help="PEFT adapter directory to merge into the base.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a base on the hub.")]
Out = Annotated[Path | None, typer.Option(help="Directory of the results; by default the run's.")]
Name = Annotated[str | None, typer.Option(help="File name of the results, before .QUANT.gguf.")]
Threads = Annotated[int | None, typer.Option(min=1, max=512, help="Threads to quantize with; by default all cores.")]
SplitMaxSize = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Split into files of this much, as 2GiB or 500M; no tensor is cut."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a download.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
