"""`medmind-train qlora`: its flags, and what it prints. Knows no training."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medmind import console
from medmind_train import environment, report
from medmind_train.config import build, read_yaml, with_options
from medmind_train.qlora_config import LIBRARIES, QloraConfig, vram
from medmind_train.recipes import locate


def register(app: typer.Typer) -> None:
    """Put the command on `app`."""
    app.command("qlora")(_qlora)


@with_options(QloraConfig)
def _qlora(
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="go on with an unfinished run directory")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="YAML file of settings, or a recipe such as mistral-7b-6gb; flags win over it",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a run of the same name")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="download without asking")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as one JSON document")] = False,
    **settings: Any,
) -> None:
    """Fine-tune a 4-bit base model on questions and answers (QLoRA).

    Without --base and --data: Mistral-7B-Instruct on MedQuAD where there is a CUDA card, else the embedded base on the
    embedded sample.

    On several GPUs, one process each: torchrun --nproc-per-node 2 -m medmind_train.cli qlora ..., or accelerate launch.
    They share the rows of --batch × --accumulate, so that the settings, and the loss curve, stay those of one.
    Each holds the whole base; --shard lays it in pieces over them where one card cannot.
    """
    layers = [read_yaml(locate(config), QloraConfig)] if config else []
    layers.append(settings)
    given = build(QloraConfig, *layers)
    vram(given)  # a wrong value is said at once, not after torch has been imported
    for library in LIBRARIES:
        console.require(library, "train")
    environment.settle()
    from medmind_train import early_stopping, process_group, qlora

    with process_group.joined(given.device):
        if resume is not None:
            run, manifest = qlora.resume(resume, layers, assume_yes=yes)
        else:
            run, manifest = qlora.start(layers, force=force, assume_yes=yes)
    results = manifest["results"]
    if as_json:
        document = {"run": str(run), "name": manifest["name"], "base": manifest["base"], "data": manifest["data"]}
        console.emit_json({**document, "adapter": manifest["adapter"], "results": results})
        return
    before, after = results["perplexity"]["before"], results["perplexity"]["after"]
    console.out.print(report.headline(results), style="bold")
    console.out.print(
        f"{report.perplexity_line(before)} before, {report.perplexity_line(after)} after "
        f"({after['tokens']:,} answer tokens of {after['rows']:,} held-out rows)"
    )
    for line in [*early_stopping.sentences(results["chosen"]), *report.ending_lines(results)]:
        console.out.print(line)
    console.out.print(
        f"{results['steps']:,} steps in {report.duration(results['seconds']['training'])}, "
        f"{results['tokens_per_s']:,.0f} tokens/s, {console.human_bytes(results['memory']['peak'])} peak"
    )
    console.out.print(f"\nadapter, report and loss curve: {run}\n\nnext:")
    for command, what in report.next_commands(run):
        console.out.print(f"  {command}  # {what}")
