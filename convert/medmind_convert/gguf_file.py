"""Writes one unquantized GGUF: metadata, vocabulary, then tensor by tensor. Knows GGUF's keys; merges nothing itself.

The gguf package writes header, metadata and tensor table; the data follow in blocks, so that no tensor is ever whole in
memory.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmind import __version__, console
from medmind.errors import MedmindError
from medmind_convert.architecture import Architecture, Placement
from medmind_convert.source import Source
from medmind_convert.tokenizer import Vocabulary
from medmind_convert.weights import STORAGE, Dtype

FORMAT = "medmind-gguf/1"
_ALIGNMENT = 32
"""GGUF's default alignment of tensor data, in bytes."""
_ARCHITECTURE = "llama"


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for `general.*` and `medmind.*`.

    Attributes:
        source: what was converted.
        adapter_digest: digest of the adapter, or None.
    """

    source: Source
    adapter_digest: str | None

    def general(self) -> dict[str, str]:
        """llama.cpp's own keys for name, licence and lineage; empty values left out."""
        base = self.source.base
        found = {
            "general.type": "model",
            "general.name": self.source.name,
            "general.license": license_of(base.path),
        }
        if self.source.adapter is not None:
            owner, _, name = base.name.replace("\\", "/").rstrip("/").rpartition("/")
            found["general.base_model.0.name"] = name
            if base.kind == "hub":
                found["general.base_model.0.organization"] = owner
                found["general.base_model.0.version"] = base.revision or ""
                found["general.base_model.0.repo_url"] = f"https://huggingface.co/{base.name}"
        return {key: value for key, value in found.items() if value}

    def medmind(self) -> dict[str, str | int]:
        """medmind's keys; those a base without a run cannot know are left out."""
        source, manifest = self.source, self.source.manifest
        data = manifest.get("data") or {}
        found: dict[str, str | int | None] = {
            "medmind.format": FORMAT,
            "medmind.version": __version__,
            "medmind.base.name": source.base.name,
            "medmind.base.revision": source.base.revision,
            "medmind.base.digest": source.base_digest,
            "medmind.adapter.digest": self.adapter_digest,
            "medmind.data.source": data.get("source"),
            "medmind.data.digest": data.get("digest"),
            "medmind.run": source.run,
            "medmind.system_prompt": source.system_prompt,
            "medmind.context": manifest.get("context"),
        }
        return {key: value for key, value in found.items() if value is not None}


def license_of(path: Path) -> str:
    """The licence in the front matter of a model's README.md; empty where there is none."""
    try:
        text = (path / "README.md").read_text(encoding="utf-8", errors="replace")[:8192]
    except OSError:
        return ""
    match = re.match(r"---\s*\n.*?^license:\s*['\"]?([\w.+-]+)", text.partition("\n---")[0], re.DOTALL | re.MULTILINE)
    return match[1] if match else ""


def dtype_of(placement: Placement, dtype: Dtype) -> Dtype:
    """The type a tensor has in a file of `dtype`: vectors stay F32, as llama.cpp computes with them."""
    return dtype if placement.is_matrix else "F32"


