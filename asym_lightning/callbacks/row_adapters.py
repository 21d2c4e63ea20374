"""Each row of a batch with the adapter that the data name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from asym_lightning.adapters import AdapterStack, adapter_layers
from asym_lightning.core.messages import did_you_mean
from asym_lightning.core.options import CheckedArguments
from asym_lightning.lifecycle.backbone import adapted_backbone, refuse_fsdp1


class RowAdapters(CheckedArguments, Callback):
    """Predict, test and validate with many adapters over one frozen A, of which every row of a batch names its own.

    The adapters are loaded into an :class:`~asym_lightning.adapters.AdapterStack` when the run starts; `stack` is it,
    and loads and drops others. A row whose name is empty has the backbone alone, with the head that the module has.

    Args:
        adapters: Directories of adapters, or of runs, by the names that the data have for them.
        column: Field of a batch, which is a mapping then, that holds a name for each row, such as the `adapters` of a
            `TextFilesDataModule` with an `adapter_column`. Batches without it all have the one adapter that there is.

    Raises:
        ValueError: On start, if an adapter does not fit the module or does not share its A's; in a batch, if there is
            no adapter of a name, or several adapters and no names.

    Example:
        >>> RowAdapters({"reviews": "runs/reviews/version_0", "news": "runs/news/version_0"}).column
        'adapters'
    """

    def __init__(self, adapters: Mapping[str, str | Path], column: str = "adapters") -> None:
        super().__init__()
        self.adapters = dict(adapters)
        self.column = column
        self.stack: AdapterStack | None = None
        self._rows = ExitStack()

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the adapters."""
        self._load(trainer, pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the adapters."""
        self._load(trainer, pl_module)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the adapters, unless this is a validation in training, which is of what trains."""
        if not trainer.training and not trainer.sanity_checking:
            self._load(trainer, pl_module)

    @override
    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Let the rows use their adapters."""
        self._enter(batch)

    @override
    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Let the model be as it was."""
        self._rows.close()

    @override
    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Let the rows use their adapters."""
        self._enter(batch)

    @override
    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Let the model be as it was."""
        self._rows.close()

    @override
    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        """Let the rows use their adapters, where they were loaded."""
        if self.stack is not None and not trainer.training and not trainer.sanity_checking:
            self._enter(batch)

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Let the model be as it was."""
        self._rows.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the model be as it was."""
        self._rows.close()

    def _load(self, trainer: Trainer, module: LightningModule) -> None:
        refuse_fsdp1(trainer)
        backbone = adapted_backbone(trainer, module)
        if not adapter_layers(backbone):  # a module of this package that was given no adapter of its own
            backbone = getattr(module, "backbone", module)
        self.stack = AdapterStack(backbone, self.adapters)

    def _enter(self, batch: Any) -> None:
        assert self.stack is not None
        self._rows.enter_context(self.stack.rows_use(self._names_of(batch, self.stack)))

    def _names_of(self, batch: Any, stack: AdapterStack) -> Sequence[str | None]:
        if isinstance(batch, Mapping) and self.column in batch:
            return [name or None for name in batch[self.column]]
        if len(stack.names) == 1:
            return stack.names  # of any number of rows
        fields = list(batch) if isinstance(batch, Mapping) else []
        raise ValueError(
            f"`column` {self.column!r} of `RowAdapters` is no field of the batches, and there are {len(stack.names)} "
            f"adapters to choose from{did_you_mean(self.column, fields)}"
        )
