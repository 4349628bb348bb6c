"""One optimizer step, measured: memory, time and tokens, by our kernels, by the plain path and by its peers."""
