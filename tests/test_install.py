"""scripts/install.sh with a pip that only says what it was asked for: when llama.cpp is compiled, and when not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
# In place of the environment's Python: its pip builds what holds a file with the name of its build, and nothing else.
case "$*" in
*--no-binary*)
    echo built >>"$VENV/log"
    for word in $CMAKE_ARGS; do
        case "$word" in -DMEDMIND_BUILD=*) echo "${word#*=}" >"$VENV/lib/python3/site-packages/llama_cpp/lib/medmind-build" ;; esac
    done ;;
esac
"""  # noqa: E501


@pytest.mark.skipif(os.name == "nt" or not shutil.which("bash") or not shutil.which("c++"), reason="needs bash and c++")
def test_llama_cpp_is_compiled_once_and_again_when_somebody_put_another_in_its_place(tmp_path: Path) -> None:
    programs = {tmp_path / "bin" / "python": PYTHON, tmp_path / "quick" / "sleep": "#!/bin/sh\n"}
    for program, text in programs.items():
        program.parent.mkdir()
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
    package = tmp_path / "lib" / "python3" / "site-packages" / "llama_cpp" / "lib"
    package.mkdir(parents=True)
    variables = {**os.environ, "VENV": str(tmp_path), "PYTHON": sys.executable, "LLAMA_CMAKE_ARGS": ""}
    variables["PATH"] = f"{tmp_path / 'quick'}:{variables['PATH']}"

    def builds() -> int:
        done = subprocess.run(
            ["bash", "scripts/install.sh"], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / "log").read_text(encoding="utf-8").count("built")

    assert builds() == 1
    assert builds() == 1
    (package / "medmind-build").unlink()  # as pip does, asked for another build
    assert builds() == 2
