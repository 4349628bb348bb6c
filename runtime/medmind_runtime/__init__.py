"""Runtime: a GGUF file becomes answers in a terminal, with no network. Nothing here imports torch or transformers."""
