"""Scores one stage of a run: log-likelihoods of held-out tokens, and their divergence from the trained model.

Knows the order of things; models are loaded by `stages`, runs and tokens found by `runs`. Holds a few rows of
log-probabilities at a time: what the trained model says of every token lies in a mapped file.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from medmind import console
from medmind.artifacts import atomic_file, refuse_existing, require_space
from medmind.errors import MedmindError
from medmind_train import finish, hardware, memory_full
from medmind_train.examples import Example
from medmind_train.hardware import Device, Dtype, Hardware
from medmind_train.model import precision
from medmind_train.score import runs, stages, tokens
from medmind_train.score.config import ScoreConfig
from medmind_train.score.document import SCHEMA, Divergence, RowScore, ScoreDocument, Stage
from medmind_train.score.runs import Run
from medmind_train.score.tokens import Tokens

_CELLS = 1 << 22
"""Log-probabilities in work at a time: 32 MiB in float64, whatever the vocabulary."""

Rows = NDArray[np.float32]


def run(name: str, config: ScoreConfig) -> ScoreDocument:
    """Score a stage of the run called `name`.

    Raises:
        MedmindError: no such run, rows or memory; a file of log-probabilities of another run or that does not fit its
            tokens; a model that gives no numbers.
    """
    machine = hardware.describe(config.device)
    found = runs.find(name, config.base)
    stage = cast(Stage, config.stage)
    against: Rows | None = None
    if config.against:
        scored = tokens.read(tokens.beside(Path(config.against)))
        against = _open(Path(config.against), scored, found)
    else:
        scored = runs.held_out(found, config)
    target = Path(config.write) if config.write else None
    if target:
        refuse_existing(target, force=False)
        require_space(
            target.parent,
            scored.count * scored.vocabulary * 4,
            f"the log-probabilities of {scored.count:,} tokens",
            "free some disk space, or score fewer --tokens",
        )
    dtype = _dtype(stage, found, machine, config.dtype)
    with memory_full.said(machine.name, lambda: "give --dtype bfloat16, or --device cpu"):
        model, weights = stages.load(stage, found.base, found.adapter, machine.device, dtype)
        began = time.monotonic()
        scorer = _Scorer(model, stage, machine.device, dtype)
        if target:
            with atomic_file(target) as partial, _created(partial, scored) as file:
                scorer.go(scored, write=file)
            tokens.write(scored, tokens.beside(target))
        else:
            scorer.go(scored, against=against)
    return ScoreDocument(
        schema=SCHEMA,
        stage=stage,
        run=found.name,
        base=found.base.name,
        adapter=found.adapter_digest,
        weights=weights,
        device=machine.name,
        dtype=dtype,
        vocabulary=scored.vocabulary,
        tokens=scored.count,
        token_digest=scored.digest,
        left_out=scored.left_out,
        rows=scorer.rows(),
        divergence=scorer.divergence(),
        file=str(target) if target else None,
        seconds=round(time.monotonic() - began, 3),
        versions=finish.versions(),
    )


def _dtype(stage: Stage, run: Run, machine: Hardware, wanted: str) -> Dtype:
    """What is computed in: as given; else fp32, or where the run can compute as it was trained, what it trained in."""
    if wanted == "auto":
        trained = str((run.manifest.get("config") or {}).get("dtype", "auto"))
        if stage != "adapter" or machine.device == "cpu":
            return "float32"
        return hardware.compute_dtype(machine, trained)
    return hardware.compute_dtype(machine, wanted)


@contextmanager
def _created(path: Path, scored: Tokens) -> Iterator[Rows]:
    create: Any = np.lib.format.open_memmap  # it has no annotations
    file: Any = create(path, mode="w+", dtype=np.float32, shape=(scored.count, scored.vocabulary))
    yield file
    file.flush()


def _open(path: Path, scored: Tokens, run: Run) -> Rows:
    """The file of log-probabilities, mapped; it must be of this run's adapter and of these tokens."""
    if scored.adapter != run.adapter_digest:
        raise MedmindError(f"{path} was written by another adapter than that of {run.folder}", "write it anew")
    try:
        file: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MedmindError(f"{path} cannot be read: {error}", "write it anew") from error
    if file.shape != (scored.count, scored.vocabulary) or file.dtype != np.float32:
        raise MedmindError(
            f"{path} holds {'×'.join(map(str, file.shape))} {file.dtype}, "
            f"its tokens want {scored.count}×{scored.vocabulary} float32",
            "write it anew",
        )
    return file


class _Scorer:
    """A model, and what it made of the tokens so far."""

    def __init__(self, model: Any, stage: Stage, device: Device, dtype: Dtype) -> None:
        self._model = model
        self._stage = stage
        self._device: Device = device
        self._dtype: Dtype = dtype
        self._kl: list[NDArray[np.float64]] = []
        self._found: dict[str, list[RowScore]] = {}

    def go(self, scored: Tokens, *, write: Rows | None = None, against: Rows | None = None) -> None:
        """Score every example, in order."""
        at = 0
        with console.progress(f"{self._stage}: held-out tokens", scored.count, "tokens") as advance, torch.no_grad():
            for example in scored.examples:
                count = len(example.ids) - example.answer
                part = slice(at, at + count)
                score = self._example(
                    example, None if write is None else write[part], None if against is None else against[part]
                )
                self._found.setdefault(example.row, []).append(score)
                at += count
                advance(count)

    def rows(self) -> tuple[RowScore, ...]:
        """One record a row; the turns of a conversation summed."""

        def total(parts: list[RowScore], name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if None in values else sum(values)

        return tuple(
            RowScore(row, *(total(parts, name) for name in ("tokens", "nll", "kl", "same_top")))
            for row, parts in self._found.items()
        )

    def divergence(self) -> Divergence | None:
        """Of single tokens; None where there was nothing to compare with."""
        if not self._kl:
            return None
        kl = np.concatenate(self._kl)
        return Divergence(float(np.quantile(kl, 0.5)), float(np.quantile(kl, 0.99)), float(kl.max()))

    def _example(self, example: Example, write: Rows | None, against: Rows | None) -> RowScore:
        ids = torch.tensor([example.ids], device=self._device)
        targets = ids[0, example.answer :]
        with precision(self._device, self._dtype):
            # the logits of the last prompt token foretell the answer's first; those of the last token, nothing
            logits = self._model(input_ids=ids, logits_to_keep=len(targets) + 1, use_cache=False).logits[0, :-1]
        nll, kl, same = 0.0, 0.0, 0
        step = max(1, _CELLS // logits.shape[1])
        for begin in range(0, len(targets), step):
            part = slice(begin, begin + step)
            found = torch.log_softmax(logits[part].double(), dim=-1)
            nll -= float(found.gather(1, targets[part, None]).sum())
            if write is not None:
                write[part] = found.float().cpu().numpy()
            if against is not None:
                trained = torch.from_numpy(np.array(against[part])).to(self._device).double()
                tokenwise = (trained.exp() * (trained - found)).sum(dim=-1)
                same += int((trained.argmax(dim=-1) == found.argmax(dim=-1)).sum())
                self._kl.append(tokenwise.cpu().numpy())
                kl += float(tokenwise.sum())
        if not math.isfinite(nll):
            raise MedmindError(f"the model gives the row {example.row} a likelihood of {-nll}", "try --dtype float32")
        none = against is None
        return RowScore(example.row, len(targets), nll, None if none else kl, None if none else same)
