"""Packages that a part of the library needs, and the extras that bring them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "timm": "vision",
    "torchvision": "vision",
    "PIL": "vision",
    "transformers": "text",
    "datasets": "text",
    "pyarrow": "text",
    "rouge_score": "text",
    "pycocotools": "detection",
    "scipy": "detection",
    "soundfile": "audio",
    "soxr": "audio",
    "bitsandbytes": "quantized",
    "sklearn": "demo",
    "lm_eval": "lm-eval",
    "matplotlib": "figures",
    "opacus": "private",
    "flwr": "federated",
}
_PROJECTS = {"PIL": "pillow", "rouge_score": "rouge-score", "sklearn": "scikit-learn"}


def projects(extra: str) -> list[str]:
    """Names under which the packages of an extra are installed.

    >>> projects("vision")
    ['timm', 'torchvision', 'pillow']
    """
    return [_PROJECTS.get(package, package) for package, of_extra in EXTRAS.items() if of_extra == extra]


def check_installed(package: str, needed_by: str) -> None:
    """Check, without importing it, that a package of :data:`EXTRAS` is there.

    Raises:
        ModuleNotFoundError: It is not; the message says what to install.
    """
    with extra_named(needed_by):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


@contextmanager
def extra_named(needed_by: str) -> Iterator[None]:
    """Say what to install where an import inside fails for want of a package of :data:`EXTRAS`.

    Args:
        needed_by: What the user asked for.

    Raises:
        ModuleNotFoundError: A package is missing.

    Example:
        >>> with extra_named("ImageClassifier"):
        ...     raise ModuleNotFoundError("No module named 'timm'", name="timm")
        Traceback (most recent call last):
        ModuleNotFoundError: `ImageClassifier` needs timm: pip install 'asym-lightning[vision]'.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        project, extra = _PROJECTS.get(package, package), EXTRAS[package]
        raise ModuleNotFoundError(f"`{needed_by}` needs {project}: pip install 'asym-lightning[{extra}]'.") from error
