"""How weights and adapters come into memory, what is refused before, and how a load ends."""

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
from gguf import GGUFReader, GGUFWriter

from medmind import gguf_header, llama
from medmind.errors import MedmindError
from medmind_runtime.engine import weights
from medmind_runtime.engine.engine import Engine, Sampling

PROMPT = [1, 3, 273, 280, 15, 15, 291, 282, 276, 275, 4]


def answer(engine: Engine) -> list[int]:
    return list(engine.generate(PROMPT, sampling=Sampling(), max_tokens=12))


def test_every_load_mode_answers_alike(model: Path) -> None:
    answers = []
    for mode in ("auto", "mmap", "copy"):
        with Engine.load(model, threads=1, load_mode=mode) as engine:  # type: ignore[arg-type]
            answers.append(answer(engine))
    assert answers[0] == answers[1] == answers[2]


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


@pytest.mark.parametrize(("share", "layers"), [(0.1, 0), (2 / 3, 1), (1.0, 2), (2.0, -1)])
def test_as_many_layers_go_to_a_gpu_as_fit_beside_what_is_left_for_the_kv_cache(
    model: Path, share: float, layers: int
) -> None:
    header = gguf_header.read(model)
    assert weights._fitting_layers(header, int(share * model.stat().st_size)) == layers
    assert weights._fitting_layers(header, None) == -1


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
