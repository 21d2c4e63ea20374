"""What the tasks of a Hugging Face model with a head of its own have in common, whatever the head tells."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from torch import Tensor, nn

from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.lifecycle.predictions import PREDICTIONS
from asym_lightning.modules.base import Backbone
from asym_lightning.modules.heads.classifier_module import ClassifierModule
from asym_lightning.modules.heads.headed_backbone import class_order, create_headed_backbone
from asym_lightning.sharding import PretrainedWeights

INPUTS_BESIDE = ("attention_mask", "token_type_ids")


class HeadedModule(ClassifierModule):
    """A Hugging Face encoder or decoder, of text or of audio, with a new head, which trains.

    With the head trains whatever else the checkpoint has no weights for, such as the pooler of a BERT that was trained
    as a masked language model: frozen, it would stay random.

    A task is a subclass with `build_metrics`, `step` and the class attribute; what it predicts has classes, unless it
    sets `num_scores`.

    Attributes:
        auto_class: Class of transformers that knows the models with a head for the task.
        num_scores: Outputs of the head where there are no classes; 0 where there is no head.
    """

    auto_class: ClassVar[Any]
    predictions_file = PREDICTIONS
    num_scores: int | None = None

    def build_backbone(self, source: Backbone) -> nn.Module:
        """Build the model with its head; a module that is given is used as it is.

        Raises:
            ValueError: If the classes are not known, or not as many as the model has outputs.
        """
        if isinstance(source, str):
            wanted = len(self.required_label_names()) if self.num_scores is None else self.num_scores
            model, self._new_modules = create_headed_backbone(
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
        main = str(getattr(model, "main_input_name", "input_ids"))
        known |= set() if main in known else {main, "attention_mask"}
        known |= {"token_type_ids"} if getattr(config, "type_vocab_size", 0) > 1 else set()
        self._inputs = [name for name in (main, *INPUTS_BESIDE) if name in known]
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

    def run_backbone(self, batch: dict[str, Any]) -> Any:
        """Return what the model makes of a batch's inputs.

        Raises:
            ValueError: If a sequence is longer than the model allows.
        """
        length = batch[self._inputs[0]].shape[1]
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
