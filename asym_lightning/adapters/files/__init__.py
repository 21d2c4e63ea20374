"""Adapter directories and what checkpoints hold."""
