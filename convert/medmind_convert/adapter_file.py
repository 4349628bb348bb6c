"""Writes a LoRA adapter as a GGUF that llama.cpp lays over its base while it runs. Knows that format; merges nothing.

llama.cpp multiplies by alpha / rank with one alpha for the whole file: rsLoRA and patterns of ranks and alphas would be
lost. The scale of each module is therefore folded into its B, and alpha written as 0, which means "as it is"
(`llama_adapter_lora_weight::get_scale` in src/llama-adapter.h; the format is that of convert_lora_to_gguf.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import artifacts, base
from medmind.errors import MedmindError
from medmind_convert import adapter as adapters
from medmind_convert import architecture, ggml, gguf_metadata, unfinished
from medmind_convert.adapter import Adapter
from medmind_convert.gguf_file import pack, padded, sha256_text
from medmind_convert.source import Source
from medmind_convert.weights import Dtype, narrow, open_tensors

TYPES: dict[str, Dtype] = {"f32": "F32", "f16": "F16"}
"""What A and B can be stored as. bf16 would round B's folded scale away, and llama.cpp quantizes adapters badly."""


@dataclass(frozen=True)
class Written:
    """One written adapter.

    Attributes:
        file: its path.
        bytes: its size.
        modules: weights that it changes.
    """

    file: Path
    bytes: int
    modules: int


def write(source: Source, dtype: Dtype, *, force: bool = False) -> Written:
    """Write the adapter of a source beside the source's other results, as `NAME.adapter.gguf`.

    Raises:
        MedmindError: the source has no adapter, one that does not fit its base, or one that llama.cpp cannot lay over a
            base as it runs (DoRA).
    """
    if source.adapter is None:
        raise MedmindError(f"{source.base.name} is a base without an adapter", "give a run or a PEFT adapter directory")
    final = source.out / f"{source.name}.adapter.gguf"
    artifacts.refuse_existing(final, force=force)
    arch = architecture.read(source.base.path)
    tensors = open_tensors(base.weight_files(source.base.path))
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    arch.match(shapes, source.base.path)
    adapter = adapters.load(source.adapter, shapes, tied=arch.tied)
    _refuse(adapter, arch)
    fresh = unfinished.make_directory(source.out)
    with unfinished.looked_after([], fresh), artifacts.atomic_file(final, force=force) as partial:
        _write(partial, source, arch, adapter, dtype)
    return Written(final, final.stat().st_size, len(adapter.deltas))


def _refuse(adapter: Adapter, arch: architecture.Architecture) -> None:
    placed = {placement.source for placement in arch.placements}
    for name, delta in adapter.deltas.items():
        if delta.magnitude is not None:
            raise MedmindError(
                f"{adapter.path} is a DoRA adapter, which llama.cpp cannot lay over a base while it runs",
                "merge it: medmind-convert gguf q4_k_m",
            )
        if name not in placed or name == "model.embed_tokens.weight":
            raise MedmindError(f"the adapter changes {name}, where llama.cpp takes no adapter", "merge it instead")


def _write(path: Path, source: Source, arch: architecture.Architecture, adapter: Adapter, dtype: Dtype) -> None:
    provenance = gguf_metadata.Provenance(source, adapter.digest)

    def describe(gguf: Any, writer: Any) -> None:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 0.0)
        for key, value in {**provenance.general(), **provenance.medmind()}.items():
            if key == "general.type":
                continue
            if isinstance(value, int):
                writer.add_uint32(key, value)
            else:
                writer.add_key_value(key, value, gguf.GGUFValueType.STRING)

    shapes, digests = {}, []
    for name, values in _tensors(arch, adapter, dtype):
        shapes[name] = (ggml.types()[dtype], values.shape)
        digests.append(sha256_text(_padded(values)))
    layout = pack(arch.name, describe, shapes, digests=True)
    with path.open("wb") as stream:
        stream.write(layout.sealed(digests))
        for _, values in _tensors(arch, adapter, dtype):
            stream.write(_padded(values))


def _padded(values: NDArray[np.generic]) -> bytes:
    """Its bytes as they lie in the file, up to the next tensor's."""
    return values.tobytes().ljust(padded(values.nbytes), b"\0")


def _tensors(
    arch: architecture.Architecture, adapter: Adapter, dtype: Dtype
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """A and scaled B of each changed weight, rows of B in llama.cpp's order."""
    for placement in arch.placements:
        delta = adapter.deltas.get(placement.source)
        if delta is None:
            continue
        a, b, _ = delta.factors()
        with np.errstate(over="ignore"):
            b = b[placement.order()] * np.float32(delta.scale)
        if not np.isfinite(b).all():
            raise MedmindError(
                f"{delta.b.name} of the adapter overflows when it is scaled by {delta.scale:g}", "train it again"
            )
        for part, values in (("lora_a", a), ("lora_b", b)):
            stored = narrow(values, dtype)
            if dtype == "F16" and not np.isfinite(stored).all():
                raise MedmindError(
                    f"{placement.source} of the adapter holds values beyond f16's range of ±65504", "take --type f32"
                )
            yield f"{placement.target}.{part}", stored
