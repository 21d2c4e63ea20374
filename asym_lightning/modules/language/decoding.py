"""How text is generated, said in full, so that a score does not hang on a checkpoint's defaults."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, NumberOrZero, Positive, Range
from asym_lightning.core.options import check_kinds


@dataclass(frozen=True)
class Decoding:
    """Beam search, or with one beam greedy search, or sampling.

    What is not named here (the tokens that start and end a text) stays as the model's checkpoint has it. Lengths count
    new tokens: for an encoder-decoder, transformers' `max_length` is one more, for it counts the start token too.

    Args:
        num_beams: Beams of the search; 1 is greedy.
        max_new_tokens: Longest text.
        min_new_tokens: Shortest text; the end is not allowed before.
        length_penalty: Exponent of the length that a beam's log-probability is divided by; above 0 favours long texts.
        no_repeat_ngram_size: Sequences of so many tokens occur but once; 0 allows repetition.
        early_stopping: End the search as soon as there are `num_beams` finished texts.
        do_sample: Draw tokens at random, in place of the most likely ones.
        temperature: Divisor of the logits when sampling.
        top_p: Share of the probability that is sampled from, the most likely tokens first.

    Raises:
        ValueError: If a number is out of range.
    """

    num_beams: Count = 1
    max_new_tokens: Count = 64
    min_new_tokens: NumberOrZero = 0
    length_penalty: float = 1.0
    no_repeat_ngram_size: NumberOrZero = 0
    early_stopping: bool = False
    do_sample: bool = False
    temperature: Positive = 1.0
    top_p: Annotated[float, Range(0, 1, is_open_below=True)] = 1.0

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"`min_new_tokens` must be between 0 and `max_new_tokens` ({self.max_new_tokens}), "
                f"not {self.min_new_tokens}."
            )

    def config_for(self, model: nn.Module, pad_token_id: int) -> GenerationConfig:
        """Return the model's own generation config with everything that is named here replaced.

        Args:
            model: A model of transformers.
            pad_token_id: What finished texts are padded with, where the model has nothing of its own.
        """
        config: Any = copy.deepcopy(model.generation_config)
        settings = dataclasses.asdict(self) | {
            "temperature": float(self.temperature)
        }  # transformers takes no 2 for 2.0
        if not self.do_sample:  # transformers warns of settings that have no effect
            settings |= {"temperature": None, "top_p": None, "top_k": None}
        if self.num_beams == 1:
            settings |= {"length_penalty": None, "early_stopping": False}
        settings |= {"max_length": None, "min_length": None}  # else a checkpoint's would count as well
        for name, value in settings.items():
            setattr(config, name, value)
        if config.pad_token_id is None:
            config.pad_token_id = pad_token_id
        return config

    @torch.no_grad()
    def new_tokens(self, model: nn.Module, inputs: Mapping[str, Any], pad_token_id: int, **options: Any) -> Tensor:
        """Generate, and return what is new: tokens (rows, length), those of an encoder-decoder with its start.

        Args:
            model: A model of transformers.
            inputs: What to write on from: of a language model `input_ids` (rows, length), padded on the left unless
                there is an encoder, and `attention_mask`.
            pad_token_id: What finished texts are padded with, where the model has nothing of its own.
            options: Others of transformers' `generate`, such as a `streamer`.
        """
        generated: Tensor = model.generate(  # type: ignore[operator]
            **inputs,
            generation_config=self.config_for(model, pad_token_id),
            **options,
        )
        has_encoder = model.config.is_encoder_decoder  # type: ignore[union-attr]
        return generated if has_encoder else generated[:, inputs["input_ids"].shape[1] :]


def decoded(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return texts of tokens (rows, length) without special ones; positions of -100 are left out."""
    rows = [[i for i in row if i >= 0] for row in ids.tolist()]
    return [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
