"""Data of models that write."""
