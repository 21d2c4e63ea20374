"""Tasks of models that write."""
