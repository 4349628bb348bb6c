"""How weights come into memory, what is forecast, and what is refused before it is loaded."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
from forked import Forked
from gguf import GGUFReader, GGUFWriter

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind_runtime.engine import attention, forecast, free_memory
from medmind_runtime.engine.attention import prompt_step
from medmind_runtime.engine.engine import Engine, Sampling
from medmind_runtime.engine.free_memory import FreeMemory

PROMPT = [1, 3, 273, 280, 15, 15, 291, 282, 276, 275, 4]


def answer(engine: Engine) -> list[int]:
    return list(engine.generate(PROMPT, sampling=Sampling(), max_tokens=12))


def test_every_load_mode_answers_alike(model: Path) -> None:
    answers = []
    for mode in ("auto", "mmap", "copy"):
        with Engine.load(model, threads=1, load_mode=mode) as engine:  # type: ignore[arg-type]
            answers.append(answer(engine))
    assert answers[0] == answers[1] == answers[2]


def test_the_forecast_is_what_llama_cpp_allocates(make_model: Callable[..., Path]) -> None:
    model = make_model(context=4096, width=128, layers=4)
    for kv_type in ("f16", "f32"):
        expected = forecast.forecast(gguf_header.read(model), context=4096, batch=512, kv_type=kv_type, flash=False)
        with Engine.load(model, threads=1, context=4096, kv_type=kv_type) as engine:  # type: ignore[arg-type]
            assert expected.kv_per_token * 4096 == pytest.approx(engine.memory.kv_cache, abs=0.01 * 2**20)
        assert expected.weights == model.stat().st_size


def test_what_does_not_fit_is_refused_with_what_would(make_model: Callable[..., Path]) -> None:
    model = make_model(context=4096, width=128, layers=4)
    settings: dict[str, Any] = {"context": 4096, "batch": 32, "kv_type": "f16", "flash": False}
    header = gguf_header.read(model)
    needed = forecast.forecast(header, **settings).total
    forecast.demand_room(header, **settings, available=FreeMemory(needed))
    with pytest.raises(MedmindError) as refused:
        forecast.demand_room(header, **settings, available=FreeMemory(needed - 1))
    assert "--kv-type q8_0 or --context 3840 or a smaller quant" in str(refused.value)
    longer = {**settings, "context": 1 << 24}
    with pytest.raises(MedmindError, match="--context 3840 or"):  # the same, however much was asked for
        forecast.demand_room(header, **longer, available=FreeMemory(needed - 1))
    with pytest.raises(MedmindError) as refused:
        forecast.demand_room(header, **settings, available=FreeMemory(1000))
    assert "q8_0" not in str(refused.value)
    assert "--context" not in str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="the limits that Linux heeds")
@pytest.mark.parametrize(
    ("name", "taken", "mapped", "also", "context"),
    [
        ("ulimit -v", 0, True, 40, 512),  # what is repacked stands in address space twice
        ("ulimit -v", 0, False, 0, 768),
        ("ulimit -d", 5, True, 40 - 64, 768),  # what is mapped is no data
        ("ulimit -d", 5, False, 0, 768),
    ],
)
def test_what_a_limit_of_the_process_leaves_is_all_that_is_there(
    name: str, taken: int, mapped: bool, also: int, context: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    kind = resource.RLIMIT_AS if name == "ulimit -v" else resource.RLIMIT_DATA
    header = gguf_header.Header(Path("x"), scalars={}, places={}, tensors=(), start=0, alignment=32)
    needed = forecast.Forecast(64 << 20, 40 << 20, kv_per_token=1 << 20, scores_per_token=0, scratch=0, context=4096)
    monkeypatch.setattr(forecast, "forecast", lambda *_, **__: needed)
    monkeypatch.setattr(free_memory, "_free", lambda: None)

    def limited() -> None:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[taken])
        resource.setrlimit(kind, (pages * resource.getpagesize() + (900 << 20), -1))
        found = free_memory.available(mapped=64 << 20 if mapped else 0, copied=40 << 20 if mapped else 0)
        assert found and found.limit == name and found.also == (also << 20) + free_memory._THREADS, found
        assert 800 << 20 < found.bytes <= 901 << 20
        with pytest.raises(MedmindError) as refused:
            forecast.demand_room(header, context=4096, batch=1, kv_type="q8_0", flash=True, mapped=mapped)
        print(refused.value)

    done = Forked(limited, cwd=Path.cwd()).wait()
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode().strip()
    assert f" MiB are left by {name} — use --context {context} or " in said and said.endswith(f" or a higher {name}")


def test_the_engine_asks_before_it_loads(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_free", lambda: 1 << 16)
    with pytest.raises(MedmindError, match="does not fit"):
        Engine.load(model, threads=1)
    Engine.load(model, threads=1, check_memory=False).close()


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_load_reads_each_header_once(
    model: Path, tmp_path: Path, has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    parse = gguf_header._header
    monkeypatch.setattr(gguf_header, "_header", lambda data, path: parsed.append(path.name) or parse(data, path))
    monkeypatch.setattr(llama.load(), "llama_supports_gpu_offload", lambda: has_gpu)
    adapter = write_adapter(tmp_path / "lora.gguf")
    Engine.load(model, threads=1, adapter=adapter).close()
    assert parsed == ["tiny.gguf", "lora.gguf"]


@pytest.mark.skipif(not forked.available, reason="another process would not be counted")
def test_chat_reads_a_header_once_before_all_else_and_once_to_load(
    model: Path,
    tmp_path: Path,
    run_chat: Callable[..., "subprocess.CompletedProcess[bytes]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = gguf_header._header
    monkeypatch.setattr(
        gguf_header, "_header", lambda data, path: print(path.name, file=sys.stderr) or parse(data, path)
    )
    adapter = write_adapter(tmp_path / "lora.gguf")
    done = run_chat(model, "-p", "q", "--adapter", adapter, "--max-tokens", 2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.decode().splitlines() if line.endswith(".gguf")] == [
        *("tiny.gguf", "tiny.gguf", "lora.gguf")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
@pytest.mark.parametrize("by_signal", [True, False])
@pytest.mark.parametrize(
    ("makes", "asked_next", "frees"),
    [
        ("llama_model_load_from_file", "llama_model_has_encoder", ["llama_model_free"]),
        ("llama_init_from_model", "llama_n_ctx", ["llama_free", "llama_model_free"]),
    ],
)
def test_what_llama_cpp_made_is_freed_when_the_load_ends_right_behind_it(
    model: Path, by_signal: bool, makes: str, asked_next: str, frees: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = llama.load()
    real = {name: getattr(lib, name) for name in (makes, "llama_free", "llama_model_free")}
    freed: list[str] = []

    def ended(*_: object) -> None:
        raise SystemExit(143)

    def made(*given: Any) -> Any:
        handle = real[makes](*given)
        assert handle
        if by_signal:
            signal.raise_signal(signal.SIGTERM)
        else:
            monkeypatch.setattr(lib, asked_next, ended)
        return handle

    monkeypatch.setattr(lib, makes, made)
    for name in ("llama_free", "llama_model_free"):
        monkeypatch.setattr(lib, name, lambda handle, name=name: freed.append(name) or real[name](handle))
    before = signal.signal(signal.SIGTERM, ended)
    try:
        with pytest.raises(SystemExit):
            Engine.load(model, threads=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert freed == frees


def test_loading_can_be_watched_and_stopped(model: Path) -> None:
    seen: list[float] = []
    Engine.load(model, threads=1, progress=lambda done: seen.append(done) is None).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1
    with pytest.raises(MedmindError, match="stopped"):
        Engine.load(model, threads=1, progress=lambda done: done < 0.5)


@pytest.mark.parametrize("options", [{"kv_type": "q9"}, {"load_mode": "swift"}, {"gpu_layers": 3}])
def test_impossible_ways_are_refused(model: Path, options: dict[str, Any]) -> None:
    with pytest.raises(MedmindError):
        Engine.load(model, threads=1, **options)


def test_a_model_is_no_adapter(model: Path) -> None:
    with pytest.raises(MedmindError, match="no LoRA adapter"):
        Engine.load(model, threads=1, adapter=model)


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


def write_adapter(path: Path, *, width: int = 64, name: str = "blk.1.attn_q.weight", base: str = "") -> Path:
    rng = np.random.default_rng(3)
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    if base:
        writer.add_string("medmind.base.digest", base)
    writer.add_tensor(f"{name}.lora_a", rng.normal(0, 0.5, (4, width)).astype(np.float32))
    writer.add_tensor(f"{name}.lora_b", rng.normal(0, 0.5, (width, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_adapter_changes_what_the_model_says_by_b_times_a(model: Path, tmp_path: Path) -> None:
    """As the model with the product added to its weight says it."""
    adapter = write_adapter(tmp_path / "lora.gguf")
    reader = GGUFReader(adapter)
    first, second = (np.array(tensor.data) for tensor in reader.tensors)
    merged = tmp_path / "merged.gguf"
    data = bytearray(model.read_bytes())
    query = next(tensor for tensor in GGUFReader(model).tensors if tensor.name == "blk.1.attn_q.weight")
    changed = (np.array(query.data) + 8.0 / 4 * second @ first).astype(np.float32).tobytes()
    data[query.data_offset : query.data_offset + len(changed)] = changed
    merged.write_bytes(data)
    with Engine.load(model, threads=1) as engine:
        bare = engine.log_probs(PROMPT, 1)
    with Engine.load(model, threads=1, adapter=adapter) as engine:
        adapted = engine.log_probs(PROMPT, 1)
    with Engine.load(merged, threads=1) as engine:
        expected = engine.log_probs(PROMPT, 1)
    assert np.abs(expected - bare).max() > 0.05
    np.testing.assert_allclose(adapted, expected, atol=0.02)


@pytest.mark.parametrize("options", [{"width": 32}, {"name": "blk.9.attn_q.weight"}])
def test_an_adapter_of_another_model_is_refused_in_one_line(
    model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    adapter = write_adapter(tmp_path / "lora.gguf", **options)
    with pytest.raises(MedmindError, match="does not fit"):
        Engine.load(model, threads=1, adapter=adapter)


def test_an_adapter_is_laid_over_the_base_that_it_was_trained_on_and_over_no_other(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "lora.gguf", base="sha256:1")
    own, other = ({"medmind.base.digest": f"sha256:{number}"} for number in (1, 2))
    Engine.load(make_model(metadata=own), threads=1, adapter=adapter).close()
    with pytest.raises(MedmindError, match="another base"):
        Engine.load(make_model(metadata=other), threads=1, adapter=adapter)
    with pytest.raises(MedmindError, match="merged into"):
        Engine.load(make_model(metadata=own | {"medmind.adapter.digest": "sha256:3"}), threads=1, adapter=adapter)


def test_reuse_ends_at_the_first_token_that_differs_where_the_system_text_moves(engine: Engine) -> None:
    """Mistral v0.3's template puts it before the last question: the last turn alone is evaluated anew."""
    messages = [{"role": "system", "content": "be calm and say little"}]
    before: list[int] = []
    for turn in range(4):
        messages.append({"role": "user", "content": f"is the heart on the left, {turn}"})
        prompt = engine.encode(messages)
        said = list(engine.generate(prompt, sampling=Sampling(), max_tokens=12))
        same = next((i for i, pair in enumerate(zip(before, prompt, strict=False)) if pair[0] != pair[1]), 0)
        assert engine.timings.reused == same
        if turn > 1:
            older = engine.encode(messages[1:-3], add_generation_prompt=False)
            assert same >= len(older) > 0  # the turns before the last one stay
        before = [*prompt, *said[:-1]]
        messages.append(
            {"role": "assistant", "content": b"".join(map(engine.detokenize, said)).decode("utf-8", "replace")}
        )


