"""The kernels for a CPU: C files and what calls them."""
