"""How a model may be loaded: choices and a default. Imports nothing heavy: a command line lists them at once."""

from typing import Literal

LoadMode = Literal["auto", "mmap", "copy"]
"""How weights come into memory.

`mmap` maps the file and leaves it so: what llama.cpp repacks for this CPU then lies in memory twice. `copy` reads the
file into memory of its own. `auto` maps it and lets the pages go that have been copied; they come back from the
system's file cache where a tensor is used as it lies in the file. Only Linux has that; elsewhere `auto` is `mmap`.
"""
GpuLayers = int | Literal["auto"]
"""Layers on the GPU; `auto` as many as fit its free memory, none where llama.cpp was built without one."""

DEFAULT_CONTEXT = 4096
"""Tokens that are remembered unless told otherwise, at most: a model may have been trained on fewer."""
