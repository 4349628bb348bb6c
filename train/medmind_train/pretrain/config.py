"""What `medmind-train pretrain` can be told, and its defaults. Knows no torch."""

from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_train import schedule as schedules
from medmind_train.config import setting


@dataclass(frozen=True)
class PretrainConfig:
    """A base model's shape and its training.

    The defaults are the embedded base's: 19.4 M parameters (38.8 MB in bf16). Widths that are multiples of 256 admit
    every K-quant of llama.cpp.
    """

    vocab_size: int = setting(12288, "pieces of the tokenizer that is trained on the text", minimum=300)
    tokenizer_megabytes: float = setting(32.0, "text the tokenizer is trained on, spread over the documents", above=0)
    hidden: int = setting(512, "width of the model", minimum=8)
    ffn: int = setting(1280, "width of the feed-forward layers", minimum=8)
    layers: int = setting(5, "transformer layers", minimum=1)
    heads: int = setting(8, "attention heads, a divisor of the width", minimum=1)
    kv_heads: int = setting(2, "key and value heads, a divisor of the heads", minimum=1)
    positions: int = setting(2048, "longest sequence the model says it takes", minimum=8)
    rope_theta: float = setting(10_000.0, "base of the rotary embedding's frequencies", above=0)
    tie: bool = setting(True, "share the embedding with the output head")
    context: int = setting(2048, "tokens in a training sequence", minimum=8)
    tokens: float = setting(1e9, "tokens seen in training, over all passes", above=0)
    batch: int = setting(128, "sequences in an optimizer step", minimum=1)
    micro_batch: int = setting(8, "sequences that pass through the model at once", minimum=1)
    optimizer: str = setting("muon", "muon moves the layers' matrices and AdamW the rest", choices=("adamw", "muon"))
    lr: float = setting(3e-3, "AdamW's peak learning rate", above=0)
    muon_lr: float = setting(4e-3, "Muon's peak learning rate", above=0)
    muon_momentum: float = setting(0.95, "Muon's momentum", minimum=0, below=1)
    schedule: str = setting("wsd", "course of the learning rate", choices=schedules.KINDS)
    warmup: float = setting(0.02, "share of the steps in which the learning rate rises", minimum=0, below=1)
    decay: float = setting(0.35, "share of the steps in which it falls, for wsd", minimum=0, maximum=1)
    weight_decay: float = setting(0.3, "weight decay on matrices", minimum=0)
    beta2: float = setting(0.95, "AdamW's second moment", minimum=0, below=1)
    clip: float = setting(1.0, "gradient norm at which to clip", above=0)
    z_loss: float = setting(1e-4, "weight of the squared log-normaliser (PaLM, arXiv:2204.02311)", minimum=0)
    validation_share: float = setting(0.005, "documents held out, by hash of their text", above=0, below=1)
    eval_every: int = setting(250, "steps between two validations", minimum=1)
    checkpoint_every: int = setting(500, "steps between two checkpoints", minimum=1)
    max_minutes: float = setting(0.0, "stop with a checkpoint after so long; 0 means never", minimum=0)
    compile: bool = setting(True, "torch.compile on a CUDA card")
    seed: int = setting(0, "seed of weights and data order", minimum=0)

    def __post_init__(self) -> None:
        """Raise MedmindError for values that do not go together."""
        if self.hidden % self.heads or self.heads % self.kv_heads or (self.hidden // self.heads) % 2:
            raise MedmindError(
                f"--hidden {self.hidden}, --heads {self.heads} and --kv-heads {self.kv_heads} do not divide evenly",
                "hidden must be an even multiple of heads, and heads a multiple of kv-heads",
            )
        if self.batch % self.micro_batch:
            raise MedmindError(
                f"--batch {self.batch} is no multiple of --micro-batch {self.micro_batch}", "change one of them"
            )
        if self.context > self.positions:
            raise MedmindError(
                f"--context {self.context} is longer than --positions {self.positions}", "raise positions"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return max(1, round(self.tokens / (self.batch * self.context)))
