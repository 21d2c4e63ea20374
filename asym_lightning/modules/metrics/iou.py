"""Intersection over union of classes of pixels, counted without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from asym_lightning.modules.metrics.class_metrics import confusion


class MeanIoU(MulticlassJaccardIndex):
    """Mean over classes of intersection over union; takes classes of pixels, or -100 for those that do not count.

    Classes that are neither there nor predicted have none and are left out. With no class left it is 0, with a warning,
    for NaN would stop a run whose early stopping or checkpoints watch the metric.

    Example:
        >>> import torch
        >>> metric = MeanIoU(3)
        >>> metric(torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[[0, 1], [0, -100]]]))
        tensor(0.5000)
    """

    confmat: Tensor
    num_classes: int

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count pixels."""
        self.confmat = self.confmat + confusion(preds, target, self.num_classes)

    def compute(self) -> Tensor:
        """Return the mean, in [0, 1]."""
        there, both = self._counts()
        known = there > 0
        if not known.any():
            rank_zero_warn("the mean IoU is undefined, for no pixel is of a class: reported as 0.")
            return both.sum()
        return (both[known] / there[known]).mean()

    def of_classes(self, names: Sequence[str]) -> Mapping[str, float]:
        """Return that of each class which is there or predicted, over the pixels of all processes."""
        with self.sync_context():
            there, both = self._counts()
        found = zip(names, there.tolist(), both.tolist(), strict=True)
        return {name: of_both / of_either for name, of_either, of_both in found if of_either}

    def _counts(self) -> tuple[Tensor, Tensor]:
        """Pixels that are of a class or predicted to be, and those that are both."""
        counts = self.confmat.float()
        both = counts.diag()
        return counts.sum(dim=0) + counts.sum(dim=1) - both, both
