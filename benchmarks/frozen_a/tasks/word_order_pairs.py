"""A sentence means the same without one of its words, and something else where two have changed places.

Sentences of CoLA with a pretrained MiniLM, whose embeddings find the words and not their order.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from torch import nn

from asym_lightning.data import LoaderOptions, SentencePairDataModule
from asym_lightning.modules import AdapterModule, BackboneOptions, SentenceEncoder
from asym_lightning.modules.heads.headed_backbone import create_headed_backbone
from benchmarks.cola_minilm import NO_DROPOUT, packaged_encoder
from benchmarks.frozen_a.tasks.sentences import acceptable_words
from benchmarks.frozen_a.tasks.task import FOLDER, Task

NUM_TRAIN, NUM_VAL, NUM_TEST = 480, 150, 200
SHORTEST, LONGEST = 4, 8  # words
COLUMNS = ("anchor", "positive", "negative")


class WordOrderPairs(Task):
    """480 triplets of at most eight words; the score is how often a sentence finds its own shorter version.

    It is looked for among the shorter versions and the changed ones of all sentences.

    Args:
        folder: With GLUE's files.
    """

    name = "word order, embeddings"
    seeds = range(3)
    rates = (1e-3, 2e-3, 4e-3, 8e-3)
    max_epochs, num_steps = 2, 60
    val, test = "val/recall_at_1", "test/recall_at_1"
    has_head = False
    warmup, decay = 0.06, "linear"

    def __init__(self, folder: Path) -> None:
        self.encoder = str(packaged_encoder())
        train = list(triplets(folder / "CoLA" / "train.tsv"))
        random.Random(0).shuffle(train)
        splits = {
            "train": train[:NUM_TRAIN],
            "val": train[NUM_TRAIN : NUM_TRAIN + NUM_VAL],
            "test": list(triplets(folder / "CoLA" / "dev.tsv"))[:NUM_TEST],
        }
        FOLDER.mkdir(parents=True, exist_ok=True)
        self.files = {split: FOLDER / f"word_order_pairs_{split}.csv" for split in splits}
        for split, path in self.files.items():
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([COLUMNS, *splits[split]])

    def data(self, seed: int) -> LightningDataModule:
        return SentencePairDataModule(
            **self.files, tokenizer=self.encoder, max_length=32, seed=seed, loader=LoaderOptions(16, 64)
        )

    def backbone(self) -> nn.Module:
        options = BackboneOptions(model_args=NO_DROPOUT)
        return create_headed_backbone(self.encoder, 0, None, options, SentenceEncoder.auto_class)[0]

    def classifier(self, backbone: nn.Module, **options: Any) -> AdapterModule:
        return SentenceEncoder(backbone, recall_at=[1], **options)


def triplets(path: Path) -> Iterator[tuple[str, ...]]:
    """Sentences of a file of CoLA, each without one word, and with two words that have changed places."""
    draw = random.Random(path.name)
    for words in acceptable_words(path):
        places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
        if places and SHORTEST <= len(words) <= LONGEST:
            i, left_out = draw.choice(places), draw.randrange(len(words))
            swapped = [*words[:i], words[i + 1], words[i], *words[i + 2 :]]
            yield tuple(" ".join(w) for w in (words, words[:left_out] + words[left_out + 1 :], swapped))
