"""Text to base model: the stages from files to a finished transformers directory.

Knows the order of things; the loop stands in trainer.py, shapes in model.py, ids in tokenfile.py.
"""

import json
import math
import shutil
import statistics
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch

from medmind.artifacts import METRICS, read_json, read_jsonl, require_space, write_json
from medmind.console import human_bytes, note, require
from medmind.errors import MedmindError
from medmind_train.pretrain import tokenfile, validation
from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.model import flops_per_token, release
from medmind_train.pretrain.picture import draw_curve
from medmind_train.pretrain.text import documents, find_files
from medmind_train.pretrain.tokenizer import train_tokenizer, write_transformers_files
from medmind_train.pretrain.trainer import Trainer
from medmind_train.step import matmul

SUMMARY = "pretrain.json"
_WORK = "work"
_TOKEN_FILE_SHARE = 3
"""Compressed text grows to some three times its size as 16-bit ids (measured: 41 MB of xz to 105 MB)."""


def pretrain(
    sources: list[Path], out: Path, config: PretrainConfig, *, tokenizer: Path | None, resume: bool, force: bool
) -> dict[str, Any]:
    """Train a base model on `sources` and leave it in `out`.

    Args:
        sources: text files or directories, see `text.find_files`.
        out: becomes a transformers directory (config.json, model.safetensors, tokenizer.*), with pretrain.json,
            metrics.jsonl and loss.png; the token file and checkpoints lie in `out`/work until it is trained.
        tokenizer: a tokenizer.model to use; None trains one on the text.
        resume: go on from the last checkpoint under `out`.
        force: replace a finished `out`.

    Returns:
        The document that is also written as pretrain.json.

    Raises:
        Interrupted: the time limit or Ctrl-C came first; a checkpoint was written.
    """
    files = find_files(sources)
    work = out / _WORK
    if resume:
        _check_resumable(work, config)
    else:
        _clear(out, force=force)
    require_space(out, _TOKEN_FILE_SHARE * sum(file.stat().st_size for file in files), "the token file")
    work.mkdir(parents=True, exist_ok=True)
    try:
        tokens = _prepare(files, work, config, tokenizer)
    except Exception:
        if not resume:
            shutil.rmtree(out)
        raise
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(config, tokens, work, resume=resume)
    trainer.run()
    return _finish(trainer, work, out)


def _clear(out: Path, *, force: bool) -> None:
    """Make `out` free; what is removed under --force must be this command's own work."""
    ours = (out / _WORK / "config.json").exists() or (out / SUMMARY).exists()
    if out.exists() and not force:
        unfinished = ours and not (out / SUMMARY).exists()
        raise MedmindError(
            f"{out} holds {'an unfinished training' if unfinished else 'something already'}",
            f"give {'--resume to go on, ' if unfinished else ''}--force to replace it, or another --out",
        )
    if out.exists() and not ours and any(out.iterdir()):
        raise MedmindError(f"{out} was not made by medmind-train pretrain", "give another --out")
    shutil.rmtree(out, ignore_errors=True)


def _check_resumable(work: Path, config: PretrainConfig) -> None:
    if not (work / "config.json").exists():
        raise MedmindError(f"{work.parent} holds no unfinished training", "start it without --resume")
    saved, wanted = read_json(work / "config.json"), json.loads(json.dumps(asdict(config)))
    free = {"max_minutes", "eval_every", "checkpoint_every", "compile", "micro_batch"}
    for key, value in wanted.items():
        if key not in free and saved.get(key) != value:
            raise MedmindError(
                f"{work.parent} was started with {key}={saved.get(key)}, not {value}", "resume with the same config"
            )


