"""The Mistral architecture at a small size: built, and scored token by token. Knows tensors; no files, no schedules."""

from typing import TYPE_CHECKING, Any

from medmind_train.pretrain.config import PretrainConfig
from medmind_train.pretrain.windows import IGNORED

if TYPE_CHECKING:
    import torch
    from transformers import MistralForCausalLM

BOS = 1
"""Ids 0 to 3 are unk, bos, eos and pad, as `tokenizer.train_tokenizer` sets them."""
_ATTENTION = "medmind_documents"
_USUAL_ATTENTION = "sdpa"


def build_model(config: PretrainConfig, vocab_size: int) -> "MistralForCausalLM":
    """A freshly initialised model in float32, whose attention takes the borders of documents."""
    import torch
    from transformers import AttentionInterface, MistralConfig, MistralForCausalLM

    AttentionInterface.register(_ATTENTION, _attend)
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
        bos_token_id=BOS,
        eos_token_id=2,
        pad_token_id=3,
        use_cache=False,
    )
    model = MistralForCausalLM(shape)
    model.set_attn_implementation(_ATTENTION)
    return model


def release(model: "MistralForCausalLM") -> None:
    """Make it an ordinary model of transformers again, to be saved."""
    model.set_attn_implementation(_USUAL_ATTENTION)
    model.config.use_cache = True


def _attend(
    module: Any,
    query: "torch.Tensor",
    key: "torch.Tensor",
    value: "torch.Tensor",
    attention_mask: Any,
    *,
    bounds: "torch.Tensor",
    longest: int,
    **unused: Any,
) -> "tuple[torch.Tensor, None]":
    """Attention within documents, by transformers' interface.

    Args:
        query: `[1, heads, tokens, head_dim]`; `key` and `value` with their own number of heads.
        bounds, longest: as `fused.attention.Documents` has them.

    Returns:
        `[1, tokens, heads, head_dim]`.
    """
    from medmind_train.fused import attention

    # Under autocast the rotary embedding leaves queries and keys in fp32, for which there is no flash attention.
    q, k, v = (one[0].transpose(0, 1).to(value.dtype) for one in (query, key, value))
    return attention.forward(q, k, v, attention.Documents(bounds, longest), None).out[None], None


def token_losses(
    model: Any,
    ids: "torch.Tensor",
    targets: "torch.Tensor",
    positions: "torch.Tensor",
    bounds: "torch.Tensor",
    longest: int,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """What each position's prediction costs.

    Args:
        ids, targets, positions, bounds: see `windows.Windows`.
        longest: no document has more tokens than this.

    Returns:
        Nats of the target and the logarithm of the softmax's normaliser, `[tokens]` float32 each, 0 where the target is
        `IGNORED`.
    """
    import torch

    embedded = model.model.embed_tokens(ids[None])
    if torch.is_autocast_enabled(ids.device.type):  # else the sums between the layers stay in fp32, and cost its bytes
        embedded = embedded.to(torch.get_autocast_dtype(ids.device.type))
    hidden = model.model(
        inputs_embeds=embedded,
        position_ids=positions[None],
        use_cache=False,
        bounds=bounds,
        longest=longest,
    ).last_hidden_state[0]
    logits = (hidden @ model.get_output_embeddings().weight.to(hidden.dtype).T).float()
    normaliser = torch.logsumexp(logits, -1)
    counts = targets != IGNORED
    picked = logits.gather(-1, targets.clamp(min=0)[:, None])[:, 0]
    return (normaliser - picked) * counts, normaliser * counts


def loss_sums(
    model: Any,
    ids: "torch.Tensor",
    targets: "torch.Tensor",
    positions: "torch.Tensor",
    bounds: "torch.Tensor",
    longest: int,
    z_loss: float,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Summed loss with and without the z-loss term (PaLM, arXiv:2204.02311), over the targets that count."""
    nll, normaliser = token_losses(model, ids, targets, positions, bounds, longest)
    return nll.sum() + z_loss * normaliser.square().sum(), nll.detach().sum()


def flops_per_token(model: Any, visible: float) -> float:
    """Arithmetic of forward and backward, without recomputation (PaLM, arXiv:2204.02311, appendix B).

    Args:
        visible: tokens that a position sees on average.

    Returns:
        6 FLOP for each weight of a matrix product, the head among them, and 12 for each width of a head and token seen.
    """
    head = model.get_output_embeddings().weight
    matrices = sum(p.numel() for p in model.model.layers.parameters() if p.ndim == 2) + head.numel()
    shape = model.config
    return float(6 * matrices + 12 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * visible)


def autocast(device: "torch.device") -> "torch.autocast":
    """bf16 on a card that has it; float32 everywhere else."""
    import torch

    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)
