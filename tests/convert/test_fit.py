"""Types for a size: what is measured is the error that it says, and the choice keeps the budget and beats one type."""

import numpy as np
import pytest

from medmind.errors import MedmindError
from medmind_convert import fit, ggml, graph


def tensor(rows: int, columns: int, spread: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * spread).astype(np.float32)


def measured(count: int = 6) -> list[fit.Measured]:
    found = []
    for i in range(count):
        values = tensor(64, 256, 0.02 * (i + 1) ** 2, i)
        importance = np.random.default_rng(i).random(256).astype(np.float32)
        found.append(fit.measure(f"blk.{i}.ffn_up.weight", (64, 256), values.__getitem__, importance))
    return found


def test_damage_is_the_weighted_error_of_the_whole_tensor():
    values, importance = tensor(512, 256, 0.1, 0), np.linspace(0, 2, 256).astype(np.float32)
    kind = ggml.types()["Q4_K"]
    back = graph.dequantize(ggml.quantize(values, kind, importance), kind, 256)
    energy = float((values.astype(np.float64) ** 2 @ importance).sum())
    exact = float((((values - back).astype(np.float64) ** 2) @ importance).sum()) / energy
    found = fit.measure("x", (512, 256), values.__getitem__, importance).damage
    assert found["Q4_K"] == pytest.approx(exact, rel=0.1)  # from a quarter of the rows
    assert found["Q2_K"] > found["Q3_K"] > found["Q4_K"] > found["Q5_K"] > found["Q6_K"] > found["Q8_0"] > found["F16"]
    assert "IQ3_XXS" in found
    assert "IQ3_XXS" not in fit.measure("x", (512, 256), values.__getitem__, None).damage
    narrow = fit.measure("x", (64, 96), tensor(64, 96, 0.1, 1).__getitem__, None).damage
    assert set(narrow) == set(fit.NARROW)


def test_the_choice_keeps_the_budget_and_beats_one_type_of_that_size():
    tensors = measured()
    budget = sum(ggml.types()["Q4_K"].size(each.shape) for each in tensors)
    found = fit.solve(tensors, budget)
    assert 0.97 * budget < found.bytes <= budget
    assert found.bytes == sum(ggml.types()[kind].size((64, 256)) for kind in found.types.values())
    flat = sum(each.damage["Q4_K"] for each in tensors)
    assert found.damage < flat
    assert found == fit.solve(tensors, budget)
    with pytest.raises(MedmindError, match="too few: the smallest types take"):
        fit.solve(tensors, 1000)
