"""What is done to a whole model: inject, merge, quantise, freeze."""
