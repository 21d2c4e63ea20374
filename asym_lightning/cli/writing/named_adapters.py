"""Adapters of one model that go by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from asym_lightning.adapters import adapters_disabled, load_adapters, remove_adapters
from asym_lightning.adapters.files.load import read_for
from asym_lightning.cli.writing.options import BASE
from asym_lightning.core.messages import check_choice
from asym_lightning.core.names import plain_state


class NamedAdapters:
    """Adapters of one model, of which one at a time takes part in what it computes.

    Args:
        model: The model, adapted or not.
        directories: Adapter directories, or run directories, by name; each has to suit the model.
        own: Directory of the adapter that takes part where no name is given; None leaves the model as it is.
        is_base_changed: Whether the model has trained weights that are no adapter's, such as those of a head.

    Example:
        >>> adapters = NamedAdapters(nn.Linear(2, 2), {"legal": "runs/legal"})
        >>> adapters.check("leagl")
        Traceback (most recent call last):
        ValueError: `adapter` must be one of legal, base, not 'leagl': did you mean legal?
    """

    def __init__(
        self,
        model: nn.Module,
        directories: Mapping[str, str | Path],
        own: str | Path | None = None,
        is_base_changed: bool = False,
    ) -> None:
        self.model = model
        self.directories = directories
        self.own = own
        self.is_base_changed = is_base_changed

    def check(self, name: str | None) -> None:
        """Check that there is an adapter of a name; None and `base` there always are.

        Raises:
            ValueError: There is none, or the weights that it belongs to have changed.
        """
        if name is None:
            return
        check_choice("adapter", name, [*self.directories, BASE])
        if self.is_base_changed:
            raise ValueError(
                f"`adapter` {name!r} needs the base model, but the run trained weights of it besides its adapter: give "
                "the base model as the source, and the run by `--adapter NAME=RUN`."
            )

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Let the adapter of a name take part within a `with` block, in place of the model's own.

        Args:
            name: Its name; `base` is the model without adapters, None with its own.

        Raises:
            ValueError: There is none of the name, or it does not suit the model.
        """
        self.check(name)
        if name is None and self.own is None:
            yield
            return
        with adapters_disabled(self.model):
            if name == BASE:
                yield
            else:
                with _loaded(self.model, self.directories[name] if name else self.own):  # type: ignore[arg-type]
                    yield


@contextmanager
def _loaded(model: nn.Module, directory: str | Path) -> Iterator[None]:
    """Load an adapter, and afterwards give the model back what it had."""
    state = plain_state(model)
    before = {name: state[name].clone() for name in read_for(model, directory).others if name in state}
    load_adapters(model, directory)
    try:
        yield
    finally:
        remove_adapters(model)
        with torch.no_grad():
            for name, tensor in before.items():
                state[name].copy_(tensor)
