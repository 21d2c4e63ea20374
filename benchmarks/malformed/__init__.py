"""Malformed calls: what is wrong has to be refused in one sentence that names it, at once, and leave nothing behind."""
