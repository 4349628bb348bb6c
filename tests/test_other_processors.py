"""scripts/llama_*.cpp for a processor that they do not know, an ARM for one: there they leave everything to llama.cpp.

Of llama.cpp, whose sources nobody here has, stand in its declarations that such a processor's part of them names.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
SOURCES = sorted(SCRIPTS.glob("llama_*.cpp"))
COMPILERS = [one for one in ("g++", "clang++", "aarch64-linux-gnu-g++") if shutil.which(one)]
UNKNOWN = [f"-U__{name}__" for name in ("AVX2", "AVX512F", "FMA", "F16C")]
DECLARED = """
#pragma once
#include <cstddef>
#include <cstdint>
#define GGML_BACKEND_API
struct ggml_compute_params;
struct ggml_tensor;
extern "C" {
void ggml_compute_forward_flash_attn_ext(const struct ggml_compute_params *, struct ggml_tensor *);
bool ggml_cpu_extra_compute_forward(struct ggml_compute_params *, struct ggml_tensor *);
bool ggml_compute_forward_mul_mat_tiled(const struct ggml_compute_params *, struct ggml_tensor *);
bool llamafile_sgemm(
    const struct ggml_compute_params *, int64_t, int64_t, int64_t, const void *, int64_t, const void *, int64_t,
    void *, int64_t, int, int, int);
}
"""


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each header of llama.cpp that is included, and those that only an x86 has."""
    folder = tmp_path_factory.mktemp("headers")
    text = "".join(file.read_text(encoding="utf-8") for file in SCRIPTS.glob("llama_*.*"))
    (folder / "declared.h").write_text(DECLARED, encoding="utf-8")
    for name in re.findall(r'^\s*#\s*include "(.+)"', text, re.MULTILINE):
        if not (SCRIPTS / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text('#include "declared.h"\n', encoding="utf-8")
    for first in ("imm", "x86", "xmm", "emm", "pmm", "tmm", "smm", "nmm"):
        name = f"{first}intrin.h"
        (folder / name).write_text(f'#error "{name} is not there"\n', encoding="utf-8")
    return folder


@pytest.mark.skipif(not COMPILERS, reason="needs g++ or clang++")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("llamafile", [True, False])
def test_all_of_them_compile(llamafile: bool, compiler: str, headers: Path) -> None:
    defined = ["-DGGML_USE_LLAMAFILE"] if llamafile else []
    done = subprocess.run(
        [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", *UNKNOWN, *defined, f"-I{headers}", *SOURCES],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
