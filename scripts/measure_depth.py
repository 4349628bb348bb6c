"""What a token costs far into a conversation beside one at its beginning, by kind of KV cache and of attention.

    python scripts/measure_depth.py shape FILE.gguf [--layers 32] [--quant q8_0]
    python scripts/measure_depth.py costs FILE.gguf --out FILE.json [--threads 1 4 16] [--rounds 7]

`shape` writes a file of Mistral-7B-v0.3's shape in the types of q4_k_m or in q8_0 with random weights, which cost what
trained ones do. `costs` evaluates single tokens behind `NEAR` and behind `FAR` others, all kinds in turn.
"""

import argparse
import importlib.metadata
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from medmind import llama
from medmind_benchmarks.machine import cpu_model

NEAR, FAR = 50, 2000
TOKENS = 8
"""Evaluated at each place and turn, one by one."""
STEP = 512
_TYPE = gguf.GGMLQuantizationType
KINDS = {
    "f16": (_TYPE.F16, 1),
    "f16 without flash attention": (_TYPE.F16, 0),
    "bf16 without flash attention": (_TYPE.BF16, 0),
    "bf16": (_TYPE.BF16, 1),
    "q8_0": (_TYPE.Q8_0, 1),
}
"""Of the KV cache: the type of its keys and values, and whether flash attention is on."""
VOCABULARY, WIDTH, INNER, HEADS, KV_HEADS = 32768, 4096, 14336, 32, 8


def shape(path: Path, layers: int, quant: str) -> None:
    """Write the file: of each tensor one row of random numbers, with scales that keep them small, repeated."""
    chance = np.random.default_rng(0)
    kinds = gguf.GGMLQuantizationType

    @cache
    def packed(kind: gguf.GGMLQuantizationType, rows: int, columns: int) -> np.ndarray[Any, Any]:
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = chance.integers(0, 256, (columns // values, size), dtype=np.uint8)
        scale = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
        for at in {kinds.Q4_K: (0, 2), kinds.Q6_K: (size - 2,), kinds.Q8_0: (0,)}[kind]:
            blocks[:, at : at + 2] = scale
        return np.tile(blocks.reshape(1, -1), (rows, 1))

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(32768)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    special = ["<unk>", "<s>", "</s>"]
    writer.add_token_list([*special, *(f"token{place}" for place in range(3, VOCABULARY))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (VOCABULARY - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    usual, fine = (kinds.Q8_0, kinds.Q8_0) if quant == "q8_0" else (kinds.Q4_K, kinds.Q6_K)

    def add(name: str, rows: int, columns: int, kind: gguf.GGMLQuantizationType = usual) -> None:
        writer.add_tensor(f"{name}.weight", packed(kind, rows, columns), raw_dtype=kind)

    add("token_embd", VOCABULARY, WIDTH)
    add("output", VOCABULARY, WIDTH, fine)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    narrow = WIDTH // HEADS * KV_HEADS
    for layer in range(layers):
        finer = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        kind = fine if finer else usual  # as llama.cpp's use_more_bits
        add(f"blk.{layer}.attn_q", WIDTH, WIDTH)
        add(f"blk.{layer}.attn_k", narrow, WIDTH)
        add(f"blk.{layer}.attn_v", narrow, WIDTH, kind)
        add(f"blk.{layer}.attn_output", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate", INNER, WIDTH)
        add(f"blk.{layer}.ffn_up", INNER, WIDTH)
        add(f"blk.{layer}.ffn_down", WIDTH, INNER, kind)
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Place:
    """A context whose cache holds so many tokens."""

    def __init__(self, model: Any, kind: str, tokens: Sequence[int], threads: int) -> None:
        self._lib = lib = llama.load()
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = FAR + 2 * TOKENS, STEP, STEP, 1
        number, flash = KINDS[kind]
        params.type_k = params.type_v = int(number)
        params.flash_attn_type, params.no_perf = flash, True
        params.n_threads = params.n_threads_batch = threads
        self._handle = lib.llama_init_from_model(model, params)
        self._batch = lib.llama_batch_init(STEP, 0, 1)
        self._begin = len(tokens)
        for first in range(0, len(tokens), STEP):
            self._evaluate(tokens[first : first + STEP], first)

    def _evaluate(self, tokens: Sequence[int], begin: int) -> None:
        batch = self._batch
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, begin + row
            batch.n_seq_id[row], batch.seq_id[row][0], batch.logits[row] = 1, 0, row == len(tokens) - 1
        batch.n_tokens = len(tokens)
        if self._lib.llama_decode(self._handle, batch):
            raise SystemExit("llama.cpp could not evaluate the tokens")

    def seconds(self, tokens: Sequence[int], threads: int) -> float:
        """Of a token, one after the other behind those that are held."""
        self._lib.llama_set_n_threads(self._handle, threads, threads)
        self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._handle), 0, self._begin, -1)
        self._evaluate(tokens[:1], self._begin)  # threads that begin are not counted
        began = time.perf_counter()
        for place, token in enumerate(tokens[1:], 1):
            self._evaluate([token], self._begin + place)
        return (time.perf_counter() - began) / (len(tokens) - 1)


def costs(path: Path, threads: Sequence[int], rounds: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Seconds a token of each kind, place and number of threads, all in turn."""
    lib = llama.load()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    order = random.Random(3)
    tokens = [order.randrange(5, VOCABULARY) for _ in range(FAR)]
    places = {(kind, at): Place(model, kind, tokens[:at], max(threads)) for kind in kinds for at in (NEAR, FAR)}
    taken: dict[tuple[int, str, int], list[float]] = {}
    for count in threads:
        for _ in range(rounds):
            for (kind, at), place in places.items():
                taken.setdefault((count, kind, at), []).append(place.seconds(tokens[: TOKENS + 1], count))
    found = []
    for count in threads:
        for kind in kinds:
            near, far = taken[count, kind, NEAR], taken[count, kind, FAR]
            ratios = sorted(one / other for one, other in zip(far, near, strict=True))
            found.append(
                {
                    "threads": count, "kv_cache": kind, "near_seconds": near, "far_seconds": far,
                    "ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]},
                }
            )  # fmt: skip
    return {"near": NEAR, "far": FAR, "tokens_each": TOKENS, "runs": found}


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shape", "costs"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--layers", type=int, default=32, help="of shape")
    parser.add_argument("--quant", choices=["q4_k_m", "q8_0"], default="q4_k_m", help="of shape")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="of costs")
    parser.add_argument("--rounds", type=int, default=7, help="of costs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of costs")
    parser.add_argument("--out", type=Path, help="of costs")
    given = parser.parse_args()
    if given.what == "shape":
        shape(given.model, given.layers, given.quant)
        return
    document = {
        "schema": "medmind-depth/1",
        "model": given.model.name,
        "bytes": given.model.stat().st_size,
        "machine": {
            "processor": cpu_model(),
            "cores": os.cpu_count(),
        },
        "versions": {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")},
        **costs(given.model, given.threads, given.rounds, given.kinds),
    }
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    for run in document["runs"]:
        print(run["threads"], run["kv_cache"], {name: round(value, 3) for name, value in run["ratio"].items()})


if __name__ == "__main__":
    main()
