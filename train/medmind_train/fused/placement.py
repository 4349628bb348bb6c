"""Where a training step's bytes lie: on the card, on the host, or nowhere (computed again). Knows no tensor."""

from dataclasses import dataclass
from enum import StrEnum


class Keep(StrEnum):
    """What a layer's forward pass leaves for its backward pass.

    `HOST` and `CARD` keep the layer's input, the attention's output and the input of the MLP, in pinned host memory or
    on the card: queries, keys, values, gate and up are computed again. `ALL` keeps these on the card as well, and
    nothing is computed again.
    """

    HOST = "host"
    CARD = "card"
    ALL = "all"


@dataclass(frozen=True)
class Placement:
    """One answer to a memory budget.

    Attributes:
        kept: what each layer keeps, first layer first.
        streamed: so many layers, counted from the first, have their NF4 weights in pinned host memory; they travel to
            the card one ahead of use.
        head_on_card: the head's weights stay on the card; else they come from the host in every pass.
    """

    kept: tuple[Keep, ...]
    streamed: int = 0
    head_on_card: bool = True

    @classmethod
    def lean(cls, layers: int, *, stream: bool = False) -> "Placement":
        """The one that needs the least of the card."""
        return cls((Keep.HOST,) * layers, streamed=layers if stream else 0, head_on_card=False)
