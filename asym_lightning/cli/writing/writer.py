"""Answers to prompts, one as it is written or many at a time."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any, get_type_hints

import torch
from torch import Tensor
from transformers import TextStreamer
from typing_extensions import override

from asym_lightning.cli.writing.options import decoding_options, named_directories
from asym_lightning.cli.writing.source import WritingModel, load_source
from asym_lightning.core.kinds import Seed, check_value
from asym_lightning.core.tokens import longest_sequence, pad_token_id
from asym_lightning.data.language.prompts import PromptTemplate, Record, open_prompt
from asym_lightning.modules.language.decoding import Decoding, decoded


class Writer:
    """Answers records with a model.

    Args:
        source: The model and what it was trained to be given.
        template: Form of prompts; None takes that of the training data, else the tokenizer's chat template, else none.
        decoding: How answers are generated.
    """

    def __init__(self, source: WritingModel, template: PromptTemplate | None, decoding: Decoding) -> None:
        self.model = source.model
        self.tokenizer = source.tokenizer
        self.adapters = source.adapters
        self.prefix = source.prefix
        self.template: Any = template or source.template or ("chat" if source.tokenizer.chat_template else "none")
        self.decoding = decoding
        self.has_encoder = bool(source.model.config.is_encoder_decoder)

    @classmethod
    def of(cls, options: argparse.Namespace) -> Writer:
        """Return what the options of `source_parser` name.

        Raises:
            FileNotFoundError: If a directory lacks what it should hold.
            ValueError: If the source is no language model, or an option is out of range.
        """
        check_value("--seed", options.seed, Seed)
        changes = decoding_options(options)
        annotations = get_type_hints(Decoding, include_extras=True)
        for name, value in changes.items():  # before the model is built, which takes long
            check_value(f"--{name.replace('_', '-')}", value, annotations[name])
        source = load_source(
            options.source,
            base=options.base,
            checkpoint=options.checkpoint,
            adapters=named_directories(options),
            dtype=options.dtype,
            device=options.device,
        )
        source.adapters.check(options.use)
        torch.manual_seed(options.seed)
        return cls(source, options.template, dataclasses.replace(source.decoding, **changes))

    def check_conversation(self) -> None:
        """Check that the template has a form for several turns.

        Raises:
            ValueError: It has not.
        """
        if self.template == "none":
            raise ValueError(
                f"a conversation takes a template, and the tokenizer {self.tokenizer.name_or_path!r} has none: give "
                "`--template alpaca`."
            )
        self.tokens({"messages": [{"role": "user", "content": "?"}]})

    def tokens(self, record: Record) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            ValueError: If the template has no form for the record, or the model no positions for prompt and answer.
        """
        text = self.prefix + open_prompt(record, self.template, self.tokenizer)
        # A chat template writes its own special tokens.
        encoded: Any = self.tokenizer(text, add_special_tokens=self.template != "chat", truncation=False, verbose=False)
        ids: list[int] = encoded["input_ids"]
        if not self.has_encoder and ids and ids[-1] == self.tokenizer.eos_token_id and self.template != "chat":
            ids = ids[:-1]
        if not ids:
            raise ValueError("the prompt is empty.")
        longest = longest_sequence(self.model.config)
        new = 0 if self.has_encoder else self.decoding.max_new_tokens
        if longest is not None and len(ids) + new > longest:
            raise ValueError(
                f"the prompt has {len(ids):,} tokens, and with {new:,} of the answer that is more than the "
                f"{longest:,} that the model allows."
            )
        return ids

    def write(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Return an answer to each of some prompts, which are tokens, in one batch."""
        return decoded(self._new_tokens(prompts), self.tokenizer)

    def stream(self, prompt: Sequence[int], streamer: Screen) -> None:
        """Show an answer token by token, or where several beams are searched at its end."""
        if self.decoding.num_beams == 1:
            self._new_tokens([prompt], streamer=streamer)
        else:
            streamer.on_finalized_text(self.write([prompt])[0], stream_end=True)

    def _new_tokens(self, prompts: Sequence[Sequence[int]], **options: Any) -> Tensor:
        width, padding = max(map(len, prompts)), pad_token_id(self.tokenizer)
        ids = torch.full((len(prompts), width), padding)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            place = slice(0, len(prompt)) if self.has_encoder else slice(width - len(prompt), width)
            ids[row, place] = torch.tensor(prompt)
            mask[row, place] = 1
        device = self.model.device
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        return self.decoding.new_tokens(self.model, inputs, padding, **options)


class Screen(TextStreamer):
    """Prints an answer while it is written, and keeps it.

    Args:
        writer: Whose answer it is.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.text = ""

    @override
    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print what is new."""
        self.text += text
        super().on_finalized_text(text, stream_end)
