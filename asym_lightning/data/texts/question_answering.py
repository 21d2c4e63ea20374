"""Questions whose answers stand in a text: files in the layout of SQuAD, records, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, NumberOrZero, Seed
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.texts.question_windows import (
    NOT_OF_TEXT,
    PadQuestions,
    QuestionWindows,
    tokenize_windows,
    with_questions,
)
from asym_lightning.data.texts.squad_records import Question, SquadFile, question_of
from asym_lightning.data.tokens.padding import PadBatch
from asym_lightning.data.tokens.tokenized_rows import TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule


class QuestionAnsweringDataModule(TokenizedTextDataModule):
    """Questions and texts for `QuestionAnswerer`.

    Files are `.json` in the layout of SQuAD, 1.1 or 2.0, or records (`.jsonl`, an array in `.json`, parquet) with
    `question`, `context`, `answers` (`text` and `answer_start`, lists of both, empty where there is no answer) and
    maybe `id`; or a split of a hub's data set, such as `hf:rajpurkar/squad:train`.

    A text that is too long is read in windows, each of which shares `stride` tokens with the next one. Training batches
    are of windows, in those of evaluation each question has all its windows.

    Batches hold `input_ids`, `attention_mask`, `token_type_ids` if the tokenizer's model has them, `starts` and `ends`,
    first character of each token in the text and the one after its last, -1 where it is not of the text, and
    `start_positions` and `end_positions`, first and last token of the answer, 0 where the window does not hold it; in
    evaluation also `questions` and `of`, the number of its question in them for each window.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File to answer, with or without answers; None means the test file.
        stride: Tokens of a text that a window shares with the one before.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest window, in tokens, with the question; None means what the tokenizer's model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, or a number is out of range.

    Example:
        >>> list(QuestionAnsweringDataModule("train.json", "dev.json").sources())
        ['train', 'val']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        stride: NumberOrZero = 128,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = 384,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        loader: LoaderOptions = LoaderOptions(batch_size=16),
    ) -> None:
        super().__init__(tokenizer, max_length, cache_dir, seed, loader=loader)
        self.stride = stride
        self._sources = split_sources(train, val, test, predict, SquadFile)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def encoding(self, split: str) -> str:
        """Return the stride, whether there must be answers, and whether questions are kept."""
        return repr((self.stride, split == "predict", split == "train"))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise questions with their texts, in windows; where they are not to train on, also keep the questions.

        Raises:
            ValueError: If a row is no question, has no answers, or leaves no room for its text; the message says where.
        """
        questions = _questions(split, table)
        windows = tokenize_windows(self.tokenizer, questions, self.longest, self.stride, table)
        return windows if split == "train" else with_questions(windows, questions, table.first_row)

    def for_evaluation(self, split: str, rows: TokenizedRows) -> Any:
        """Return questions, each with all windows of its text."""
        return QuestionWindows(rows)

    def padded_loader(self, rows: Dataset, *, is_training: bool = False, sampler: Sampler) -> DataLoader:
        """Return batches of windows, or of questions with all windows of each."""
        pad = PadBatch({"input_ids": self.pad_token_id, **self.pad_values()}, longest=self.longest)
        collate = PadQuestions(pad) if isinstance(rows, QuestionWindows) else pad
        return self.data_loader(rows, is_training=is_training, sampler=sampler, collate_fn=collate)

    def pad_values(self) -> dict[str, int]:
        """Pad places in the text with that of what is not of it."""
        return {"starts": NOT_OF_TEXT, "ends": NOT_OF_TEXT}


def _questions(split: str, table: TextTable) -> list[Question]:
    questions = [question_of(table, row) for row in range(len(table))]
    lacking = next((row for row, question in enumerate(questions) if question.answers is None), None)
    if lacking is not None and split != "predict":
        raise ValueError(f"{table.where(lacking)}: there is nothing under `answers` to learn or to compare with.")
    return questions
