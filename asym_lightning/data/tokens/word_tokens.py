"""Tokens of texts that are in words already, and which of them begin a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from asym_lightning.data.tokens.tokenized_rows import Ragged

NO_WORD = -1
"""Number of the word of a token that begins none."""


def tokenize_words(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]], longest: int
) -> tuple[dict[str, Ragged], int]:
    """Tokenise words, to each of which a space comes before, as within a text.

    Args:
        tokenizer: The tokenizer.
        texts: Words of each text.
        longest: Longest sequence, in tokens.

    Returns:
        Sequences by field name, among them `word`, at the first token of each word its number, else -1; and the number
        of sequences that were cut.

    Raises:
        ValueError: If the tokenizer does not tell which words its tokens are of.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} does not tell which words its tokens are of, to which labels "
            "belong: use its fast (Rust) form."
        )
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    own.enable_truncation(longest)
    whole: Any = own.pre_tokenizer
    for part in cast(Any, whole) if isinstance(whole, pre_tokenizers.Sequence) else [whole]:
        if isinstance(part, pre_tokenizers.ByteLevel):
            part.add_prefix_space = True
    encodings = own.encode_batch([list(words) for words in texts], is_pretokenized=True)
    sequences = {
        "input_ids": Ragged.of(encoding.ids for encoding in encodings),
        "word": Ragged.of(_first_tokens(encoding.word_ids) for encoding in encodings),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        sequences["token_type_ids"] = Ragged.of(encoding.type_ids for encoding in encodings)
    return sequences, sum(bool(encoding.overflowing) for encoding in encodings)


def _first_tokens(words: Sequence[int | None]) -> list[int]:
    """Numbers of words at their first tokens alone.

    >>> _first_tokens([None, 0, 0, 1, None])
    [-1, 0, -1, 1, -1]
    """
    return [
        NO_WORD if word is None or word == before else word
        for before, word in zip([None, *words[:-1]], words, strict=True)
    ]
