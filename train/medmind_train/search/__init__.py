"""Choosing learning rate, rank, alpha and target modules by successive halving on the validation rows' loss."""
