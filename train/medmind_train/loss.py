"""Negative log-likelihood of the supervised tokens, and of nothing else. Knows models and batches; not what for."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from medmind_train.batches import Batch

_CHUNK = 512
"""Positions that go through the head at once: a 7B's logits for a whole batch would be its largest tensor."""


def answer_nll(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Natural-log loss of every supervised token.

    Only the positions that predict a supervised token go through the head.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.

    Returns:
        `[n]` fp32 losses in batch order, and `[n]` int64 indices of the examples they belong to.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(
        input_ids=batch.ids, attention_mask=batch.attention, use_cache=False
    ).last_hidden_state
    predicting = batch.supervised[:, 1:]
    states = hidden[:, :-1][predicting]
    targets = batch.ids[:, 1:][predicting]
    examples = predicting.nonzero()[:, 0]
    head = causal.get_output_embeddings()

    def chunk_nll(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(states).float(), targets, reduction="none")

    chunks = []
    for at in range(0, len(targets), _CHUNK):
        part, wanted = states[at : at + _CHUNK], targets[at : at + _CHUNK]
        if torch.is_grad_enabled() and len(targets) > _CHUNK:
            chunks.append(checkpoint(chunk_nll, part, wanted, use_reentrant=False, preserve_rng_state=False))
        else:
            chunks.append(chunk_nll(part, wanted))
    return torch.cat(chunks) if chunks else hidden.new_zeros(0, dtype=torch.float32), examples
