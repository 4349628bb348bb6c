"""`medmind-chat serve`: chat completions as OpenAI writes them, on a loopback address."""
