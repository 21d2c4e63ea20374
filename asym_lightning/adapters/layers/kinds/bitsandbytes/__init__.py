"""Kinds for layers of bitsandbytes."""