def test_of_a_split_model_the_first_file_is_asked_for(make_model: Callable[..., Path], tmp_path: Path) -> None:
    later = tmp_path / "m-00003-of-00005.gguf"
    shutil.copy(make_model(), later)
    with pytest.raises(MedmindError, match="in 5 files") as refused, Engine.load(later, threads=1):
        pass
    assert refused.value.hint == "give the first: m-00001-of-00005.gguf"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_while_c_calls_back_ends_the_load_and_is_not_lost(model: Path, number: int) -> None:
    def ended(caught: int, _frame: object) -> None:
        raise SystemExit(128 + caught)

    def told_at_the_first_step(_done: float) -> bool:
        signal.raise_signal(number)
        return True

    before = signal.signal(number, ended)
    try:
        with pytest.raises(SystemExit) as left:
            Engine.load(model, threads=1, progress=told_at_the_first_step)
        assert left.value.code == 128 + number
        assert signal.getsignal(number) is ended
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_a_signal_in_prefill_ends_it_and_reaches_its_own_handler(model: Path) -> None:
    def ended(_number: int, _frame: object) -> None:
        raise SystemExit(143)

    asked: list[int] = []

    def told_in_the_middle() -> bool:
        asked.append(1)
        if len(asked) == 5:
            signal.raise_signal(signal.SIGTERM)
        return False

    before = signal.signal(signal.SIGTERM, ended)
    try:
        with Engine.load(model, threads=1) as engine, pytest.raises(SystemExit):
            list(engine.generate(PROMPT * 8, sampling=Sampling(), max_tokens=3, cancel=told_in_the_middle))
        assert 5 <= len(asked) < 9, "it went on"
    finally:
        signal.signal(signal.SIGTERM, before)
