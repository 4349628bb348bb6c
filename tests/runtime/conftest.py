"""A tiny real GGUF (random weights, byte-fallback vocabulary, Mistral-like template), and medmind-chat in a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, quants

from medmind import llama
from medmind_runtime.cli import main
from medmind_runtime.engine.engine import Engine
from medmind_runtime.safety.classifier import classifier
from medmind_runtime.safety.triage import triage

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}"
    "{% if message.role == 'user' %}[INST] "
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ message.content }}[/INST]{% else %} {{ message.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral v0.3: the system text goes before the last question."""
LETTERS = ["▁", *"etaonisrhldcumfpgwybvk"]
MERGED = ["▁t", "he", "▁the", "in", "er", "▁a", "on", "ing", "▁w", "ou", "▁is", "is"]
SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
BOS, EOS, INST, INST_END = 1, 2, 3, 4


def write_model(
    path: Path,
    *,
    template: str | None = TEMPLATE,
    context: int = 512,
    width: int = 64,
    layers: int = 2,
    ends: bool = False,
    quantized: bool = False,
    head: int = 16,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write the model; with `ends` it may say the end token, else that token's logit is 0 and never the highest.

    With `quantized` its matrices are in q8_0.
    """
    rng = np.random.default_rng(7)
    texts = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *MERGED, *LETTERS]
    pieces = len(MERGED) + len(LETTERS)
    kinds = [TokenType.UNKNOWN] + [TokenType.CONTROL] * 4 + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * pieces
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(width // head)
    writer.add_head_count_kv(width // (2 * head))
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    if quantized:
        writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(len(texts))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text in texts])
    writer.add_token_scores([0.0] * (5 + 256) + [-float(rank) for rank in range(pieces)])
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    if template is not None:
        writer.add_chat_template(template)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)

    def tensor(name: str, *shape: int) -> None:
        values = rng.normal(0, 2.4 / shape[-1] ** 0.5, shape).astype(np.float32)
        if name == "output" and not ends:
            values[EOS] = 0
        if quantized:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", values)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))

    tensor("token_embd", len(texts), width)
    tensor("output", len(texts), width)
    norm("output_norm")
    for block in (f"blk.{layer}" for layer in range(layers)):
        norm(f"{block}.attn_norm")
        norm(f"{block}.ffn_norm")
        tensor(f"{block}.attn_q", width, width)
        tensor(f"{block}.attn_k", width // 2, width)
        tensor(f"{block}.attn_v", width // 2, width)
        tensor(f"{block}.attn_output", width, width)
        tensor(f"{block}.ffn_gate", 2 * width, width)
        tensor(f"{block}.ffn_up", 2 * width, width)
        tensor(f"{block}.ffn_down", width, 2 * width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_k_quant(folder: Path, **options: Any) -> Path:
    """A model in q4_k_m: llama.cpp's kernels of K quants take rows by fours, and their bits tell how tokens came
    together; but for the few that scripts/llama_few_rows.cpp takes.
    """
    lib = llama.load()
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = lib.LLAMA_FTYPE_MOSTLY_Q4_K_M, 1
    folder.mkdir()
    plain, quantized = write_model(folder / "plain.gguf", width=256, head=64, **options), folder / "q4_k_m.gguf"
    assert lib.llama_model_quantize(bytes(plain), bytes(quantized), params) == 0
    return quantized


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(**options: Any) -> Path:
        return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf", **options)

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Path]) -> Path:
    return make_model(metadata={"medmind.system_prompt": "be calm", "medmind.run": "tiny"})


@pytest.fixture
def engine(model: Path) -> Iterator[Engine]:
    with Engine.load(model, threads=1) as loaded:  # two threads wait for each other on a busy machine
        yield loaded


@pytest.fixture(scope="session")
def _warm() -> None:
    """What every chat imports and reads first, so that it is there in forks."""
    llama.package()
    for module in (
        "medmind_runtime.one_shot",
        "medmind_runtime.offline",
        "medmind_runtime.session",
        "prompt_toolkit",
        "prompt_toolkit.history",
        "medmind_runtime.terminal.markdown",
    ):
        import_module(module)
    triage()
    classifier()


@pytest.fixture
def run_chat(tmp_path: Path, _warm: None) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run medmind-chat in a process of its own, in an empty directory.

    With `fresh`, a `prefix` or an environment Python is started anew; else it is forked from this one.
    """

    def run(
        *arguments: object, stdin: bytes = b"", prefix: tuple[str, ...] = (), fresh: bool = False, **environment: str
    ) -> Any:
        if forked.available and not (fresh or prefix or environment):

            def start() -> None:
                sys.argv = ["medmind-chat", *map(str, arguments)]
                main()

            return forked.Forked(start, cwd=tmp_path, stdin=stdin).wait()
        return subprocess.run(
            [*prefix, *CHAT, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def start_chat(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start medmind-chat in an empty directory and go on; it is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: object) -> "subprocess.Popen[bytes]":
        command = [*CHAT, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


CHAT = [sys.executable, "-c", "from medmind_runtime.cli import main; main()"]


def one_line(stderr: bytes) -> str:
    """The only line of stderr, unwrapped."""
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]
