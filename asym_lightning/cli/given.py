"""What a user gave a training command, as far as it can be told before torch and Lightning are imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from asym_lightning.cli.class_names import class_path
from asym_lightning.cli.config_files import is_text, merged_config
from asym_lightning.cli.signatures import Signature, signature

TRAINER = "lightning.pytorch.Trainer"
FLAGS = ("debug", "quiet", "print_config")
SHORT = {"-c": "--config", "-h": "--help"}
# Keys of a class in a config, beside which its arguments may stand.
_KEYS_OF_CLASS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Given:
    """Options and configs of a command.

    Args:
        options: Names, without dashes, and values, in their order; None for a value that is not there.
        stray: What belongs to no option.
    """

    options: tuple[tuple[str, str | None], ...]
    stray: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Given:
        """Take a command line apart; every option but `FLAGS` takes one value.

        >>> Given.parse(["-c", "a.yaml", "--trainer.devices=2", "b.yaml", "--debug"])
        Given(options=(('config', 'a.yaml'), ('trainer.devices', '2'), ('debug', None)), stray=('b.yaml',))
        """
        options: list[tuple[str, str | None]] = []
        stray = []
        rest = [SHORT.get(argument, argument) for argument in reversed(arguments)]
        while rest:
            argument = rest.pop()
            if not argument.startswith("--"):
                stray.append(argument)
                continue
            name, equals, value = argument.removeprefix("--").partition("=")
            takes_next = not equals and name not in FLAGS and rest and not rest[-1].startswith("--")
            options.append((name, rest.pop() if takes_next else value if equals else None))
        return cls(tuple(options), tuple(stray))

    @property
    def configs(self) -> list[str]:
        """The configs, in their order."""
        return [value for name, value in self.options if name == "config" and value]

    def value_of(self, *names: str) -> str | None:
        """The last value of an option that goes by one of some names, or None."""
        return next((value for name, value in reversed(self.options) if name in names), None)

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What the configs say together; None if that can't be told, as of texts and addresses in place of files.

        Raises:
            FileNotFoundError: If there is no such config.
            ValueError: If one holds no keys and values.
        """
        if any(map(is_text, self.configs)):
            return None
        merged = merged_config(self.configs)
        # Options by command are read by `lightning --config all.yaml fit` alone.
        return None if "fit" in merged else merged

    def class_at(self, keys: Sequence[str]) -> str | None:
        """The class whose arguments are options below a key, such as `model` or `model.adapter`; None if unknown."""
        path = ".".join(keys)
        if given := self.value_of(path, f"{path}.class_path"):
            return _full_name(path, given)
        section = self._section(keys)
        if isinstance(section, dict) and "class_path" in section:
            return _full_name(path, str(section["class_path"]))
        if len(keys) == 1:
            return TRAINER if keys == ["trainer"] else None
        above = self.signature_at(keys[:-1])
        argument = above.arguments.get(keys[-1]) if above else None
        return argument.class_path if argument else None

    def signature_at(self, keys: Sequence[str]) -> Signature | None:
        """What can be given below a key; None if unknown."""
        found = self.class_at(keys)
        return signature(found) if found else None

    def _section(self, keys: Sequence[str]) -> Any:
        section: Any = self.config
        for key in keys:
            if not isinstance(section, dict):
                return None
            section = section.get("init_args", section).get(key)
        return section


def _full_name(key: str, name: str) -> str | None:
    return name if "." in name else class_path(key, name)
