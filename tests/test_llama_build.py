"""scripts/llama_build.cmake in a project that builds none of llama.cpp."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "llama_build.cmake"


@pytest.mark.skipif(os.name == "nt" or not shutil.which("cmake"), reason="needs cmake")
def test_the_name_of_the_build_is_installed_also_without_the_library_that_medminds_kernels_go_into(
    tmp_path: Path,
) -> None:
    """With llama.cpp's own builds for every CPU there is no library `ggml-cpu`; nothing must be compiled each time."""
    lines = ("cmake_minimum_required(VERSION 3.21)", "project(none LANGUAGES NONE)", f'include("{SCRIPT.as_posix()}")')
    (tmp_path / "CMakeLists.txt").write_text("\n".join(lines), encoding="utf-8")
    build, place = tmp_path / "build", tmp_path / "place"
    for arguments in (
        ["-S", str(tmp_path), "-B", str(build), "-DMEDMIND_BUILD=of-these-files", f"-DSKBUILD_PLATLIB_DIR={place}"],
        ["--install", str(build)],
    ):
        done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (place / "llama_cpp" / "lib" / "medmind-build").read_text(encoding="utf-8") == "of-these-files\n"
