"""The command line `medmind-bench`: options in, a report out."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmind import console
from medmind.artifacts import atomic_directory, refuse_existing, write_json, write_jsonl
from medmind.errors import MedmindError
from medmind_benchmarks import compare_cli, report_cli
from medmind_benchmarks.chain import cli as chain_cli
from medmind_benchmarks.config import MEASURES, QUICK, QuantsConfig
from medmind_benchmarks.grounding import cli as grounding_cli
from medmind_benchmarks.place import refuse_foreign
from medmind_benchmarks.training import cli as training_cli

if TYPE_CHECKING:
    from medmind_benchmarks.plan import Plan
    from medmind_benchmarks.results import Report

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, add_completion=False)
_DEFAULTS = QuantsConfig()
_LENGTHS = _DEFAULTS.contexts


@app.callback()
def bench() -> None:
    """Measure what quantization costs and what a training step needs, with uncertainties."""


@app.command()
def quants(
    models: Annotated[
        list[Path] | None, typer.Argument(help="Runs or GGUF files; none: the newest run that has GGUFs.")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="GGUF of the untuned base; default: one that medmind-convert made of it.")
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(help="Held-out rows, JSON lines with 'messages'; default: heldout.jsonl beside the files."),
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="Raw text, as for llama-perplexity -f; default: the held-out rows' text.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; default: benchmark/ beside the files.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier report.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what an earlier call measured.")] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A first look: fewer rows, chunks, contexts, rounds; multiple choice with --questions only."
        ),
    ] = False,
    measure: Annotated[str | None, typer.Option(help=f"Some of {','.join(MEASURES)}; default: all.")] = None,
    rows: Annotated[
        int | None,
        typer.Option(min=0, help=f"Held-out rows at most; 0: all. Default: {_DEFAULTS.rows}, fewer of a large model."),
    ] = None,
    chunk: Annotated[int, typer.Option(min=4, help="Tokens of a chunk of raw text.")] = _DEFAULTS.chunk,
    chunks: Annotated[
        int | None, typer.Option(min=0, help=f"Chunks of raw text at most; 0: all. Default: {_DEFAULTS.chunks}.")
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            help="Multiple-choice questions: MedMCQA, MedQA, PubMedQA or MMLU as published, a file, folder or hub id; "
            "may be given again. Default: made of the held-out rows."
        ),
    ] = None,
    most_questions: Annotated[
        int | None,
        typer.Option(min=0, help=f"Questions of each at most; 0: all. Default: {_DEFAULTS.most_questions}."),
    ] = None,
    kv_types: Annotated[
        str | None, typer.Option("--kv", help="Quantized KV caches to measure as well: q8_0,q4_0.")
    ] = None,
    contexts: Annotated[
        str | None,
        typer.Option(help=f"Contexts to measure memory at; default: {','.join(map(str, _LENGTHS))}."),
    ] = None,
    load_modes: Annotated[
        str | None, typer.Option(help=f"Load modes to measure memory in; default: {','.join(_DEFAULTS.load_modes)}.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Processes for each speed, in turn. Default: {_DEFAULTS.rounds}.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help=f"Repetitions in each of them. Default: {_DEFAULTS.repeats}.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=512, help="Compute threads; default: the physical cores.")
    ] = None,
    context: Annotated[int | None, typer.Option(min=32, help="Tokens of context; default: as trained.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Prompt to time; default: 512, if it fits.")] = None,
    gen_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens to generate; default: 128, if they fit.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Rise of perplexity, in percent, that the pick may accept.")
    ] = _DEFAULTS.tolerance * 100,
    kl: Annotated[
        str, typer.Option(help="Compare with the reference side by side (direct), through a base-file, or auto.")
    ] = _DEFAULTS.kl,
    kl_base: Annotated[
        Path | None, typer.Option(help="Compare raw text with a file of llama-perplexity --kl-divergence-base.")
    ] = None,
    save_kl_base: Annotated[
        Path | None, typer.Option(help="Write such a file of the reference, for llama-perplexity --kl-divergence.")
    ] = None,
    cell_time: Annotated[
        float, typer.Option(min=1, help="Seconds a single measurement may take.")
    ] = _DEFAULTS.cell_seconds,
    cell_memory: Annotated[
        float | None, typer.Option(min=0.01, help="GiB of memory of its own it may have; default: what is free.")
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Label the model as never trained.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Compare quantization levels of one model: perplexity, fidelity, memory and speed. Goes on where it stopped."""
    from medmind_benchmarks import base_origin, options, pairing, plan, report_files, sources, store
    from medmind_benchmarks.quants import run

    console.require("matplotlib", "bench")
    given: dict[str, Any] = {
        "rows": rows,
        "rounds": rounds,
        "repeats": repeats,
        "chunks": chunks,
        "questions": tuple(questions) if questions else None,
        "most_questions": most_questions,
        "generated_tokens": gen_tokens,
        "measure": options.choices("--measure", measure, MEASURES),
        "kv_types": options.choices("--kv", kv_types, ("q8_0", "q4_0")),
        "contexts": options.numbers("--contexts", contexts),
        "load_modes": options.choices("--load-modes", load_modes, _DEFAULTS.load_modes),
    }
    if questions and given["measure"] and "choices" not in given["measure"]:
        raise MedmindError(f"--measure {measure} does not ask the --questions", "add choices to --measure")
    if questions and quick and not given["measure"]:
        given["measure"] = (*QUICK.measure, "choices")
    config = dataclasses.replace(
        QUICK if quick else _DEFAULTS,
        threads=threads,
        context=context,
        prompt_tokens=prompt_tokens,
        tolerance=tolerance / 100,
        chunk=chunk,
        kl=options.choice("--kl", kl, ("auto", "direct", "base-file")),
        cell_seconds=cell_time,
        cell_memory=None if cell_memory is None else int(cell_memory * 2**30),
        random_weights=random_weights,
        asked=frozenset(name for name, value in given.items() if value is not None),
        **{name: value for name, value in given.items() if value is not None},
    )
    found = sources.find(
        models or [],
        heldout,
        out,
        base=base,
        text=text,
        kl_base=kl_base,
        needs_heldout="answers" in config.measure or ("raw" in config.measure and not (text or kl_base)),
    )
    refuse_foreign(found.out, force=force)
    if save_kl_base:
        for path in (save_kl_base, base_origin.beside(save_kl_base)):
            refuse_existing(path, force=force)
    planned = plan.make(found, config)
    _announce(planned)
    with store.alone(found.out):
        outcome = run(planned, console.progress, fresh=fresh, save_kl_base=save_kl_base)
        with atomic_directory(found.out, force=force) as folder:
            for name, records in zip(pairing.FILES, (outcome.rows, outcome.chunks, outcome.questions), strict=True):
                write_jsonl(folder / name, records)
            report = dataclasses.replace(outcome.report, beside=pairing.digests(folder))
            write_json(folder / "report.json", report.to_json())
            report_files.write(report, folder)
    if json_output:
        console.emit_json(report.to_json())
    else:
        _show(report, found.out)
    outcome.demand_whole(found.out / "report.md")


