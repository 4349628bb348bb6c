"""What training and scoring cost, relative to a run as given: floating-point operations a token, by arithmetic.

Knows the matrices of a base by their file headers; measures no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmind.base import safetensors_header, weight_files
from medmind_train import lora
from medmind_train.batches import epoch_steps
from medmind_train.examples import Examples
from medmind_train.qlora_config import QloraConfig

_EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class Matrices:
    """The matrices of a base.

    Attributes:
        linear: rows and columns of each linear layer but the head, by dotted name.
        head: weights of the head.
    """

    linear: dict[str, tuple[int, int]]
    head: int

    @classmethod
    def of(cls, path: Path) -> "Matrices":
        """Those of a base directory."""
        shapes = {
            name: entry["shape"] for shard in weight_files(path) for name, entry in safetensors_header(shard).items()
        }
        linear = {name: (shapes[f"{name}.weight"][0], shapes[f"{name}.weight"][1]) for name in lora.linear_layers(path)}
        # A tied head has no entry of its own: it is as large as the embedding.
        head = next(
            (
                rows * columns
                for name in reversed(_EMBEDDINGS)
                if (found := shapes.get(name))
                for rows, columns in [found]
            ),
            0,
        )
        return cls(linear, head)

    def trained(self, targets: str, rank: int, *, dora: bool = False) -> int:
        """Weights of an adapter: of its A and B, and of DoRA's magnitudes."""
        wanted = lora.target_modules(targets)
        return sum(
            rank * (rows + columns) + (rows if dora else 0)
            for name, (rows, columns) in self.linear.items()
            if isinstance(wanted, str) or any(f".{name}".endswith(f".{word}") for word in wanted)
        )

    def training(self, trained: int) -> int:
        """FLOP a token: 2 a weight forward, 2 for the gradient of its input, and for what learns 2 for its own."""
        return 4 * (sum(rows * columns for rows, columns in self.linear.values()) + self.head) + 6 * trained

    def scoring(self, trained: int) -> int:
        """FLOP a token of a forward pass."""
        return 2 * (sum(rows * columns for rows, columns in self.linear.values()) + self.head + trained)


def tokens_by_step(examples: Examples, config: QloraConfig, steps: int) -> list[int]:
    """Tokens trained on after 0, 1, … `steps` optimizer steps; every candidate sees them in this order."""
    lengths = examples.lengths
    sums = [0]
    epoch = 0
    while len(sums) <= steps:
        order = epoch_steps(
            lengths,
            effective=config.batch * config.accumulate,
            seed=config.seed,
            epoch=epoch,
            capacity=config.context if config.packing else None,
        )
        sums += _running(sums[-1], [sum(lengths[at] for row in step for at in row) for step in order])
        epoch += 1
    return sums[: steps + 1]


def _running(start: int, amounts: Sequence[int]) -> list[int]:
    sums = []
    for amount in amounts:
        start += amount
        sums.append(start)
    return sums
