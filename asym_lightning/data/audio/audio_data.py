"""The data module that every task of audio builds on: clips by row, in batches that the feature extractor makes."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from asym_lightning.core.kinds import Count, Positive, Seed
from asym_lightning.core.tokens import IGNORED
from asym_lightning.data.audio.audio_clips import AudioClips
from asym_lightning.data.loader_options import LoaderOptions
from asym_lightning.data.preprocessors import load_preprocessor
from asym_lightning.data.split_data import SplitDataModule
from asym_lightning.data.tables.text_source import folder_of
from asym_lightning.data.tables.text_table import TextTable
from asym_lightning.data.tokens.padding import PadBatch


class AudioDataModule(SplitDataModule):
    """Clips of audio, read when a batch is made.

    A task is a subclass with two methods: `sources`, where each split comes from, and `fields`, what there is of each
    row beside its audio. Files are looked at once before training, so that what is wrong with one is said at once.

    Batches hold what the model's feature extractor makes of audio, `input_values` or `input_features` and, where the
    model takes one, `attention_mask`; `file`, the paths; the fields; and `row`, the number of each row in its split.

    Args:
        file_column: Column of the audio: paths of files, from the table's folder on, or the audio itself.
        feature_extractor: Name on the hub or local folder of the feature extractor; None takes that of the module's
            backbone.
        max_seconds: Longest clip; what is done with longer ones is the task's to say. None leaves all as they are.
        resample: Resample clips that have another rate than the model takes; false refuses them.
        seed: Seed of the order of training rows.
        num_train: Number of training rows to use, drawn at random but the same whatever the seeds; None means all.
        loader: Sizes of batches, and the processes that prepare them.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        file_column: str = "file",
        feature_extractor: Any = None,
        max_seconds: Positive | None = None,
        resample: bool = True,
        seed: Seed = 0,
        num_train: Count | None = None,
        loader: LoaderOptions = LoaderOptions(num_workers=2),
    ) -> None:
        super().__init__(seed, num_train, loader)
        self.file_column = file_column
        self.max_seconds = max_seconds
        self.resample = resample
        self._feature_extractor_source = feature_extractor
        self._looked_at: dict[str, AudioRows] = {}

    @abstractmethod
    def fields(self, split: str, table: TextTable) -> Mapping[str, Sequence[Any]]:
        """Return what there is of each row beside its audio, by name: numbers, texts or lists of tokens.

        Raises:
            ValueError: If the table lacks a column or a row is wrong; the message says where.
        """

    @cached_property
    def feature_extractor(self) -> Any:
        """What makes a model's inputs of audio.

        Raises:
            ValueError: If it is not given and there is no module to take its name from, or cannot be loaded.
        """
        source = self.given_or_of_backbone("feature_extractor", self._feature_extractor_source)
        return load_preprocessor("feature_extractor", source) if isinstance(source, str) else source

    def load(self, split: str) -> AudioRows:
        """Look at the clips of a split, unless that has been done, and return them with their fields."""
        if split not in self._looked_at:
            source = self.sources()[split]
            table = source.read()
            table.check_not_empty(split)
            fields = self.fields(split, table)
            rate = self.feature_extractor.sampling_rate
            clips = AudioClips(table, self.file_column, folder_of(source), rate, self.resample)
            chosen = self.chosen(split, clips, fields)
            if not len(chosen):
                raise ValueError(f"{table.source}: none of the {len(table)} clips can be used as {split} data.")
            self._looked_at[split] = AudioRows(clips, fields, chosen, self.longest)
        return self._looked_at[split]

    def chosen(self, split: str, clips: AudioClips, fields: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Return the rows of a table that are used."""
        return np.arange(len(clips))

    @property
    def longest(self) -> float | None:
        """Seconds that are read of a clip; None reads all."""
        return None

    def padded_loader(self, rows: Dataset, *, is_training: bool = False, sampler: Sampler) -> DataLoader:
        """Return batches of clips, in the order of a sampler."""
        collate = AudioBatch(self.feature_extractor)
        return self.data_loader(rows, is_training=is_training, sampler=sampler, collate_fn=collate)


@dataclass(frozen=True)
class AudioRows(Dataset):
    """Clips with their fields.

    Args:
        clips: The clips of a table.
        fields: What there is of each clip of the table beside it.
        chosen: Rows of the table that are rows here.
        longest: Seconds that are read of a clip; None reads all.
    """

    clips: AudioClips
    fields: Mapping[str, Sequence[Any]]
    chosen: np.ndarray
    longest: float | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, row: int) -> dict[str, Any]:
        of_table = int(self.chosen[row])
        fields = {name: values[of_table] for name, values in self.fields.items()}
        return {"audio": self.clips.read(of_table, self.longest), "file": self.identifier(row), **fields, "row": row}

    def identifier(self, row: int) -> str:
        """Path of the clip, which predictions go by."""
        return self.clips.name(int(self.chosen[row]))

    def lengths(self) -> np.ndarray:
        """Return the length of every clip, in seconds."""
        seconds = self.clips.seconds[self.chosen]
        return seconds if self.longest is None else seconds.clip(max=self.longest)


@dataclass(frozen=True)
class AudioBatch:
    """Collate clips into a batch as a model's feature extractor has it, and their fields as others are.

    Args:
        feature_extractor: The feature extractor.
    """

    feature_extractor: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch; lists of tokens are padded with -100."""
        extractor: Any = self.feature_extractor
        padding = inspect.signature(extractor.__call__).parameters.get("padding")
        # Some pad to a length that their model is made for, others leave it to the caller.
        options = {"padding": True} if padding is not None and padding.default is False else {}
        clips = [row["audio"] for row in rows]
        inputs = extractor(clips, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
        others = [{name: value for name, value in row.items() if name != "audio"} for row in rows]
        return {**inputs, **PadBatch({"labels": IGNORED}, multiple=1)(others)}
