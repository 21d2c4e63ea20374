"""Tokens of texts of which some parts are given and others are learnt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.language.prompts import Part


def learnt_tokens(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Sequence[Part]], *, has_ends: bool
) -> list[tuple[list[int], list[int]]]:
    """Tokenise the parts of each example as one text; return its tokens, and those that are learnt, else -100.

    Args:
        tokenizer: The tokenizer.
        examples: Parts of each example.
        has_ends: Whether the texts hold the tokens around them, as those of a chat template do; else the tokenizer's
            own beginning is put before them, and the end of the text, which is learnt, after them.

    Raises:
        ValueError: If the tokenizer does not tell which characters its tokens stand for, or has no end of the text.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} does not tell which characters its tokens stand for, "
            "which is needed to tell prompts from responses: use its fast (Rust) form."
        )
    eos = tokenizer.eos_token_id
    if eos is None and not has_ends:
        raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} has no token that ends a text to learn.")
    encoded = tokenizer(
        ["".join(part.text for part in parts) for parts in examples],
        add_special_tokens=not has_ends,
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    rows: list[tuple[list[int], list[int]]] = []
    for parts, tokens, offsets in zip(examples, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        is_learnt = _is_learnt(parts, offsets)
        targets = [token if learnt else IGNORED for token, learnt in zip(tokens, is_learnt, strict=True)]
        if not has_ends:
            if tokens and tokens[-1] == eos:
                tokens, targets = tokens[:-1], targets[:-1]
            tokens, targets = [*tokens, eos], [*targets, eos]
        rows.append((tokens, [IGNORED, *targets[1:]]))  # nothing comes before the first token to tell it from
    return rows


def _is_learnt(parts: Sequence[Part], offsets: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Tell for each token whether it lies in a part that is learnt; one that begins in a part before it does not.

    A token goes by its last character: some tokenizers leave leading spaces out of the offsets, so that a token of
    spaces seems to be empty, at its end. Tokens that stand for no text, such as a beginning, are at 0.

    >>> _is_learnt([Part("Say:", False), Part(" hi", True)], [(0, 0), (0, 3), (3, 4), (5, 7)]).tolist()
    [False, False, False, True]
    """
    stops = np.cumsum([len(part.text) for part in parts])
    starts = stops - [len(part.text) for part in parts]
    first, last = np.array(offsets).reshape(-1, 2).T
    part = np.searchsorted(stops, last - 1, side="right").clip(max=len(parts) - 1)
    before = np.concatenate([[0], last[:-1]])
    begins_within = np.maximum(first, before) >= starts[part]
    return np.array([part.is_learnt for part in parts])[part] & begins_within & (last > 0)
