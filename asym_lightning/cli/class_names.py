"""Classes by their bare names, as configs and options give them: `class_path: ImageClassifier`."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module

from asym_lightning.cli.signatures import offered_names, signature
from asym_lightning.core.extras import extra_named
from asym_lightning.core.lazy import imported_names

# Where the classes are that go by their bare names below a key.
PLACES = {
    "model": ("asym_lightning.modules",),
    "model.optimizer": ("torch.optim",),
    "model.scheduler": ("asym_lightning.modules.schedule", "torch.optim.lr_scheduler"),
    "model.scheduler.make": ("torch.optim.lr_scheduler",),
    "data": ("asym_lightning.data",),
    "trainer.callbacks": ("asym_lightning.callbacks", "lightning.pytorch.callbacks"),
    "trainer.logger": ("lightning.pytorch.loggers",),
    "trainer.strategy": ("asym_lightning.strategies", "lightning.pytorch.strategies"),
}
_LAZY = tuple(f"asym_lightning.{name}" for name in ("modules", "data", "callbacks", "strategies"))


def class_path(key: str, name: str) -> str | None:
    """The dotted path of a class that goes by its bare name below a key; None if there is none of that name.

    >>> class_path("model.optimizer", "AdamW")
    'torch.optim.AdamW'
    """
    return next((f"{place}.{name}" for place in PLACES.get(key, ()) if name in offered_names(place)), None)


def class_names(key: str) -> list[str]:
    """Names of the classes that suit a key, those of this package first; none for a key that is not in `PLACES`.

    >>> class_names("trainer.strategy")[:2]
    ['FSDP2Strategy', 'DDPStrategy']
    """
    names = dict.fromkeys(name for place in PLACES.get(key, ()) for name in offered_names(place, at_home=True))
    return [name for name in names if _suits(key, name)]


def _suits(key: str, name: str) -> bool:
    """Whether a class is one of those that a key takes, of a package that has others beside them."""
    if key == "data":
        return name.endswith("DataModule")
    found = signature(f"asym_lightning.modules.{name}") if key == "model" else None
    return key != "model" or (found is not None and "backbone" in found.arguments and not found.is_abstract)


def modules_named(text: str) -> list[str]:
    """Modules of the classes of this package that are named somewhere in a text.

    >>> modules_named("data: {class_path: DigitsDataModule}  # not `GLUE`")
    ['asym_lightning.data.images.digits']
    """
    return sorted(set(_named(text).values()))


def import_named(text: str) -> None:
    """Import the classes of this package that a text names.

    jsonargparse finds a bare name among the classes that are there. So what a text names is imported before it reads
    on, and nothing else: what is for text alone takes longer to import than a small run.

    Raises:
        ModuleNotFoundError: A class needs a package of an extra that is not installed; the message names both.
    """
    for name, module in _named(text).items():
        with extra_named(name):
            import_module(module)


def import_all() -> None:
    """Import all classes that go by their bare names, for lists of what there is: not those of extras that are not."""
    for package in _LAZY:
        for name in imported_names(package):
            with suppress(ModuleNotFoundError):
                import_named(name)


def _named(text: str) -> dict[str, str]:
    """Names of this package's classes that are in a text, and their modules."""
    words = set(re.findall(r"\w+", text))
    return {name: module for package in _LAZY for name, module in imported_names(package).items() if name in words}
