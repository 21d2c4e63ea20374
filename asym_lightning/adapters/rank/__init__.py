"""Ranks that change while training."""
