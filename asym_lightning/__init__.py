"""Low-rank adapters whose A is random, orthonormal and frozen and whose B is trained, for Lightning."""

__version__ = "0.1.0"
