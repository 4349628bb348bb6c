"""What memory a model is forecast to take, and what is refused for want of it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import Forked

from medmind import gguf_header
from medmind.errors import MedmindError
from medmind_runtime.engine import forecast, free_memory
from medmind_runtime.engine.engine import Engine
from medmind_runtime.engine.free_memory import FreeMemory


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
