"""What a conversion will take, before it begins: bytes, memory and time of every type. Reads headers, and no weight."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medmind.errors import MedmindError
from medmind_convert import ggml, gguf_file, pace, run_imatrix, vocabulary_outline
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
        refused: why it cannot be made, or None; the figures are then those with an importance matrix.
        with_matrix: bytes of the file where a matrix would change the type of a tensor and none weighs it, else None.
        large: which shard will be larger than was asked for, or None.
    """

    quant: Quant
    bytes: int = 0
    bits: float = 0.0
    shards: int = 0
    weighted: bool = False
    memory: int = 0
    seconds: float = 0.0
    refused: str | None = None
    with_matrix: int | None = None
    large: str | None = None


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
    sizes = _Sizes(conversion, provenance, split_max)
    usual = run_imatrix.beside(conversion.source)
    scale = pace.measured()
    found = []
    for quant in quants:
        weighting, refused, with_matrix = weighted[quant], None, None
        try:
            types = conversion.types(quant, imatrix=weighting is not None)
        except MedmindError as error:
            refused, weighting = error.message, usual
            types = conversion.mixture(quant, imatrix=True)
        size, shards, large = sizes.of(quant, types, weighting)
        if weighting is None and (others := conversion.mixture(quant, imatrix=True)) != types:
            with_matrix, *_ = sizes.of(quant, others, usual)
        found.append(
            Planned(
                quant,
                size,
                sizes.weights(types) * 8 / conversion.architecture.parameters,
                shards,
                weighted[quant] is not None,
                peak(conversion, types, threads=threads),
                _seconds(conversion, types, size, weighting is not None, threads, scale),
                refused,
                with_matrix,
                large,
            )
        )
    return found


class _Sizes:
    """Bytes of files of one conversion; headers of the same length are made once."""

    def __init__(self, conversion: Conversion, provenance: bool, split_max: int | None) -> None:
        self._conversion, self._provenance, self._split_max = conversion, provenance, split_max
        self._shapes = {placement.target: placement.shape for placement in conversion.architecture.placements}
        self._headers: dict[Weighting | None, int] = {}

    def weights(self, types: Mapping[str, str]) -> int:
        """Bytes of the tensors, without padding."""
        return sum(gguf_file.sizes(types, self._shapes).values())

    def of(self, quant: Quant, types: Mapping[str, str], weighting: Weighting | None) -> tuple[int, int, str | None]:
        """Bytes over all shards, their number, and which of them is larger than asked for."""
        if self._split_max is not None:
            layouts = self._conversion.layouts(
                quant.ftype, types, provenance=self._provenance, split_max=self._split_max, weighting=weighting
            )
            large = gguf_file.above(layouts, self._split_max)
            return sum(layout.size for layout in layouts), len(layouts), large
        # a float file names no matrix; otherwise headers say of every type as much, in numbers of one width
        named = weighting if any(ggml.types()[kind].quantized for kind in types.values()) else None
        if named not in self._headers:
            (layout,) = self._conversion.layouts(quant.ftype, types, provenance=self._provenance, weighting=named)
            self._headers[named] = len(layout.header)
        return self._headers[named] + sum(map(gguf_file.padded, gguf_file.sizes(types, self._shapes).values())), 1, None


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
