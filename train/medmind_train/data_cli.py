"""The command `medmind-train data`: show what a source holds and, if asked, write its two sides to files.

A group whose first word, if it is no command, is the source of `show`: `data SOURCE` and `data audit SOURCE` both work.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medmind import console
from medmind.artifacts import HELDOUT, VALIDATION, atomic_file, refuse_existing
from medmind.errors import MedmindError
from medmind_train import audit_cli
from medmind_train.data import HELDOUT_SHARE, MEDQUAD, VALIDATION_SHARE, Prepared, Row, prepare, remember_medquad

TRAIN = "train.jsonl"
_DEFAULT = "show"


class DefaultCommandGroup(TyperGroup):
    """A group that hands a first word it does not know, and options before it, to its default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command's name in front unless a command is named or the group's own help is asked for."""
        asks_help = args[:1] == ["--help"] and len(self.commands) > 1  # alone, the default's help says more
        if args and args[0] not in self.commands and not asks_help:
            args = [_DEFAULT, *args]
        return list(super().parse_args(ctx, args))


data_app = typer.Typer(cls=DefaultCommandGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@data_app.callback()
def data() -> None:
    """Look at training data: `data SOURCE`, where SOURCE is sample, medquad, a file, a directory or a data set id."""


@data_app.command(name=_DEFAULT)
def show(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="sample, medquad, a file, a directory, or a data set id (owner/name)."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory to write train.jsonl, validation.jsonl and heldout.jsonl to.")
    ] = None,
    share: Annotated[float, typer.Option(help="Share of the components to hold out.")] = HELDOUT_SHARE,
    validation: Annotated[float, typer.Option(help="Share of the components for validation.")] = VALIDATION_SHARE,
    recorded: Annotated[
        Path | None, typer.Option(help="A run, or its heldout.jsonl: its held-out rows stay held out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many rows, picked evenly over the source.")] = None,
    path: Annotated[
        Path | None, typer.Option(help="Where MedQuAD lies (with medquad); remembered from then on.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Read, clean and split SOURCE; show what it holds and what was dropped, and write the sides with --out.

    The format is recognised: MedQuAD's XML tree, Kaggle's medquad.csv, JSON lines of question/answer or chat messages
    (also .gz, .zst), parquet, arrow, data sets from the hub. `data show SOURCE` is the long form.
    """
    if path is not None and source != MEDQUAD:
        raise MedmindError("--path goes with the source medquad", f"to look at {path}: medmind-train data {path}")
    if path is not None and not path.exists():
        raise MedmindError(f"{path} does not exist", "give the directory or file that MedQuAD lies in")
    targets = () if out is None else (out / TRAIN, out / VALIDATION, out / HELDOUT)
    if out is not None and out.exists() and not out.is_dir():
        raise MedmindError(f"{out} is a file", "give a directory to --out")
    for target in targets:
        refuse_existing(target, force=force)
    prepared = prepare(
        source if path is None else path,
        heldout_share=share,
        validation_share=validation,
        limit=limit,
        recorded=recorded or (),
    )
    if path is not None:
        remember_medquad(path)
    if targets:
        write_sides(prepared, *targets)
    if as_json:
        console.emit_json(
            {
                "source": source,
                "where": prepared.where,
                "digest": prepared.digest,
                "heldout_share": share,
                "validation_share": validation,
                "recorded": None if recorded is None else str(recorded),
                "limit": limit,
                "counts": prepared.counts.to_dict(),
                "files": [str(target) for target in targets],
            }
        )
    else:
        _print(prepared, [str(target) for target in targets], remembered=path)


def write_sides(prepared: Prepared, train: Path, validation: Path, heldout: Path) -> None:
    """Write the sides; either all files are replaced, or a failure while writing leaves all as they were."""
    with (
        atomic_file(train) as train_partial,
        atomic_file(validation) as validation_partial,
        atomic_file(heldout) as heldout_partial,
    ):
        _write(train_partial, prepared.train)
        _write(validation_partial, prepared.validation)
        _write(heldout_partial, prepared.heldout)


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows)


def _print(prepared: Prepared, written: list[str], *, remembered: Path | None) -> None:
    counts = prepared.counts
    place = "" if prepared.source in prepared.where else f" ({prepared.where})"
    console.out.print(f"{prepared.source}{place}\n", markup=False)
    console.out.print(counts.table())
    grouping = counts.grouping
    console.out.print(
        f"\n{grouping.components:,} components, the largest of {grouping.largest:,} rows; "
        f"{grouping.links_across:,} links between focuses by near-duplicate answers"
    )
    if grouping.known:
        listed = ", ".join(f"{name} {rows:,}" for name, rows in grouping.known.items())
        console.out.print(f"known from training, so not held out: {listed}", markup=False)
    if grouping.recorded:
        console.out.print(
            f"recorded: {grouping.recorded:,} rows stay held out, {grouping.recorded_lost:,} of them not in the source "
            f"any more, {grouping.recorded_known:,} with more than 20 % of their 13-grams in training"
        )
    console.out.print()
    console.out.print(counts.lengths_table())
    for what, numbers in (("sources", counts.sources), ("question types", counts.question_types)):
        if numbers:
            listed = ", ".join(f"{name} {rows:,}" for name, rows in list(numbers.items())[:12])
            rest = f", and {len(numbers) - 12} more" if len(numbers) > 12 else ""
            console.out.print(f"\n{what}: {listed}{rest}", markup=False)
    if counts.skipped_files:
        console.out.print(f"\nfiles skipped: {len(counts.skipped_files):,}")
    console.out.print(f"\ndigest {prepared.digest}", markup=False)
    for path in written:
        console.out.print(f"written: {path}", markup=False)
    if remembered is not None:
        console.note(f"remembered: `medquad` is {remembered.resolve()}")


data_app.command(name="audit")(audit_cli.audit_command)


def register(app: typer.Typer) -> None:
    """Give an app the command group `data`."""
    app.add_typer(data_app, name="data")
