"""A small Mistral-architecture base model from plain text: tokenizer, token file, training loop."""
