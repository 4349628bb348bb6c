"""GGUFs and held-out text in, a report out: what each quantization costs in perplexity, memory and speed."""
