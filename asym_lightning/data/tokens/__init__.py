"""Tokenised rows: made once, kept in a file, padded into batches."""
