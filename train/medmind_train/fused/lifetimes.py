"""Which tensors a fused training step holds, of how many bytes and in which phase: one function a phase lists them.

Knows sizes and lifetimes as `layer`, `step`, `head` and `parking` have them; adds nothing up and chooses nothing. A
phase has several moments where what is full in one is gone in the next. Knows no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from medmind_train.fused.placement import Keep, Placement
from medmind_train.fused.shape import BLOCK, BLOCK2, GROUPS, Shape, padded

Ranks = Mapping[str, int] | Sequence[Mapping[str, int]]
"""LoRA rank by short name of a linear layer, 0 or absent: no adapter; one mapping for all layers, or one a layer."""
Live = dict[str, int]
"""Bytes of what lives at one moment, by name."""
Moments = list[Live]

MIB = 1 << 20
CHUNK = 128
"""Supervised positions that go through the head at once."""
OPTIMIZER_BYTES: Mapping[str, float] = {"adamw": 8.0, "adamw8bit": 2.0 + 2 * 4 / 256}
"""State per trained weight: two moments in fp32, or in 8 bits with one fp32 scale per 256."""
WORKSPACE, WORKSPACE_HOPPER = 8_519_680, 32 * MIB
"""What torch sets aside for cuBLAS (CUBLAS_WORKSPACE_CONFIG's defaults: :4096:2:16:8, and :4096:8 on Hopper)."""
OUTSIDE_TORCH = 704 * MIB
"""What CUDA's context, kernels and graphs take beside torch's own memory, as seen on an H200; in no figure here."""
BETWEEN = 320 * MIB
"""What torch takes from the card beyond what it has allocated at most: room between tensors, as seen on an H200."""
_QUANT_STATE = 512 + 1024 + 512
"""The rest of a layer's state in bitsandbytes: both code books and an offset, each rounded up to torch's 512 bytes."""
_FLASH_ROWS = 128
"""Flash attention's backward pads every sequence by up to so many rows in its fp32 buffers."""

KEPT: Mapping[Keep, tuple[str, ...]] = {
    Keep.HOST: (),
    Keep.CARD: ("x", "o", "x_mid"),
    Keep.ALL: ("x", "o", "x_mid", "qkv", "gate", "up"),
}
"""What a layer keeps on the card, by the names under which its phases list it: there it is not to be counted again."""


@dataclass(frozen=True)
class Step:
    """The work of one forward and backward pass.

    Attributes:
        ranks: LoRA ranks, of all layers or of each.
        batch, length: rows of a batch, and tokens of a row.
        element: bytes of the compute type.
        optimizer: `adamw8bit` or `adamw`.
        workspace: bytes of cuBLAS's workspace on the card.
    """

    shape: Shape
    ranks: Ranks
    batch: int
    length: int
    element: int = 2
    optimizer: str = "adamw8bit"
    workspace: int = WORKSPACE

    @cached_property
    def layer_ranks(self) -> tuple[Mapping[str, int], ...]:
        """The ranks of each layer, first layer first."""
        ranks = (self.ranks,) * self.shape.layers if isinstance(self.ranks, Mapping) else tuple(self.ranks)
        if len(ranks) != self.shape.layers:
            raise ValueError(f"ranks of {len(ranks)} layers for {self.shape.layers}")
        return ranks

    @cached_property
    def trained(self) -> int:
        """Adapter weights of all layers."""
        sizes = self.shape.linears
        return sum(rank * sum(sizes[name]) for ranks in self.layer_ranks for name, rank in ranks.items())

    @property
    def tokens(self) -> int:
        """Tokens of one pass, T."""
        return self.batch * self.length

    @cached_property
    def attention(self) -> int:
        """Width of queries, and of the attention's output."""
        return self.shape.heads * self.shape.head_dim

    @cached_property
    def qkv(self) -> int:
        """Width of queries, keys and values side by side."""
        return self.attention + 2 * self.shape.kv_heads * self.shape.head_dim

    def columns(self, *names: str) -> int:
        """LoRA's columns beside what the linear layers `names` share: those of the layer that has the most."""
        if names not in self._columns:
            most = max(sum(ranks.get(name, 0) for name in names) for ranks in self.layer_ranks)
            self._columns[names] = padded(most)
        return self._columns[names]

    @cached_property
    def _columns(self) -> dict[tuple[str, ...], int]:
        return {}  # asked for thousands of times while a placement is sought

    @cached_property
    def residual(self) -> int:
        """Width of the residual stream's gradient, with the columns of the adapters on `o` and `down`."""
        return self.shape.hidden + max(self.columns("o_proj"), self.columns("down_proj"))

    def rows(self, width: int) -> int:
        """Bytes of a [T, width] tensor in the compute type."""
        return self.tokens * width * self.element

    @cached_property
    def nf4_layer(self) -> int:
        """Bytes of one layer's linear weights in NF4 with double quantization."""
        return sum(nf4_bytes(rows * columns) for rows, columns in self.shape.linears.values())

    @cached_property
    def tensors(self) -> Mapping[str, int]:
        """Bytes of the tensors of a layer that several moments share."""
        shape, gate_columns = self.shape, max(self.columns("gate_proj"), self.columns("down_proj"))
        return {
            "x": self.rows(shape.hidden),
            "n1": self.rows(shape.hidden + self.columns(*GROUPS["qkv"])),
            "qkv": self.rows(self.qkv),
            "o": self.rows(self.attention),
            "x_mid": self.rows(shape.hidden),
            "n2": self.rows(shape.hidden + self.columns(*GROUPS["gate_up"])),
            "gate": self.rows(shape.ffn + gate_columns),
            "up": self.rows(shape.ffn + self.columns("up_proj")),
        }

    def take(self, *names: str) -> Live:
        """Some of `tensors`."""
        return {name: self.tensors[name] for name in names}

    def kept(self, keep: Keep) -> int:
        """Bytes on the card of what one layer keeps there."""
        return sum(self.tensors[name] for name in KEPT[keep])

    @property
    def offloaded(self) -> int:
        """Bytes of what one layer parks on the host."""
        return sum(self.take("x", "o", "x_mid").values())


def nf4_bytes(weights: int) -> int:
    """Bytes of one matrix in NF4: 4 bits a weight, an 8-bit scale per 64 weights, an fp32 one per 256 scales."""
    scales = -(-weights // BLOCK)
    return -(-weights // 2) + scales + 4 * -(-scales // BLOCK2) + _QUANT_STATE


def base(step: Step, placement: Placement) -> Live:
    """What lies on the card of the base itself, from loading on."""
    shape = step.shape
    small = 2 * shape.hidden + (step.qkv if shape.bias else 0)
    return {
        "base in NF4": (shape.layers - placement.streamed) * step.nf4_layer,
        "streaming slots": 2 * step.nf4_layer if placement.streamed else 0,
        "norms and biases": (shape.layers * small + shape.hidden) * step.element,
        "head": shape.vocabulary * shape.hidden * step.element if placement.head_on_card else 0,
    }


def standing(step: Step) -> Live:
    """What lies on the card throughout a step, the base and what layers keep apart."""
    shape = step.shape
    return {
        "adapter": 4 * step.trained,
        "adapter gradients": 4 * step.trained,
        "optimizer state": round(OPTIMIZER_BYTES[step.optimizer] * step.trained),
        "inputs": step.tokens * (3 * 8 + 2 * shape.head_dim * step.element),  # ids, rows, targets; cos, sin
        "attention statistics": shape.layers * shape.heads * step.tokens * 4,
        "residual gradient": (step.tokens + 1) * step.residual * step.element,
        "cuBLAS workspace": step.workspace,
    }


def loading(step: Step) -> Moments:
    """Beside the base: the largest matrix on its way into NF4, before and after, with its scales in fp32.

    Then the adapter and its gradients. While PEFT's fresh one moves into flat buffers, A and then B, less than that is
    there: itself, and the larger of the two again.
    """
    weights = max(rows * columns for rows, columns in step.shape.linears.values())
    return [
        {"matrix being quantized": weights * step.element + nf4_bytes(weights) + 4 * weights // BLOCK},
        {"adapter": 4 * step.trained, "adapter gradients": 4 * step.trained},
    ]


def forward_attention(step: Step, keep: Keep, before: Keep | None) -> Moments:
    """Norm, projections, rotation, attention, output projection; `before` is what the previous layer keeps."""
    leaving = {"copies in flight": step.offloaded if before is Keep.HOST else 0}
    return [
        step.take("x", "n1", "qkv") | leaving | _forward_scratch(step, "qkv", step.qkv),
        step.take("x", "qkv", "o") | leaving,
        step.take("x", "o", "x_mid")
        | leaving
        | {"o with LoRA's columns": step.rows(step.attention + step.columns("o_proj"))}
        | _forward_scratch(step, "o", step.shape.hidden),
    ]


def forward_mlp(step: Step, keep: Keep, before: Keep | None) -> Moments:
    """Norm, gate and up, their product in gate's place (where gate is kept: in its own), down projection."""
    shape = step.shape
    leaving = {"copies in flight": step.offloaded if before is Keep.HOST else 0}
    own = {"h": step.rows(shape.ffn + step.columns("down_proj")) if keep is Keep.ALL else 0}
    return [
        step.take("x", "o", "x_mid", "n2", "gate", "up") | leaving | _forward_scratch(step, "gate_up", shape.ffn),
        step.take("x", "o", "x_mid", "gate", "up") | leaving | own,
        step.take("x", "o", "x_mid", "gate")
        | leaving
        | own
        | {"x_out": step.rows(shape.hidden)}
        | _forward_scratch(step, "down", shape.hidden),
    ]


def head(step: Step, placement: Placement) -> Moments:
    """Last norm and head over the supervised positions chunk by chunk, forward and backward at once.

    What the last layer gives lies where the residual gradient will, and becomes it row by row.
    """
    shape = step.shape
    weight = 0 if placement.head_on_card else shape.vocabulary * shape.hidden * step.element
    rows = CHUNK * shape.hidden * step.element
    always = {"head for this pass": weight, "rows of a chunk": rows, "rows normed, then their gradient": rows}
    return [
        always | {"logits of a chunk": CHUNK * shape.vocabulary * step.element},
        always | {"gradient by row": rows},
    ]


def backward_mlp(step: Step, keep: Keep, before: Keep | None) -> Moments:
    """Gate and up again unless kept, then back through down, the product, gate, up and the norm."""
    shape = step.shape
    arriving = {"copies in flight": step.tensors["x"] + step.tensors["o"] if keep is Keep.HOST else 0}
    wide = step.take("x_mid", "n2", "gate", "up") | arriving
    low = step.rows(step.columns("down_proj"))
    return [
        wide | _forward_scratch(step, "gate_up", shape.ffn),
        wide | {"h, then dh": step.rows(shape.ffn) + low} | _backward_scratch(step, ["down_proj"]),
        wide | {"dn2": step.rows(shape.hidden)} | _backward_scratch(step, ["gate_proj"]),
    ]


def backward_attention(step: Step, keep: Keep, before: Keep | None) -> Moments:
    """Queries, keys, values again unless kept, then back through the output projection, attention and projections."""
    shape = step.shape
    arriving = {"copies in flight": step.tensors["x_mid"] if before is Keep.HOST else 0}
    left = step.take("x", "o", "x_mid") | arriving
    back = {"do": step.rows(step.attention)}
    heads = {"dq, dk, dv": step.rows(step.qkv)}
    rows = step.tokens + _FLASH_ROWS * step.batch
    flash = {
        "flash attention's dq in fp32": rows * (step.attention + shape.heads) * 4,
        "flash attention's dk, dv by query head": 2 * step.rows(step.attention) * (shape.kv_heads < shape.heads),
    }
    joined = {"dqkv": step.rows(step.qkv + step.columns(*GROUPS["qkv"]))}
    return [
        left | back | _backward_scratch(step, ["o_proj"]),
        left | back | step.take("n1", "qkv") | _forward_scratch(step, "qkv", step.qkv),
        left | back | step.take("n1", "qkv") | heads | flash,
        left | step.take("n1") | heads | joined,
        left | step.take("n1") | joined | {"dn1": step.rows(shape.hidden)} | _backward_scratch(step, GROUPS["qkv"]),
    ]


def host(step: Step, placement: Placement) -> Live:
    """What lies in pinned host memory."""
    shape = step.shape
    table = shape.vocabulary * shape.hidden * step.element
    return {
        "embedding": table,
        "head": 0 if placement.head_on_card or shape.tied else table,
        "parked activations": placement.kept.count(Keep.HOST) * step.offloaded,
        "streamed layers in NF4": placement.streamed * step.nf4_layer,
    }


FORWARD: Mapping[str, Callable[[Step, Keep, Keep | None], Moments]] = {
    "forward attention": forward_attention,
    "forward MLP": forward_mlp,
}
BACKWARD: Mapping[str, Callable[[Step, Keep, Keep | None], Moments]] = {
    "backward MLP": backward_mlp,
    "backward attention": backward_attention,
}
"""The phases that every layer goes through: what it keeps and what the layer before it keeps -> what lives."""


def _forward_scratch(step: Step, group: str, outputs: int) -> Live:
    """A dequantized weight of `outputs` rows, with LoRA's columns beside it."""
    (_, inputs) = step.shape.linears[GROUPS[group][0]]
    return {"dequantized weight": outputs * (inputs + step.columns(*GROUPS[group])) * step.element}


def _backward_scratch(step: Step, names: Sequence[str]) -> Live:
    """Dequantized weights of linear layers on one input, with LoRA's rows below them."""
    outputs = sum(step.shape.linears[name][0] for name in names)
    (_, inputs) = step.shape.linears[names[0]]
    return {"dequantized weight": (outputs + step.columns(*names)) * inputs * step.element}
