"""Kinds for layers of transformers."""
