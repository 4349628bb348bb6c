"""`medmind-train score`: its flags, and what it prints. Knows no model."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmind import console
from medmind_train import environment
from medmind_train.config import build, with_options
from medmind_train.score.config import LIBRARIES, ScoreConfig, check

if TYPE_CHECKING:
    from medmind_train.score.document import ScoreDocument


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("score")(_score)


@with_options(ScoreConfig)
def _score(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run: its directory or its name.")],
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Score a run's held-out answers under its base, its adapter as trained, or the merged weights.

    `medmind-bench chain` uses this to tell at which step from training to a quantized file quality was lost.
    """
    config = build(ScoreConfig, settings)
    check(config)
    for library in LIBRARIES:
        console.require(library, "train")
    environment.settle()
    from medmind_train.score import measure

    document = measure.run(run, config)
    if as_json:
        console.emit_json(dataclasses.asdict(document))
    else:
        _show(document)


def _show(found: "ScoreDocument") -> None:
    from medmind_train.evaluate import estimate

    perplexity = estimate([row.nll for row in found.rows], [row.tokens for row in found.rows])
    console.out.print(f"{found.run}, {found.stage}: held-out perplexity {perplexity}", style="bold", markup=False)
    console.out.print(
        f"{found.tokens:,} answer tokens of {len(found.rows):,} rows; weights {found.weights}, "
        f"computed in {found.dtype} on {found.device}",
        markup=False,
    )
    if found.divergence:
        mean = sum(row.kl or 0.0 for row in found.rows) / found.tokens
        same = sum(row.same_top or 0 for row in found.rows) / found.tokens
        console.out.print(
            f"KL(trained ‖ this) {mean:.3g} nats a token on average, {found.divergence.median:.3g} median, "
            f"{found.divergence.most:.3g} at most; same likeliest token at {same:.2%}"
        )
    if found.file:
        console.out.print(f"log-probabilities: {found.file}", markup=False)
