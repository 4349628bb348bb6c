"""What a library does to a model's answers: perplexity and multiple choice with and without the passages found."""