def _prepare(files: list[Path], work: Path, config: PretrainConfig, tokenizer: Path | None) -> tokenfile.TokenFile:
    """Tokenizer and token file under `work`, made now or found there."""
    write_json(work / "config.json", asdict(config))
    # Refused before the tokenizer is trained; a resumed run has its tokens and does not read the text again.
    cut = None if (work / "tokenizer.model").exists() else tokenfile.border(files, config.validation_share)
    _prepare_tokenizer(files, work, config, tokenizer)
    tokens = tokenfile.build(files, work / "tokenizer.model", work / "tokens", config.validation_share, cut)
    note(
        f"{tokens.documents:,} documents, {tokens.tokens:,} tokens, of which {tokens.validation_tokens:,} "
        f"({tokens.validation_documents:,} documents) are held out"
    )
    training = tokens.tokens - tokens.validation_tokens
    if training <= config.context:
        raise MedmindError(
            f"the training text has {training} tokens, no more than one context of {config.context}",
            "give more text or a smaller --context",
        )
    return tokens


def _prepare_tokenizer(files: list[Path], work: Path, config: PretrainConfig, tokenizer: Path | None) -> None:
    if (work / "tokenizer.model").exists():
        return
    if tokenizer is not None:
        if not tokenizer.is_file():
            raise MedmindError(f"{tokenizer} does not exist", "give a SentencePiece tokenizer.model")
        (work / "tokenizer.model").write_bytes(tokenizer.read_bytes())
        try:
            write_transformers_files(work)
        except RuntimeError as error:
            raise MedmindError(f"{tokenizer} is no SentencePiece model", "give a tokenizer.model") from error
        return
    total = sum(len(text) for text in documents(files))
    stride = max(1, math.ceil(total / (config.tokenizer_megabytes * 1e6)))
    note(f"training a tokenizer of {config.vocab_size} pieces on one document in {stride}")
    train_tokenizer(islice(documents(files), 0, None, stride), config.vocab_size, work)


def _throughput(trainer: Trainer) -> dict[str, Any]:
    """How fast it went: over all, between two lines of the metrics, and as a share of what matrix products reach."""
    config, state, device = trainer.config, trainer.state, trainer.device
    seen = state.step * config.batch * config.context
    lines = read_jsonl(trainer.work / METRICS)
    rates = [
        (late["tokens"] - early["tokens"]) / (late["seconds"] - early["seconds"])
        for early, late in pairwise(lines)
        if late["seconds"] > early["seconds"]
    ]
    usual = statistics.median(rates) if rates else seen / state.seconds
    flops = flops_per_token(trainer.model, state.visible / state.step)
    found = {
        "tokens_seen": seen,
        "seconds": round(state.seconds, 1),
        "tokens_per_second": round(seen / state.seconds),
        "median_tokens_per_second": round(usual),
        "flops_per_token": round(flops),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }
    if device.type == "cuda":
        reached = matmul.rate("cuda", "bfloat16", samples=20, warmup=5, seed=config.seed).flops_per_s
        found |= {"matmul_flops_per_second": round(reached), "share_of_matmul": round(usual * flops / reached, 4)}
    return found


def _finish(trainer: Trainer, work: Path, out: Path) -> dict[str, Any]:
    """Put the finished model, its summary and its curve into `out`; the working files go."""
    disable_progress_bar: Callable[[], None] = require("transformers.utils.logging", "train").disable_progress_bar
    disable_progress_bar()
    with torch.no_grad():  # what is saved is what is measured
        for parameter in trainer.model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    found = validation.measure(trainer.model, trainer.tokens, trainer.config)
    document = {
        "format": "medmind-pretrain/2",
        "config": asdict(trainer.config),
        "parameters": parameters,
        "data": {key: value for key, value in asdict(trainer.tokens).items() if key != "directory"},
        **_throughput(trainer),
        "training_loss": trainer.losses[-1][1],
        "bits_per_byte": found.whole.bits_per_byte,
        "validation": found.to_json(),
        "versions": {name: version(name) for name in ("torch", "transformers", "sentencepiece")},
    }
    model = trainer.model.to(torch.bfloat16)
    release(model)
    model.save_pretrained(work / "model")
    for path in (work / "model").iterdir():
        path.chmod(0o644)
        path.replace(out / path.name)
    (work / "model").rmdir()
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", METRICS):
        (out / name).write_bytes((work / name).read_bytes())
    draw_curve(trainer.losses, trainer.evaluations, out / "loss.png")
    write_json(out / SUMMARY, document)
    shutil.rmtree(work)
    note(f"weights: {human_bytes((out / 'model.safetensors').stat().st_size)}")
    return document
