# Included by CMake right after llama-cpp-python's project(): see the Makefile's LLAMA_CMAKE_ARGS.
# llama-cpp-python forces llama.cpp's `common` library (command-line tools, HTTP client, chat parsers) into the build,
# although the Python package loads libllama and libggml alone. A normal variable outranks the forced cache entry.
set(LLAMA_BUILD_COMMON OFF)
