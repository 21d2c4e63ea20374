"""Clips of speech and what is said in them: the user's own tables, or data sets of the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from asym_lightning.core.kinds import Count, NumberOrZero, Positive, Seed
from asym_lightning.core.messages import check_choice, shown
from asym_lightning.data.audio.audio_clips import AudioClips
from asym_lightning.data.audio.audio_data import AudioDataModule, AudioRows
from asym_lightning.data.audio.audio_folder import AudioFolder
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.preprocessors import load_preprocessor
from asym_lightning.data.tables.record_file import RecordFile, with_validation
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource
from asym_lightning.data.tables.text_table import TextTable, is_missing
from asym_lightning.data.tokens.tokenized_text import as_texts

LetterCase = Literal["as_is", "lower", "upper"]


class SpeechRecognitionDataModule(AudioDataModule):
    """Clips of speech with their transcripts, for `SpeechRecognizer`.

    A split is a table of paths and transcripts, `.csv`, `.tsv`, `.jsonl`, `.json` or parquet, whose paths start from
    the table's folder; or a split of a hub's data set, such as `hf:owner/name:train`. To predict, a folder of audio
    will do. Batches are `SpeechRecognizer`'s.

    Clips without a transcript are left out, and so are training clips longer than `max_seconds`, which could not be cut
    with their transcripts; both are counted in a warning.

    Args:
        train: Training table, or `hf:owner/name:split`; None where there is no training.
        val: Validation data; None sets `num_val` training clips apart.
        test: Test data.
        predict: Clips to write down, with or without transcripts, or a folder of them; None means the test data.
        num_val: Number of training clips set apart, at random, where there is no `val`; 0 trains without validation.
        file_column: Column of the audio: paths of files, or the audio itself.
        text_column: Column of the transcripts.
        letter_case: What becomes of the transcripts' letters, `as_is`, `lower` or `upper`: the tokenizers of many
            models know capitals alone.
        language: Language of the transcripts, for tokenizers that mark it, such as Whisper's.
        tokenizer: Name on the hub or local folder of the tokenizer; None takes that of the module's backbone.
        feature_extractor: Name on the hub or local folder of the feature extractor; None takes that of the backbone.
        max_seconds: Longest clip to train on; None trains on all.
        resample: Resample clips that have another rate than the model takes; false refuses them.
        seed: Seed of the order of training rows and of the choice of validation rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no data is given, or an argument is out of range.

    Example:
        >>> data = SpeechRecognitionDataModule("hf:owner/name:train", file_column="audio", num_val=100)
        >>> list(data.sources())
        ['train', 'val']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        num_val: NumberOrZero = 0,
        file_column: str = "file",
        text_column: str = "text",
        letter_case: LetterCase = "as_is",
        language: str | None = None,
        tokenizer: Any = None,
        feature_extractor: Any = None,
        max_seconds: Positive | None = 30.0,
        resample: bool = True,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(batch_size=8, num_workers=2),
    ) -> None:
        super().__init__(file_column, feature_extractor, max_seconds, resample, seed, num_train, loader)
        check_choice("letter_case", letter_case, get_args(LetterCase))
        self.text_column, self.letter_case, self.language = text_column, letter_case, language
        self._tokenizer_source = tokenizer
        self._sources = with_validation(split_sources(train, val, test, predict, self._local), num_val, seed)

    def _local(self, path: Path) -> TextSource:
        return AudioFolder(path, self.file_column) if path.is_dir() else RecordFile(path)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the tables, folders, and splits of the hub."""
        return self._sources

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, set to the language where it knows several.

        Raises:
            ValueError: If there is none, or it knows no languages.
        """
        source = self.given_or_of_backbone("tokenizer", self._tokenizer_source)
        tokenizer = load_preprocessor("tokenizer", source) if isinstance(source, str) else source
        if self.language is not None:
            if not hasattr(tokenizer, "set_prefix_tokens"):
                raise ValueError(f"the tokenizer {tokenizer.name_or_path!r} marks no language: leave out `language`.")
            tokenizer.set_prefix_tokens(language=self.language, task="transcribe")
        return tokenizer

    def fields(self, split: str, table: TextTable) -> Mapping[str, Sequence[Any]]:
        """Return the transcripts and their tokens; to predict, the transcripts as far as there are some."""
        if split == "predict":
            cells = table.columns.get(self.text_column, [None] * len(table))
            return {"reference": ["" if is_missing(cell) else self._in_case(str(cell)) for cell in cells]}
        texts = [self._in_case(text) for text in as_texts(table.column(self.text_column), table)]
        return {"reference": texts, "labels": [self._tokens(table, row, text) for row, text in enumerate(texts)]}

    def _in_case(self, text: str) -> str:
        return {"as_is": text, "lower": text.lower(), "upper": text.upper()}[self.letter_case].strip()

    def _tokens(self, table: TextTable, row: int, text: str) -> np.ndarray:
        tokens = self.tokenizer(text).input_ids
        if text and Counter(tokens)[self.tokenizer.unk_token_id] > len(tokens) / 2:
            raise ValueError(
                f"{table.where(row)}: the tokenizer {self.tokenizer.name_or_path!r} knows less than half of "
                f"{shown(text)}: should `letter_case` be `upper` or `lower`?"
            )
        return np.array(tokens)

    def chosen(self, split: str, clips: AudioClips, fields: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Leave out clips without a transcript, and in training long ones."""
        if split == "predict":
            return super().chosen(split, clips, fields)
        is_short = clips.seconds <= (self.max_seconds or np.inf) if split == "train" else np.ones(len(clips), bool)
        return np.flatnonzero(is_short & np.array([bool(text) for text in fields["reference"]]))

    def remarks(self, split: str, rows: AudioRows) -> Iterator[str]:
        """Say how many clips are left out."""
        if left_out := len(rows.clips) - len(rows):
            why = f"have no transcript{f' or are longer than {self.max_seconds:g} s' if split == 'train' else ''}"
            yield f"{left_out} of the {len(rows.clips)} clips of {split} {why}, and are left out."
