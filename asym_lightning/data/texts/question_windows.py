"""Windows of texts after their questions, and questions with all windows of their texts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.texts.squad_records import Question
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import Array, Ragged, Texts, TokenizedRows

NOT_OF_TEXT = -1
"""Place in the text of a token that is not of it."""
_ASKED = "asked"
"""Field of the first window of a question that holds the question; it is empty in the others."""


def tokenize_windows(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], longest: int, stride: int, table: TextTable
) -> TokenizedRows:
    """Tokenise questions with their texts, in as many windows as it takes.

    Args:
        tokenizer: The tokenizer.
        questions: The questions.
        longest: Longest window, in tokens, with the question.
        stride: Tokens of a text that a window shares with the one before.
        table: The questions' table, whose rows messages name.

    Raises:
        ValueError: If the tokenizer does not tell where its tokens stand, or a question leaves no room for its text.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} does not tell where its tokens stand, and so not where answers "
            "do: use its fast (Rust) form."
        )
    asked = [question.question for question in questions]
    added = tokenizer.num_special_tokens_to_add(pair=True)
    for row, ids in enumerate(tokenizer(asked, add_special_tokens=False, verbose=False)["input_ids"]):
        if longest - len(ids) - added <= stride:
            raise ValueError(
                f"{table.where(row)}: a window of `max_length` {longest} holds the {len(ids)} tokens of the question "
                f"and no more than the {stride} of `stride` of its text: make it larger, or `stride` smaller."
            )
    encoded = tokenizer(
        asked,
        [question.context for question in questions],
        truncation="only_second",
        max_length=longest,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    of = encoded["overflow_to_sample_mapping"]
    edges: dict[str, list[list[int]]] = {"starts": [], "ends": []}
    positions = np.zeros((len(of), 2), np.int64)
    for window, offsets in enumerate(encoded["offset_mapping"]):
        parts = encoded.sequence_ids(window)  # 0 for the question, 1 for the text
        for number, name in enumerate(edges):
            pairs = zip(offsets, parts, strict=True)
            edges[name].append([edge[number] if part == 1 else NOT_OF_TEXT for edge, part in pairs])
        positions[window] = _answer_tokens(questions[of[window]], edges["starts"][-1], edges["ends"][-1])
    names = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    sequences = {name: Ragged.of(rows) for name, rows in ({name: encoded[name] for name in names} | edges).items()}
    numbers = {
        "question": np.array(of, np.int64) + table.first_row,
        "start_positions": positions[:, 0],
        "end_positions": positions[:, 1],
    }
    return TokenizedRows(sequences, numbers)


def _answer_tokens(question: Question, starts: Sequence[int], ends: Sequence[int]) -> tuple[int, int]:
    """First and last token of the first answer; 0 and 0 where the window does not hold all of it.

    >>> _answer_tokens(Question("0", "?", "ab c", ["c"], [3]), [-1, 0, 3, -1], [-1, 2, 4, -1])
    (2, 2)
    """
    if not question.answers:
        return 0, 0
    first = question.starts[0]
    last = first + len(question.answers[0]) - 1
    holding = [[i for i, (s, e) in enumerate(zip(starts, ends, strict=True)) if s <= at < e] for at in (first, last)]
    return (holding[0][0], holding[1][-1]) if all(holding) else (0, 0)


def with_questions(windows: TokenizedRows, questions: Sequence[Question], first: int) -> TokenizedRows:
    """Return windows with the questions themselves, for `QuestionWindows`.

    Args:
        windows: The windows, with the number of the question of each as `question`, in order.
        questions: The questions.
        first: Number of the first question.
    """
    numbers = windows.numbers["question"] - first
    is_first = np.diff(numbers, prepend=-1) > 0
    asked = Texts.of(json.dumps(questions[i]) if new else "" for i, new in zip(numbers, is_first, strict=True))
    return dataclasses.replace(windows, texts={**windows.texts, _ASKED: asked})


class QuestionWindows(Dataset):
    """Questions, each with all windows of its text.

    Args:
        windows: Windows of `with_questions`.
    """

    def __init__(self, windows: TokenizedRows) -> None:
        self.windows = windows
        self._ends = np.flatnonzero(np.diff(windows.numbers["question"], append=-1)) + 1

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> tuple[Question, list[dict[str, Any]]]:
        windows = [self.windows[row] for row in range(self._first(number), self._ends[number])]
        asked = [window.pop(_ASKED) for window in windows]
        return Question(*json.loads(asked[0])), windows

    def identifier(self, number: int) -> str:
        """Return what a question is called."""
        return Question(*json.loads(self.windows.texts[_ASKED][self._first(number)])).identifier

    def _first(self, number: int) -> int:
        return self._ends[number - 1] if number else 0

    def lengths(self) -> Array:
        """Return for each question the length of all its windows, which one batch has."""
        return np.diff(np.cumsum(self.windows.lengths())[self._ends - 1], prepend=0)


@dataclass(frozen=True)
class PadQuestions:
    """Collate questions into a batch of all their windows.

    Args:
        pad: Collates windows.
    """

    pad: PadBatch

    def __call__(self, items: Sequence[tuple[Question, list[dict[str, Any]]]]) -> dict[str, Any]:
        """Return the batch, with `questions`, a list, and for each window the number of its question in it, `of`."""
        batch = self.pad([window for _, windows in items for window in windows])
        of = [number for number, (_, windows) in enumerate(items) for _ in windows]
        return {**batch, "of": torch.tensor(of), "questions": [question._asdict() for question, _ in items]}
