"""What the tasks of a Hugging Face model with a head of its own have in common, whatever the head tells."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from asym_lightning.adapters.targets.heads import find_heads
from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.lifecycle.predictions import PREDICTIONS, file_of_module
from asym_lightning.modules.base import Backbone
from asym_lightning.modules.classifier_module import ClassifierModule
from asym_lightning.modules.text_backbone import class_order, create_text_backbone
from asym_lightning.sharding import PretrainedWeights

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class HeadedTextModule(ClassifierModule):
    """A Hugging Face encoder or decoder with a new head, which trains.

    With the head trains whatever else the checkpoint has no weights for, such as the pooler of a BERT that was trained
    as a masked language model: frozen, it would stay random.

    A task is a subclass with `build_metrics`, `step` and the class attribute; what it predicts has classes, unless it
    sets `num_scores`.

    Attributes:
        auto_class: Class of transformers that knows the models with a head for the task.
        num_scores: Outputs of the head where there are no classes; 0 where there is no head.
        predictions_file: Name of the file that `predict` writes to the run's directory.
        num_outputs: Outputs of the head, once it is built.
    """

    auto_class: ClassVar[Any]
    predictions_file: ClassVar[str] = PREDICTIONS
    num_scores: int | None = None
    num_outputs: int
    _new_modules: Sequence[str] = ()

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model with its head; a module that is given is used as it is.

        Raises:
            ValueError: If the classes are not known, or not as many as the model has outputs.
        """
        if isinstance(source, str):
            if self.label_names is None and self.num_scores is None:
                raise ValueError("`label_names` are neither given nor known to the data module.")
            wanted = self.num_scores or len(self.label_names or ())
            model, self._new_modules = create_text_backbone(
                source, wanted, self.label_names, self.build_options, self.auto_class
            )
            if self._weights is not None:
                self._new_modules = self._weights.lacking(model)
        else:
            model = source
        config: Any = getattr(model, "config", None)
        self.num_outputs = int(getattr(config, "num_labels", len(self.label_names or (0,))))
        self._check_outputs()
        if config is not None and getattr(config, "pad_token_id", None) is None:
            # Decoders classify by the last token that is not padding; the data modules pad with the same token.
            config.pad_token_id = pad_token_id(config)
        self._longest = longest_sequence(config)
        self._order = class_order(model, self.label_names)
        # A wrapper's signature, such as PEFT's, hides inputs behind `**kwargs`.
        known = {*inspect.signature(model.forward).parameters}
        known |= set() if "input_ids" in known else {"input_ids", "attention_mask"}
        known |= {"token_type_ids"} if getattr(config, "type_vocab_size", 0) > 1 else set()
        self._inputs = [name for name in INPUTS if name in known]
        return model

    def _check_outputs(self) -> None:
        expected = self.num_scores or len(self.label_names or range(self.num_outputs))
        if self.num_outputs != expected:
            raise ValueError(
                f"the backbone has {self.num_outputs} outputs, but {self._task} needs {expected}"
                f"{f', one for each of {self.label_names}' if self.label_names else ''}."
            )

    @property
    def _task(self) -> str:  # what messages call it
        return type(self).__name__

    def pretrained_weights(self, source: Backbone) -> PretrainedWeights | None:
        """Return the safetensors files of a folder or a hub repository."""
        return PretrainedWeights.of(source) if isinstance(source, str) and self.backbone_options.pretrained else None

    def heads(self, backbone: nn.Module) -> list[str] | None:
        """Return the head and whatever else the checkpoint has no weights for, such as BERT's pooler."""
        own = find_heads(backbone, None)
        others = [n for n in self._new_modules if not any(n == head or n.startswith(f"{head}.") for head in own)]
        if not others:
            return None
        rank_zero_info(f"also trained   {', '.join(others)}, for which the checkpoint has no weights")
        return [*own, *others]

    def run_backbone(self, batch: dict[str, Any]) -> Any:
        """Return what the model makes of a batch's inputs.

        Raises:
            ValueError: If a sequence is longer than the model allows.
        """
        length = batch["input_ids"].shape[1]
        if self._longest is not None and length > self._longest:
            raise ValueError(
                f"a batch has sequences of {length} tokens, but the backbone allows {self._longest}: "
                f"set the data module's `max_length` to at most that."
            )
        return self(**{name: batch[name] for name in self._inputs if name in batch})

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """Return the outputs, in the order of `label_names` along the last dimension.

        Raises:
            ValueError: If a sequence is longer than the model allows.
        """
        output = self.run_backbone(batch)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits if self._order is None else logits[..., self._order]

    def configure_callbacks(self) -> list[Callback]:
        """Return what the base class does, and the callback that writes the predictions unless there is one."""
        return [
            *super().configure_callbacks(),
            *file_of_module(self, self.predictions_file, lambda: self.run_directory),
        ]
