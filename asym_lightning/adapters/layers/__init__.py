"""The low-rank factors and the layers that hold them."""
