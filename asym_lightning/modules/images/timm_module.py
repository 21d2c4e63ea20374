"""What the tasks of a timm backbone with a new head have in common, whatever the head tells."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import timm.data
from torch import Tensor, nn

from asym_lightning.adapters.targets.patterns import matches
from asym_lightning.core.names import plain_modules
from asym_lightning.modules.base import Backbone
from asym_lightning.modules.heads.classifier_module import ClassifierModule
from asym_lightning.modules.images.timm_backbone import create_timm_backbone, timm_folder
from asym_lightning.sharding import PretrainedWeights


class TimmModule(ClassifierModule):
    """A timm backbone with a new head, which trains.

    Batches are images (batch, channels, height, width), or pairs of them and what is to be learnt of each.

    A task is a subclass with `count_outputs`, `build_metrics` and `step`.

    Attributes:
        frozen_layers: Dotted suffixes or globs of layers that stay as they are in full fine-tuning.
    """

    frozen_layers: tuple[str, ...] = ()

    @abstractmethod
    def count_outputs(self) -> int:
        """Return how many outputs the head is to have.

        Raises:
            ValueError: If that is not known yet.
        """

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the timm model with a new head; a module that is given keeps its weights but for the head."""
        self.num_outputs = self.count_outputs()
        if isinstance(source, str):
            model = create_timm_backbone(source, self.num_outputs, self.build_options)
        else:
            model = source
            reset_classifier = getattr(model, "reset_classifier", None)  # timm's, and what follows it
            if callable(reset_classifier):
                reset_classifier(self.num_outputs)
        self._freeze_layers(model)
        return model

    def pretrained_weights(self, source: Backbone) -> PretrainedWeights | None:
        """Return the safetensors file of a folder or a hub repository."""
        folder = timm_folder(source) if isinstance(source, str) and self.backbone_options.pretrained else None
        return None if folder is None else PretrainedWeights.of(folder, keeps_heads=False)

    def _freeze_layers(self, model: nn.Module) -> None:
        for pattern in self.frozen_layers:
            layers = [module for name, module in plain_modules(model) if name and matches(name, pattern)]
            if not layers:
                known = ", ".join(name for name, _ in model.named_children())
                raise ValueError(f"`frozen_layers` entry {pattern!r} matches no layer; the outermost are {known}.")
            for layer in layers:
                layer.requires_grad_(False)

    @property
    def data_config(self) -> dict[str, Any] | None:
        """Size, mean, standard deviation and interpolation of the images, by timm; None if the model has no such."""
        if not hasattr(self.backbone, "pretrained_cfg"):
            return None
        return timm.data.resolve_model_data_config(self.backbone)

    def logits(self, batch: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the outputs of the head for the images of a batch."""
        outputs: Tensor = self(images_of(batch))
        return outputs


def images_of(batch: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The images of a batch that may have labels.

    >>> import torch
    >>> images_of((torch.zeros(2, 3), torch.zeros(2))).shape
    torch.Size([2, 3])
    """
    return batch if isinstance(batch, Tensor) else batch[0]


def targets_of(batch: Tensor | tuple[Tensor, ...]) -> Tensor | None:
    """What is to be learnt of the images of a batch; None where it holds nothing like that.

    >>> import torch
    >>> targets_of(torch.zeros(2, 3)) is None
    True
    """
    targets = None if isinstance(batch, Tensor) else next(iter(batch[1:]), None)
    return targets if isinstance(targets, Tensor) and targets.shape[:1] == batch[0].shape[:1] else None
