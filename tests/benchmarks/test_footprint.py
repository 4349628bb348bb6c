"""Memory is measured as chat would take it."""

from pathlib import Path
from typing import Unpack

import pytest

from medmind_benchmarks import footprint
from medmind_runtime.engine.assembly import Parts, Settings, assemble


def test_memory_is_measured_with_the_batch_and_attention_that_chat_chooses(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Settings] = []

    def listen(path: Path, **settings: Unpack[Settings]) -> Parts:
        told.append(settings)
        return assemble(path, **settings)

    monkeypatch.setattr("medmind_runtime.engine.engine.assemble", listen)
    model = str(family / "family.q8_0.gguf")
    request = footprint.Request("memory", model, kv_type="f16", load_mode="copy", context=128, threads=1)
    assert footprint.measure(request, lambda: None).kv_cache > 0
    (one,) = told
    assert (one.get("batch"), one.get("flash"), one.get("load_mode")) == (None, None, "copy")
