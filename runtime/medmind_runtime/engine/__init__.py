"""The engine room: what holds a GGUF in memory, evaluates tokens and chooses the next, through llama.cpp."""
