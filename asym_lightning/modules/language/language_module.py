"""What all tasks of language models have in common: the model, its tokenizer, and what it makes of tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

from lightning.pytorch import Callback
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from asym_lightning.core.private_names import trainer_of
from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.lifecycle.predictions import PREDICTIONS, file_of_module
from asym_lightning.modules.base import AdapterModule
from asym_lightning.modules.language.language_model import (
    Architecture,
    check_output_layer,
    create_language_model,
    num_embeddings,
    output_layer,
)
from asym_lightning.sharding import PretrainedWeights


class LanguageModule(AdapterModule):
    """A language model of transformers with its own output layer.

    Attributes:
        architecture: Which kind the task needs.
        predictions_file: Name of the file that `predict` writes to the run's directory.
    """

    architecture: ClassVar[Architecture]
    predictions_file: ClassVar[str] = PREDICTIONS
    _is_output_layer_checked = False

    def build_backbone(self, source: str | nn.Module) -> nn.Module:
        """Build the model; one that is given is used as it is.

        Raises:
            ValueError: If there is no such model, or the tokenizer has more tokens than it.
        """
        model = (
            create_language_model(source, self.architecture, self.build_options) if isinstance(source, str) else source
        )
        self._longest = longest_sequence(getattr(model, "config", None))
        if trainer_of(self) is not None:
            self._check_vocabulary(model)
        return model

    def pretrained_weights(self, source: str | nn.Module) -> PretrainedWeights | None:
        """Return the safetensors files of a folder or a hub repository."""
        return PretrainedWeights.of(source) if isinstance(source, str) and self.backbone_options.pretrained else None

    def _check_vocabulary(self, model: nn.Module) -> None:
        tokenizer, known = self.tokenizer, num_embeddings(model)
        if len(tokenizer) > known:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has {len(tokenizer):,} tokens, but the backbone has "
                f"embeddings for {known:,}: give the data module the tokenizer that belongs to the backbone."
            )

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The data module's tokenizer, or that of the backbone.

        Raises:
            ValueError: If there is neither.
        """
        data = getattr(trainer_of(self), "datamodule", None)
        if (tokenizer := getattr(data, "tokenizer", None)) is not None:
            return tokenizer
        (source,) = self._backbone_source
        if not isinstance(source, str):
            raise ValueError(
                "there is no tokenizer: the data module has none, and `backbone` is no name to take it from."
            )
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)

    @property
    def pad_token_id(self) -> int:
        """What is padded with."""
        return pad_token_id(self.tokenizer)

    def check_length(self, length: int) -> None:
        """Check that the model has positions for sequences of a length.

        Raises:
            ValueError: If it has not.
        """
        if self._longest is not None and length > self._longest:
            raise ValueError(
                f"a batch has sequences of {length} tokens, but the backbone allows {self._longest}: "
                "set the data module's maximal length to at most that."
            )

    def checked_output_layer(self, input_ids: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from a decoder's hidden states to logits, checked once, on a few of these tokens.

        Raises:
            ValueError: If the model does more to its logits than is known.
        """
        if not self._is_output_layer_checked:
            check_output_layer(self.backbone, input_ids[:1, :4])
            self._is_output_layer_checked = True
        return output_layer(self.backbone)

    def configure_callbacks(self) -> list[Callback]:
        """Return what the base class does, and the callback that writes the predictions."""
        return [
            *super().configure_callbacks(),
            *file_of_module(self, self.predictions_file, lambda: self.run_directory),
        ]
