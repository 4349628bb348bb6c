"""Base model + LoRA adapter -> GGUF: merge, tokenizer, quantization. Never imports torch."""
