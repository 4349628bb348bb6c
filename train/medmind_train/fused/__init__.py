"""A decoder's training step by hand: forward and backward without autograd, for memory and speed on a small card."""
