"""Data to adapter, and text to base model: the stage that needs torch."""
