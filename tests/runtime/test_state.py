import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind import llama
from medmind.errors import MedmindError
from medmind_runtime.engine.engine import Engine, Sampling

LONG = [1, 3, *(20 + i * 7 % 250 for i in range(300)), 4]


def answer(engine: Engine, prompt: list[int]) -> list[int]:
    return list(engine.generate(prompt, sampling=Sampling(), max_tokens=12))


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_a_resumed_conversation_is_not_evaluated_again_and_goes_on_alike(
    make_model: Callable[..., Path], tmp_path: Path, kv_type: str
) -> None:
    path = tmp_path / "talk.state"
    model = make_model(width=128)
    with Engine.load(model, threads=1, kv_type=kv_type) as engine:  # type: ignore[arg-type]
        said = answer(engine, LONG)
        saved = engine.save_state(path)
        longer = [*LONG, *said, 5, 6, 7]
        expected = answer(engine, longer)
    assert saved == len(LONG) + len(said) - 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Engine.load(model, threads=1, kv_type=kv_type) as engine:  # type: ignore[arg-type]
        assert engine.load_state(path) == saved
        assert answer(engine, longer) == expected
        assert engine.timings.reused == saved
    assert [file.name for file in tmp_path.iterdir()] == ["talk.state"]


def test_a_state_of_another_model_or_a_damaged_one_is_refused_and_harmless(
    engine: Engine, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "talk.state"
    expected = answer(engine, LONG)
    engine.save_state(path)
    with (
        Engine.load(make_model(metadata={"other": "model"}), threads=1) as other,
        pytest.raises(MedmindError, match="another model"),
    ):
        other.load_state(path)
    whole = path.read_bytes()
    many = whole.replace(b'"bytes": ', b'"bytes": 99999999', 1)
    cut, no_state, headless = "bytes are not those that were saved", "is no saved state", "do not tell what is in it"
    for damaged, says in (
        (whole[:-1], cut),
        (whole[:-5] + b"12345", cut),
        (many, cut),
        (b"", no_state),
        (whole[:30], headless),
        (whole[:20] + b"\n", headless),
        (b"medmind-state/1\n[]\n", headless),
        (b"medmind-state/1\n" + b"[" * 60_000 + b"\n", headless),
        (whole.replace(b'"tokens": ', b'"tokens": -', 1), cut),
        (whole.replace(b'"tokens": ', b'"tokens": ""', 1), headless),
        (whole.replace(b'"tokens": ', b'"tokens": 1e999, "was": ', 1), headless),
        (whole.replace(b'"bytes": ', b'"bytes": Infinity, "was": ', 1), headless),
    ):
        path.write_bytes(damaged)
        with pytest.raises(MedmindError, match=says):
            engine.load_state(path)
    with pytest.raises(MedmindError, match="cannot be read"):
        engine.load_state(tmp_path / "none")
    with pytest.raises(MedmindError, match="cannot be written"):
        engine.save_state(tmp_path / "no" / "folder")
    path.write_bytes(whole)
    engine.load_state(path)
    assert answer(engine, LONG) == expected


def test_a_state_of_another_attention_is_not_gone_on_with(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its values lie alike in the cache: in bf16 llama.cpp's flash attention reads what medmind's wrote."""
    if not llama.own_attention():
        pytest.skip("llama.cpp has no attention of medmind's here")
    path = tmp_path / "talk.state"
    model = make_model(width=128, head=32)
    with Engine.load(model, threads=1, kv_type="bf16") as engine:
        answer(engine, LONG)
        engine.save_state(path)
    monkeypatch.setattr(llama, "own_attention", lambda: False)
    with Engine.load(model, threads=1, kv_type="bf16") as engine:
        assert engine.flash
        with pytest.raises(MedmindError, match="kind of attention"):
            engine.load_state(path)


def test_a_state_longer_than_the_context_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "talk.state"
    with Engine.load(model, threads=1) as engine:
        answer(engine, LONG)
        engine.save_state(path)
    with Engine.load(model, threads=1, context=256) as small:
        with pytest.raises(MedmindError, match="does not go into a context of 256"):
            small.load_state(path)
        assert answer(small, LONG[:40])
        assert small.timings.reused == 0
