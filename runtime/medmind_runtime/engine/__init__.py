"""One GGUF in memory: tokens in, tokens and probabilities out, through llama.cpp."""
