"""A JSON schema becomes the grammar that an answer must follow. Knows no model and no conversation."""
