"""Texts whose words have tags, such as entities and parts of speech: the user's own files, or data sets of the hub."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from asym_lightning.core.kinds import Count, LabelNames, Seed
from asym_lightning.core.messages import not_one_of
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.found_label_names import FoundLabelNames
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.tables.record_file import RecordFile
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.texts import conll_file
from asym_lightning.data.texts.tagged_words import TaggedColumns, TaggedText, tag_set, tagged_text, where_word
from asym_lightning.data.tokens.tokenized_rows import Ragged, Texts, TokenizedRows
from asym_lightning.data.tokens.tokenized_text import TokenizedTextDataModule
from asym_lightning.data.tokens.word_tokens import NO_WORD, tokenize_words


class TokenClassificationDataModule(FoundLabelNames, TokenizedTextDataModule):
    """Words with tags for `TokenClassifier`.

    Three layouts are read: a word a line, as CoNLL has it (`.conll`, `.conllu`, `.bio`, `.iob`, `.tsv`, `.txt`);
    records of `tokens` and `tags`; and records of a `text` with `spans`, objects with `start`, `end` and `label`
    in characters, which become tags of words. Records are `.jsonl`, `.json` or parquet, or a split of a hub's data set,
    such as `hf:owner/name:train`. The tag of a word is learnt at its first token. Batches are `TokenClassifier`'s.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None trains without validation.
        test: Test file.
        predict: File to predict, with or without tags; None means the test file.
        tokens_column: Lists of words in records.
        tags_column: Lists of tags in records.
        text_column: Texts in records without lists of words.
        spans_column: Lists of spans of these texts.
        word_column: Number of the words' column in files of a word a line; None means the first, or CoNLL-U's forms.
        tag_column: Number of the tags' column there; None means the last, or CoNLL-U's parts of speech.
        label_names: Names of the tags in the order of their numbers. None takes those of the training data, sorted, or
            else those that the model was trained on.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens; longer ones are cut, with a warning. None means what the model allows.
        cache_dir: Folder of the tokenised rows; None means `asym-lightning` in the user's cache folder.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, or a number is out of range.

    Example:
        >>> TokenClassificationDataModule("train.conll", label_names=["O", "B-PER"]).label_names
        ['O', 'B-PER']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        tokens_column: str = "tokens",
        tags_column: str = "tags",
        text_column: str = "text",
        spans_column: str = "spans",
        word_column: int | None = None,
        tag_column: int | None = None,
        label_names: LabelNames | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        max_length: Count | None = None,
        cache_dir: str | Path | None = None,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(),
    ) -> None:
        super().__init__(tokenizer, max_length, cache_dir, seed, num_train, loader)
        self.columns = TaggedColumns(tokens_column, tags_column, text_column, spans_column)
        self.numbers_of_columns = (word_column, tag_column)
        self._sources = split_sources(train, val, test, predict, self._file)
        self.given_label_names = label_names

    def _file(self, path: Path) -> TextSource:
        is_by_line = path.suffix in conll_file.SUFFIXES
        return conll_file.ConllFile(path, *self.numbers_of_columns) if is_by_line else RecordFile(path)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    def labels_in(self, table: TextTable) -> Collection[str]:
        """Return the classes in a part of the training data."""
        return {tag for text in self._texts(table, "train") for tag in text.tags or ()}

    def labels_of(self, found: Collection[str], source: str) -> list[str]:
        """Return the tags of the training data, sorted; it refuses a single one."""
        tags = tag_set(found)
        if len(tags) < 2:
            raise ValueError(f"{source} has no tag but {tags[0]!r}: name all tags by `label_names`.")
        return tags

    def _texts(self, table: TextTable, split: str) -> list[TaggedText]:
        by_line = TaggedColumns(conll_file.WORDS, conll_file.TAGS, self.columns.text, self.columns.spans)
        columns = by_line if conll_file.LINES in table.columns else self.columns
        texts = [tagged_text(table, row, columns) for row in range(len(table))]
        lacking = next((row for row, text in enumerate(texts) if text.tags is None), None)
        if lacking is not None and split != "predict":
            wanted = columns.tags if texts[lacking].edges is None else columns.spans
            raise ValueError(f"{table.where(lacking)}: there is nothing under {wanted!r} to learn or to compare with.")
        return texts

    def encoding(self, split: str) -> str:
        """Return the columns and the tags."""
        return repr((self.columns, self.label_names, split == "predict"))

    def encode(self, split: str, table: TextTable) -> TokenizedRows:
        """Tokenise words, and number the tag of each at its first token."""
        texts = self._texts(table, split)
        numbers = {tag: number for number, tag in enumerate(self.label_names)}
        for row, text in enumerate(texts):
            for number, tag in enumerate(text.tags or ()):
                if tag not in numbers:
                    raise ValueError(f"{where_word(table, row, number)}: {not_one_of('the tag', tag, list(numbers))}")
        sequences, num_truncated = tokenize_words(self.tokenizer, [text.words for text in texts], self.longest)
        sequences["labels"] = Ragged.of(
            [IGNORED if word == NO_WORD or text.tags is None else numbers[text.tags[word]] for word in words.tolist()]
            for text, words in zip(texts, sequences["word"], strict=True)
        )
        texts_by_row = {
            "words": Texts.of(json.dumps(list(text.words)) for text in texts),
            "edges": Texts.of(json.dumps(list(text.edges or ())) for text in texts),
        }
        facts = {"num_truncated": num_truncated, "num_widened": sum(text.num_widened for text in texts)}
        return TokenizedRows(sequences, texts=texts_by_row, facts=facts)

    def remarks(self, split: str, rows: TokenizedRows) -> Iterator[str]:
        """Say what was cut, and which spans were widened."""
        yield from super().remarks(split, rows)
        if widened := rows.facts.get("num_widened"):
            yield f"{widened} spans of {split} begin or end within a word, and now have all of it."

    def pad_values(self) -> dict[str, int]:
        """Pad labels with what the loss leaves out, and numbers of words with that of none."""
        return {"labels": IGNORED, "word": NO_WORD}
