"""The Mistral architecture at a small size: built, fed, measured. Knows tensors; not files or schedules."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from medmind_train.pretrain.config import PretrainConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import MistralForCausalLM


def build_model(config: PretrainConfig, vocab_size: int) -> "MistralForCausalLM":
    """A freshly initialised model in float32; ids 0 to 3 are unk, bos, eos and pad."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(config.seed)
    shape = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.hidden // config.heads,
        max_position_embeddings=config.positions,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        sliding_window=None,
        tie_word_embeddings=config.tie,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        use_cache=False,
    )
    return MistralForCausalLM(shape)


def loss_sums(model: Any, windows: "torch.Tensor", z_loss: float) -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed loss with and without the z-loss term, over `windows` of shape (sequences, context + 1)."""
    import torch
    from torch.nn import functional

    hidden = model.model(input_ids=windows[:, :-1], use_cache=False).last_hidden_state
    logits = (hidden @ model.get_output_embeddings().weight.to(hidden.dtype).T).float().flatten(0, 1)
    nll = functional.cross_entropy(logits, windows[:, 1:].flatten(), reduction="sum")
    penalty = torch.logsumexp(logits, -1).square().sum() * z_loss if z_loss else nll.new_zeros(())
    return nll + penalty, nll.detach()


def training_windows(ids: "NDArray[np.generic]", config: PretrainConfig, start: int) -> "Iterator[NDArray[np.int64]]":
    """Batches of shape (batch, context + 1) from step `start` on, without end.

    Each pass cuts the corpus at another offset and takes its windows in another order; both follow from the seed and
    the pass, so that step n is the same batch in a resumed run.
    """
    import numpy as np

    span = config.context + 1
    per_pass = max(1, (len(ids) - span) // config.context)

    def order(index: int) -> "NDArray[np.int64]":
        generator = np.random.default_rng([config.seed, index])
        slack = len(ids) - span - (per_pass - 1) * config.context
        offset = int(generator.integers(0, min(config.context, slack + 1)))
        return generator.permutation(per_pass) * config.context + offset

    current, starts = -1, np.empty(0, dtype=np.int64)
    position = start * config.batch
    while True:
        rows = []
        for number in range(position, position + config.batch):
            index, place = divmod(number, per_pass)
            if index != current:
                current, starts = index, order(index)
            rows.append(ids[starts[place] : starts[place] + span].astype(np.int64))
        position += config.batch
        yield np.stack(rows)


def bits_per_byte(model: Any, ids: "NDArray[np.generic]", text_bytes: int, config: PretrainConfig) -> float:
    """Bits per UTF-8 byte of the validation part: every id but the first is predicted once, within its window."""
    import numpy as np
    import torch

    device = next(model.parameters()).device
    span = config.context + 1
    starts = range(0, max(1, len(ids) - 1), config.context)
    total = 0.0
    with torch.inference_mode(), autocast(device):
        full = [s for s in starts if s + span <= len(ids)]
        for begin in range(0, len(full), config.micro_batch):
            rows = np.stack([ids[s : s + span].astype(np.int64) for s in full[begin : begin + config.micro_batch]])
            total += float(loss_sums(model, torch.from_numpy(rows).to(device), 0.0)[1])
        for s in starts:
            if s + span > len(ids) and s + 1 < len(ids):
                row = torch.from_numpy(ids[s:].astype(np.int64))[None].to(device)
                total += float(loss_sums(model, row, 0.0)[1])
    return total / math.log(2) / text_bytes


def autocast(device: "torch.device") -> "torch.autocast":
    """bf16 on a card that has it; float32 everywhere else."""
    import torch

    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)
