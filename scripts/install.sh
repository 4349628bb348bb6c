#!/usr/bin/env bash
# Make the environment in $VENV with $PYTHON. Every install goes through constraints.txt.
#   TORCH_INDEX       package index for torch alone (the CPU or CUDA index that pytorch.org names); empty: the default one
#   LLAMA_CMAKE_ARGS  more CMake arguments for llama.cpp, e.g. -DGGML_CUDA=ON
set -euo pipefail
PYTHON="${PYTHON:-python3}" VENV="${VENV:-.venv}"

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    die "$PYTHON is missing or older than 3.11 — install Python 3.11 or newer, or name one: make PYTHON=python3.12 …"
command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
    die "no C++ compiler was found — Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"

say "environment in $VENV"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV" ||
    die "$PYTHON cannot make environments — Debian and Ubuntu: apt install python3-venv"
pip=("$VENV/bin/python" -m pip --disable-pip-version-check)

say "torch (some 200 MB for the CPU alone; the default wheel on Linux brings several GB of CUDA: see TORCH_INDEX in README)"
"${pip[@]}" install -q -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

compile() {
    set -m # a process group of its own, so that Ctrl-C ends the compilers too
    CMAKE_BUILD_PARALLEL_LEVEL="$cores" \
        CMAKE_ARGS="$arguments -DCMAKE_PROJECT_llama_cpp_INCLUDE=$scratch/llama_build.cmake ${LLAMA_CMAKE_ARGS:-}" \
        "${pip[@]}" install -v -c constraints.txt "${fresh[@]}" --no-binary llama-cpp-python llama-cpp-python \
        >"$scratch/log" 2>&1 &
    build=$!
    set +m
    trap 'kill -- "-$build" 2>/dev/null; rm -rf "$scratch"; exit 130' INT TERM
    while kill -0 "$build" 2>/dev/null; do
        sleep 5
        step=$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$scratch/log" | tail -n 1 | tr -d ' ' || true)
        [ $(((SECONDS - started) % 30)) -ge 5 ] || printf '    %s s %s\n' "$((SECONDS - started))" "$step"
    done
    wait "$build" || { tail -n 30 "$scratch/log" >&2; die "llama.cpp could not be compiled — the whole log is in $scratch/log"; }
    trap - INT TERM
}

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
arguments="-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_NATIVE=OFF"
case "$(uname -m)" in
    # One wheel for every x86 machine since 2013: native code would crash where pip's cache carries it to an older CPU.
    x86_64 | amd64) arguments="$arguments -DGGML_SSE42=ON -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
        # On Linux, beside it, a build for CPUs with AVX-512 (scripts/llama_build.cmake).
        [ "$(uname -s)" != Linux ] || arguments="$arguments -DMEDMIND_AVX512=ON" ;;
esac
files=$({ cat scripts/llama_build.cmake scripts/llama_*.{h,cpp}; echo "$arguments"; } | cksum | tr ' ' -)
arguments="$arguments -DMEDMIND_BUILD=$files"
built="$(grep '^llama.cpp.python=' constraints.txt) $arguments ${LLAMA_CMAKE_ARGS:-}"
# What stands in the package tells of whom it is: pip may have put another one there since.
made_here() { [ "$(cat "$VENV"/lib/python*/site-packages/llama_cpp/lib/medmind-build 2>/dev/null)" = "$files" ]; }
if [ "$(cat "$VENV/.medmind-llama" 2>/dev/null)" = "$built" ] && made_here &&
    "$VENV/bin/python" -c 'import llama_cpp' 2>/dev/null; then
    say "llama.cpp is there"
else
    say "llama.cpp, compiled on $cores cores unless pip has it cached (about 5 core-minutes: 3 minutes on 2 cores)"
    scratch=$(mktemp -d) started=$SECONDS # a path of its own: CMAKE_ARGS is split at spaces, which this folder may hold
    cp scripts/llama_build.cmake scripts/llama_*.{h,cpp} "$scratch/"
    # pip's cache does not know CMake arguments: with other ones than the usual it must not serve a wheel.
    fresh=(--force-reinstall --no-deps)
    [ -z "${LLAMA_CMAKE_ARGS:-}" ] || fresh+=(--no-cache-dir)
    compile
    if [ -z "${LLAMA_CMAKE_ARGS:-}" ] && ! made_here; then
        version=$(sed -n 's/^llama.cpp.python==//p' constraints.txt) # what pip's cache served was made of other files
        "${pip[@]}" cache remove -q "llama_cpp_python-$version-*"
        compile
    fi
    rm -rf "$scratch"
    printf '%s\n' "$built" >"$VENV/.medmind-llama"
fi

say "the libraries, medmind and its tools"
"${pip[@]}" install -q -c constraints.txt -e '.[dev]'
say "ready: source $VENV/bin/activate, then medmind-train doctor"
