"""`medmind-bench chain`: from the base over training and merging to each quantized file, on the same tokens."""
