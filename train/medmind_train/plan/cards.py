"""Well-known cards and what of their memory is free for training. Knows the makers' figures; measures nothing."""

import difflib
import re
from dataclasses import dataclass

from medmind.errors import MedmindError
from medmind_train import sizes
from medmind_train.fused.lifetimes import OUTSIDE_TORCH

GIB = 1 << 30
SIZES = (4, 6, 8, 12, 16, 24)
"""GiB of the cards that a plan is made for beside the one asked about."""
DESKTOP = 512 << 20
"""An estimate of what a desktop with a browser takes of a card that drives a screen, and the driver's own share."""


@dataclass(frozen=True)
class Card:
    """A card as its maker describes it.

    Attributes:
        name: as a person writes it.
        memory: bytes.
        bandwidth: of its memory, GB/s.
        tflops: dense bf16 matrix products with fp32 sums, TFLOP/s; None: not known, and no time is told.
        pcie: GB/s in one direction.
        desktop: it is likely to drive a screen as well.
        hopper: its cuBLAS workspace is the larger one.
    """

    name: str
    memory: int
    bandwidth: float | None = None
    tflops: float | None = None
    pcie: float | None = None
    desktop: bool = True
    hopper: bool = False

    @property
    def usable(self) -> int:
        """Bytes that torch may allocate when CUDA and a desktop have taken theirs."""
        return max(0, self.memory - OUTSIDE_TORCH - (DESKTOP if self.desktop else 0))


def _geforce(name: str, gib: int, bandwidth: float, fp32: float, pcie: float) -> Card:
    # On every GeForce since Ampere, matrix units give twice the shaders' fp32 rate in bf16 when they sum in fp32.
    return Card(name, gib * GIB, bandwidth, 2 * fp32, pcie)


# Memory, bandwidth and fp32 rate: NVIDIA's architecture papers and product pages (GA102, AD102, RTX Blackwell, A100,
# H100; data sheets of L4, L40S, A10, H200). PCIe: 4.0 x8 and x16 and 5.0 x8 and x16 carry 16, 32, 32 and 64 GB/s.
CARDS = (
    _geforce("RTX 3050 8GB", 8, 224, 9.1, 16),
    _geforce("RTX 3060 12GB", 12, 360, 12.7, 32),
    _geforce("RTX 3060 Ti", 8, 448, 16.2, 32),
    _geforce("RTX 3070", 8, 448, 20.3, 32),
    _geforce("RTX 3080 10GB", 10, 760, 29.8, 32),
    _geforce("RTX 3090", 24, 936, 35.6, 32),
    _geforce("RTX 4060", 8, 272, 15.1, 16),
    _geforce("RTX 4060 Ti 8GB", 8, 288, 22.1, 16),
    _geforce("RTX 4060 Ti 16GB", 16, 288, 22.1, 16),
    _geforce("RTX 4070", 12, 504, 29.1, 32),
    _geforce("RTX 4070 Ti", 12, 504, 40.1, 32),
    _geforce("RTX 4080", 16, 717, 48.7, 32),
    _geforce("RTX 4090", 24, 1008, 82.6, 32),
    _geforce("RTX 5060", 8, 448, 19.2, 32),
    _geforce("RTX 5060 Ti 8GB", 8, 448, 23.7, 32),
    _geforce("RTX 5060 Ti 16GB", 16, 448, 23.7, 32),
    _geforce("RTX 5070", 12, 672, 30.9, 64),
    _geforce("RTX 5070 Ti", 16, 896, 43.9, 64),
    _geforce("RTX 5080", 16, 960, 56.3, 64),
    _geforce("RTX 5090", 32, 1792, 104.8, 64),
    # Their ECC takes part of GDDR6: these sizes are what the driver shows of 24 and 48 GB.
    Card("L4", 23034 << 20, 300, 121, 32, desktop=False),
    Card("A10", 23028 << 20, 600, 125, 32, desktop=False),
    Card("L40S", 46068 << 20, 864, 362, 32, desktop=False),
    Card("A100 40GB", 40 * GIB, 1555, 312, 32, desktop=False),
    Card("A100 80GB", 80 * GIB, 2039, 312, 32, desktop=False),
    Card("H100 SXM", 80 * GIB, 3350, 989, 64, desktop=False, hopper=True),
    Card("H200", 140 * GIB, 4800, 989, 64, desktop=False, hopper=True),
)


def of_size(gib: int) -> Card:
    """Any card of so many GiB."""
    return Card(f"{gib} GiB", gib * GIB)


def find(text: str) -> Card:
    """The card called `text` (`rtx4060`, `RTX 4090`), or any card of the size `text` (`6GiB`, `8GB`, `6`).

    Raises:
        MedmindError: neither; the nearest names are given.
    """
    word = _word(text)
    exact = [card for card in CARDS if word in (_word(card.name), _word(card.name).removeprefix("rtx"))]
    begun = [card for card in CARDS if re.fullmatch(rf"(rtx)?{re.escape(word)}(\d+gb|sxm)", _word(card.name))]
    if len(found := exact or begun) == 1:
        return found[0]
    if found:
        raise MedmindError(f"--card '{text}' can be {', '.join(card.name for card in found)}", "name one of them")
    if text.strip()[:1].isdigit():
        return Card(text.strip(), sizes.parse("--card", text))
    names = {_word(card.name): card.name for card in CARDS}
    near = [names[name] for name in difflib.get_close_matches(word, names, n=3, cutoff=0.0)]
    raise MedmindError(
        f"there is no card '{text}' in the table", f"give its memory, as in 8GiB; nearest: {', '.join(near)}"
    )


def _word(name: str) -> str:
    """A name without what people write differently."""
    return re.sub(r"geforce|nvidia|[^a-z0-9]", "", name.lower())
