"""What a run reads before any model is loaded: base, data, tokenizer, encoded rows, settings by hardware.

Knows what can be refused early, and in which order; nothing of training.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmind import base as bases
from medmind import console, hub
from medmind.base import Base
from medmind.errors import MedmindError
from medmind_train import early_stopping, encoding, hardware, lora, optimizer, prepared_cache, token_cache
from medmind_train.data import Prepared, Row
from medmind_train.data_order import DataOrder
from medmind_train.encoding import Encoded
from medmind_train.evaluate import choose_rows
from medmind_train.examples import Example
from medmind_train.hardware import Dtype, Hardware
from medmind_train.plan import base_config, estimate
from medmind_train.qlora_config import QloraConfig


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads.

    Attributes:
        config: every setting decided, none left to `auto`.
        dtype: the compute type.
        base_digest: fingerprint of the base.
        tokenizer: the base's, with its chat template.
        train, heldout: the encoded rows of each side.
        evaluated: the held-out examples that perplexity is measured on, before and after.
        validation: the examples that choices while training are made by; empty where none are made.
        seconds: what reading all this took.
    """

    config: QloraConfig
    hardware: Hardware
    dtype: Dtype
    base: Base
    base_digest: str
    prepared: Prepared
    tokenizer: Any
    train: Encoded
    heldout: Encoded
    evaluated: list[Example]
    validation: list[Example]
    seconds: float

    @property
    def pad(self) -> int:
        """The id that fills up batches; any will do, as masks are by position."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)


def read(config: QloraConfig, machine: Hardware, *, assume_yes: bool) -> Inputs:
    """Find base and data, and encode the rows.

    Raises:
        MedmindError: no such base or data, or nothing left to train or to evaluate on.
    """
    began = time.monotonic()
    if machine.device == "cuda" and not config.shard:
        _refuse_too_large(config, machine)
    base, prepared = _find(config, assume_yes=assume_yes)
    positions = bases.check(base.path).get("max_position_embeddings")
    if isinstance(positions, int) and config.context > positions:
        raise MedmindError(
            f"--context {config.context} is longer than the {positions} positions of {base.name}",
            f"give at most --context {positions}",
        )
    tokenizer = encoding.load_tokenizer(base.path, base.name)
    train, heldout = (
        _encode(side, tokenizer, base, rows, prepared.digest, config)
        for side, rows in (("training", prepared.train), ("held-out", prepared.heldout))
    )
    dtype = hardware.compute_dtype(machine, config.dtype)
    on_card = machine.device == "cuda"
    config = replace(
        config,
        kernels=_kernels(base, config, machine, dtype),
        device=machine.device,
        dtype=dtype,
        optimizer=optimizer.choose(config.optimizer, machine.device),
        gradient_checkpointing=on_card if config.gradient_checkpointing is None else config.gradient_checkpointing,
        packing=on_card if config.packing is None else config.packing,
    )
    config = early_stopping.settle(config, DataOrder(train.examples, config).total)
    return Inputs(
        config=config,
        hardware=machine,
        dtype=dtype,
        base=base,
        base_digest=bases.fingerprint(base.path),
        prepared=prepared,
        tokenizer=tokenizer,
        train=train,
        heldout=heldout,
        evaluated=choose_rows(heldout.examples, [row.id for row in prepared.heldout], config.eval_rows),
        validation=_validation(tokenizer, base, prepared, config),
        seconds=time.monotonic() - began,
    )


def _refuse_too_large(config: QloraConfig, machine: Hardware) -> None:
    """Refuse what the card cannot hold, by the base's config.json alone: before any download, and before the data."""
    from medmind_train.fused import build

    sizes = base_config.read(str(config.base), config.revision)
    decided = replace(config, dtype=hardware.compute_dtype(machine, config.dtype))
    fused = not (estimate.refusal(decided, sizes) or build.lacking(machine))
    estimate.check(decided, sizes, build.free(), fused=fused, hopper=machine.hopper)


def _validation(tokenizer: Any, base: Base, prepared: Prepared, config: QloraConfig) -> list[Example]:
    if not config.eval_every:
        return []
    if not prepared.validation:
        raise MedmindError(
            f"there is no validation row in {prepared.where} to evaluate on while training",
            f"set more than {config.validation_share:g} of the rows apart: --validation-share 0.1",
        )
    encoded = _encode("validation", tokenizer, base, prepared.validation, prepared.digest, config)
    return choose_rows(encoded.examples, [row.id for row in prepared.validation], config.eval_rows)


def _kernels(base: Base, config: QloraConfig, machine: Hardware, dtype: Dtype) -> str:
    """Who computes the steps; where that is not what one would expect, why is said."""
    from medmind_train.fused import build

    if config.kernels == "reference" or (config.kernels == "auto" and machine.device == "cpu"):
        return "reference"
    if not (why := build.refusal(base, config, machine, dtype)):
        return "fused"
    if config.kernels == "fused":
        raise MedmindError(f"the fused step cannot do this: {why}", "give --kernels reference")
    console.note(f"training by transformers and PEFT, not by the fused step: {why}")
    return "reference"


def _find(config: QloraConfig, *, assume_yes: bool) -> tuple[Base, Prepared]:
    """What is cheap to refuse comes first: a directory's faults before the data, the data's before a download."""
    name = str(config.base)

    def resolve() -> Base:
        def fetch(repo_id: str, revision: str | None) -> tuple[Any, str]:
            return hub.fetch_model(repo_id, revision, assume_yes=assume_yes)

        base = bases.resolve(name, revision=config.revision, fetch=fetch)
        lora.check(base, config.targets, config.rank_pattern, config.alpha_pattern)
        return base

    def read_data() -> Prepared:
        recorded = Path(config.recorded) if config.recorded else ()
        return prepared_cache.prepare(
            str(config.data),
            heldout_share=config.heldout_share,
            validation_share=config.validation_share,
            limit=config.limit,
            recorded=recorded,
        )

    if bases.looks_like_hub_id(name):
        prepared = read_data()
        return resolve(), prepared
    return resolve(), read_data()


def _encode(side: str, tokenizer: Any, base: Base, rows: Sequence[Row], digest: str, config: QloraConfig) -> Encoded:
    """Encode one side; what is cut or dropped is said, nothing left is an error."""
    context = config.context
    encoded = token_cache.encode(tokenizer, base.path, rows, f"{side} {digest}", context=context, system=config.system)
    why = (
        f"{len(encoded.too_long):,} prompts leave no room in {context:,} tokens, "
        f"{len(encoded.control):,} rows spell out control tokens"
    )
    if not encoded.examples:
        hint = "give a longer --context" if encoded.too_long else "look at the data with: medmind-train data"
        raise MedmindError(f"no {side} example is left: {why}", hint)
    if encoded.cut:
        console.note(
            f"{side}: {encoded.cut:,} of {len(encoded.examples):,} answers are cut at {context:,} tokens (--context)"
        )
    if encoded.too_long or encoded.control:
        console.note(f"{side}: {len(encoded.too_long) + len(encoded.control):,} dropped ({why})")
    return encoded
