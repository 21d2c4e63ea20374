"""Tasks of audio."""
