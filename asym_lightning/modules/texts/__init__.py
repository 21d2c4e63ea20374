"""Tasks of texts that are read."""
