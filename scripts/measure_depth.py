"""What a token costs far into a conversation beside one at its beginning, by kind of KV cache and of attention.

    python scripts/measure_depth.py shape FILE.gguf [--layers 32] [--quant q8_0]
    python scripts/measure_depth.py costs FILE.gguf --out FILE.json [--threads 1 4 16] [--rounds 7]

`shape` writes a file of Mistral-7B-v0.3's shape in the types of q4_k_m or in q8_0 with random weights, which cost what
trained ones do. `costs` evaluates single tokens behind `NEAR` and behind `FAR` others, all kinds in turn.
"""

import argparse
import datetime
import importlib.metadata
import itertools
import json
import os
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from evaluating import Context, Model

from medmind import llama, processor

NEAR, FAR = 50, 2000
TOKENS = 8
"""Evaluated at each place and turn, one by one."""
STEP = 512
KINDS = {
    "f16": ("f16", "f16", True),
    "f16 without flash attention": ("f16", "f16", False),
    "bf16 without flash attention": ("bf16", "bf16", False),
    "bf16": ("bf16", "bf16", True),
    "q8_0": ("q8_0", "q8_0", True),
    "q8_0 keys, f16 values, without flash attention": ("q8_0", "f16", False),
    "f16 keys, f32 values": ("f16", "f32", True),
    "f32 without flash attention": ("f32", "f32", False),
}
"""Of the KV cache: the types of keys and of values, and whether flash attention is on."""
FILE_TYPES = {"q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
"""By which chat tells whether guessing gains."""
VOCABULARY, WIDTH, INNER, HEADS, KV_HEADS = 32768, 4096, 14336, 32, 8


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Tokens that chat can open; all words score alike."""
    writer.add_tokenizer_model("llama")
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]  # by which chat finds its template
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = [f"token{place}" for place in range(len(special) + len(bytes_), VOCABULARY)]
    writer.add_token_list([*special, *bytes_, *words])
    writer.add_token_scores([0.0] * VOCABULARY)
    types = [gguf.TokenType.CONTROL] * len(special) + [gguf.TokenType.BYTE] * len(bytes_)
    writer.add_token_types(types + [gguf.TokenType.NORMAL] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


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
    writer.add_file_type(FILE_TYPES[quant])
    add_vocabulary(writer)

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


def _seconds(place: Context, tokens: Sequence[int], begin: int) -> float:
    """Of a token, one after the other from a position on; the first is not counted: threads begin with it."""
    place.evaluate(tokens[:1], begin)
    began = time.perf_counter()
    for at, token in enumerate(tokens[1:], begin + 1):
        place.evaluate([token], at)
    return (time.perf_counter() - began) / (len(tokens) - 1)


def costs(path: Path, threads: Sequence[int], rounds: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Seconds a token of each kind, place and number of threads, all in turn."""
    model = Model(path)
    tokens = model.chance(FAR)
    places: dict[tuple[str, int], Context] = {}
    for kind, at in itertools.product(kinds, (NEAR, FAR)):
        keys, values, flash = KINDS[kind]
        place = places[kind, at] = Context(
            model, size=FAR + 2 * TOKENS, step=STEP, threads=max(threads), keys=keys, values=values, flash=flash
        )
        place.evaluate(tokens[:at], 0)
    taken: dict[tuple[int, str, int], list[float]] = {}
    for count in threads:
        for place in places.values():
            place.set_threads(count)
        for _ in range(rounds):
            for (kind, at), place in places.items():
                taken.setdefault((count, kind, at), []).append(_seconds(place, tokens[: TOKENS + 1], at))
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
        "schema": "medmind-depth/2",
        "date": datetime.date.today().isoformat(),
        "model": given.model.name,
        "bytes": given.model.stat().st_size,
        "machine": {
            "processor": processor.name(),
            "cores": os.cpu_count(),
        },
        "versions": {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")},
        "own_attention": llama.own_attention(),
        **costs(given.model, given.threads, given.rounds, given.kinds),
    }
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    for run in document["runs"]:
        print(run["threads"], run["kv_cache"], {name: round(value, 3) for name, value in run["ratio"].items()})


if __name__ == "__main__":
    main()