def _announce(plan: "Plan") -> None:
    labels = ", ".join(level.label for level in plan.levels)
    rows = f"; {len(plan.chosen)} of {len(plan.rows)} rows of {plan.sources.heldout}" if plan.rows else ""
    raw = plan.texts.raw_text
    text = f"; {raw.chunks} of {raw.chunks_in_text} chunks of {raw.source}" if raw else ""
    alone = len(plan.levels) == 1
    counted = f"1 level ({labels})" if alone else f"{len(plan.levels)} levels ({labels}) against {plan.reference}"
    base = f", raw text against the model that wrote {plan.texts.kl_base.path.name}" if plan.texts.kl_base else ""
    console.note(f"{counted}{base}{rows}{text}; context {plan.context}, threads {plan.threads}")
    if plan.texts.kl_doubt:
        console.note(plan.texts.kl_doubt)
    if plan.reduction:
        console.note(plan.reduction)
    if plan.texts.raw_gap:
        console.note(f"raw text is left out: {plan.texts.raw_gap}")
    for level in plan.levels:
        if level.refusal:
            console.note(f"{level.label} is left out: it {level.refusal}")


def _show(report: "Report", out: Path) -> None:
    from rich.text import Text

    from medmind_benchmarks import tables, tables_detail, terminal

    for content in (*tables.terminal(report), *tables_detail.kv_in_terminal(report)):
        terminal.show(content, bold=report.pick.label)
    console.out.print(Text(tables.verdict(report)), soft_wrap=False)
    console.out.print(Text(f"\n{out / 'report.md'}\n{out / 'report.html'}"))


training_cli.register(app)
chain_cli.register(app)
grounding_cli.register(app)
report_cli.register(app)
compare_cli.register(app)


def main() -> None:
    """Entry point of `medmind-bench`."""
    console.run(app)
