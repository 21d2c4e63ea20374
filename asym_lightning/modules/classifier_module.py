"""The module that every classifier builds on: it knows its classes by name."""

from __future__ import annotations

from collections.abc import Sequence

from asym_lightning.core.messages import listed
from asym_lightning.modules.evaluation_sets import EvaluationSetsModule


class ClassifierModule(EvaluationSetsModule):
    """An `EvaluationSetsModule` whose classes have names: those that it is given, or those of the data module.

    What it learnt of the data is in its checkpoints, so that it names what it predicts where there is no such data.

    Attributes:
        label_names: Names of the classes by number; None until they are known, and where there are scores.
        is_regression: Whether there are scores in place of classes.
    """

    label_names: list[str] | None = None
    is_regression = False

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
