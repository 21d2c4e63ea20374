"""Reading of pictures by Pillow, which raises much where a file is none."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from asym_lightning.core.messages import first_line

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@contextmanager
def reading(what: str, advice: str = "") -> Iterator[None]:
    """Say what cannot be read, where Pillow fails.

    Args:
        what: What is read.
        advice: What else to say, at the end of the sentence.

    Raises:
        ValueError: If it is no picture, or a damaged one.

    Example:
        >>> with reading("cat.png"):
        ...     Image.open("/dev/null")
        Traceback (most recent call last):
        ValueError: cat.png cannot be read as an image (cannot identify image file '/dev/null').
    """
    try:
        yield
    except _UNREADABLE as error:
        raise ValueError(f"{what} cannot be read as an image ({first_line(error)[:100]}){advice}.") from error
