"""Data of images."""
