import pytest

from medmind.errors import MedmindError
from medmind_train import hardware
from medmind_train.hardware import Hardware, compute_dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((8, 9), "bfloat16"), ((12, 0), "bfloat16")],
)
def test_card_computes_in_bf16_where_it_has_it_and_in_fp16_where_not(capability: tuple[int, int], dtype: str):
    assert compute_dtype(Hardware("cuda", "card", 8 << 30, capability)) == dtype


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [(set(), "float32"), ({"avx2", "avx512f"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16")],
)
def test_cpu_computes_in_bf16_only_with_units_for_it(flags: set[str], dtype: str):
    assert compute_dtype(Hardware("cpu", "chip", 8 << 30, cpu_flags=frozenset(flags))) == dtype


def test_wanted_type_wins_over_the_hardware():
    assert compute_dtype(Hardware("cuda", "card", 8 << 30, (9, 0)), "float32") == "float32"


def test_this_machine_can_be_described():
    assert hardware.describe("cpu").memory > 1 << 28
    assert hardware.peak_memory("cpu") > 1 << 20


def test_asking_for_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MedmindError, match="no CUDA card"):
        hardware.describe("cuda")
