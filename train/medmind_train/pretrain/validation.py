"""How well held-out documents are predicted: bits per byte, over all and by source. Knows tensors and counts."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.model import BOS, autocast, token_losses
from medmind_train.pretrain.tokenfile import TokenFile
from medmind_train.pretrain.windows import document_windows

_ROWS = 16
"""Contexts scored at once: without compilation their logits are whole and in float32."""


@dataclass(frozen=True)
class Part:
    """Some held-out documents.

    Attributes:
        bits_per_byte: of the model, over UTF-8 bytes; `</s>` is predicted too, `<s>` is given.
    """

    documents: int
    bytes: int
    bits_per_byte: float


@dataclass(frozen=True)
class Validation:
    """All held-out documents, and those of each source where the text names sources."""

    whole: Part
    sources: Mapping[str, Part]

    def to_json(self) -> dict[str, Any]:
        """As pretrain.json has it."""
        return {"whole": asdict(self.whole), "sources": {name: asdict(part) for name, part in self.sources.items()}}


def measure(model: Any, tokens: TokenFile, config: PretrainConfig) -> Validation:
    """Score every held-out document from its beginning; pieces of `config.context` tokens where it is longer."""
    import numpy as np
    import torch

    device = next(model.parameters()).device
    held = tokens.validation()
    nats = np.zeros(len(held.bytes))
    size = min(config.micro_batch, _ROWS) * config.context
    with torch.inference_mode(), autocast(device):
        for batch, owners in document_windows(tokens.part("validation"), context=config.context, tokens=size, bos=BOS):
            there = batch.to(device)
            nll, _ = token_losses(model, there.ids, there.targets, there.positions, there.bounds, config.context)
            known = owners >= 0
            nats += np.bincount(owners[known], nll.double().cpu().numpy()[known], minlength=len(nats))
    names = np.array(held.sources)
    every = np.ones(len(nats), dtype=bool)

    def part(chosen: Any) -> Part:
        size = int(np.array(held.bytes)[chosen].sum())
        return Part(int(chosen.sum()), size, float(nats[chosen].sum()) / math.log(2) / size)

    return Validation(part(every), {name: part(names == name) for name in sorted(set(held.sources)) if name})
