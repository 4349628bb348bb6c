"""What a conversion will take, before it begins: bytes, memory and time of every type. Reads headers, and no weight."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medmind.errors import MedmindError
from medmind_convert import ggml, gguf_file, pace, vocabulary_outline
from medmind_convert.conversion import Conversion
from medmind_convert.imatrix import Weighting
from medmind_convert.memory_need import peak
from medmind_convert.quants import Quant
from medmind_convert.source import UNKNOWN
from medmind_convert.tokenizer import Vocabulary


class Outlined(Conversion):
    """A conversion that reads no weight and loads no tokenizer: good for what files will take, not for writing them."""

    @cached_property
    def adapter_digest(self) -> str | None:
        """A text as long as the adapter's digest."""
        return UNKNOWN if self.adapter else None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens as the files list them; where those do not tell, as transformers loads them."""
        rows = self.architecture.vocab
        found = vocabulary_outline.read(self.tokenizer_files, rows)
        return self.tokenizer.vocabulary(rows) if found is None else found


@dataclass(frozen=True)
class Planned:
    """What one type takes.

    Attributes:
        quant: the type.
        bytes: of the file, or of all shards, exact.
        bits: per weight, metadata left out.
        shards: number of files.
        weighted: whether an importance matrix weighs it.
        memory: anonymous resident memory at most, bytes.
        seconds: wall time.
        refused: why it cannot be made, or None; all figures are 0 then.
    """

    quant: Quant
    bytes: int = 0
    bits: float = 0.0
    shards: int = 0
    weighted: bool = False
    memory: int = 0
    seconds: float = 0.0
    refused: str | None = None


def plan(
    conversion: Conversion,
    quants: Sequence[Quant],
    weighted: Mapping[Quant, Weighting | None],
    *,
    threads: int,
    provenance: bool = True,
    split_max: int | None = None,
) -> list[Planned]:
    """What each type takes, made by itself.

    Args:
        conversion: an `Outlined` one, so that no weight is read.
        quants: the types.
        weighted: the importance matrix of each type, or None.
        threads: of the conversion.
        provenance, split_max: as for `convert.Options`.
    """
    shapes = {placement.target: placement.shape for placement in conversion.architecture.placements}
    headers: dict[Weighting | None, int] = {}
    scale = pace.measured()
    found = []
    for quant in quants:
        try:
            types = conversion.types(quant, imatrix=weighted[quant] is not None)
        except MedmindError as error:
            found.append(Planned(quant, refused=error.message))
            continue
        tensors = gguf_file.sizes(types, shapes)
        weights, padded = sum(tensors.values()), sum(map(gguf_file.padded, tensors.values()))
        if split_max is not None:
            layouts = conversion.layouts(
                quant.ftype, types, provenance=provenance, split_max=split_max, weighting=weighted[quant]
            )
            shards, size = len(layouts), sum(layout.size for layout in layouts)
        else:
            # a float file names no matrix; otherwise headers say of every type as much, in numbers of one width
            named = weighted[quant] if any(ggml.types()[kind].quantized for kind in types.values()) else None
            if named not in headers:
                (layout,) = conversion.layouts(quant.ftype, types, provenance=provenance, weighting=named)
                headers[named] = len(layout.header)
            shards, size = 1, headers[named] + padded
        found.append(
            Planned(
                quant,
                size,
                weights * 8 / conversion.architecture.parameters,
                shards,
                weighted[quant] is not None,
                peak(conversion, types, threads=threads),
                _seconds(conversion, types, size, weighted[quant] is not None, threads, scale),
            )
        )
    return found


def _seconds(
    conversion: Conversion, types: Mapping[str, str], size: int, weighted: bool, threads: int, scale: float
) -> float:
    kinds: Counter[str] = Counter()
    merged = rank = 0
    deltas = conversion.adapter.deltas if conversion.adapter else {}
    for placement in conversion.architecture.placements:
        count = int(np.prod(placement.shape))
        kinds[types[placement.target]] += count
        if placement.source in deltas:
            merged += count
            rank = max(rank, deltas[placement.source].a.shape[0])
    return pace.seconds(kinds, merged, rank, size, weighted=weighted, threads=threads, scale=scale)
