"""Which attention a model is loaded with, and in what steps it reads a prompt."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmind import gguf_header, llama
from medmind_runtime.engine import attention
from medmind_runtime.engine.attention import prompt_step
from medmind_runtime.engine.engine import Engine

PROMPT = [1, 3, 273, 280, 15, 15, 291, 282, 276, 275, 4]


def test_a_large_model_reads_prompts_in_small_steps() -> None:
    shape: dict[str, str | int] = {"general.architecture": "llama"}
    shape |= {"llama.feed_forward_length": 14336, "llama.embedding_length": 4096}
    assert [prompt_step(shape, threads, context=4096, flash=True) for threads in (1, 2, 6, 16, 64)] == [
        *(32, 32, 64, 128, 512)
    ]
    assert prompt_step({}, 1, context=4096, flash=False) == 512


def test_where_the_scores_of_a_step_are_kept_a_long_context_is_read_in_smaller_ones() -> None:
    shape: dict[str, str | int] = {"general.architecture": "llama", "llama.attention.head_count": 32}
    steps = [prompt_step(shape, 64, context=context, flash=False) for context in (512, 2048, 4096, 8192, 1 << 17)]
    assert steps == [512, 256, 128, 64, 32]
    assert prompt_step(shape, 64, context=1 << 17, flash=True) == 512
    of_each_layer: dict[str, str | int] = {"general.architecture": "llama", "llama.embedding_length": 4096}
    assert prompt_step(of_each_layer, 64, context=1 << 17, flash=False) == 32


def test_without_flash_attention_a_model_says_the_same_and_the_scores_are_foreseen(
    make_model: Callable[..., Path],
) -> None:
    model = make_model(context=4096, width=128, layers=2)
    found = {}
    for flash in (True, False):
        with Engine.load(model, threads=1, context=4096, batch=512, flash=flash) as engine:
            found[flash] = engine.memory.compute, engine.log_probs(PROMPT * 20, 1)
    assert np.allclose(found[False][1], found[True][1], atol=0.02)
    scores = attention.score_bytes(gguf_header.scalars(model), context=4096, batch=512)
    assert found[False][0] - found[True][0] == pytest.approx(scores, rel=0.2)


def test_llama_cpp_s_own_flash_attention_is_for_quantized_values_gpus_and_many_threads() -> None:
    assert not any(attention.flash(kind, 2, on_gpu=False, own=False) for kind in ("f16", "f32"))
    assert all(attention.flash(kind, 2, on_gpu=False, own=False) for kind in ("bf16", "q8_0"))
    assert attention.flash("f16", 16, on_gpu=False, own=False) and attention.flash("f16", 2, on_gpu=True, own=False)
    assert attention.flash("f16", 2, on_gpu=False, own=True)


def test_medmind_s_attention_is_for_models_and_caches_that_it_knows() -> None:
    header: dict[str, str | int] = {"general.architecture": "llama", "llama.embedding_length": 4096}
    assert not attention.own(header, "f16")
    header["llama.attention.head_count"] = 32
    assert all(attention.own(header, kind) for kind in ("f16", "bf16", "q8_0"))
    assert not any(attention.own(header, kind) for kind in ("f32", "q4_0"))
    assert not attention.own(header | {"llama.attention.head_count": 0}, "f16")
    assert not attention.own(header | {"llama.attention.key_length": 80}, "f16")
    assert not attention.own(header | {"llama.attention.value_length": 80}, "f16")
    assert not attention.own(header | {"llama.attention.value_length_swa": 80}, "f16")
    assert not attention.own(header | {"llama.attn_logit_softcapping": 50}, "f16")
    assert not attention.own(header | {"llama.attention.max_alibi_bias": 8}, "f16")


def test_a_model_is_loaded_with_the_attention_that_is_built(make_model: Callable[..., Path]) -> None:
    model = make_model(width=128, head=32)
    with Engine.load(model, threads=1) as engine:
        assert engine.flash == llama.own_attention()
    with Engine.load(model, threads=1, kv_type="f32") as engine:
        assert not engine.flash
