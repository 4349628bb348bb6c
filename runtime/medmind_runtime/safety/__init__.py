"""What is said before and around a model's words: emergencies first, and no dose that no source has. Loads no model."""
