"""An offline library: answers of a source as passages in one SQLite file, found by their words. Loads no model."""
