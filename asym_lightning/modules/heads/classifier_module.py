"""The module that every classifier builds on: it knows its classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.messages import listed
from asym_lightning.lifecycle.predictions import file_of_module
from asym_lightning.modules.evaluation_sets import EvaluationSetsModule


class ClassifierModule(EvaluationSetsModule):
    """An `EvaluationSetsModule` whose classes have names: those that it is given, or those of the data module.

    What it learnt of the data is in its checkpoints, so that it names what it predicts where there is no such data.

    Attributes:
        label_names: Names of the classes by number; None until they are known, and where there are scores.
        is_regression: Whether there are scores in place of classes.
        num_outputs: Outputs of the head, once it is built.
        predictions_file: Name of the file that `predict` writes to the run's directory; None leaves it to callbacks.
    """

    label_names: list[str] | None = None
    is_regression = False
    num_outputs: int
    predictions_file: ClassVar[str | None] = None
    _new_modules: Sequence[str] = ()  # for which the checkpoint has no weights

    def setup(self, stage: str) -> None:
        """Take the names of the data module's classes, or check that they are those which are known.

        Raises:
            ValueError: If they are not.
        """
        super().setup(stage)
        of_data = None if self.is_regression else getattr(self._data, "label_names", None)
        if not of_data:
            return
        if self.label_names is None:
            self.adopt_label_names(of_data)
        else:
            check_same_classes(self.label_names, list(of_data))

    def adopt_label_names(self, names: Sequence[str]) -> None:
        """Take names of classes where none are known, such as those that a checkpoint was trained with."""
        if self.label_names is None and names:
            self.label_names = list(names)
            self.save_hyperparameters({"label_names": list(names)})  # so that a checkpoint knows them without the data

    def required_label_names(self) -> list[str]:
        """Return the names of the classes.

        Raises:
            ValueError: If they are not known.
        """
        if self.label_names is None:
            raise ValueError("`label_names` are neither given nor known to the data module.")
        return self.label_names

    def heads(self, backbone: nn.Module) -> list[str] | None:
        """Return the head and whatever else is new, such as BERT's pooler, and say so; None if that is the head alone.

        Frozen, what the checkpoint has no weights for would stay random.
        """
        if not self._new_modules:
            return None
        own = find_heads(backbone, None)
        others = [n for n in self._new_modules if not any(n == head or n.startswith(f"{head}.") for head in own)]
        if not others:
            return None
        rank_zero_info(f"also trained   {', '.join(others)}, for which the checkpoint has no weights")
        return [*own, *others]

    def configure_callbacks(self) -> list[Callback]:
        """Return what the base class does, and the callback that writes the predictions unless there is one."""
        file = self.predictions_file
        written = [] if file is None else file_of_module(self, file, lambda: self.run_directory)
        return [*super().configure_callbacks(), *written]


def check_same_classes(known: Sequence[str], of_data: Sequence[str]) -> None:
    """Check that data has the classes that a model tells apart, in their order.

    Data whose classes are but numbers may have any names.

    Args:
        known: Names of the model's classes, by number.
        of_data: Those of the data.

    Raises:
        ValueError: If it has others.

    Example:
        >>> check_same_classes(["no", "yes"], ["0", "1"])
        >>> check_same_classes(["ant", "bee"], ["ant", "cat"])
        Traceback (most recent call last):
        ValueError: the data has other classes than the model, which was made for ant, bee: it has cat and lacks bee.
    """
    if list(known) == list(of_data) or list(of_data) == [str(number) for number in range(len(known))]:
        return
    more, less = ([n for n in one if n not in other] for one, other in ((of_data, known), (known, of_data)))
    found = [f"has {listed(more, 5)}"] * bool(more) + [f"lacks {listed(less, 5)}"] * bool(less)
    what = " and ".join(found) or f"has them in the order {listed(of_data, 5)}"
    raise ValueError(f"the data has other classes than the model, which was made for {listed(known, 5)}: it {what}.")
