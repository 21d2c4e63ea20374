"""Questions on pictures and their answers: the user's own records, or data sets of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from asym_lightning.core.kinds import Count, NumberOrZero, Seed
from asym_lightning.core.tokens import IGNORED, pad_token_id
from asym_lightning.data.language.picture_rows import PictureBatch, PictureRows
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.preprocessors import load_preprocessor
from asym_lightning.data.split_data import SplitDataModule
from asym_lightning.data.tables.record_file import with_validation
from asym_lightning.data.tables.split_files import SplitFile, split_sources
from asym_lightning.data.tables.text_source import TextSource, folder_of
from asym_lightning.data.tokens.padding import PadBatch


class VisionLanguageDataModule(SplitDataModule):
    """Conversations on pictures for `VisionLanguageTuner`.

    A record has `images`, a list of paths from the file's folder on, or `image`, one of them; and `messages`, or
    `instruction`, `input` (may be missing) and `output`. In a message `<image>` marks where a picture stands; pictures
    without a place come before the first question. Files are `.jsonl`, `.json` (an array) or parquet, or a split of a
    hub's data set, such as `hf:owner/name:train`. What the assistant says is learnt.

    Pictures are opened at once before training, and read when a batch is made. Batches are `VisionLanguageTuner`'s.

    Args:
        train: Training file, or `hf:owner/name:split`; None where there is no training.
        val: Validation file; None sets `num_val` training records apart.
        test: Test file.
        predict: File of questions, with or without answers; None means the test file.
        num_val: Number of training records set apart where there is no `val`; 0 trains without validation.
        processor: Name on the hub or local folder of the processor; None takes that of the module's backbone.
        max_length: Longest sequence, in tokens, those of pictures included; what is longer is cut at its end. None cuts
            nothing.
        seed: Seed of the order of training rows and of the choice of validation rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If no file is given, or a number is out of range.

    Example:
        >>> list(VisionLanguageDataModule("chats.jsonl", num_val=100).sources())
        ['train', 'val']
    """

    def __init__(
        self,
        train: SplitFile = None,
        val: SplitFile = None,
        test: SplitFile = None,
        predict: SplitFile = None,
        num_val: NumberOrZero = 0,
        processor: Any = None,
        max_length: Count | None = 2048,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(batch_size=4, num_workers=2),
    ) -> None:
        super().__init__(seed, num_train, loader)
        self.max_length = max_length
        self._processor_source = processor
        self._sources = with_validation(split_sources(train, val, test, predict), num_val, seed)

    def sources(self) -> Mapping[str, TextSource]:
        """Return the files, and splits of the hub."""
        return self._sources

    @cached_property
    def processor(self) -> Any:
        """What makes a model's inputs of texts and pictures.

        Raises:
            ValueError: If it is not given and there is no module to take its name from, or has no chat template.
        """
        source = self.given_or_of_backbone("processor", self._processor_source)
        processor = load_preprocessor("processor", source) if isinstance(source, str) else source
        if not getattr(processor, "chat_template", None) or not hasattr(processor, "image_token"):
            raise ValueError(f"the processor in {str(source)[:60]!r} has no chat template, or no token for pictures.")
        return processor

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def load(self, split: str) -> PictureRows:
        """Look at the pictures of a split, and return them with their conversations."""
        source = self.sources()[split]
        table = source.read()
        table.check_not_empty(split)
        return PictureRows.of(table, folder_of(source), self.processor, self.max_length, is_answered=split != "predict")

    def padded_loader(self, rows: Dataset, *, is_training: bool = False, sampler: Sampler) -> DataLoader:
        """Return padded batches, in the order of a sampler."""
        collate = PictureBatch(PadBatch({"input_ids": pad_token_id(self.tokenizer), "labels": IGNORED}))
        return self.data_loader(rows, is_training=is_training, sampler=sampler, collate_fn=collate)
