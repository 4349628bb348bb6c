"""A QLoRA run from its settings to its run directory, new or resumed. Knows the order of things; each lies elsewhere.

The order: what can be refused at once, base and data, model, perplexity before, the run directory, the loop,
perplexity after, and the manifest last.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from medmind import console
from medmind.artifacts import ADAPTER, atomic_directory, require_space
from medmind.base import EMBEDDED_NAME
from medmind.errors import MedmindError
from medmind_train import (
    agreement,
    checkpoint,
    disk_full,
    distributed,
    early_stopping,
    energy,
    evaluate,
    hardware,
    launch,
    memory_full,
    model,
    optimizer,
    outcome,
    rundir,
    samples,
    sharding,
    trackers,
)
from medmind_train.config import build
from medmind_train.distributed import PeerLost
from medmind_train.evaluate import Ends, Perplexity, Room
from medmind_train.examples import Example
from medmind_train.finish import finish
from medmind_train.fused import build as build_fused
from medmind_train.hardware import Hardware
from medmind_train.inputs import Inputs, read
from medmind_train.interrupt import Interrupt
from medmind_train.loop import Trainer
from medmind_train.loss import mixes_packed_rows
from medmind_train.outcome import Outcome
from medmind_train.passes import Passes, ReferencePasses
from medmind_train.plan.estimate import BEST_BYTES_PER_TRAINED, RUN_BYTES_PER_TRAINED
from medmind_train.qlora_config import REFERENCE_BASE, QloraConfig, recipe, vram


def start(layers: Sequence[Mapping[str, Any]], *, force: bool, assume_yes: bool) -> tuple[Path, dict[str, Any]]:
    """Train a new run.

    Args:
        layers: settings by name, the later ones winning.
        force: replace a run of the same name.
        assume_yes: download without asking.

    Returns:
        The run directory and its manifest.

    Raises:
        MedmindError: anything wrong with settings, base, data or place; no directory is left then.
    """
    given = build(QloraConfig, *layers)
    machine = hardware.describe(given.device)
    base = given.base or (REFERENCE_BASE if machine.device == "cuda" else EMBEDDED_NAME)
    config = build(QloraConfig, {"base": base}, recipe(base), *layers)
    _refuse_idle(config)
    run = distributed.of_first(rundir.location(config, base, str(config.data)))
    with agreement.together():
        rundir.refuse_taken(run, force=force)
        trackers.names(config.log_to)
    inputs = _read(config, machine, assume_yes=assume_yes)
    if given.base is None or given.data is None:
        where = machine.name if machine.device == "cuda" else "no CUDA card in use"
        console.note(f"{where}: fine-tuning {config.base} on {config.data}; choose with --base and --data")
    return _train(run, inputs, recorded=None)


def resume(run: Path, layers: Sequence[Mapping[str, Any]], *, assume_yes: bool) -> tuple[Path, dict[str, Any]]:
    """Go on with an unfinished run; settings given along must be those it was started with.

    Raises:
        MedmindError: nothing to resume, what is not medmind's among its checkpoints, or other settings, data or base
            than the run began with.
    """
    with agreement.together():
        recorded = rundir.read_start(run)
        checkpoint.refuse_foreign(run / rundir.CHECKPOINTS, others=[Path(rundir.START).name])
        config = rundir.read_config(run, recorded)
    names = {name for layer in layers for name, value in layer.items() if value is not None}
    given = build(QloraConfig, *layers)
    rundir.refuse_other_config(run, config, given, names)
    free = {name: getattr(given, name) for name in rundir.FREE if name in names}
    config = replace(config, **free)
    trackers.names(config.log_to)
    _refuse_idle(config)
    agreement.by_first(lambda: rundir.remove_leavings(run))
    inputs = _read(config, hardware.describe(config.device), assume_yes=assume_yes)
    rundir.refuse_other_start(run, recorded, inputs.prepared.digest, inputs.base_digest)
    if free:
        agreement.by_first(lambda: rundir.write_config(run, inputs.config))
    return _train(run, inputs, recorded=recorded)


def _refuse_idle(config: QloraConfig) -> None:
    """Raise where the effective batch has not a row for every process."""
    rows, size = config.batch * config.accumulate, distributed.world()[1]
    if size > rows:
        raise MedmindError(
            f"{size} processes cannot share an effective batch of {rows} rows (--batch × --accumulate)",
            f"start at most {rows}, or give a larger --accumulate",
        )
    sharding.refuse(config)


def _read(config: QloraConfig, machine: Hardware, *, assume_yes: bool) -> Inputs:
    """`inputs.read` in the first process, then in the others, which find its downloads and caches."""
    inputs = agreement.after_first(lambda: read(config, machine, assume_yes=assume_yes))
    if distributed.world()[1] == 1:
        return inputs
    hint = "all must see the same files and, by --device and --dtype, compute in the same way"
    for what, value in (
        ("the data they read", inputs.prepared.digest),
        ("the base they read", inputs.base_digest),
        ("how they compute", str(inputs.config)),
    ):
        agreement.same(value, what, hint)
    return inputs


def _train(run: Path, inputs: Inputs, recorded: dict[str, Any] | None) -> tuple[Path, dict[str, Any]]:
    config, device = inputs.config, inputs.hardware.device
    began = time.monotonic()
    scaler = torch.amp.GradScaler(device, enabled=inputs.dtype == "float16")

    def begun() -> bool:
        return recorded is not None

    with _failures(run, inputs, begun), agreement.together():
        tuned, passes = _model(inputs, scaler)
        trained = sum(parameter.numel() for parameter in model.trainable(tuned))
        need = RUN_BYTES_PER_TRAINED + (BEST_BYTES_PER_TRAINED if config.keep == "best" else 0)
        require_space(run.parent, trained * need, "the run with its checkpoints")
    checkpoint.part_rng(config.seed)
    loading = time.monotonic() - began
    seconds = 0.0

    room = Room(config.batch * config.context)
    ask = agreement.by_all if passes.lockstep else agreement.by_first

    def measure(
        description: str, examples: Sequence[Example], progress: console.Progress = console.progress
    ) -> tuple[Perplexity, Ends]:
        nonlocal seconds
        began = time.monotonic()
        measured = evaluate.measure(
            passes, examples, pad=inputs.pad, room=room, description=description, progress=progress
        )
        seconds += time.monotonic() - began
        return measured

    with Interrupt() as interrupt, _failures(run, inputs, begun):
        if recorded is None:
            before, ends = measure("held-out perplexity before", inputs.evaluated)
            asking = time.monotonic()
            said = ask(lambda: samples.answer(tuned, inputs))
            spent, seconds = seconds + time.monotonic() - asking, 0.0

            def begin() -> dict[str, Any]:
                record = outcome.start_record(inputs, before, ends, said, loading=loading, evaluation=spent)
                rundir.create(run, config, inputs.prepared, record)
                return record

            recorded = agreement.by_first(begin)
        before = Perplexity(**recorded["perplexity"])
        console.note(f"held-out perplexity before: {before} ({before.tokens:,} tokens of {before.rows:,} rows)")
        groups = optimizer.groups(
            passes.named_parameters(), weight_decay=config.weight_decay, lora_plus=config.lora_plus
        )
        trainer = Trainer(
            tuned,
            passes,
            optimizer.make(config.optimizer, groups, lr=config.lr, weight_decay=config.weight_decay),
            scaler,
            inputs.train.examples,
            config,
            run=run,
            pad=inputs.pad,
            device=device,
            evaluate=lambda progress: measure("validation loss", inputs.validation, progress)[0],
            room=room,
        )
        if reached := trainer.resume():
            console.note(f"going on after step {reached} of {trainer.order.total}")
        with energy.metered(run, device):
            position = trainer.run(interrupt)
        chosen = early_stopping.chosen(trainer.stopping, config, position.step, trainer.order.total)
        trainer.take_best()
        after, ends = measure("held-out perplexity after", inputs.evaluated)
        _, peak = distributed.extremes(max(position.peak_memory, hardware.peak_memory(device)))

        asking = time.monotonic()
        stopping = ask(lambda: outcome.stopping(tuned, inputs))
        tells = ask(lambda: samples.answer(tuned, inputs)) if recorded["samples"] else []
        seconds += time.monotonic() - asking

        def end() -> dict[str, Any]:
            with atomic_directory(run / ADAPTER) as partial:
                model.save_adapter(tuned, partial)
            came = Outcome(position, chosen, after, ends, trained, trainer.micro.rows, peak, seconds)
            results = outcome.results(run, inputs, recorded, came, stopping=stopping, said=tells)
            return finish(run, config, recorded, results)

        return run, agreement.by_first(end)


@contextmanager
def _failures(run: Path, inputs: Inputs, begun: Callable[[], bool]) -> Iterator[None]:
    """What can stop a run from outside, each said with the way on.

    Args:
        begun: whether this run's own record is written: under `--force`, what lies there before is another run.
    """
    way = launch.resume_command(run)

    def smaller() -> str:
        if begun():
            return f"close what else uses it and go on with: {way} - or start again with a smaller --context"
        return "give a smaller --batch (and a larger --accumulate) or a smaller --context"

    try:
        with memory_full.said(inputs.hardware.name, smaller), disk_full.said(run, begun):
            yield
    except PeerLost as error:
        said = "its own lines, or the launcher's, say why"
        raise MedmindError(
            "another process of this run has ended", f"{said}; go on with: {way}" if begun() else said
        ) from error
    except KeyboardInterrupt:
        if begun():
            console.note(f"interrupted; go on with: {way}")
        raise


def _model(inputs: Inputs, scaler: Any) -> tuple[Any, Passes]:
    """The base with its adapter, and what computes its passes."""
    config, device = inputs.config, inputs.hardware.device
    config = replace(config, batch=distributed.rows_a_pass(config.batch, config.accumulate))
    if config.kernels == "fused":
        room = vram(config)
        placement = build_fused.placement_of(inputs.base, config, inputs.hardware, inputs.dtype)
        if room is not None and device == "cuda":
            build_fused.hold(room)
        return build_fused.build(inputs.base, config, device=device, dtype=inputs.dtype, placement=placement)
    tuned = model.add_adapter(
        model.load_base(inputs.base, device, inputs.dtype, sharded=config.shard),
        inputs.base,
        targets=config.targets,
        rank=config.rank,
        alpha=config.alpha,
        dropout=config.dropout,
        rslora=config.rslora,
        dora=config.dora,
        rank_pattern=config.rank_pattern,
        alpha_pattern=config.alpha_pattern,
        checkpointing=bool(config.gradient_checkpointing),
        seed=config.seed,
    )
    if config.shard:
        tuned = sharding.shard(tuned, device)
    if config.packing and mixes_packed_rows(tuned, device, len(inputs.tokenizer)):
        raise MedmindError(f"{inputs.base.name} does not keep the examples of a packed row apart", "give --no-packing")
    return tuned, ReferencePasses(tuned, device=device, dtype=inputs.dtype, scaler=scaler, lockstep=config.shard)
