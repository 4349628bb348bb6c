#!/usr/bin/env bash
# Build llama.cpp's own tools into $VENV/llama-tools, for `pytest -m reference`: from the sources of the very
# llama-cpp-python that is installed, and with the arguments it was built with (see scripts/install.sh) but medmind's own:
# tests let these tools take libllama and libggml from the package.
set -euo pipefail
VENV="${VENV:-.venv}"
python="$VENV/bin/python" out="$VENV/llama-tools"
tools=(llama-quantize llama-imatrix llama-perplexity llama-bench)

built="$(sed 's/ -DMEDMIND_[^ ]*//g' "$VENV/.medmind-llama")" # llama_cpp_python==… and the CMake arguments
if [ "$(cat "$out/.built" 2>/dev/null)" = "$built" ]; then
    exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '\033[1m==> llama.cpp'\''s tools (some 10 core-minutes)\033[0m\n'
"$python" -m pip --disable-pip-version-check download -q -c constraints.txt --no-deps --no-binary llama-cpp-python \
    -d "$scratch" llama-cpp-python
tar -xzf "$scratch"/llama_cpp_python-*.tar.gz -C "$scratch"
"$python" -m pip --disable-pip-version-check install -q --target "$scratch/cmake" cmake ninja
export PATH="$scratch/cmake/bin:$PATH" PYTHONPATH="$scratch/cmake"
# shellcheck disable=SC2206 # a list of arguments
arguments=(${built#* })
cmake -S "$scratch"/llama_cpp_python-*/vendor/llama.cpp -B "$scratch/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=ON -DCMAKE_INSTALL_RPATH='$ORIGIN' -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    "${arguments[@]}" >"$scratch/log" 2>&1 || { tail -n 30 "$scratch/log" >&2; exit 1; }
cmake --build "$scratch/build" --target "${tools[@]}" >"$scratch/log" 2>&1 || { tail -n 30 "$scratch/log" >&2; exit 1; }
rm -rf "$out"
mkdir -p "$out/bin"
cp -P "$scratch"/build/bin/*.so* "$out/bin/" # the tools' own parts; libllama and libggml are taken from the package
for tool in "${tools[@]}"; do cp "$scratch/build/bin/$tool" "$out/bin/"; done
cp -r "$scratch"/llama_cpp_python-*/vendor/llama.cpp/{convert_hf_to_gguf.py,convert_lora_to_gguf.py,conversion,gguf-py} "$out/"
printf '%s\n' "$built" >"$out/.built"
