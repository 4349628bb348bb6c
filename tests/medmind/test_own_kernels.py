"""scripts/llama_attention.cpp and scripts/llama_few_rows*.cpp, in each build of libggml-cpu for this processor."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medmind import llama, processor
from medmind.llama import cpu_library

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not {"avx2", "fma", "f16c"} <= processor.features(),
    reason="they are for x86-64 with AVX2, and these tests for Linux",
)
PROBE = Path(__file__).parent / "own_kernels.py"
ROUNDED = 2e-5
"""Of sums in 32 bits over some hundred places; with sums in 16 bits errors are a hundred times as large."""


@pytest.fixture(scope="module", params=["usual", "for this processor"])
def found(request: pytest.FixtureRequest) -> Any:
    package = llama.package().__file__
    assert package
    folder = Path(package).parent / "lib"
    best = cpu_library(folder, processor.features())
    if request.param != "usual" and best is None:
        pytest.skip("the usual build is the one for this processor")
    build = folder / "libggml-cpu.so.0" if request.param == "usual" or best is None else best
    done = subprocess.run([sys.executable, str(PROBE), str(folder), str(build)], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_it_is_in_the_build(found: Any) -> None:
    assert found["own"]
    assert llama.own_attention()


def test_it_computes_what_the_formula_says(found: Any) -> None:
    left = {case: error for case, error in found["errors"].items() if "left=True" in case}
    own = {case: error for case, error in found["errors"].items() if case not in left}
    assert len(own) > 100
    assert not {case: error for case, error in own.items() if error > ROUNDED}


def test_what_it_does_not_know_llama_cpp_computes(found: Any) -> None:
    left = {case: error for case, error in found["errors"].items() if "left=True" in case}
    assert len(left) == 6
    assert all(ROUNDED < error < 0.01 for error in left.values()), left


def test_a_token_gets_the_bits_that_it_has_alone_in_a_cache_of_another_size(found: Any) -> None:
    assert len(found["alike"]) > 100
    assert not [case for case, alike in found["alike"].items() if not alike]


def test_products_with_a_few_tokens_have_the_bits_of_single_ones_and_these_llama_cpps(found: Any) -> None:
    products = found["products"]
    assert len(products["alike"]) > 500
    assert not [case for case, same in products["alike"].items() if not same]
    assert len(products["singly"]) == 87
    assert not [case for case, same in products["singly"].items() if not same]
    assert max(products["errors"].values()) < 0.02  # tokens are rounded to 8 bits


def test_up_to_eight_tokens_are_multiplied_by_medmind_and_all_else_by_llama_cpp(found: Any) -> None:
    products = found["products"]
    assert products["own"] == len(products["alike"]) + 9 * 81
    assert products["batches"] == 6 * 6
    assert products["other"] < 0.02
    assert llama.own_products()
