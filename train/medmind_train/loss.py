"""Negative log-likelihood of the supervised tokens, and of nothing else. Knows models and batches; not what for."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from medmind_train.batches import Batch

_CHUNK = 512
"""Positions that go through the head at once: a 7B's logits for a whole batch would be its largest tensor."""


@dataclass(frozen=True)
class Scores:
    """What a model thinks of the supervised tokens of a batch, in batch order.

    Attributes:
        nll: `[n]` fp32 natural-log losses.
        owners: `[n]` int64, the examples they belong to.
        first: `[n]` bool, whether the token is the likeliest one; None where it was not asked for.
    """

    nll: torch.Tensor
    owners: torch.Tensor
    first: torch.Tensor | None = None


def answer_scores(model: Any, batch: Batch, *, likeliest: bool = False) -> Scores:
    """Score every supervised token; only the positions that predict one go through the head.

    Args:
        model: a causal language model of transformers, or a PEFT model around one.
        likeliest: find `Scores.first` as well.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(input_ids=batch.ids, position_ids=batch.positions, use_cache=False).last_hidden_state
    predicting = batch.supervised[:, 1:]
    states = hidden[:, :-1][predicting]
    targets = batch.ids[:, 1:][predicting]
    owners = batch.owners[:, 1:][predicting]
    head = causal.get_output_embeddings()

    def chunk_nll(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(states).float(), targets, reduction="none")

    chunks = [hidden.new_zeros(0, dtype=torch.float32)]
    firsts = [targets.new_zeros(0, dtype=torch.bool)]
    for at in range(0, len(targets), _CHUNK):
        part, wanted = states[at : at + _CHUNK], targets[at : at + _CHUNK]
        if likeliest:
            logits = head(part).float()
            chunks.append(cross_entropy(logits, wanted, reduction="none"))
            firsts.append(logits.argmax(-1) == wanted)
        elif torch.is_grad_enabled() and len(targets) > _CHUNK:
            chunks.append(checkpoint(chunk_nll, part, wanted, use_reentrant=False, preserve_rng_state=False))
        else:
            chunks.append(chunk_nll(part, wanted))
    return Scores(torch.cat(chunks), owners, torch.cat(firsts) if likeliest else None)


def answer_nll(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Natural-log loss of every supervised token.

    Returns:
        `[n]` fp32 losses in batch order, and `[n]` int64 indices of the examples they belong to.
    """
    scores = answer_scores(model, batch)
    return scores.nll, scores.owners


def mixes_packed_rows(model: Any, device: str, vocabulary: int) -> bool:
    """Whether a packed example's states depend on the examples before it in its row, as no architecture's should.

    Asked of the model itself: that restarted positions keep examples apart is a convention of transformers, and a
    model that does not follow it would be trained on the wrong thing without a word.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    first = torch.tensor([[3, 5, 7, 11, 13, 17, 19, 23]], device=device) % vocabulary
    other = torch.cat([(first[:, :4] + 1) % vocabulary, first[:, 4:]], dim=1)
    positions = torch.arange(4, device=device).repeat(1, 2)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            one, two = (
                causal.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state[:, 4:]
                for ids in (first, other)
            )
    finally:
        model.train(training)
    return not torch.equal(one, two)
