"""Coarse estimates for what medmind did not write: transformers, PEFT and bitsandbytes, and full fine-tuning.

Knows how many tensors a layer of such a model leaves, found by fitting measured peaks (tests/train/test_plan.py has
them): good to 10 %, where `fused.budget` lists every tensor.
"""

from dataclasses import dataclass

from medmind_train.fused.budget import Budget
from medmind_train.fused.lifetimes import CHUNK, OPTIMIZER_BYTES, Live, Step, nf4_bytes

# Tensors as wide as the MLP and as the hidden state that are alive at the fullest moment of a layer's backward pass.
_PLAIN, _LIGER = (6, 9), (4, 3)
_UPCAST_PER_ADAPTER = 2.2
"""Tensors as wide as an adapted layer's input and output together, where the hidden state is fp32."""
_LOGITS = 2 + 4 + 4 + 4 + 2
"""Bytes of a logit: 16 bits, fp32, its log-softmax, and the gradients of both kinds."""


@dataclass(frozen=True)
class Recipe:
    """How a QLoRA or LoRA step of transformers and PEFT is set up; the defaults are medmind's reference path.

    Attributes:
        nf4: linear layers in NF4, else in the compute type.
        upcast: norms, embedding, head and so the hidden state in fp32 (PEFT's `prepare_model_for_kbit_training`).
        whole_logits: the head over all tokens at once, else chunk by chunk.
        liger: Liger's fused norms, MLP and loss.
        autocast: the adapters multiply in the compute type; else PEFT casts their inputs to fp32.
        checkpointing: layers are computed again in the backward pass.
        accumulates: gradients stay from one forward pass to the next.
        paged: the optimizer's state is in managed memory, beside torch's.
    """

    nf4: bool = True
    upcast: bool = False
    whole_logits: bool = False
    liger: bool = False
    autocast: bool = True
    checkpointing: bool = True
    accumulates: bool = True
    paged: bool = False


def lora(step: Step, recipe: Recipe) -> Budget:
    """The peak of a LoRA step of PEFT; an estimate."""
    shape, element = step.shape, step.element
    wide = 4 if recipe.upcast else element
    table = shape.vocabulary * shape.hidden * wide
    norms = (2 * shape.layers + 1) * shape.hidden * wide
    linears = sum(
        nf4_bytes(rows * columns) if recipe.nf4 else rows * columns * element
        for rows, columns in shape.linears.values()
    )
    # Without checkpointing the tensors of all layers are there when the head is reached.
    layers = {"activations": (1 if recipe.checkpointing else shape.layers) * _layer(step, recipe)}
    always: Live = {
        "base": shape.layers * linears,
        "embedding, head and norms": table * (1 if shape.tied else 2) + norms,
        "adapter": 4 * step.trained,
        "optimizer state": 0 if recipe.paged else round(OPTIMIZER_BYTES[step.optimizer] * step.trained),
        "cuBLAS workspace": step.workspace,
    }
    gradients = {"adapter gradients": 4 * step.trained}
    held = gradients if recipe.accumulates else {}
    saved = {"kept activations": shape.layers * step.tokens * shape.hidden * wide if recipe.checkpointing else 0}
    in_head = step.tokens if recipe.whole_logits and not recipe.liger else min(CHUNK, step.tokens)
    through = always | held | saved
    phases = {
        "head": through | {"logits": in_head * shape.vocabulary * _LOGITS} | ({} if recipe.checkpointing else layers),
        "backward": through | layers | {"dequantized weight": _largest(step) if recipe.nf4 else 0},
        "update": always | gradients,
    }
    return Budget(phases, {})


def full(step: Step) -> Budget:
    """The peak of full fine-tuning in pure bf16 with AdamW and checkpointing; an estimate."""
    shape = step.shape
    weights = shape.parameters * step.element
    always: Live = {"weights": weights, "AdamW's moments": 2 * weights, "cuBLAS workspace": step.workspace}
    saved = {"kept activations": shape.layers * step.rows(shape.hidden)}
    phases = {
        "head": always | saved | {"logits": step.tokens * shape.vocabulary * _LOGITS},
        "backward": always | saved | {"activations": _layer(step, Recipe(nf4=False))},
        "update": always | {"gradients": weights},
    }
    return Budget(phases, {})


def _layer(step: Step, recipe: Recipe) -> int:
    """Bytes of the activations of one layer in its backward pass."""
    shape = step.shape
    of_mlp, of_hidden = _LIGER if recipe.liger else _PLAIN
    size = (of_mlp * shape.ffn + of_hidden * shape.hidden) * (4 if recipe.upcast else step.element)
    adapted = [shape.linears[name] for name, rank in step.layer_ranks[-1].items() if rank]
    if recipe.upcast:
        return round(step.tokens * (size + 4 * _UPCAST_PER_ADAPTER * sum(map(sum, adapted))))
    copies = 0 if recipe.autocast else 4 * sum(inputs for _, inputs in adapted)
    return step.tokens * (size + copies)


def _largest(step: Step) -> int:
    """Bytes of the largest linear layer, dequantized."""
    return max(rows * columns for rows, columns in step.shape.linears.values()) * step.element
