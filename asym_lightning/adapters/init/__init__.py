"""Rules by which A and B start."""
