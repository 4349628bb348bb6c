"""The benchmark of training steps: memory, speed, and both against other ways to train."""