def data_bytes(architecture: Architecture, dtype: Dtype) -> int:
    """Bytes of the tensors of an unquantized file."""
    return sum(
        -(-_nbytes(placement, dtype_of(placement, dtype)) // _ALIGNMENT) * _ALIGNMENT
        for placement in architecture.placements
    )


def write(
    path: Path,
    *,
    architecture: Architecture,
    vocabulary: Vocabulary,
    provenance: Provenance,
    dtype: Dtype,
    blocks: Callable[[Placement, Dtype], Iterator[NDArray[np.generic]]],
    advance: Callable[..., None],
) -> None:
    """Write a whole GGUF.

    Args:
        path: the file; replaced if it exists.
        architecture: dimensions and tensors.
        vocabulary: the tokenizer, of as many tokens as the embedding has rows.
        provenance: where the model comes from.
        dtype: type of the matrices.
        blocks: the data of one tensor in the given type, in consecutive blocks.
        advance: is called with the number of weights after each block.
    """
    gguf = console.require("gguf", "convert")
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    try:
        _dimensions(gguf, writer, architecture, dtype)
        _vocabulary(writer, vocabulary, architecture.stop_ids)
        _provenance(gguf, writer, provenance)
        for placement in architecture.placements:
            kind = dtype_of(placement, dtype)
            writer.add_tensor_info(
                placement.target,
                placement.shape,
                np.dtype(np.float32),
                _nbytes(placement, kind),
                raw_dtype=gguf.GGMLQuantizationType[kind],
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        stream = writer.fout[0]
        for placement in architecture.placements:
            stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
            start = stream.tell()
            kind = dtype_of(placement, dtype)
            for block in blocks(placement, kind):
                stream.write(np.ascontiguousarray(block).data)
                advance(block.size, placement.target)
            if stream.tell() - start != _nbytes(placement, kind):
                raise MedmindError(f"{placement.source} came out at {stream.tell() - start} bytes")
        stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
    finally:
        writer.close()


def _nbytes(placement: Placement, dtype: Dtype) -> int:
    return int(np.prod(placement.shape, dtype=np.int64)) * STORAGE[dtype].itemsize


def _dimensions(gguf: ModuleType, writer: Any, arch: Architecture, dtype: Dtype) -> None:
    """Sizes and constants, as `set_gguf_parameters` of llama.cpp's conversion/llama.py writes them."""
    writer.add_size_label(gguf.size_label(arch.parameters, arch.parameters, 0, 0))
    writer.add_file_type({"F32": 0, "F16": 1, "BF16": 32}[dtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(arch.layers)
    writer.add_context_length(arch.context)
    writer.add_embedding_length(arch.hidden)
    writer.add_feed_forward_length(arch.feed_forward)
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(arch.heads_kv)
    writer.add_key_length(arch.head_dim)
    writer.add_value_length(arch.head_dim)
    writer.add_rope_dimension_count(arch.head_dim)
    writer.add_rope_freq_base(arch.rope_base)
    if arch.rope_factor != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(arch.rope_factor)
    writer.add_layer_norm_rms_eps(arch.eps)
    writer.add_vocab_size(arch.vocab)


def _vocabulary(writer: Any, vocab: Vocabulary, stops: tuple[int, ...]) -> None:
    """The tokenizer, as `_set_vocab_sentencepiece` of llama.cpp's conversion/base.py writes it."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocab.tokens)
    writer.add_token_scores(vocab.scores)
    writer.add_token_types(vocab.types)
    writer.add_eos_token_id(vocab.eos)
    for add, token in (
        (writer.add_bos_token_id, vocab.bos),
        (writer.add_unk_token_id, vocab.unk),
        (writer.add_pad_token_id, vocab.pad),
    ):
        if token is not None:
            add(token)
    # llama.cpp knows three tokens that end an answer by role: of the text, of the turn, of the message
    others = [stop for stop in stops if stop != vocab.eos]
    for add, token in zip((writer.add_eot_token_id, writer.add_eom_token_id), others, strict=False):
        add(token)
    writer.add_add_bos_token(vocab.add_bos)
    writer.add_add_eos_token(vocab.add_eos)
    writer.add_add_space_prefix(vocab.add_space_prefix)
    if vocab.chat_template is not None:
        writer.add_chat_template(vocab.chat_template)


def _provenance(gguf: ModuleType, writer: Any, provenance: Provenance) -> None:
    for key, text in provenance.general().items():
        writer.add_string(key, text)
    if provenance.source.adapter is not None:
        writer.add_base_model_count(1)
    for key, value in provenance.medmind().items():
        if isinstance(value, int):
            writer.add_uint32(key, value)
        else:  # add_string would leave out an empty one
            writer.add_key_value(key, value, gguf.GGUFValueType.STRING)
