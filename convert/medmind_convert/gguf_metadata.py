"""What a GGUF says beside its weights: dimensions, vocabulary, lineage. Knows GGUF's keys and no tensor's place."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from medmind import __version__
from medmind.artifacts import read_json
from medmind_convert.architecture import Architecture
from medmind_convert.imatrix import Weighting
from medmind_convert.source import Source
from medmind_convert.tokenizer import Vocabulary

FORMAT = "medmind-gguf/1"
ARCHITECTURE = "llama"


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for `general.*` and `medmind.*`.

    Attributes:
        source: what was converted.
        adapter_digest: digest of the adapter, or None.
        onto: what the adapter is merged onto.
    """

    source: Source
    adapter_digest: str | None
    onto: str = "base"

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
            "medmind.adapter.merged_onto": None if self.onto == "base" else self.onto,
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


@dataclass(frozen=True)
class Metadata:
    """All that a file says beside its weights.

    Attributes:
        architecture: dimensions and tensors.
        vocabulary: the tokenizer, of as many tokens as the embedding has rows.
        tokenizer: directory it was read from.
        provenance: where the model comes from; None writes what llama.cpp's own converter and quantizer write.
        base: directory of the base model.
        weighting: the importance matrix, which quantized files name.
    """

    architecture: Architecture
    vocabulary: Vocabulary
    tokenizer: Path
    provenance: Provenance | None
    base: Path
    weighting: Weighting | None = None


def write_metadata(gguf: ModuleType, writer: Any, metadata: Metadata, ftype: int, *, quantized: bool) -> None:
    """Give it to a GGUFWriter in convert_hf_to_gguf.py's order; llama-quantize moves the two keys it sets last."""
    arch, provenance = metadata.architecture, metadata.provenance
    if provenance is None:
        writer.add_type("model")
        _general_as_llama_cpp(gguf, writer, metadata)
    else:
        general = provenance.general()
        for key, text in general.items():
            writer.add_string(key, text)
        writer.add_size_label(gguf.size_label(arch.parameters, arch.parameters, 0, 0))
        if provenance.source.adapter is not None:
            writer.add_base_model_count(1)
    _dimensions(gguf, writer, arch, None if quantized else ftype)
    if not quantized:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if provenance is None:
        _vocabulary_as_llama_cpp(gguf, writer, metadata)
    else:
        _vocabulary(writer, metadata.vocabulary)
        _special_tokens(writer, metadata.vocabulary, arch.stop_ids)
        for key, value in provenance.medmind().items():
            if isinstance(value, int):
                writer.add_uint32(key, value)
            else:  # add_string would leave out an empty one
                writer.add_key_value(key, value, gguf.GGUFValueType.STRING)
    if quantized:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(ftype)
        for key, value in (metadata.weighting.keys() if metadata.weighting else {}).items():
            writer.add_uint32(key, value) if isinstance(value, int) else writer.add_string(key, value)


def _general_as_llama_cpp(gguf: ModuleType, writer: Any, metadata: Metadata) -> None:
    """Name, licence and lineage as `prepare_metadata` of llama.cpp's conversion/base.py reads them off a directory."""
    parameters = metadata.architecture.parameters
    found = gguf.Metadata.load(None, metadata.base, None, parameters)
    found.name = found.name or metadata.base.name
    found.size_label = found.size_label or gguf.size_label(parameters, parameters, 0, 0)
    found.set_gguf_meta_model(writer)


def _vocabulary_as_llama_cpp(gguf: ModuleType, writer: Any, metadata: Metadata) -> None:
    """As `set_vocab` of llama.cpp's conversion/llama.py: what the tokenizer's files say, unchecked."""
    config = metadata.tokenizer / "tokenizer_config.json"
    prefix = read_json(config).get("add_prefix_space") if config.is_file() else None
    if prefix is not None:
        writer.add_add_space_prefix(prefix)
    _vocabulary(writer, metadata.vocabulary)
    gguf.SpecialVocab(metadata.tokenizer, n_vocab=len(metadata.vocabulary.tokens)).add_to_gguf(writer, quiet=True)


def _dimensions(gguf: ModuleType, writer: Any, arch: Architecture, ftype: int | None) -> None:
    """Sizes and constants, as `set_gguf_parameters` of llama.cpp's conversion/base.py and llama.py writes them."""
    writer.add_block_count(arch.layers)
    writer.add_context_length(arch.context)
    writer.add_embedding_length(arch.hidden)
    writer.add_feed_forward_length(arch.feed_forward)
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(arch.heads_kv)
    if arch.rope_factor != 1.0:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(arch.rope_factor)
    writer.add_rope_freq_base(arch.rope_base)
    writer.add_layer_norm_rms_eps(arch.eps)
    writer.add_key_length(arch.head_dim)
    writer.add_value_length(arch.head_dim)
    if ftype is not None:
        writer.add_file_type(ftype)
    writer.add_vocab_size(arch.vocab)
    writer.add_rope_dimension_count(arch.head_dim)


def _vocabulary(writer: Any, vocab: Vocabulary) -> None:
    """The tokens, as `_set_vocab_sentencepiece` of llama.cpp's conversion/base.py writes them."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocab.tokens)
    writer.add_token_scores(vocab.scores)
    writer.add_token_types(vocab.types)


def _special_tokens(writer: Any, vocab: Vocabulary, stops: tuple[int, ...]) -> None:
    """Tokens by role, what is put around a text, and the chat template, as transformers was found to use them."""
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
