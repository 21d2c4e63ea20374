"""Names of the options of training commands, checked before torch and Lightning are imported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from asym_lightning.cli.given import TRAINER, Given
from asym_lightning.cli.signatures import signature
from asym_lightning.cli.usage import UsageError
from asym_lightning.core.messages import did_you_mean, nearest

COMMON = (
    "config", "seed_everything", "trainer", "model", "data", "ckpt_path", "weights_only", "test_after_fit",
    "predictions", "num_threads", "adapters", "quiet", "debug", "print_config", "help",
)  # fmt: skip
OF_ONE = {"validate": ("verbose",), "test": ("verbose",), "predict": ("return_predictions",)}
_ANY_TASK = "asym_lightning.modules.AdapterModule"


def check_option_names(command: str, given: Given) -> None:
    """Check that there are the options that are given, as far as their classes are known without importing them.

    Raises:
        UsageError: If there is none of such a name; the message names the nearest, in full.
    """
    for name, _ in given.options:
        keys = [key for key in name.rstrip("+").split(".") if key != "init_args"]
        if keys[0] in ("model", "data"):
            _check_below(keys, given)
        elif ".".join(keys[:2]) not in (known := top_level_options(command)) and keys[-1] != "help":
            below = (_options_below([key], given, default) for key, default in (("model", _ANY_TASK), ("data", None)))
            raise unknown_option([], name, [*known, *(option for options in below for option in options)])


def top_level_options(command: str = "fit") -> list[str]:
    """Options that a command has whatever the task."""
    trainer = signature(TRAINER)
    return [*COMMON, *OF_ONE.get(command, ()), *(f"trainer.{name}" for name in (trainer.arguments if trainer else ()))]


def unknown_option(keys: Sequence[str], name: str, known: Collection[str]) -> UsageError:
    """Return the error on an option that there is not.

    Args:
        keys: Where it was looked for; [] means the command.
        name: The option.
        known: Options that there are below those keys. One that ends in the name is what was meant.
    """
    place = f"`{'.'.join(keys)}`" if keys else "the command"
    if full := next((option for option in known if option.endswith(f".{name}")), None):
        return UsageError(f"{place} has no option {name!r}: it is `{'.'.join([*keys, full])}`.")
    alike = [option for option in known if ("." in option) == ("." in name)]
    if not nearest(name, alike):  # of an unknown section the first word tells
        return UsageError(f"{place} has no option {name!r}{did_you_mean(name.split('.')[0], known)}")
    return UsageError(f"{place} has no option {name!r}{did_you_mean(name, alike)}")


def _check_below(keys: Sequence[str], given: Given) -> None:
    for depth, key in enumerate(keys[1:], 1):
        found = given.signature_at(keys[:depth])
        if found is None or key in ("class_path", "dict_kwargs", "help"):
            return
        if key not in found.arguments:
            place = ".".join(keys[:depth])
            known = [option.removeprefix(f"{place}.") for option in _options_below(keys[:depth], given)]
            raise unknown_option(keys[:depth], key, known)


def _options_below(keys: Sequence[str], given: Given, default: str | None = None) -> Iterator[str]:
    class_path = given.class_at(keys) or default
    found = signature(class_path) if class_path else None
    for name, argument in (found.arguments if found else {}).items():
        yield ".".join([*keys, name])
        yield from _options_below([*keys, name], given, argument.default_class)
