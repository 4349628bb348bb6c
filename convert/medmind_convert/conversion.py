"""A source opened and found fit to convert, and the exact shape of every file it can become. Reads headers only."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medmind import base
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import architecture, gguf_file, type_choice
from medmind_convert import tokenizer as tokenizers
from medmind_convert.check import Agreement, Expected
from medmind_convert.gguf_file import Layout
from medmind_convert.gguf_metadata import Metadata, Provenance
from medmind_convert.imatrix import Weighting
from medmind_convert.nf4 import Nf4Tensor
from medmind_convert.one_pass import Step
from medmind_convert.quants import Quant, smallest_without_imatrix
from medmind_convert.source import Source
from medmind_convert.weights import Dtype, Tensor, open_tensors

Onto = Literal["base", "nf4"]
"""What an adapter is merged onto: the base's weights as stored, or as the NF4 of its training left them."""
_COMPUTE: Mapping[str, Dtype] = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


class Importance(Protocol):
    """What the conversion asks of an importance matrix; see `imatrix.Imatrix`."""

    def for_tensor(self, name: str, width: int) -> NDArray[np.float32] | None:
        """Importance of each column of a tensor, or None where nothing is known of it."""
        ...


class Conversion:
    """A source, opened and found fit to convert: everything that can be refused from headers has been.

    Args:
        source: the base and its adapter.
        onto: what the adapter is merged onto.

    Raises:
        MedmindError: the base is not what its config says, the adapter does not match it, the tokenizer cannot be
            expressed, or nothing was trained on NF4.
    """

    def __init__(self, source: Source, onto: Onto = "base") -> None:
        self.source = source
        self.onto = onto
        if onto == "nf4" and source.adapter is None:
            raise MedmindError(
                f"{source.base.name} is a base without an adapter: nothing was trained on its NF4",
                "leave --merge-onto out",
            )
        self.architecture = architecture.read(source.base.path)
        self.weight_files = base.weight_files(source.base.path)
        self.tensors = open_tensors(self.weight_files)
        shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        self.architecture.match(shapes, source.base.path)
        self.adapter = None
        if source.adapter is not None:
            self.adapter = adapters.load(source.adapter, shapes, tied=self.architecture.tied)

    @cached_property
    def adapter_digest(self) -> str | None:
        """Digest of the adapter's files; None without one.

        Raises:
            MedmindError: it is not the run's.
        """
        digest = self.adapter.digest if self.adapter else None
        recorded = (self.source.manifest.get("adapter") or {}).get("digest")
        if recorded is not None and recorded != digest:
            raise MedmindError(
                f"the files in {self.source.adapter} are not those the run recorded",
                "copy the run again, or convert them as they are with --base and --adapter",
            )
        return digest

    @property
    def tokenizer_files(self) -> Path:
        """The directory of the training tokenizer."""
        return tokenizers.directory(self.source.base.path, self.source.adapter)

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The training tokenizer."""
        return tokenizers.Tokenizer(self.tokenizer_files)

    @cached_property
    def vocabulary(self) -> tokenizers.Vocabulary:
        """Its tokens, as many as the embedding has rows."""
        return self.tokenizer.vocabulary(self.architecture.vocab)

    @property
    def stops(self) -> tuple[int, ...]:
        """Token ids that end a generation."""
        return tuple(dict.fromkeys((self.vocabulary.eos, *self.architecture.stop_ids)))

    @cached_property
    def expected(self) -> Expected:
        """What transformers makes of the held-out texts."""
        return Expected(self.tokenizer, self.source.heldout, self.source.system_prompt)

    @property
    def native(self) -> Dtype:
        """The base's own type, or F32 where it mixes several."""
        kinds = {self.tensors[p.source].dtype for p in self.architecture.placements if p.is_matrix}
        return kinds.pop() if len(kinds) == 1 else "F32"

    @property
    def inputs(self) -> list[Path]:
        """The files whose weights the result is made of."""
        return [*self.weight_files, *([self.adapter.path / adapters.WEIGHTS] if self.adapter else [])]

    def types(self, quant: Quant, *, imatrix: bool) -> dict[str, str]:
        """Tensor name -> ggml type in a file of one type, in the file's order.

        Raises:
            MedmindError: llama.cpp refuses the type for this model without an importance matrix.
        """
        chosen = self.mixture(quant, imatrix=imatrix)
        refused = next((n for n, kind in chosen.items() if type_choice.requires_imatrix(n, kind, quant)), None)
        if refused is not None and not imatrix:
            near = smallest_without_imatrix(quant)
            raise MedmindError(
                f"{quant.name} needs an importance matrix, without which its output is garbage, and there is none",
                f"take {near.name}, {near.bits:.1f} bits per weight, or give one with --imatrix",
            )
        return chosen

    def mixture(self, quant: Quant, *, imatrix: bool) -> dict[str, str]:
        """As `types`, whether or not llama.cpp would refuse it."""
        arch = self.architecture
        return type_choice.choose(
            quant,
            [type_choice.Shaped(placement.target, placement.shape) for placement in arch.placements],
            type_choice.Dimensions(arch.layers, arch.heads, arch.heads_kv),
            native=self.native,
            imatrix=imatrix,
        )

    def layouts(
        self,
        ftype: int,
        types: Mapping[str, str],
        *,
        provenance: bool = True,
        split_max: int | None = None,
        weighting: Weighting | None = None,
    ) -> list[Layout]:
        """The file of these types, or its shards; see `gguf_file.plan_file`."""
        metadata = Metadata(
            self.architecture,
            self.vocabulary,
            self.tokenizer_files,
            Provenance(self.source, self.adapter_digest, self.onto) if provenance else None,
            self.source.base.path,
            weighting,
        )
        return gguf_file.plan_file(metadata, ftype, types, split_max=split_max)

    def steps(self) -> Iterator[Step]:
        """The tensors in the order in which they are read and written, each made when it is its turn."""
        placements = {placement.target: placement for placement in self.architecture.placements}
        deltas = self.adapter.deltas if self.adapter else {}
        for name in type_choice.order(placements):
            placement = placements[name]
            yield Step(placement, self.merged_onto(self.tensors[placement.source]), deltas.get(placement.source))

    def merged_onto(self, tensor: Tensor) -> Tensor | Nf4Tensor:
        """A weight as it is merged onto. QLoRA quantizes the linear layers, and neither embedding nor output layer."""
        if self.onto == "base" or len(tensor.shape) != 2 or not tensor.name.endswith("_proj.weight"):
            return tensor
        trained = str((self.source.manifest.get("config") or {}).get("dtype"))
        return Nf4Tensor(tensor, _COMPUTE.get(trained, tensor.dtype))

    def check(self, path: Path) -> Agreement:
        """Prove that a written file tokenizes, renders and stops as the training tokenizer does."""
        return self.expected.compare(path, self.stops)
