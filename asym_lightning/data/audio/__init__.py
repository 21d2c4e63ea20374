"""Data of audio."""
