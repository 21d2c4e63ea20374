"""What Pillow raises."""

from PIL import Image

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""Of a file that is no picture, or a damaged one."""
