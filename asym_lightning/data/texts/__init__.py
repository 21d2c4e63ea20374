"""Data of texts that are read."""
