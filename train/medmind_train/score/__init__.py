"""`medmind-train score`: held-out tokens under the base, the adapter as it was trained, or the merged weights."""
